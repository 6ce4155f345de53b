"""Machines of their own: network namespaces, each joined to this one by a pair of veth; run by `test_machines.py`.

`python -m tests.e2e.machines PYTEST-ARGUMENTS…` expects to be started by `unshare -nm`: the namespace that it finds is
the place where what machines share stands, and nothing of it is left when it ends. Then it runs pytest.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NETWORK = "10.77.0.0/16"
"""Of all pairs; each has a /24 of it."""


def run(*words: str) -> None:
    subprocess.run(words, check=True)


class Machine:
    """A namespace with a loopback, and one link to where this process is."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.shared = f"10.77.{number}.1"
        """Where this process is, seen from there."""
        self.command = ("ip", "netns", "exec", name)
        """Comes before what is to run there."""
        self._link = f"to-{name}"
        run("ip", "netns", "add", name)
        run("ip", "link", "add", "name", self._link, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "address", "add", f"{self.shared}/24", "dev", self._link)
        run("ip", "link", "set", self._link, "up")
        run("ip", "-n", name, "address", "add", f"10.77.{number}.2/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            run("ip", "-n", name, "link", "set", link, "up")
        self._here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._there = os.open(f"/run/netns/{name}", os.O_RDONLY)

    def cut(self) -> None:
        """Take the link down."""
        run("ip", "link", "set", self._link, "down")

    def mend(self) -> None:
        """Bring it up again."""
        run("ip", "link", "set", self._link, "up")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread make its sockets there: a socket stays where it was made."""
        os.setns(self._there, os.CLONE_NEWNET)
        try:
            yield
        finally:
            os.setns(self._here, os.CLONE_NEWNET)

    def socket(self, address: tuple[Any, ...]) -> socket.socket:
        """Make a socket there, as `aiohttp.TCPConnector` asks for one."""
        family, kind, protocol, *_ = address
        with self.entered():
            return socket.socket(family, kind, protocol)

    def close(self) -> None:
        """Take the namespace away."""
        for one in (self._here, self._there):
            os.close(one)
        run("ip", "netns", "delete", self.name)


@contextmanager
def machines(*names: str) -> Iterator[list[Machine]]:
    """Run machines of these names for as long as the block lasts."""
    made: list[Machine] = []
    try:
        for number, name in enumerate(names, 1):
            made.append(Machine(name, number))
        yield made
    finally:
        for one in made:
            one.close()


if __name__ == "__main__":
    # The names of namespaces are files: these are seen by nobody else.
    run("mount", "-t", "tmpfs", "none", "/run")
    Path("/run/netns").mkdir()
    run("ip", "link", "set", "lo", "up")
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]])
