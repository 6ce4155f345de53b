"""The bus: who hears what, and what is said of a record."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from tests.patience import PATIENCE
from tokenhub_core.telemetry.events import KEPT, Bus, Listener, described
from tokenhub_core.types import (
    Attempt,
    Caller,
    Lane,
    Mode,
    Outcome,
    Plan,
    Policy,
    Record,
    Timings,
    Usage,
)


def told(listener: Listener) -> list[tuple[int, str]]:
    return [(event.id, event.type) for event in listener.take()]


def filled(count: int) -> Bus:
    bus = Bus()
    for _ in range(count):
        bus.publish("x", {})
    return bus


def test_everybody_hears_everything_from_then_on() -> None:
    """In order, with ids that count up; and nothing once they have left."""
    bus = filled(1)
    with bus.listen() as one:
        bus.publish("a", {"n": 1})
        with bus.listen() as other:
            assert bus.listeners == 2
            bus.publish("b", {})
        bus.publish("c", {})
    bus.publish("d", {})
    assert told(one) == [(2, "a"), (3, "b"), (4, "c")]
    assert told(other) == [(3, "b")]
    assert bus.listeners == 0


def test_a_listener_that_fails_leaves_too() -> None:
    """Whatever ends the block."""
    bus = Bus()
    with pytest.raises(RuntimeError), bus.listen():
        raise RuntimeError
    assert bus.listeners == 0


async def test_waiting_ends_with_the_next_event() -> None:
    """And what was taken is not there again."""
    bus = Bus()
    with bus.listen() as listener:
        waiting = asyncio.create_task(listener.ready())
        await asyncio.sleep(0)
        assert not waiting.done()
        bus.publish("a", {})
        await asyncio.wait_for(waiting, PATIENCE)
        assert told(listener) == [(1, "a")]
        assert told(listener) == []
        again = asyncio.create_task(listener.ready())
        await asyncio.sleep(0)
        assert not again.done()
        again.cancel()


def test_who_names_an_id_gets_what_came_behind_it() -> None:
    """From the events that are kept; the last id means nothing is missing."""
    bus = filled(5)
    with bus.listen(2) as listener:
        assert told(listener) == [(3, "x"), (4, "x"), (5, "x")]
    with bus.listen(5) as listener:
        assert told(listener) == []
    with bus.listen(0) as listener:
        assert len(told(listener)) == 5


def test_an_id_that_was_never_given_out_is_from_before_a_restart() -> None:
    """Everything that is kept is new to its owner, and nothing is said to be lost."""
    with filled(3).listen(1000) as listener:
        assert told(listener) == [(1, "x"), (2, "x"), (3, "x")]
    with Bus().listen(1000) as listener:
        assert told(listener) == []


def test_after_a_restart_nobody_knows_how_many_are_missing() -> None:
    """Ids go on behind those from before: one of them is known for what it is, and everything since is new."""
    old = filled(3)
    bus = Bus(first=1000)
    with bus.listen(old.oldest + 3) as listener:
        (lost,) = listener.take()
        bus.publish("x", {})
        assert told(listener) == [(1001, "x")]
    assert (lost.type, lost.data) == ("lost", {"count": None, "restarted": True})
    with bus.listen(3) as listener:
        assert told(listener) == [(1000, "lost"), (1001, "x")]
    with bus.listen(1000) as listener:
        assert told(listener) == [(1001, "x")]


def _tried(*attempts: Attempt) -> Record:
    return Record("r", 5.0, Outcome.OK, 200, Caller(), "POST", "/", attempts=attempts)


@pytest.mark.parametrize(
    ("causes", "change", "kinds"),
    [
        (("",), "", []),
        (("http_500",), "", []),
        (("http_500", ""), "", ["failover"]),
        (("hedge_lost", ""), "", []),
        (("context_overflow", ""), "escalated-context-overflow", ["failover", "escalation"]),
    ],
)
def test_what_happened_on_the_way_is_told_too(causes: tuple[str, ...], change: str, kinds: list[str]) -> None:
    """Beside the call's own event: that another was asked, and why."""
    tries = [Attempt(n, "m", "p", 0, 1, cause=cause) for n, cause in enumerate(causes, 1)]
    tries[-1] = structs.replace(tries[-1], change=change)
    bus = Bus()
    with bus.listen() as listener:
        bus.tell(_tried(*tries))
        events = listener.take()
    assert [event.type for event in events] == ["route_success", *kinds]
    assert all(event.data["request_id"] == "r" for event in events)


@pytest.mark.parametrize(
    ("action", "kinds"),
    [
        ("alias.create", ["audit", "config_change"]),
        ("vault.lock", ["audit", "vault_change"]),
        ("apikey.revoke", ["audit", "apikey_change"]),
        ("user.delete", ["audit", "access_change"]),
        ("budget.cross", ["audit"]),
        ("session.open", ["audit"]),
    ],
)
def test_a_change_is_told_by_what_was_changed(action: str, kinds: list[str]) -> None:
    """As the entry that the audit log has."""
    bus = Bus()
    with bus.listen() as listener:
        bus.audited(action, {"action": action})
        assert [(event.type, event.data) for event in listener.take()] == [
            (kind, {"action": action}) for kind in kinds
        ]


def test_what_is_not_kept_any_more_is_counted() -> None:
    """One `lost` event stands for it, with the id to go on from."""
    bus = filled(KEPT + 5)
    assert bus.oldest == 5
    with bus.listen(2) as listener:
        first, second, *rest = listener.take()
    assert (first.id, first.type, first.data) == (5, "lost", {"count": 3})
    assert (second.id, len(rest)) == (6, KEPT - 1)
    with bus.listen(bus.oldest) as listener:
        assert [event.type for event in listener.take()] == ["x"] * KEPT


def test_a_listener_that_does_not_take_loses_the_oldest() -> None:
    """It is bounded, it is told how many were lost, once, and others lose nothing."""
    bus = Bus()
    with bus.listen() as slow, bus.listen() as quick:
        heard = 0
        for _ in range(KEPT + 30):
            bus.publish("x", {})
            heard += len(quick.take())
        lost, *kept = slow.take()
        assert (lost.type, lost.data, lost.id) == ("lost", {"count": 30}, 30)
        assert [event.id for event in kept] == list(range(31, KEPT + 31))
        assert heard == KEPT + 30
        bus.publish("y", {})
        assert [event.type for event in slow.take()] == ["y"]


def test_a_record_is_told_without_what_is_empty() -> None:
    """What served, what it cost, how long it took."""
    record = Record(
        "r",
        5.0,
        Outcome.OK,
        200,
        Caller(lane=Lane.INSPECT, program="prog/1"),
        "POST",
        "/",
        stream=True,
        origin_host="api.openai.com",
        requested_model="asked",
        model="m",
        provider="p",
        reason="routed-weight-5",
        usage=Usage(10, 5),
        cost_nanousd=1_500_000,
        timings=Timings(total_ms=12.5, ttft_ms=3.0),
        attempts=(Attempt(1, "m", "p", 0, 1),),
        plan=Plan(Policy(mode=Mode.CHEAP), (), (), 1, 1, ""),
        losses=("seed",),
    )
    kind, data = described(record)
    assert kind == "route_success"
    assert data == {
        "timestamp": 5.0,
        "request_id": "r",
        "model_id": "m",
        "provider_id": "p",
        "requested_model": "asked",
        "mode": "cheap",
        "reason": "routed-weight-5",
        "outcome": "ok",
        "status": 200,
        "latency_ms": 12.5,
        "ttft_ms": 3.0,
        "cost_usd": 0.0015,
        "input_tokens": 10,
        "output_tokens": 5,
        "attempts": 1,
        "lane": "inspect",
        "program": "prog/1",
        "origin_host": "api.openai.com",
        "stream": True,
        "losses": ["seed"],
    }


def test_a_failure_is_told_as_one() -> None:
    """By its type, its label and its words; a call that nobody decided on has no mode."""
    record = Record(
        "r", 5.0, Outcome.ERROR, 404, Caller(), "POST", "/", fault="model_not_found", message="not there"
    )
    kind, data = described(record)
    assert kind == "route_error"
    assert (data["error_class"], data["error_msg"], data["status"]) == ("model_not_found", "not there", 404)
    assert not {"mode", "model_id", "cost_usd", "ttft_ms", "stream", "simulated"} & data.keys()


def test_a_record_is_told_in_the_words_that_describe_it() -> None:
    """To whoever listens, and to whoever comes back for it."""
    bus = Bus()
    record = Record("r", 5.0, Outcome.ERROR, 404, Caller(), "POST", "/", fault="model_not_found")
    with bus.listen() as listener:
        bus.tell(record)
        (now,) = listener.take()
    with bus.listen(0) as listener:
        (later,) = listener.take()
    assert (now.type, now.data) == (later.type, later.data) == described(record)
