"""What a process that holds secrets gives up: core dumps, being looked into, and files that others can read.

And what one that holds connections takes: as many open files as it may have.

Python cannot wipe a string, so a credential that was used may stay in memory until its place is used again. That
memory must not end up in a file.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from typing import Final

_SET_DUMPABLE: Final = 4
"""`PR_SET_DUMPABLE` of Linux."""
_MOST: Final = 1 << 18
"""Open files; some systems take long over limits without end."""
_ENOUGH: Final = 4096
"""Open files; with fewer the operator is told."""


def harden() -> tuple[str, ...]:
    """Do what this system can, and return a line for each thing that it could not.

    Core dumps are off. On Linux the process is not dumpable either: other processes of the same user can neither attach
    to it nor read its memory or its environment. Files that it makes are its owner's alone.
    """
    os.umask(0o077)
    return tuple(filter(None, (_no_core(), _not_dumpable(), many_files())))


def many_files(enough: int = _ENOUGH) -> str:
    """Raise the limit of open files to what the system lets us have; return a line where that is little.

    A stream takes two of them, and the usual limit of 1,024 is met by five hundred.
    """
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    except (OSError, ValueError) as error:
        return f"the limit of open files cannot be raised: {error}"
    if soft != resource.RLIM_INFINITY and soft < enough:
        return f"only {soft} files may be open at once: that is enough for {soft // 3} streams"
    return ""


def _no_core() -> str:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:
        return f"core dumps cannot be switched off: {error}"
    return ""


def _not_dumpable() -> str:
    if sys.platform != "linux":
        return ""
    try:
        refused = ctypes.CDLL(None, use_errno=True).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    except (OSError, AttributeError) as error:
        return f"other processes can look into this one: {error}"
    return f"other processes can look into this one: {os.strerror(ctypes.get_errno())}" if refused else ""
