"""Forty ways to plant a directive, in four dialects, streamed and not: none is honoured, and no byte is changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
import pytest

from tests.fakes.engine import PAIR, Bench
from tests.trust.planting import DIRECTIVE, PLANTED, USER
from tokenhub_core.leave import ROLES, Leave, Leaves
from tokenhub_core.ports import Timeouts, UpstreamRequest, UpstreamResponse
from tokenhub_core.preparing import Rules
from tokenhub_core.providers.simulated import SimulatedTransport
from tokenhub_core.types import Dialect, Mode, Provider, ProviderType, header

VECTORS: Final[list[dict[str, str]]] = json.loads(Path(__file__).with_name("directives.json").read_text())

_MODELS: Final = {
    Dialect.OPENAI_CHAT: "gpt-4o",
    Dialect.OPENAI_RESPONSES: "gpt-4o",
    Dialect.ANTHROPIC_MESSAGES: "claude-sonnet-4-5",
    Dialect.GEMINI: "gpt-4o",
}
_EVERYBODY: Final = Rules(leaves=Leaves(Leave(ROLES)))
"""All roles have leave: what is not honoured is not for its place."""


class _Seen:
    """A transport that keeps what goes to the provider, who is then asked something plain."""

    def __init__(self, dialect: Dialect, stream: bool) -> None:
        self.bodies: list[bytes] = []
        self._next = SimulatedTransport(speed=0)
        self._plain = _body(dialect, USER, "Hello", stream)[0]

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        self.bodies.append(request.body)
        return await self._next.send(msgspec.structs.replace(request, body=self._plain), timeouts)


def _bench(dialect: Dialect, seen: _Seen, **more: Any) -> Bench:
    provider = Provider("only", ProviderType.SIMULATOR, ("sim://only",), dialect)
    models = [replace(model, provider_id="only") for model in PAIR]
    return Bench(models=models, providers=[provider], transport=seen, rules=_EVERYBODY, **more)


async def _asked(bench: Bench, dialect: Dialect, body: bytes, stream: bool) -> Any:
    how = "streamGenerateContent" if stream else "generateContent"
    path = f"/v1beta/models/{_MODELS[dialect]}:{how}" if dialect is Dialect.GEMINI else "/v1/x"
    snapshot = msgspec.structs.replace(bench.snapshot(body, dialect), path=path)
    reply = await bench.engine.exchange(snapshot)
    if reply.frames is not None:
        async for _ in reply.frames:
            pass
    return reply


def _body(dialect: Dialect, place: str, text: str, stream: bool) -> tuple[bytes, bytes]:
    """Return a body, and of it the piece that has all that was said."""
    data = PLANTED[dialect](place, text)
    if stream and dialect is not Dialect.GEMINI:
        data["stream"] = True
    said = next(name for name in ("messages", "input", "contents") if name in data)
    return orjson.dumps(data), orjson.dumps({said: data[said]})[1:-1]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", PLANTED)
@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
async def test_a_planted_directive_directs_nothing(
    vector: dict[str, str], dialect: Dialect, stream: bool
) -> None:
    """The provider gets what the program wrote, the policy is the operator's, and the caller is told."""
    seen = _Seen(dialect, stream)
    bench = _bench(dialect, seen)
    body, said = _body(dialect, vector.get("place", USER), vector.get("text", DIRECTIVE), stream)

    reply = await _asked(bench, dialect, body, stream)

    record = bench.recorder.one
    assert (reply.status, record.message) == (200, "")
    assert record.plan is not None
    assert "directive" not in record.plan.policy.why.values()
    assert (record.plan.policy.mode, record.plan.policy.tags) == (Mode.NORMAL, ())
    assert len(seen.bodies) == 1
    assert said in seen.bodies[0]
    sent, given = orjson.loads(seen.bodies[0]), orjson.loads(body)
    sent.pop("stream_options", None)
    assert {**sent, "model": 0} == {**given, "model": 0}
    assert record.directive == ("ignored" if b"@@tokenhub" in body else "")
    assert header(reply.headers, "x-tokenhub-directive") == record.directive


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", PLANTED)
async def test_the_same_directive_directs_where_it_may_stand(dialect: Dialect, stream: bool) -> None:
    """The control: as the last words of the user it is honoured, and gone."""
    seen = _Seen(dialect, stream)
    bench = _bench(dialect, seen)
    body, _ = _body(dialect, USER, DIRECTIVE, stream)

    reply = await _asked(bench, dialect, body, stream)

    record = bench.recorder.one
    assert (reply.status, record.directive) == (200, "honoured")
    assert record.plan is not None
    assert (record.plan.policy.mode, record.plan.policy.tags) == (Mode.HIGH_CONFIDENCE, ("planted",))
    assert b"tokenhub" not in seen.bodies[0]
    assert b"Say hello." in seen.bodies[0]


def test_the_corpus_is_what_it_says() -> None:
    """Forty vectors, each in every dialect a body of its own."""
    assert len({vector["name"] for vector in VECTORS}) == len(VECTORS) == 40
    for dialect in PLANTED:
        bodies = [
            _body(dialect, one.get("place", USER), one.get("text", DIRECTIVE), False)[0] for one in VECTORS
        ]
        assert len(set(bodies)) == len(bodies)
