"""Whether OpenTelemetry is on, what that takes, and what waits to be sent."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from tests.fakes.house import house
from tokenhub_core.errors import ConfigError
from tokenhub_core.otel import joining, tracing
from tokenhub_core.otel.outbox import BATCH, Line, Outbox
from tokenhub_core.otel.tracing import Tracing
from tokenhub_core.types import Snapshot

LINE = Line(1.0, 20, "INFO", "here", "text")


async def test_without_an_endpoint_nothing_is_imported_or_made(tmp_path: Path) -> None:
    """Not the library, not a thread, not a place in a trace."""
    with (
        mock.patch.object(joining, "import_module", side_effect=AssertionError),
        mock.patch.object(joining, "Tracing", side_effect=AssertionError),
        mock.patch.object(joining, "Outbox", side_effect=AssertionError),
    ):
        async with house(tmp_path, simulate=True) as it:
            assert (await it.chat()).status == 200


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"OTEL_ENDPOINT": "collector:4318"}, "must be a URL"),
        ({"OTEL_ENDPOINT": "https://collector:4318"}, r"tokenhub\[otel\]"),
    ],
)
async def test_what_is_wrong_is_told_at_the_start(
    tmp_path: Path, settings: dict[str, str], told: str
) -> None:
    """An address that is none; a library that is not there, and how it gets there."""
    missing = ModuleNotFoundError("opentelemetry", name="opentelemetry.sdk")
    with (
        mock.patch.object(joining, "import_module", side_effect=missing),
        pytest.raises(ConfigError, match=told),
    ):
        async with house(tmp_path, settings=settings):
            pass


def test_fields_for_the_collector_are_pairs() -> None:
    """A value may hold an equals sign; what is wrong is told without the value, which may be a secret."""
    assert joining.headers("Authorization=Basic YQ==, x-a=1,") == {"authorization": "Basic YQ==", "x-a": "1"}
    for bad in ("hidden", "=hidden", "a=1,hidden"):
        with pytest.raises(ConfigError) as failed:
            joining.headers(bad)
        assert "hidden" not in str(failed.value)


def test_what_finds_no_room_is_counted_and_gone() -> None:
    """Nobody waits for room, and what was there first is sent first."""
    outbox = Outbox(room=3)
    for _ in range(5):
        outbox.put(LINE)
    assert outbox.counts == {("logs", "dropped"): 2}
    assert outbox.take(0) == [LINE] * 3
    assert outbox.take(0) == []


def test_a_full_batch_is_taken_at_once() -> None:
    """Whoever would wait for company for an hour has it; what is left over waits for the next."""
    outbox = Outbox()
    for _ in range(BATCH + 1):
        outbox.put(LINE)
    assert len(outbox.take(3600)) == BATCH
    outbox.wake()
    assert len(outbox.take(3600)) == 1


def test_calls_that_never_end_are_forgotten() -> None:
    """The place of so many is remembered, and not of more."""
    trace = Tracing(Outbox(), share=1, parents="parent", tells=False, entropy=bytes)
    with mock.patch.object(tracing, "REMEMBERED", 10):
        for number in range(50):
            trace.enter(Snapshot(f"req_{number}", "POST", "/", (), b"", 0.0, 0.0))
    assert len(trace._calls) == 10
