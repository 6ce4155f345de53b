"""A loop that does not come round is seen from outside, told when it does, and a service manager hears of neither."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from pathlib import Path

import pytest

from tests.e2e.serving import until
from tokenhub_core.launch.notify import ALIVE, READY, notifier
from tokenhub_core.watchdog import Watchdog


async def test_a_blocked_loop_is_seen_while_it_is_blocked(caplog: pytest.LogCaptureFixture) -> None:
    """The log says where it stands before it goes on; afterwards it is told how long that took, once."""
    told: list[tuple[float, str]] = []
    seen = threading.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "does not come round" in record.getMessage():
                seen.set()

    handler = Heard()
    logging.getLogger("tokenhub_core.watchdog").addHandler(handler)

    def stands_still() -> None:
        assert seen.wait(30), "nobody has noticed"

    try:
        with Watchdog(lambda seconds, where: told.append((seconds, where)), limit=0.1):
            await asyncio.sleep(0.05)
            stands_still()
            await until(lambda: told)
    finally:
        logging.getLogger("tokenhub_core.watchdog").removeHandler(handler)
    ((seconds, _),) = told
    assert seconds >= 0.1
    assert "stands_still" in caplog.text


async def test_a_loop_that_comes_round_is_no_news() -> None:
    """However long it has nothing to do."""
    told: list[float] = []
    beats: list[int] = []
    with Watchdog(lambda seconds, _: told.append(seconds), alive=lambda: beats.append(1), limit=0.4):
        await until(lambda: len(beats) >= 4)
    assert told == []


@pytest.mark.parametrize("abstract", [False, True])
def test_a_service_manager_is_told(tmp_path: Path, abstract: bool) -> None:
    """At a path and at an abstract name; without a manager, or one that does not listen, nothing happens."""
    name = f"@tokenhub-{tmp_path.name}-{abstract}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        tell = notifier({"NOTIFY_SOCKET": name})
        tell(READY)
        tell(ALIVE)
        assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"WATCHDOG=1"]
    tell(READY)
    notifier({})(READY)
    notifier({"NOTIFY_SOCKET": "nonsense"})(READY)
