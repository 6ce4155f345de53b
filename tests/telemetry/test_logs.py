"""One JSON object a line, whatever is in it."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp.http_exceptions import BadHttpMessage

from tokenhub_core.telemetry import logs
from tokenhub_core.telemetry.logs import JsonLines


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Leave logging as it was found."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    quiet = {name: logging.getLogger(name).level for name in logs._QUIET}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in quiet.items():
        logging.getLogger(name).setLevel(before)


def line(message: object, *args: object, **more: Any) -> dict[str, Any]:
    """Format a record; what comes out must be one line of JSON."""
    record = logging.LogRecord("a.b", logging.WARNING, "f.py", 1, message, args, more.get("exc_info"))
    text = JsonLines().format(record)
    assert len(text.splitlines()) == 1  # as Python and many readers of logs split them
    assert all(char.isprintable() for char in text)
    text.encode()
    entry: dict[str, Any] = json.loads(text)
    return entry


def test_a_line_says_when_how_grave_who_and_what() -> None:
    """With the time zone."""
    entry = line("%s calls", 3)
    assert (entry["level"], entry["logger"], entry["message"]) == ("warning", "a.b", "3 calls")
    assert entry["time"][10] == "T"
    assert entry["time"][-5] in "+-"


@pytest.mark.parametrize(
    "text",
    [
        "a\nb",
        "a\r\nlevel: error",
        "\x1b[31mred",
        '"},{"',
        "\u2028",
        "\udcff\udcfe",
        "\x00",
        "日本",
        "\x85{}",
        "\x9b31m",
        "\x7f",
        "\u2029",
        "\u202e",
        "\u2066",
        "\x0b\x0c\x1c\x1d\x1e",
    ],
)
def test_nothing_in_a_message_makes_a_second_line(text: str) -> None:
    """Line breaks, terminal codes, quotes, and bytes that are no text."""
    entry = line("from a stranger: %s", text)
    assert entry["message"] == f"from a stranger: {text.encode(errors='replace').decode()}"
    assert set(entry) == {"time", "level", "logger", "message"}


def test_an_exception_is_told_in_the_same_line() -> None:
    """Its traceback is a field."""
    try:
        raise ValueError("bad \udcff\nvalue")
    except ValueError:
        entry = line("failed", exc_info=sys.exc_info())
    assert "ValueError: bad ?\nvalue" in entry["exception"]
    assert "Traceback" in entry["exception"]


@pytest.mark.parametrize(
    ("level", "told"),
    [("debug", 4), ("info", 3), ("warn", 2), ("error", 1)],
)
def test_a_level_is_the_least_that_is_told(level: str, told: int, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error; standard output is for people."""
    logs.configure(level)
    ours = logging.getLogger("tokenhub_core.x")
    for say in (ours.debug, ours.info, ours.warning, ours.error):
        say("word")
    out, err = capsys.readouterr()
    assert out == ""
    assert [json.loads(one)["message"] for one in err.splitlines()] == ["word"] * told


def test_libraries_are_quiet_below_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    """They would drown ours, at debug above all."""
    logs.configure("debug")
    for name in ("mitmproxy.proxy.server", "aiohttp.access", "asyncio", "sqlalchemy.engine"):
        logging.getLogger(name).info("noise")
        logging.getLogger(name).warning("word")
    assert len(capsys.readouterr().err.splitlines()) == 4


def test_configuring_twice_tells_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The last one holds."""
    logs.configure("info")
    logs.configure("info")
    logging.getLogger("x").info("word")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_is_no_http_is_a_line_without_its_bytes_and_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever sends such bytes pages nobody, and what they were stays out of the log; our own errors are told whole."""
    logger = logs.discreet()
    for level, told in ((logging.INFO, 1), (logging.WARNING, 0)):
        caplog.clear()
        with caplog.at_level(level, logger.name):
            logger.error("Error handling request from %s", "1.2.3.4", exc_info=BadHttpMessage("sk-secret"))
        assert len(caplog.records) == told
        assert "sk-secret" not in caplog.text
        assert [(one.levelname, one.exc_info) for one in caplog.records] == [("INFO", None)] * told
    with caplog.at_level(logging.INFO, logger.name):
        logger.error("boom", exc_info=RuntimeError("ours"))
    assert [one.levelname for one in caplog.records][-1:] == ["ERROR"]
    assert "RuntimeError: ours" in caplog.text
    assert logs.discreet().filters == logger.filters
    assert len(logger.filters) == 1
