"""Where OpenTelemetry comes in, if it is on: what speaks its protocol is an extra."""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import AsyncExitStack
from importlib import import_module
from typing import Final
from urllib.parse import urlsplit

from tokenhub_core.config import Settings
from tokenhub_core.errors import ConfigError
from tokenhub_core.otel.outbox import Counted, Line, Outbox
from tokenhub_core.otel.tracing import Tracing
from tokenhub_core.ports import Clock
from tokenhub_core.telemetry.metrics import Metrics

EVERY: Final = 30.0
"""Seconds between two sets of metrics."""
_OWN: Final = ("opentelemetry", "urllib3", "requests", "tokenhub_core.otel")
"""Loggers whose lines are not sent: they tell of sending."""


def joined(stack: AsyncExitStack, settings: Settings, metrics: Metrics, clock: Clock) -> Tracing | None:
    """Return what traces calls, kept until the stack unwinds; None where it is off, and then nothing is made.

    Raises `ConfigError` where it is on and cannot be.
    """
    if not settings.otel_endpoint:
        return None
    if urlsplit(settings.otel_endpoint).scheme not in {"http", "https"}:
        raise ConfigError("TOKENHUB_OTEL_ENDPOINT must be a URL such as https://collector:4318")
    try:
        sending = import_module("tokenhub_core.otel.sending")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        message = "TOKENHUB_OTEL_ENDPOINT needs what is not installed: pip install 'tokenhub[otel]'"
        raise ConfigError(message) from None
    outbox = Outbox()
    collector = sending.Collector(
        settings.otel_endpoint,
        headers(settings.otel_headers.reveal()),
        ca_file=settings.otel_ca_file,
        cert_file=settings.otel_cert_file,
        key_file=settings.otel_key_file,
    )
    try:
        sender = sending.Sender(outbox, collector)
    except OSError as error:
        raise ConfigError(f"TOKENHUB_OTEL_CA_FILE and its like: {error}") from None
    sender.start()
    stack.push_async_callback(asyncio.to_thread, sender.close)
    metrics.exporting(lambda: outbox.counts)
    signals = settings.otel_signals
    if "metrics" in signals:
        counting = asyncio.create_task(_count(outbox, metrics, clock), name="otel metrics")
        stack.push_async_callback(_cancelled, counting)
    if "logs" in signals:
        handler = _Handler(outbox)
        logging.getLogger().addHandler(handler)
        stack.callback(logging.getLogger().removeHandler, handler)
    if "traces" not in signals:
        return None
    return Tracing(
        outbox,
        share=settings.otel_sample,
        parents=settings.otel_parents,
        tells=settings.otel_propagate,
        entropy=secrets.token_bytes,
    )


def headers(raw: str) -> dict[str, str]:
    """Return the fields of `name=value,…`; raises `ConfigError` without a word of what they are."""
    found = {}
    for pair in filter(None, (one.strip() for one in raw.split(","))):
        name, equals, value = pair.partition("=")
        if not name.strip() or not equals:
            raise ConfigError("TOKENHUB_OTEL_HEADERS must be name=value pairs, comma separated")
        found[name.strip().lower()] = value.strip()
    return found


class _Handler(logging.Handler):
    """Lets lines of the log wait, as they are written: what is masked there is masked here."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self._outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        """Let one line wait."""
        if record.name.startswith(_OWN):
            return
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - as the standard library has it: a bad line stops nobody
            self.handleError(record)
            return
        clean = message.encode(errors="replace").decode()
        self._outbox.put(Line(record.created, record.levelno, record.levelname, record.name, clean))


async def _count(outbox: Outbox, metrics: Metrics, clock: Clock) -> None:
    since = clock.now()
    try:
        while True:
            await asyncio.sleep(EVERY)
            outbox.put(Counted(clock.now(), since, metrics.families()))
    finally:
        # What was counted since the last time would be lost with the process.
        outbox.put(Counted(clock.now(), since, metrics.families()))


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
