"""What stays open on the strength of a key, and ends with it: tunnels and WebSockets. Pure.

A request is asked for its key when it comes. What is asked once and then goes on for hours would outlive a key that is
revoked, disabled or has expired meanwhile. So it is held here, by the secret that let it in, and whoever follows the
keys looks again: at every change that this process makes, and twice a second.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import KeyBook, Secret

KEY_ENDED: Final = Fault(
    Kind.AUTH, Blame.CLIENT, "the API key that it was opened with is good no more", cause="key_ended"
)
"""What the record says of a conversation that was ended for its key."""


class Tenures:
    """Everything that is open by a key; belongs to one event loop."""

    def __init__(self, book: KeyBook) -> None:
        self._book = book
        self._open: dict[str, dict[int, Callable[[], None]]] = {}
        self._next = 0

    def __len__(self) -> int:
        """Return how many keys something is open by."""
        return len(self._open)

    def hold(self, end: Callable[[], None], *keys: Secret) -> Callable[[], None]:
        """Call `end` when one of the keys is good no more, empty ones left out; return what lets go of it."""
        self._next += 1
        name, secrets = self._next, {key.reveal() for key in keys if key}
        for secret in secrets:
            self._open.setdefault(secret, {})[name] = end

        def release() -> None:
            for secret in secrets:
                held = self._open.get(secret, {})
                if held.pop(name, None) is not None and not held:
                    del self._open[secret]

        return release

    def look(self, now: float) -> None:
        """End what was opened by keys that are good no more; `now` is in seconds since the epoch."""
        for secret in [*self._open]:
            if self._is_over(secret, now):
                for end in self._open.pop(secret, {}).values():
                    with suppress(Exception):  # one that cannot be ended keeps no other one open
                        end()

    def _is_over(self, secret: str, now: float) -> bool:
        try:
            self._book.look_up(secret, now)
        except TokenHubError as error:
            return error.fault.kind is Kind.AUTH
        except Exception:  # noqa: BLE001 -- while nobody can tell, what is open stays open; nothing new comes in
            return False
        return False
