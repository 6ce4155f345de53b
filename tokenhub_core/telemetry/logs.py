"""Structured logs: one JSON object a line, on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Final

import orjson
from aiohttp.http_exceptions import HttpProcessingError

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
_QUIET: Final = ("mitmproxy", "aiohttp", "asyncio", "alembic", "sqlalchemy", "h2", "hpack")
"""Libraries whose lower levels would drown ours."""


_TELLING: Final = (
    *range(0x7F, 0xA0),
    *(0x061C, 0x200E, 0x200F),
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
    *(0xFEFF, *range(0xFFF9, 0xFFFC)),
)
"""Characters that JSON lets stand and readers obey: DEL and C1 controls (terminals take U+009B for ESC [, and U+0085
ends lines), the line and paragraph separators, and what turns the direction of text around."""
_ESCAPES: Final = {code: f"\\u{code:04x}" for code in _TELLING}


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON; no character in it can forge a second one or speak to a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        # Bytes that strangers sent may be kept as surrogates, which are no JSON.
        clean = {name: text.encode(errors="replace").decode() for name, text in entry.items()}
        return orjson.dumps(clean).decode().translate(_ESCAPES)


def configure(level: str) -> None:
    """Send everything from `level` up to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


class Threshold:
    """The least level that is logged, as the settings have it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def renew(self, name: str) -> None:
        """Leave out what is less severe than that, from now on."""
        if name != self._name:
            self._name = name
            logging.getLogger().setLevel(_LEVELS[name])


class _Reticent(logging.Filter):
    """Keeps what cannot be read out of the log: aiohttp quotes the line, and the line may be a credential."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Take the error of a malformed request off its record, which is then none of ours."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        record.msg, record.args = "a request could not be read: %s", (type(error).__name__,)
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        return logging.getLogger(record.name).isEnabledFor(logging.INFO)


def discreet() -> logging.Logger:
    """Return the logger of our HTTP servers: what a client sends that is no HTTP is one line, and no failure."""
    logger = logging.getLogger("tokenhub_core.server")
    if not any(isinstance(one, _Reticent) for one in logger.filters):
        logger.addFilter(_Reticent())
    return logger
