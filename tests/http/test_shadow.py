"""Modes over the admin API, what they are worth after a restart, and the report of what was in shadow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tokenhub_core.errors import ConfigError
from tokenhub_core.modes import HostMode
from tokenhub_core.routing.recompute import recompute
from tokenhub_core.types import Caller, Dialect, Json, Origin, Outcome, Record, Snapshot, Terms, Timings
from tokenhub_core.watching import Watch

HOST = "api.openai.com"


async def test_a_mode_is_set_shown_and_cleared(it: House) -> None:
    """The most specific one first; what is cleared a second time is not there."""
    for body in ({"mode": "observe"}, {"host": HOST, "mode": "shadow"}, {"user": "ann", "mode": "route"}):
        told = await it.done("PUT", "/modes", body)
        assert told == {"host": "*", "user": "", "alias": "", "source": "stored", **body}
    modes = (await it.done("GET", "/modes"))["items"]
    assert [(one["host"], one["user"], one["mode"]) for one in modes] == [
        ("*", "ann", "route"),
        (HOST, "", "shadow"),
        ("*", "", "observe"),
    ]
    assert it.app.watcher.modes().of(HOST, "bob") is HostMode.SHADOW
    await it.done("DELETE", f"/modes?host={HOST}")
    assert it.app.watcher.modes().of(HOST, "bob") is HostMode.OBSERVE
    assert (await it.admin("DELETE", f"/modes?host={HOST}")).status == 404


@pytest.mark.parametrize(
    "body",
    [
        {"mode": "loud"},
        {"host": HOST},
        {"host": "elsewhere.example", "mode": "shadow"},
        {"user": "ann", "mode": "off"},
        {"alias": "none", "mode": "shadow"},
        {"alias": "*", "mode": "shadow"},
        {"mode": "shadow", "odd": 1},
    ],
)
async def test_a_mode_that_makes_no_sense_is_a_400(it: House, body: Json) -> None:
    """With what is wrong; nothing is stored."""
    refused = await it.admin("PUT", "/modes", body)
    assert refused.status == 400
    assert refused.fault["message"]
    assert (await it.done("GET", "/modes"))["total"] == 0


async def test_modes_outlive_a_restart_and_win_over_settings(tmp_path: Path) -> None:
    """And when they are cleared the setting holds again."""
    settings = {"HOST_MODES": f"{HOST}=observe,*=shadow"}
    async with house(tmp_path, settings=settings) as it:
        await it.done("PUT", "/modes", {"host": HOST, "mode": "off"})
    async with house(tmp_path, settings=settings) as it:
        sources = [
            (one["host"], one["mode"], one["source"]) for one in (await it.done("GET", "/modes"))["items"]
        ]
        assert sources == [(HOST, "off", "stored"), ("*", "shadow", "setting")]
        await it.done("DELETE", f"/modes?host={HOST}")
        assert it.app.watcher.modes().of(HOST) is HostMode.OBSERVE


@pytest.mark.parametrize("modes", ["api.openai.com", "api.openai.com=loud", "elsewhere.example=shadow"])
async def test_a_setting_that_makes_no_sense_does_not_start(tmp_path: Path, modes: str) -> None:
    """One line says which."""
    with pytest.raises(ConfigError, match=modes.partition("=")[0]):
        async with house(tmp_path, settings={"HOST_MODES": modes}):
            pass


@pytest.mark.parametrize("origin", ["true", "false"])
async def test_modes_are_warned_of_where_nothing_may_pass(tmp_path: Path, origin: str) -> None:
    """What is left alone has nowhere to go then."""
    async with house(tmp_path, settings={"HOST_MODES": "*=shadow", "ORIGIN": origin}) as it:
        assert any("modes" in warning for warning in it.app.warnings) is (origin == "false")


async def test_an_alias_in_shadow_does_not_exist_for_calls_that_are_routed(
    it: House, fake: FakeProvider
) -> None:
    """Asked for directly or in a directive: there is no host here that the call could be left to."""
    await it.provider(fake, "p", "a", "b")
    await it.done("POST", "/aliases", {"name": "fast", "variants": [{"model_id": "a"}]})
    assert (await it.chat("fast")).status == 200
    await it.done("PUT", "/modes", {"alias": "fast", "mode": "shadow"})
    assert (await it.chat("fast")).status == 404
    wish = [{"role": "user", "content": "@@tokenhub model=fast\nHi"}]
    assert (await it.chat("b", messages=wish)).status == 404
    await it.done("DELETE", "/modes?alias=fast")
    assert (await it.chat("fast")).header("x-tokenhub-alias") == "fast"


def passed(it: House, name: str, body: bytes, user: str = "", usage: int = 1000) -> Record:
    """Return the record of a call that passed in shadow, by the application's own watcher."""
    snapshot = Snapshot(
        name,
        "POST",
        "/v1/chat/completions",
        (),
        b"",
        1.0,
        0.0,
        Dialect.OPENAI_CHAT,
        Origin("https", HOST, 443),
        Caller(proxy_user=user),
    )
    watch = Watch(snapshot, watcher=it.app.watcher, shadow=True)
    watch.ask(body)
    watch.decide()
    watch.begin(200, (("content-type", "application/json"),))
    told = b'{"model": "gpt-4o", "usage": {"prompt_tokens": %d, "completion_tokens": 100}}' % usage
    watch.feed(told)
    return watch.told(
        Record(
            id=name,
            at=1_000.0,
            outcome=Outcome.PASSED,
            status=200,
            caller=snapshot.caller,
            method="POST",
            path=snapshot.path,
            dialect=snapshot.dialect,
            origin_host=HOST,
            timings=Timings(total_ms=500.0),
        )
    )


CHEAP = (
    b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "@@tokenhub mode=cheap\\nHi"}], "seed": 1}'
)
PLAIN = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}'
DEAR = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "@@tokenhub budget=0.000001\\nHi"}]}'


async def _filled(it: House, fake: FakeProvider, count: int = 32) -> None:
    """Store calls in shadow: `count` that would have moved, one that would have stayed, one refused."""
    await it.done(
        "POST", "/providers", {"id": "p", "base_url": fake.url, "cred_store": "memory", "api_key": "k"}
    )
    prices = {"input_per_1k": 0.0001, "output_per_1k": 0.0004}
    await it.done("POST", "/models", {"id": "mini", "provider_id": "p", **prices})
    for n in range(count):
        await it.app.recorder.commit(passed(it, f"m{n}", CHEAP, "ann", usage=1000 + n))
    await it.app.recorder.commit(passed(it, "stay", PLAIN, "bob"))
    await it.app.recorder.commit(passed(it, "refused", DEAR, "bob"))


async def test_the_report_says_what_would_have_been_saved(tmp_path: Path, fake: FakeProvider) -> None:
    """From real records in a real store: pairs, mix, refusals, price sources."""
    async with house(tmp_path, settings={"ORIGIN": "true"}) as it:
        await _filled(it, fake)
        told = await it.done("GET", "/shadow/report")
        ann = await it.done("GET", f"/shadow/report?host={HOST}&user=ann")
        nobody = await it.done("GET", "/shadow/report?user=eve")
        metrics = (await it.ask("GET", "/metrics")).body.decode()
    assert (told["calls"], told["compared"], told["unchanged"], told["complete"]) == (34, 33, 1, True)
    (refusal,) = told["refusals"]
    assert (refusal["fault"], refusal["status"], refusal["calls"]) == ("budget_exceeded", 402, 1)
    assert {(one["model"], one["provider"], one["calls"]) for one in told["models"]} == {
        ("mini", "p", 32),
        ("gpt-4o", f"origin:{HOST}", 1),
    }
    tokens = sum(1000 + n for n in range(32))
    paid, would = tokens * 2500 + 32 * 100 * 10_000, tokens * 100 + 32 * 100 * 400
    assert ann["cost"]["paid"] == pytest.approx(paid / 1e9)
    assert ann["cost"]["would"] == pytest.approx(would / 1e9)
    each = ann["cost"]["saved_each"]
    assert each["low"] < each["value"] < each["high"]
    assert (told["paid_prices"], told["would_prices"]) == (
        {"models-dev": 33},
        {"manual": 32, "models-dev": 1},
    )
    assert told["assumptions"]
    assert (nobody["calls"], nobody["cost"]) == (0, None)
    assert 'tokenhub_shadow_calls_total{decision="move"} 32.0' in metrics
    assert 'tokenhub_shadow_calls_total{decision="stay"} 1.0' in metrics
    assert 'tokenhub_shadow_calls_total{decision="refuse"} 1.0' in metrics
    assert "tokenhub_attempts_total{" not in metrics
    assert "tokenhub_provider_skips_total{" not in metrics
    assert "tokenhub_directives_total{" not in metrics


async def test_a_report_of_a_wrong_time_is_refused(it: House) -> None:
    """Like that of an alias."""
    assert (await it.admin("GET", "/shadow/report?since=yesterday")).status == 400


async def test_a_shadow_does_not_count_for_its_alias(tmp_path: Path, fake: FakeProvider) -> None:
    """The alias stood for nothing; the report of shadows can be cut down to it."""
    async with house(tmp_path, settings={"ORIGIN": "true"}) as it:
        await it.provider(fake, "p", "a")
        await it.done("POST", "/aliases", {"name": "fast", "variants": [{"model_id": "a"}]})
        body = PLAIN.replace(b"gpt-4o", b"fast")
        await it.app.recorder.commit(passed(it, "one", body))
        assert (await it.done("GET", "/aliases/fast/report"))["requests"] == 0
        assert (await it.done("GET", "/shadow/report?alias=fast"))["calls"] == 1
        assert (await it.done("GET", "/shadow/report?alias=slow"))["calls"] == 0


async def test_the_decision_of_a_shadow_can_be_explained_and_made_again(
    tmp_path: Path, fake: FakeProvider
) -> None:
    """Bit for bit, like that of a call that was routed."""
    async with house(tmp_path, settings={"ORIGIN": "true"}) as it:
        await _filled(it, fake, count=1)
        told = await it.done("GET", "/decisions/m0")
        row = it.app.requests.get("m0")
    assert (told["outcome"], told["shadow"]["model"], told["asked"]["directive"]) == (
        "passed",
        "mini",
        "honoured",
    )
    assert row is not None
    again = recompute(row["decision"])
    assert [(one.model.id, one.provider.id, one.score, one.terms) for one in again.candidates] == [
        (one["model"], one["provider"], one["score"], Terms(**one["terms"])) for one in told["candidates"]
    ]
    assert again.candidates[0].model.id == "mini"
