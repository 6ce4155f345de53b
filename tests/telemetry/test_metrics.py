"""What is counted, and that no stranger makes it grow."""

from __future__ import annotations

import secrets
from pathlib import Path

import orjson
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.engine import chat
from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tokenhub_core import __version__
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.types import (
    Attempt,
    Caller,
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
    for outcome, fault in (
        (Outcome.ERROR, "http_500"),
        (Outcome.CANCELLED, "client_cancelled"),
        (Outcome.PASSED, ""),
    ):
        metrics(record(outcome=outcome, fault=fault))
    series = read(metrics.render())
    assert not [name for name, _ in series if name.startswith("tokenhub_request_duration")]
    assert value(series, "tokenhub_request_errors_total", fault="http_500") == 1
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
