"""What mitmproxy writes of flows: to files that only their owner can read, and without credentials.

mitmproxy makes such files as the umask says, which for most people lets everybody read them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, override

from mitmproxy import ctx
from mitmproxy.addons import save, savehar
from mitmproxy.flow import Flow

from tokenhub_addon.flows import scrubbed

_MODE: Final = 0o600
_WRITING: Final = ("save.file", "save.har", "cut.save", "export.file")
"""The commands that write flows to a file; its path is the last argument of each."""


class _PrivateSave(save.Save):
    """Saves flows as they end (`-w`, `save_stream_file`)."""

    name = "save"

    @override
    def maybe_rotate_to_new_file(self) -> None:
        # As mitmproxy computes it, of local time.
        path = datetime.today().strftime(_plain(ctx.options.save_stream_file))  # noqa: DTZ002
        if path != self.current_path:
            _make_private(path)
        super().maybe_rotate_to_new_file()

    @override
    def save_flow(self, flow: Flow) -> None:
        if self.stream is not None:
            super().save_flow(scrubbed(flow))
            self.active_flows.discard(flow)

    @override
    def done(self) -> None:
        self.active_flows = {scrubbed(flow) for flow in self.active_flows}
        super().done()


class _PrivateHar(savehar.SaveHar):
    """Saves flows as HAR (`hardump`, `save.har`)."""

    name = "savehar"

    @override
    def make_har(self, flows: Sequence[Flow]) -> dict[str, Any]:
        return super().make_har([scrubbed(flow) for flow in flows])

    @override
    def done(self) -> None:
        if ctx.options.hardump not in {"", "-"}:
            _make_private(ctx.options.hardump)
        super().done()  # type: ignore[no-untyped-call] # mitmproxy's


def keep_private() -> None:
    """Make mitmproxy's own addons and commands write privately, those of them that are there; again does no harm."""
    for kind, private in ((save.Save, _PrivateSave), (savehar.SaveHar, _PrivateHar)):
        found = ctx.master.addons.get(kind.__name__.lower())  # type: ignore[no-untyped-call] # mitmproxy's
        if type(found) is kind:
            # In place, as its commands are bound to it; a file that it has open already is mended.
            found.__class__ = private
            if isinstance(found, _PrivateSave) and found.stream is not None:
                os.fchmod(found.stream.fo.fileno(), _MODE)
    commands = ctx.master.commands.commands
    for name in _WRITING:
        if (known := commands.get(name)) is not None and not isinstance(known.func, _Writing):
            known.func = _Writing(known.func)


class _Writing:
    """A command that writes flows to a file."""

    def __init__(self, command: Callable[..., Any]) -> None:
        self._command = command
        functools.update_wrapper(self, command)

    def __call__(self, *args: Any) -> Any:
        """Run the command on what may be written, where only its owner can read it."""
        *what, path = args
        _make_private(_plain(path))
        return self._command(*map(_clean, what), path)


def _clean(argument: Any) -> Any:
    """Return an argument of a command: flows as they may be written, everything else as it is."""
    if isinstance(argument, Flow):
        return scrubbed(argument)
    if isinstance(argument, Sequence) and argument and all(isinstance(one, Flow) for one in argument):
        return [scrubbed(one) for one in argument]
    return argument


def _plain(path: str) -> str:
    """Return a path without the sign that says to append to it."""
    return os.path.expanduser(path.removeprefix("+"))  # noqa: PTH111 - as mitmproxy does it


def _make_private(path: str) -> None:
    """Make the file if it is not there, and let nobody but its owner read it. Errors are left to whoever opens it."""
    try:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, _MODE)
    except OSError:
        return
    try:
        os.fchmod(handle, _MODE)
    finally:
        os.close(handle)
