"""The parts of the durable way that need no Temporal: what travels, how it is sealed, and the breaker."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from temporalio.api.common.v1 import Payload

from tests.fakes.engine import PAIR, Bench, chat, message
from tests.workflows.house import KEY
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.dispatch.failover import Try
from tokenhub_core.dispatch.job import CANCELLED, Job, Trace
from tokenhub_core.health.breaker import FAILURES, REST, Breaker, State
from tokenhub_core.preparing import Rules
from tokenhub_core.progress import Progress, record
from tokenhub_core.types import Dialect, Snapshot
from tokenhub_core.vault.sealing import Sealer, TamperedError
from tokenhub_core.workflows import shapes
from tokenhub_core.workflows.codec import Codec, LockedError, converter
from tokenhub_core.workflows.shapes import Start, Traced


def prepared(bench: Bench, snapshot: Snapshot) -> tuple[Job, Progress]:
    progress = Progress(snapshot, Trace())
    job = bench.engine._ready.prepare(progress)
    assert isinstance(job, Job)
    return job, progress


def travelled[T](value: T) -> T:
    """Return a value as it comes out on another machine."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=type(value))


@pytest.mark.parametrize(
    ("body", "dialect"),
    [
        (chat(), Dialect.OPENAI_CHAT),
        (chat(stream=True, tools=[]), Dialect.OPENAI_CHAT),
        (chat('@@tokenhub mode=cheap output_schema={"type":"object"}\nHello'), Dialect.OPENAI_CHAT),
        (message(), Dialect.ANTHROPIC_MESSAGES),
    ],
)
def test_a_call_is_the_same_on_another_machine(body: Any, dialect: Dialect) -> None:
    """Its bodies for each candidate, its plan and its record are those that it would have had here."""
    bench = Bench(rules=Rules(max_attempts=3))
    snapshot = bench.snapshot(body, dialect, headers=(("x-request-id", "mine"),))
    job, progress = prepared(bench, snapshot)

    call = travelled(shapes.call(job, progress))
    there = shapes.job(call, DIALECTS)

    assert (there.plan, there.limits, there.request) == (job.plan, job.limits, job.request)
    for candidate in job.plan.candidates:
        assert there.bodies.render(candidate, None).data == job.bodies.render(candidate, None).data
    theirs = record(shapes.progress(call, there, Trace()), CANCELLED, 5.0)
    ours = record(progress, CANCELLED, 5.0)
    assert structs.replace(theirs, timings=ours.timings) == ours
    assert theirs.timings.route_ms == pytest.approx(ours.timings.route_ms)


def test_what_a_workflow_begins_with_says_nothing_that_anybody_said() -> None:
    """Neither the question nor the caller's schema nor headers are in it."""
    bench = Bench()
    body = chat('@@tokenhub output_schema={"title":"Zanzibar","type":"object"}\nelephant')
    job, _ = prepared(bench, bench.snapshot(body, headers=(("authorization", "Bearer sk-secret"),)))

    start = msgspec.msgpack.encode(shapes.start(job, job.snapshot.started))

    for word in (b"elephant", b"Zanzibar", b"sk-secret"):
        assert word not in start


@given(elapsed=st.floats(0, 1e6))
def test_a_calls_start_is_the_same_moment_on_every_clock(elapsed: float) -> None:
    """Durations count from when the call came, wherever they are taken."""
    bench = Bench()
    job, progress = prepared(bench, bench.snapshot(chat()))
    call = shapes.call(job, progress)
    bench.clock.now = lambda: call.snapshot.received_at + elapsed  # type: ignore[method-assign]
    bench.clock.monotonic = lambda: 77.0  # type: ignore[method-assign]

    there = shapes.here(call, bench.clock)

    assert 77.0 - there.snapshot.started == pytest.approx(elapsed, abs=1e-6)


def test_an_attempt_is_the_same_on_another_machine() -> None:
    """Whoever makes it knows all that the machine has said of it; only the time that it waited is taken off."""
    bench = Bench()
    job, progress = prepared(bench, bench.snapshot(chat()))
    start = shapes.start(job, job.snapshot.started)
    tried = Try(start.plan.candidates[1], 2, 30.0, 64, "reduced-max-tokens", others=True)

    step = travelled(shapes.step(start, tried, Traced()))
    there = shapes.attempted(shapes.call(job, progress), step, job.snapshot.started)

    assert structs.replace(there, timeout=tried.timeout) == tried


def test_a_trace_comes_back_as_it_was() -> None:
    """The candidate is the very one of the plan, by which the record tells a first choice from a failover."""
    bench = Bench()
    job, _ = prepared(bench, bench.snapshot(chat()))
    trace, back = Trace(sent=2, change="reduced-max-tokens", candidate=job.plan.candidates[1]), Trace()

    shapes.restore(back, travelled(shapes.traced(trace, job.plan)), job.plan)

    assert back == trace
    assert back.candidate is job.plan.candidates[1]


def test_nothing_of_a_trace_is_forgotten() -> None:
    """What is added to a trace travels, or is named here with what makes it needless.

    That is hedges, who records, a stream that is read on without its caller or gone on with, and what is shown while an
    attempt is under way. A candidate travels by its place in the plan, or as itself.
    """
    kept = {field.name for field in fields(Trace)} - {
        *("hedged", "recorded", "gone", "draining", "resumed"),
        *("asked", "gate"),
    }

    assert kept == set(Traced.__struct_fields__) - {"chosen"}


def test_a_fault_that_travelled_is_still_a_callers_leaving() -> None:
    """Records tell it by identity."""
    assert shapes.known(replace(CANCELLED)) is CANCELLED
    assert shapes.known(shapes.LOST) is shapes.LOST
    assert shapes.known(None) is None


# --- sealing


def codec(key: Sealer | None = KEY) -> Codec:
    return Codec(lambda: key, secrets.token_bytes)


async def test_what_is_sealed_opens_to_the_same() -> None:
    """Names and values are not to be seen, and two of the same look different."""
    values = [Traced(change="elephant"), "text", None]
    data = converter(codec())

    payloads = await data.encode(values)

    assert await data.decode(payloads, [Traced, str, type(None)]) == values
    assert all(b"elephant" not in one.SerializeToString() for one in payloads)
    (again, *_) = await data.encode(values)
    assert again.data != payloads[0].data


async def test_what_was_changed_or_not_sealed_does_not_open() -> None:
    """Who can write to Temporal's store cannot tell a worker what to do."""
    (payload,) = await converter(codec()).encode([Start("req_1", *_plan_and_limits(), 0.0)])
    payload.data = payload.data[:-1] + bytes([payload.data[-1] ^ 1])

    with pytest.raises(TamperedError):
        await codec().decode([payload])
    with pytest.raises(TamperedError):
        await codec().decode([Payload(metadata={"encoding": b"json/plain"}, data=b"1")])


async def test_without_the_vaults_key_nothing_opens() -> None:
    """While it is locked, and under another root."""
    payloads = await codec().encode([Payload(data=b"x")])

    for key in (None, Sealer("another", bytes(32), KEY.purpose)):
        with pytest.raises(LockedError):
            await codec(key).decode(payloads)
    with pytest.raises(LockedError):
        await codec(None).encode([Payload(data=b"x")])


def _plan_and_limits() -> tuple[Any, Any]:
    job, _ = prepared(Bench(models=PAIR), Bench().snapshot(chat()))
    return job.plan, job.limits


# --- the breaker


def test_it_opens_after_failures_in_a_row_and_lets_one_look_after_its_rest() -> None:
    """A success in between starts the count anew; the one that looks decides for all."""
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker.failed(0.0)
    breaker.succeeded()
    for _ in range(FAILURES):
        assert breaker.admit(0.0)
        breaker.failed(0.0)

    assert breaker.state(0.0) is State.OPEN
    assert not breaker.admit(REST - 0.1)
    assert breaker.admit(REST)
    assert not breaker.admit(REST)
    assert breaker.state(REST) is State.HALF_OPEN
    breaker.failed(REST)
    assert not breaker.admit(REST + 1)
    assert breaker.admit(2 * REST)
    breaker.succeeded()
    assert breaker.state(2 * REST) is State.CLOSED


def test_one_who_left_before_it_was_known_does_not_keep_the_others_out() -> None:
    """The next one may look."""
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker.failed(0.0)
    assert breaker.admit(REST)
    breaker.left()

    assert breaker.admit(REST)


@given(st.lists(st.sampled_from(["ok", "bad", "left"]), max_size=40))
def test_whatever_comes_it_lets_somebody_look_in_the_end(events: list[str]) -> None:
    """No order of events keeps Temporal out for longer than one rest."""
    breaker, now = Breaker(), 0.0
    for event in events:
        now += 1
        if breaker.admit(now):
            happens: dict[str, Callable[[], None]] = {
                "ok": breaker.succeeded,
                "bad": partial(breaker.failed, now),
                "left": breaker.left,
            }
            happens[event]()

    assert breaker.admit(now + REST)
