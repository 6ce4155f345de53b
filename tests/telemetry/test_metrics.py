"""What is counted, and that no stranger makes it grow."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from pathlib import Path

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.engine import chat
from tests.fakes.house import House, house
from tests.fakes.leaping import LeapingLoop
from tests.fakes.provider import FakeProvider
from tokenhub_core import __version__
from tokenhub_core.gauges import BEAT, beat
from tokenhub_core.routing.spread import LOST
from tokenhub_core.telemetry.metrics import BUDGETS, CREDENTIALS, HOSTS, MODELS, PROVIDERS, Metrics, Readings
from tokenhub_core.types import (
    Attempt,
    Caller,
    Dialect,
    Lane,
    Outcome,
    Plan,
    Policy,
    Record,
    Skip,
    Skipped,
    Timings,
    Usage,
)

type Series = dict[tuple[str, frozenset[tuple[str, str]]], float]

PLAN = Plan(Policy(), (), (Skip("m", "q", Skipped.HEALTH_DOWN),), 1, 1, "routed-weight-5")


def read(text: bytes) -> Series:
    """Return every sample by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def value(series: Series, name: str, **labels: str) -> float:
    return series.get((name, frozenset(labels.items())), 0.0)


def record(**more: object) -> Record:
    """Return a record of a good call at `p`, changed by `more`."""
    fields: dict[str, object] = {
        "model": "m",
        "provider": "p",
        "plan": PLAN,
        "usage": Usage(10, 5),
        "cost_nanousd": 2_500_000_000,
        "timings": Timings(route_ms=1.5, ttft_ms=200.0, total_ms=900.0),
        "attempts": (Attempt(1, "m", "p", 0, 1, cause="http_500"), Attempt(2, "m", "p", 1, 2)),
        "directive": "honoured",
        "identical": True,
    }
    caller = Caller(lane=Lane.HANDOFF)
    base = Record("r", 1.0, Outcome.OK, 200, caller, "POST", "/")
    return type(base)(**{**{n: getattr(base, n) for n in Record.__struct_fields__}, **fields, **more})


def test_a_good_call_is_counted_once_in_each_place() -> None:
    """In base units: seconds, dollars, tokens."""
    metrics = Metrics()
    metrics(record())
    series = read(metrics.render())
    served = {"mode": "normal", "model": "m", "provider": "p"}
    assert value(series, "tokenhub_requests_total", **served, outcome="ok", lane="handoff") == 1
    assert value(series, "tokenhub_request_duration_seconds_sum", **served) == 0.9
    assert value(series, "tokenhub_time_to_first_token_seconds_sum", **served) == 0.2
    assert value(series, "tokenhub_route_duration_seconds_sum") == 0.0015
    assert value(series, "tokenhub_cost_usd_total", model="m", provider="p") == 2.5
    assert value(series, "tokenhub_tokens_total", model="m", provider="p", direction="input") == 10
    assert value(series, "tokenhub_tokens_total", model="m", provider="p", direction="output") == 5
    assert value(series, "tokenhub_attempts_total", provider="p", result="http_500") == 1
    assert value(series, "tokenhub_attempts_total", provider="p", result="ok") == 1
    assert value(series, "tokenhub_provider_skips_total", provider="q", reason="health_down") == 1
    assert value(series, "tokenhub_directives_total", outcome="honoured") == 1
    assert value(series, "tokenhub_identical_replies_total") == 1
    assert value(series, "tokenhub_build_info", version=__version__) == 1
    assert not [name for name, _ in series if name == "tokenhub_request_errors_total"]


def test_calls_add_up_in_the_series_of_their_labels() -> None:
    """Each in its own, however they alternate."""
    metrics = Metrics()
    for provider in ("p", "q", "p", "p"):
        metrics(record(provider=provider, attempts=(Attempt(1, "m", provider, 0, 1),)))
    series = read(metrics.render())
    for provider, calls in (("p", 3), ("q", 1)):
        served = {"mode": "normal", "model": "m", "provider": provider}
        assert value(series, "tokenhub_requests_total", **served, outcome="ok", lane="handoff") == calls
        assert value(series, "tokenhub_request_duration_seconds_count", **served) == calls
        assert value(series, "tokenhub_attempts_total", provider=provider, result="ok") == calls


def test_only_what_went_well_says_how_long_calls_take() -> None:
    """A refusal is quick, an abandoned call anything, and what was passed through no call of ours."""
    metrics = Metrics()
    for outcome, fault, status in (
        (Outcome.ERROR, "http_500", 502),
        (Outcome.CANCELLED, "client_cancelled", 499),
        (Outcome.PASSED, "", 200),
    ):
        metrics(record(outcome=outcome, fault=fault, status=status))
    series = read(metrics.render())
    assert not [name for name, _ in series if name.startswith("tokenhub_request_duration")]
    assert value(series, "tokenhub_request_errors_total", fault="http_500", status="5xx") == 1
    requests = [n for (name, _), n in series.items() if name == "tokenhub_requests_total"]
    assert requests == [1, 1, 1]


def test_hosts_that_callers_choose_are_one_origin() -> None:
    """Neither the host nor the model there becomes a label."""
    metrics = Metrics()
    for number in range(50):
        origin = f"origin:h{number}.example"
        attempts = (Attempt(1, f"m{number}", origin, 0, 1),)
        plan = Plan(Policy(), (), (Skip(f"m{number}", origin, Skipped.HEALTH_DOWN),), 1, 1, "routed-origin")
        metrics(record(model=f"m{number}", provider=origin, attempts=attempts, plan=plan))
        metrics.health([(origin, "healthy")])
    text = metrics.render().decode()
    assert "example" not in text
    series = read(metrics.render())
    assert value(series, "tokenhub_cost_usd_total", model="", provider="origin") == 125
    assert value(series, "tokenhub_attempts_total", provider="origin", result="ok") == 50


def test_health_shows_who_is_there_and_nobody_else() -> None:
    """2, 1, 0; a provider that was removed does not stay healthy for ever."""
    metrics = Metrics()
    metrics.health([("a", "healthy"), ("b", "degraded"), ("c", "down"), ("d", "half_open")])
    series = read(metrics.render())
    shown = [value(series, "tokenhub_provider_health_state", provider=name) for name in "abcd"]
    assert shown == [2, 1, 0, 0]
    metrics.health([("b", "healthy")])
    series = {key: number for key, number in read(metrics.render()).items() if "health_state" in key[0]}
    assert series == {("tokenhub_provider_health_state", frozenset({("provider", "b")})): 2}


def test_two_servers_count_apart() -> None:
    """No registry is shared: nothing happens at import, and tests do not add up."""
    one, other = Metrics(), Metrics()
    one(record())
    assert value(read(other.render()), "tokenhub_identical_replies_total") == 0


def test_made_up_models_are_one_label() -> None:
    """Ten thousand models, and as many providers and hosts, do not make ten thousand series."""
    metrics = Metrics()
    for number in range(10_000):
        attempts = (Attempt(1, f"m{number}", f"p{number}", 0, 1),)
        metrics(record(model=f"m{number}", provider=f"p{number}", attempts=attempts))
        metrics.tunnelled(f"h{number}.example")
        metrics.parked(f"p{number}", f"k{number}", "exhausted")
    series = read(metrics.render())
    for label, most in (
        ("model", MODELS),
        ("provider", PROVIDERS),
        ("host", HOSTS),
        ("credential", CREDENTIALS),
    ):
        seen = {value for _, labels in series for name, value in labels if name == label}
        assert len(seen) == most + 1, label
        assert "other" in seen
    calls = [count for (name, _), count in series.items() if name == "tokenhub_requests_total"]
    assert sum(calls) == 10_000


@pytest.mark.parametrize(("stream", "output", "pace"), [(True, 71, 0.01), (True, 1, None), (False, 71, None)])
def test_the_pace_is_that_of_tokens_behind_the_first(stream: bool, output: int, pace: float | None) -> None:
    """A stream's 700 ms behind its first content, for 70 more tokens; an answer in one piece has no pace."""
    metrics = Metrics()
    metrics(record(stream=stream, usage=Usage(10, output)))
    served = {"mode": "normal", "model": "m", "provider": "p"}
    name = "tokenhub_time_per_output_token_seconds_sum"
    found = read(metrics.render()).get((name, frozenset(served.items())))
    assert found == (None if pace is None else pytest.approx(pace))


def test_what_callers_were_spared_is_counted() -> None:
    """A failure behind which another attempt answered is hidden; one behind the first content is not."""
    metrics = Metrics()
    failed = Attempt(1, "m", "p", 0, 100, cause="http_500")
    moved = Attempt(2, "m", "q", 100, 900, 300, head_ms=200)
    metrics(record(stream=True, provider="q", attempts=(failed, moved)))
    torn = Attempt(1, "m", "p", 0, 900, 300, cause="truncated", head_ms=250)
    metrics(record(stream=True, outcome=Outcome.ERROR, fault="truncated", attempts=(torn,)))
    series = read(metrics.render())
    assert value(series, "tokenhub_retries_total", provider="q", kind="failover") == 1
    assert value(series, "tokenhub_hidden_failures_total", provider="p", result="http_500") == 1
    assert value(series, "tokenhub_broken_streams_total", provider="p", result="truncated") == 1
    assert value(series, "tokenhub_commit_gate_hold_seconds_sum", provider="q") == 0.1
    assert value(series, "tokenhub_commit_gate_hold_seconds_count", provider="p") == 1
    assert value(series, "tokenhub_attempt_duration_seconds_sum", provider="p", result="failed") == 1.0
    assert len([name for name, _ in series if name == "tokenhub_hidden_failures_total"]) == 1


@pytest.mark.parametrize(
    ("first", "second", "result"), [(LOST, "", "won"), ("", LOST, "lost"), ("reset", "http_500", "failed")]
)
def test_a_hedge_is_counted_by_what_became_of_it(first: str, second: str, result: str) -> None:
    """It won, it was outrun, or it failed as well; who is outrun has not failed."""
    metrics = Metrics()
    attempts = (Attempt(1, "m", "p", 0, 900, cause=first), Attempt(2, "m", "q", 500, 800, cause=second))
    metrics(record(attempts=attempts, outcome=Outcome.ERROR if result == "failed" else Outcome.OK))
    series = read(metrics.render())
    assert value(series, "tokenhub_hedges_total", provider="q", result=result) == 1
    names = {name for name, _ in series}
    assert not names & {"tokenhub_retries_total", "tokenhub_hidden_failures_total"}


def test_losses_are_counted_by_what_they_are() -> None:
    """Names of fields are the callers' choice, and no label."""
    metrics = Metrics()
    losses = ("part:audio", "thinking.signature", "top_k", "x_mine", "unsent:user")
    metrics(record(dialect=Dialect.OPENAI_CHAT, losses=losses))
    series = read(metrics.render())
    for kind, count in (("part", 1), ("thinking", 1), ("field", 2), ("unsent", 1)):
        assert value(series, "tokenhub_losses_total", dialect="openai_chat", kind=kind) == count


def test_what_parts_know_of_themselves_is_asked_for_when_somebody_looks() -> None:
    """Never before; of budgets the fullest are shown, and how many have nothing left."""
    metrics = Metrics()
    asked = []

    def readings() -> Readings:
        asked.append(1)
        used = {f"b{number}": number / 100 for number in range(101)}
        return Readings(queued=3, stored={"lost": 2}, connections={"idle": 4}, budgets=used, reserved_usd=0.5)

    metrics.ask(readings)
    metrics(record())
    assert asked == []
    series = read(metrics.render())
    assert value(series, "tokenhub_store_queue_items") == 3
    assert value(series, "tokenhub_store_items_total", result="lost") == 2
    assert value(series, "tokenhub_provider_connections", state="idle") == 4
    assert value(series, "tokenhub_budget_reserved_usd") == 0.5
    assert value(series, "tokenhub_budgets_exhausted") == 1
    assert len([name for name, _ in series if name == "tokenhub_budget_used_ratio"]) == BUDGETS
    assert ("tokenhub_budget_used_ratio", frozenset({("budget", "b0")})) not in series


class Late:
    """A clock that jumps ahead once it was looked at: something has held the loop up."""

    def __init__(self) -> None:
        self._behind = 0.0

    def monotonic(self) -> float:
        seen = asyncio.get_running_loop().time() + self._behind
        self._behind = 0.75
        return seen

    def now(self) -> float:
        raise AssertionError


def test_a_loop_that_is_held_up_is_late_by_that() -> None:
    """Of two beats the first comes round late, and the next one in time."""
    metrics = Metrics()

    async def scene() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(2.5 * BEAT):
                await beat(Late(), metrics)

    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        runner.run(scene())
    series = read(metrics.render())
    assert value(series, "tokenhub_event_loop_lag_seconds_count") == 2
    assert value(series, "tokenhub_event_loop_lag_seconds_sum") == pytest.approx(0.75)


async def ours(it: House) -> Series:
    """Return what records have counted; the gauge of health is set by a watcher, when its time comes."""
    series = read((await it.ask("GET", "/metrics")).body)
    return {
        key: number
        for key, number in series.items()
        if key[0].startswith("tokenhub_") and key[0] != "tokenhub_provider_health_state"
    }


async def test_a_call_is_counted_when_its_answer_is_here(tmp_path: Path) -> None:
    """Not later: requests, tokens and cost agree with the answer and with the record."""
    async with FakeProvider() as fake, house(tmp_path) as it:
        await it.provider(fake, "p", "gpt-4o")
        usage = (await it.chat()).json["usage"]
        series = await ours(it)
        at = {"model": "gpt-4o", "provider": "p"}
        assert value(series, "tokenhub_requests_total", **at, mode="normal", outcome="ok", lane="direct") == 1
        for direction, tokens in (("input", "prompt_tokens"), ("output", "completion_tokens")):
            assert value(series, "tokenhub_tokens_total", **at, direction=direction) == usage[tokens]
        (row,) = (await it.done("GET", "/logs"))["logs"]
        assert value(series, "tokenhub_cost_usd_total", **at) * 1e9 == row["cost_nanousd"]


async def test_the_running_parts_are_read(tmp_path: Path) -> None:
    """Connections, what was stored and the budgets are those of the call that was made."""
    async with FakeProvider() as fake, house(tmp_path) as it:
        await it.provider(fake, "p", "gpt-4o")
        body = {"owner": "all", "period": "month", "unit": "requests", "limit": 4}
        budget = (await it.done("POST", "/budgets", body))["id"]
        await it.chat()
        await it.chat()
        series = await ours(it)
        assert value(series, "tokenhub_provider_connections_opened_total") == 1
        assert value(series, "tokenhub_provider_connections_reused_total") == 1
        assert value(series, "tokenhub_provider_connections", state="idle") == 1
        assert value(series, "tokenhub_provider_connections", state="active") == 0
        assert value(series, "tokenhub_store_items_total", result="committed") >= 2
        assert value(series, "tokenhub_store_up") == 1
        assert value(series, "tokenhub_budget_used_ratio", budget=budget) == 0.5
        assert value(series, "tokenhub_vault_open") == 0


async def test_strangers_do_not_make_series(tmp_path: Path) -> None:
    """Random models, ids, programs, paths, hosts and directives: after the first few calls nothing new appears."""
    async with FakeProvider() as fake, house(tmp_path) as it:
        await it.provider(fake, "p", "gpt-4o")

        async def strange() -> None:
            word = secrets.token_hex(8)
            headers = {
                "user-agent": word,
                "x-request-id": word,
                "anthropic-version": word,
                "x-forwarded-for": word,
            }
            await it.chat(word, headers)
            await it.chat("gpt-4o", headers, user=word, metadata={"a": word})
            for directive in (f"mode={word}", f"tags={word}", f"{word}=1"):
                messages = [{"role": "user", "content": f"@@tokenhub {directive}\nHello"}]
                await it.chat("gpt-4o", headers, messages=messages)
            await it.ask("POST", f"/v1/chat/completions?{word}={word}", orjson.dumps(chat()) + b"x", headers)
            await it.ask("GET", f"/{word}", headers=headers)
            await it.ask("PUT", f"/v1/{word}", headers=headers)
            await it.ask("GET", f"/v1/models/{word}", headers=headers)

        await strange()
        before = {*await ours(it)}
        for _ in range(10):
            await strange()
        made = {*await ours(it)} - before
        # Refusals that are too many to be recorded are counted by their reasons, and those are ours.
        assert {name for name, _ in made} <= {"tokenhub_refusals_unrecorded_total"}
        assert {reason for _, labels in made for _, reason in labels} <= {"no_route", "not_found"}
        assert len(before) < 200
