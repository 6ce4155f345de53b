"""What a process that holds secrets gives up."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys

import pytest

from tests.patience import PROGRAM_PATIENCE
from tokenhub_core.launch import hardening

_LOOK = """
import ctypes, json, os, resource, sys
from tokenhub_core.launch.hardening import harden
told = harden() if sys.argv[1] == "hard" else []
print(json.dumps({
    "told": told,
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
    "umask": os.umask(0),
}))
"""


def look(how: str) -> dict[str, object]:
    """Return what a process of its own looks like from inside."""
    done = subprocess.run(
        [sys.executable, "-c", _LOOK, how],
        capture_output=True,
        text=True,
        timeout=PROGRAM_PATIENCE,
        check=True,
        preexec_fn=lambda: os.umask(0o022),
    )
    told: dict[str, object] = json.loads(done.stdout)
    return told


def test_as_many_files_may_be_open_as_the_system_lets_us_have() -> None:
    """The usual soft limit of 1,024 is raised to the hard one, and a hard one that is little is told."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        assert hardening.many_files(enough=1) == ""
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 512
        few = hardening.many_files(enough=1 << 30)
        assert few.startswith("only ")
        assert few.endswith(" streams")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_a_hardened_process_cannot_be_dumped_or_looked_into() -> None:
    """No core file, not dumpable, and its files are its owner's alone; without it the process is an open book."""
    assert look("hard") == {"told": [], "core": [0, 0], "dumpable": 0, "umask": 0o077}
    soft = look("soft")
    assert (soft["dumpable"], soft["umask"]) == (1, 0o022)


def test_what_cannot_be_done_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line each, and the process goes on."""

    def refuse(*_: object, **more: object) -> None:
        raise OSError("not here")

    before = os.umask(0o022)
    try:
        monkeypatch.setattr(resource, "setrlimit", refuse)
        monkeypatch.setattr(ctypes, "CDLL", refuse)
        told = hardening.harden()
    finally:
        os.umask(before)
    assert told[0] == "core dumps cannot be switched off: not here"
    assert sys.platform != "linux" or told[1] == "other processes can look into this one: not here"
