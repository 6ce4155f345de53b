"""What dialects without streams have for one."""

from __future__ import annotations

from collections.abc import Sequence

from tokenhub_core.types import Delta


class Silent:
    """Reader and writer of a dialect that has no streams."""

    def read(self, event: str, data: bytes) -> Sequence[Delta]:
        """Return nothing."""
        del event, data
        return ()

    def end(self) -> Sequence[Delta]:
        """Return nothing."""
        return ()

    def write(self, delta: Delta) -> bytes:
        """Return nothing."""
        del delta
        return b""

    def losses(self) -> tuple[str, ...]:
        """Return nothing."""
        return ()
