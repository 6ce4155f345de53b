"""What a service manager is told: that we are ready, alive, reloading, leaving. The protocol is systemd's sd_notify."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
ALIVE: Final = "WATCHDOG=1"

type Notify = Callable[[str], None]


def notifier(environ: Mapping[str, str]) -> Notify:
    """Return what tells the manager that started us; nobody is told where none did.

    `NOTIFY_SOCKET` is a path, or `@` and an abstract name. What cannot be sent is left out: a manager that does not
    listen must not be able to hold us up.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return _nobody
    if address.startswith("@"):
        address = "\0" + address[1:]

    def tell(words: str) -> None:
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.setblocking(False)
            sock.sendto(words.encode(), address)

    return tell


def _nobody(words: str) -> None:
    del words
