"""Modes of hosts in both lanes of the proxy: what passes passes untouched, what is off is not opened.

The host is a site on a socket with TLS of its own, and what decides in shadow is the real pipeline.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import ssl
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard
from aiohttp import web

from tests.addon.clients import CHAT, H1, KEY, MESSAGES, OPENAI, timely, tunnel
from tests.addon.lanes import Front
from tests.addon.passed import Passing, records
from tests.fakes.engine import Bench, chat, message
from tests.fakes.watching import rules, watcher
from tokenhub_core.modes import HostMode, Match, Rule
from tokenhub_core.store.rows import record_row
from tokenhub_core.types import Alias, Json, Outcome, Record, Strategy, Target, Usage

_CHEAP = "@@tokenhub mode=cheap\nHello"
_USAGE = {"prompt_tokens": 1000, "completion_tokens": 200, "prompt_tokens_details": {"cached_tokens": 400}}
_PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "": bytes,
}
_OTHERS = {"x-stainless-lang": "python", "OpenAI-Beta": "assistants=v2", "X-Odd": "a, b"}


def _events(*data: Any) -> bytes:
    return b"".join(b"data: " + orjson.dumps(one) + b"\n\n" for one in data)


def _openai(stream: bool) -> tuple[str, bytes]:
    if not stream:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}
        told = {"id": "c1", "model": "gpt-4o", "choices": [choice], "usage": _USAGE}
        return "application/json", orjson.dumps({**told, "object": "chat.completion", "odd": [1, {}]})
    first = {"id": "c1", "model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}
    last = {"id": "c1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    body = _events(first, last, {"id": "c1", "choices": [], "usage": _USAGE})
    return "text/event-stream", body + b": odd\n\ndata: [DONE]\n\n"


def _anthropic(stream: bool) -> tuple[str, bytes]:
    usage = {"input_tokens": 600, "cache_read_input_tokens": 400, "output_tokens": 200}
    about = {"id": "m1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
    if not stream:
        told = {**about, "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"}
        return "application/json", orjson.dumps({**told, "stop_sequence": None, "usage": usage})
    text = {"type": "text_delta", "text": "Hi"}
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    named: list[Json] = [
        {"type": "message_start", "message": {**about, "content": [], "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": text},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 200}},
        {"type": "message_stop"},
    ]
    return "text/event-stream", b"".join(f"event: {one['type']}\n".encode() + _events(one) for one in named)


class _Site:
    """A host that answers with one body, and keeps what it was asked."""

    def __init__(self, kind: str, body: bytes, *, status: int = 200, encoding: str = "") -> None:
        self.kind, self.body, self.status, self.encoding = kind, body, status, encoding
        self.asked: list[tuple[dict[str, str], bytes]] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        fields = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((fields, await request.read()))
        headers = {"content-type": self.kind, "x-request-id": "theirs", "x-odd": "1"}
        if self.encoding:
            headers["content-encoding"] = self.encoding
        answer = web.StreamResponse(status=self.status, headers=headers)
        await answer.prepare(request)
        # In two pieces, cut where no event ends.
        for piece in (self.body[:37], self.body[37:]):
            await answer.write(piece)
        await answer.write_eof()
        return answer


async def _one(running: Front) -> Record:
    (record,) = await records(running)
    return record


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- shadow ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", _PACK)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_in_shadow_nothing_changes_and_the_decision_is_recorded(
    passing: Passing, dialect: str, stream: bool, encoding: str
) -> None:
    """Request and answer arrive with the hash that they were sent with; the record has plan, usage and both costs."""
    path, host, made = (
        (CHAT, OPENAI, _openai) if dialect == "openai" else (MESSAGES, "api.anthropic.com", _anthropic)
    )
    model = "gpt-4o" if dialect == "openai" else "claude-sonnet-4-5"
    pack = _PACK[encoding]
    call = chat(_CHEAP, stream=stream) if dialect == "openai" else message(_CHEAP, stream=stream)
    asked = pack(orjson.dumps({**call, "odd": {"a": [1.0, 2]}}))
    kind, body = made(stream)
    site = _Site(kind, pack(body), encoding=encoding)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **_OTHERS}
    if encoding:
        headers["Content-Encoding"] = encoding
    watching = watcher(*rules(shadow=host), engine=Bench().engine)
    async with passing(site=site, watching=watching) as running:
        async with await H1.tls(running.proxy, host) as client:
            answer = await client.ask(path, asked, headers=headers)
            record = await _one(running)
        assert running.engine is not None
        assert running.engine.snapshots == []
    ((fields, arrived),) = site.asked
    assert _digest(arrived) == _digest(asked)
    sent = {name.lower(): value for name, value in headers.items()} | {"content-length": str(len(asked))}
    assert sent.items() <= fields.items()
    assert fields.keys() == sent.keys() | {"host"}
    assert (answer.status, _digest(answer.body), answer.complete) == (200, _digest(site.body), True)
    told = {"x-request-id": "theirs", "x-odd": "1", "content-type": kind}
    assert told.items() <= answer.headers.items()
    assert not [name for name in answer.headers if name.startswith("x-tokenhub")]

    assert (record.outcome, record.status, record.fault) == (Outcome.PASSED, 200, "")
    assert (record.requested_model, record.directive, record.stream) == (model, "honoured", stream)
    assert record.usage == Usage(1000, 200, 400) if dialect == "openai" else record.usage.output_tokens == 200
    assert record.stop == "end"
    assert (record.timings.ttft_ms is not None) is stream
    shadow, plan = record.shadow, record.plan
    assert shadow is not None
    assert plan is not None
    assert plan.policy.why["mode"] == "directive"
    best = plan.candidates[0]
    assert (shadow.model, shadow.provider, shadow.fault) == (best.model.id, best.provider.id, "")
    paid = 600 * 2500 + 400 * 1250 + 200 * 10_000 if dialect == "openai" else 1000 * 3000 + 200 * 15_000
    assert (record.cost_nanousd, shadow.paid, shadow.paid_price) == (paid, paid, "models-dev")
    assert KEY not in repr(record)
    assert KEY not in repr(record_row(record))


@pytest.mark.parametrize(
    ("asked", "fault", "status"),
    [
        (chat(model="nobody", fallback=False), "", 0),
        (chat("@@tokenhub mode=chep\nHello"), "directive_invalid", 400),
        (chat("@@tokenhub budget=0.000001\nHello"), "budget_exceeded", 402),
        (b"{not json", None, 400),
        ({"messages": 7}, None, 400),
    ],
    ids=["unknown model", "malformed directive", "no candidate", "no JSON", "no call"],
)
async def test_what_we_would_have_refused_passes_all_the_same(
    passing: Passing, asked: Any, fault: str | None, status: int
) -> None:
    """The refusal is the shadow's own outcome; the call has the host's answer, and its record the host's status."""
    site = _Site(*_openai(stream=False))
    body = asked if isinstance(asked, bytes) else orjson.dumps(asked)
    watching = watcher(*rules(shadow=OPENAI), engine=Bench().engine)
    async with passing(site=site, watching=watching) as running, await H1.tls(running.proxy) as client:
        answer = await client.ask(CHAT, body)
        record = await _one(running)
    assert (answer.status, answer.body) == (200, site.body)
    assert site.asked[0][1] == body
    assert (record.outcome, record.fault) == (Outcome.PASSED, "")
    assert record.shadow is not None
    assert record.shadow.status == status
    if fault is not None:
        assert record.shadow.fault == fault


async def test_a_decision_that_breaks_does_not_touch_the_call(
    passing: Passing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any exception in ours is recorded as the shadow's, and nobody else hears of it."""
    bench = Bench()

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("tokenhub_core.preparing.decide", broken)
    site = _Site(*_openai(stream=True))
    watching = watcher(*rules(shadow=OPENAI), engine=bench.engine)
    async with passing(site=site, watching=watching) as running, await H1.tls(running.proxy) as client:
        answer = await client.ask(CHAT, orjson.dumps(chat(stream=True)))
        record = await _one(running)
    assert (answer.status, answer.body) == (200, site.body)
    assert record.shadow is not None
    assert (record.shadow.fault, record.shadow.status) == ("internal", 500)
    assert record.usage.output_tokens == 200


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
async def test_errors_of_the_host_come_back_as_they_are(passing: Passing, status: int) -> None:
    """Status, body and fields; nothing is retried, and no health moves."""
    bench = Bench()
    site = _Site("application/json", b'{"error": {"message": "no",  "odd": 1}}', status=status)
    watching = watcher(*rules(shadow=OPENAI), engine=bench.engine)
    async with passing(site=site, watching=watching) as running, await H1.tls(running.proxy) as client:
        answer = await client.ask(CHAT, orjson.dumps(chat()))
        record = await _one(running)
    assert (answer.status, answer.body, answer.headers["x-request-id"]) == (status, site.body, "theirs")
    assert len(site.asked) == 1
    assert (record.outcome, record.status, record.cost_nanousd) == (Outcome.PASSED, status, 0)
    assert record.shadow is not None
    assert (record.shadow.model, record.shadow.nanousd) == ("gpt-4o", None)
    assert bench.health.transitions() == []


async def test_a_stream_that_tells_no_usage_is_estimated_and_says_so(passing: Passing) -> None:
    """Nothing is added to the request to have it told."""
    content = {"choices": [{"index": 0, "delta": {"content": "x" * 400}}]}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
    site = _Site("text/event-stream", _events(content, end) + b"data: [DONE]\n\n")
    watching = watcher(*rules(shadow=OPENAI), engine=Bench().engine)
    async with passing(site=site, watching=watching) as running, await H1.tls(running.proxy) as client:
        body = orjson.dumps(chat(stream=True))
        await client.ask(CHAT, body)
        record = await _one(running)
    assert site.asked[0][1] == body
    assert (record.usage.output_tokens, record.usage_estimated, record.stop) == (100, True, "length")
    assert record.cost_nanousd == record.usage.input_tokens * 2500 + 100 * 10_000


async def test_shadow_takes_no_turn_and_no_money(passing: Passing) -> None:
    """A round robin has its first turn left after any number of shadows, and the ledger saw nothing."""
    targets = (Target("gpt-4o"), Target("claude-sonnet-4-5"))
    bench = Bench(aliases=[Alias("fast", targets, Strategy.ROUND_ROBIN)])
    site = _Site(*_openai(stream=False))
    watching = watcher(*rules(shadow=OPENAI), engine=bench.engine)
    async with passing(site=site, watching=watching) as running, await H1.tls(running.proxy) as client:
        for _ in range(3):
            await client.ask(CHAT, orjson.dumps(chat(model="fast")))
        kept = await records(running, 3)
    assert {(record.alias, record.variant) for record in kept} == {("fast", "gpt-4o")}
    assert (bench.ledger.reserved_nanousd, bench.ledger.spent_nanousd) == (0, 0)
    await bench.ask(chat(model="fast"))
    assert bench.recorder.one.variant == "gpt-4o"


# --- who and which -----------------------------------------------------------------------------------------


async def test_a_rule_for_one_caller_is_for_one_caller(passing: Passing) -> None:
    """Ann's calls are in shadow, everybody else's are routed."""
    site = _Site(*_openai(stream=False))
    watching = watcher(Rule(Match(user="ann"), HostMode.SHADOW), engine=Bench().engine)
    async with passing(site=site, watching=watching, proxyauth="any") as running:
        assert running.engine is not None
        for user, routed in (("ann", 0), ("bob", 1)):
            async with await H1.tls(running.proxy, auth=f"{user}:x") as client:
                await client.ask(CHAT, orjson.dumps(chat()))
            assert len(running.engine.snapshots) == routed
        record = await _one(running)
    assert record.caller.proxy_user == "ann"
    assert record.shadow is not None


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_rule_for_one_alias_is_for_one_alias(passing: Passing, chunked: bool) -> None:
    """Calls for it pass as if it did not exist, compressed ones too; others at the same host are routed."""
    bench = Bench(aliases=[Alias("fast", (Target("claude-sonnet-4-5"),)), Alias("slow", (Target("gpt-4o"),))])
    site = _Site(*_openai(stream=False))
    watching = watcher(Rule(Match(alias="fast"), HostMode.SHADOW), engine=bench.engine)
    body = gzip.compress(orjson.dumps(chat(model="fast")))
    async with passing(site=site, watching=watching) as running, await H1.tls(running.proxy) as client:
        assert running.engine is not None
        if chunked:
            await client.begin(headers={"Content-Encoding": "gzip"})
            for piece in (body[:20], body[20:], b""):
                await client.send_chunk(piece)
            assert (await client.answer()).body == site.body
        else:
            answer = await client.ask(CHAT, body, headers={"Content-Encoding": "gzip"})
            assert answer.body == site.body
        assert site.asked[0][1] == body
        for name in ("slow", "gpt-4o"):
            await client.ask(CHAT, orjson.dumps(chat(model=name)))
        assert len(running.engine.snapshots) == 2
        record = await _one(running)
    assert (record.alias, record.variant) == ("fast", "claude-sonnet-4-5")
    assert record.shadow is not None
    assert record.shadow.model == "claude-sonnet-4-5"


async def test_the_alias_wins_over_the_caller_and_the_caller_over_the_host(passing: Passing) -> None:
    """Each more specific rule turns the one below it over."""
    bench = Bench(aliases=[Alias("fast", (Target("gpt-4o"),))])
    watching = watcher(
        Rule(Match(OPENAI), HostMode.OBSERVE),
        Rule(Match(user="ann"), HostMode.ROUTE),
        Rule(Match(alias="fast"), HostMode.SHADOW),
        engine=bench.engine,
    )
    site = _Site(*_openai(stream=False))
    async with passing(site=site, watching=watching, proxyauth="any") as running:
        assert running.engine is not None
        for user, model in (("bob", "gpt-4o"), ("ann", "gpt-4o"), ("ann", "fast"), ("bob", "fast")):
            async with await H1.tls(running.proxy, auth=f"{user}:x") as client:
                await client.ask(CHAT, orjson.dumps(chat(model=model)))
        kept = await records(running, 3)
        assert len(running.engine.snapshots) == 1
        assert running.engine.snapshots[0].caller.proxy_user == "ann"
    assert [record.shadow is not None for record in kept] == [False, True, True]


# --- observe -----------------------------------------------------------------------------------------------


async def test_what_is_observed_passes_with_its_usage_and_no_decision(passing: Passing) -> None:
    """Metered and priced like everything that passes."""
    bench = Bench()
    site = _Site(*_openai(stream=False))
    watching = watcher(*rules(observe=OPENAI), engine=bench.engine)
    asked = orjson.dumps(chat(_CHEAP))
    async with passing(site=site, watching=watching) as running, await H1.tls(running.proxy) as client:
        answer = await client.ask(CHAT, asked, headers={"Authorization": f"Bearer {KEY}"})
        record = await _one(running)
        assert running.engine is not None
        assert running.engine.snapshots == []
    assert answer.body == site.body
    assert site.asked[0][1] == asked
    assert (record.plan, record.shadow, record.directive, record.attempts) == (None, None, "", ())
    assert (record.outcome, record.model, record.usage) == (Outcome.PASSED, "gpt-4o", Usage(1000, 200, 400))
    assert record.cost_nanousd == 600 * 2500 + 400 * 1250 + 200 * 10_000


@pytest.mark.parametrize(("mode", "status"), [("route", 426), ("shadow", 101), ("observe", 101)])
async def test_a_websocket_for_calls_is_refused_only_where_calls_are_routed(
    passing: Passing, mode: str, status: int
) -> None:
    """What changes nothing does not send a client back to HTTP either."""

    async def site(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        return socket

    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    watching = watcher(*rules(**{mode: OPENAI}))
    async with passing(site=site, watching=watching) as running, await H1.tls(running.proxy) as client:
        await client.send("/v1/responses", b"", method="GET", headers=headers)
        assert (await client.head()).status == status


# --- off ---------------------------------------------------------------------------------------------------


async def test_what_is_off_is_not_opened_and_counted(passing: Passing, tmp_path: Path) -> None:
    """The client sees the host's own certificate and no record is made; other hosts are opened as ever."""
    counted: Counter[str] = Counter()
    site = _Site(*_openai(stream=False))
    watching = watcher(*rules(off=OPENAI), tunnelled=lambda host: counted.update([host]))
    async with passing(site=site, watching=watching) as running:
        trust = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        trust.check_hostname = False
        reader, writer = await tunnel(running.proxy, OPENAI)
        await timely(writer.start_tls(trust, server_hostname=OPENAI))
        theirs = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        async with H1(reader, writer, OPENAI) as client:
            answer = await client.ask(CHAT, orjson.dumps(chat()))
        assert answer.body == site.body
        assert b"provider" in theirs
        assert running.upstream.dials == [(OPENAI, 443)]
        assert counted == {OPENAI: 1}
        async with await H1.tls(running.proxy, "api.anthropic.com") as client:
            assert (await client.ask(MESSAGES, b"{}")).status == 200
        assert running.engine is not None
        assert len(running.engine.snapshots) == 1
        await asyncio.sleep(0)
        assert running.recorder.records == []
    assert counted == {OPENAI: 1}


async def test_what_is_off_is_fenced_like_any_other_host(passing: Passing) -> None:
    """A tunnel to a private address is refused, whatever it is called."""
    watching = watcher(*rules(off="localhost"))
    options = {"tokenhub_extra_hosts": ["localhost=openai_chat"]}
    async with passing(watching=watching, **options) as running:
        async with await H1.plain(running.proxy, "unused") as client:
            client.writer.write(b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n")
            assert (await client.head()).status == 403
        assert running.upstream.dials == []
