"""mitmproxy's addon manager with the handlers of each hook looked up once, and its loggers turned down.

The stock manager walks all addons at every event, and again for `update` after every event of a flow: more than
a third of mitmproxy's time per request. Order, sub-addons, `AddonHalt`, `OptionsError` and the logging of errors
are the stock manager's. A hook that an addon gains after it was added is not seen.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any, Final, override

from mitmproxy import addonmanager, exceptions, flow, hooks, http
from mitmproxy.master import Master

_logger = logging.getLogger(__name__)

_CHATTY: Final = ("mitmproxy", "hpack", "h2", "tornado", "asyncio", "aioquic", "quic")

type _Handlers = tuple[tuple[Callable[..., Any], ...], ...]
"""One entry for each addon of the chain that listens: its own handler first, then those of its sub-addons."""


class CachedAddons(addonmanager.AddonManager):
    """An addon manager that resolves each hook of connections and flows once.

    `running` and `done` go the stock way: they come once, and addons may be added while they are told.
    """

    def __init__(self, master: Master) -> None:
        super().__init__(master)  # type: ignore[no-untyped-call] # mitmproxy's
        self._handlers: dict[str, _Handlers] = {}

    @override
    def register(self, addon: object) -> object:
        # `add` comes by here, too; no event is told between this and its change of the chain.
        registered: object = super().register(addon)  # type: ignore[no-untyped-call] # mitmproxy's
        self._handlers.clear()
        return registered

    @override
    def remove(self, addon: object) -> None:
        super().remove(addon)  # type: ignore[no-untyped-call] # mitmproxy's
        self._handlers.clear()

    @override
    def clear(self) -> None:
        super().clear()  # type: ignore[no-untyped-call] # mitmproxy's
        self._handlers.clear()

    @override
    async def handle_lifecycle(self, event: hooks.Hook) -> None:
        await self._dispatch(event)
        message = event.args()[0]
        if isinstance(message, flow.Flow):
            await self._dispatch(hooks.UpdateHook([message]))

    async def _dispatch(self, event: hooks.Hook) -> None:
        handlers = self._handlers.get(event.name)
        if handlers is None:
            handlers = self._handlers[event.name] = self._resolve(event)
        if not handlers:
            return
        args = event.args()
        for group in handlers:
            try:
                for handler in group:
                    result = handler(*args)
                    if result is not None and inspect.isawaitable(result):
                        await result
            except exceptions.AddonHalt:
                return
            except exceptions.OptionsError:
                raise
            except Exception:  # one addon that fails keeps no other from its event, as in mitmproxy
                _logger.exception("addon failed in %s", event.name)

    def _resolve(self, event: hooks.Hook) -> _Handlers:
        groups = (tuple(handler for _, handler in self._iter_hooks(addon, event)) for addon in self.chain)
        return tuple(group for group in groups if group)


class CachedMaster(Master):
    """A master with cached dispatch that does not turn log records into addon events."""

    addons: addonmanager.AddonManager

    def __init__(self, options: Any) -> None:
        super().__init__(options, with_termlog=False)
        # The stock master formats every record of every library for a deprecated hook: 0.13 ms each.
        self._legacy_log_events.uninstall()
        self.addons = CachedAddons(self)


def unchecked() -> Callable[[], None]:
    """Stop mitmproxy from checking every field of every message against its annotation; return the way back.

    The check is an aid for those who write to flows, and a tenth of the inspect lane's time. Our types are checked
    before we run.
    """
    if not __debug__:
        return lambda: None  # with `python -O` there is no check
    checked = http.MessageData.__post_init__

    def restore() -> None:
        http.MessageData.__post_init__ = checked  # type: ignore[method-assign] # that is the point

    http.MessageData.__post_init__ = _nothing  # type: ignore[method-assign] # as above
    return restore


def _nothing(data: http.MessageData) -> None:
    del data


def quiet(level: int = logging.WARNING) -> None:
    """Let mitmproxy and what it speaks through log from `level` up only: it reports every connection."""
    for name in _CHATTY:
        logging.getLogger(name).setLevel(level)
