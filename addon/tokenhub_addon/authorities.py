"""The system's authorities, which aiohttp reads twice as it is imported: 130 ms, for contexts that nobody here uses.

Who does use one of them, another addon perhaps, finds them read then.
"""

from __future__ import annotations

import ssl
import sys
from typing import Any, Final, override

from tokenhub_core.later import Later

_LIBRARY: Final = "aiohttp.connector"
_CONTEXT: Final = "_SSL_CONTEXT_VERIFIED"


class _Late(ssl.SSLContext):
    """A context that reads whom it trusts when it is first used."""

    _read = False

    @override
    def wrap_bio(self, *how: Any, **more: Any) -> ssl.SSLObject:
        self._settle()
        return super().wrap_bio(*how, **more)

    @override
    def wrap_socket(self, *how: Any, **more: Any) -> ssl.SSLSocket:
        self._settle()
        return super().wrap_socket(*how, **more)

    def _settle(self) -> None:
        if not self._read:
            self._read = True
            self.load_default_certs()


def when_used() -> None:
    """Import aiohttp without reading authorities; nothing changes where it is imported already, or is another one."""
    if _LIBRARY in sys.modules:
        return
    reading = ssl.SSLContext.set_default_verify_paths
    ssl.SSLContext.set_default_verify_paths = _leave  # type: ignore[method-assign, assignment] # until it is imported
    try:
        context = getattr(Later(_LIBRARY), _CONTEXT, None)
    finally:
        ssl.SSLContext.set_default_verify_paths = reading  # type: ignore[method-assign] # as it was
    if type(context) is ssl.SSLContext:
        context.__class__ = _Late


def _leave(context: ssl.SSLContext) -> None:
    del context
