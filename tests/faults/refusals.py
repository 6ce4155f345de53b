"""F16 to F23 and F28: what providers say instead of an answer, and what each word of it means."""

from __future__ import annotations

import time
from dataclasses import replace
from email.utils import formatdate
from typing import Any, Final

from tests.faults import off
from tests.faults.case import Case, Lab
from tests.faults.world import Turn, World
from tokenhub_core.admission import parking
from tokenhub_core.dispatch import classify
from tokenhub_core.health.tracker import HealthTracker, State
from tokenhub_core.providers.transport import HttpTransport


def _cooling(it: World, provider: str) -> float:
    means = it.executor.means
    return means.keyring.state(provider, "default", now=means.clock.monotonic()).cooling


def _parked(it: World, provider: str) -> bool:
    means = it.executor.means
    return bool(means.keyring.state(provider, "default", now=means.clock.monotonic()).parked)


def untouched(turn: Turn) -> None:
    """Nothing is held against the health of either provider."""
    means = turn.world.executor.means
    seen = means.health.snapshot(means.clock.monotonic())
    for name in turn.providers:
        if name in seen:
            assert (seen[name].state, seen[name].consecutive_errors) == (State.HEALTHY, 0), seen[name]


_WAITS: Final = (
    ("retry-after=7", (5.0, 7.1)),
    ("retry-after={date+9}", (6.0, 9.5)),
    ("retry-after={date-60}", (0.0, 0.0)),
    ("retry-after=-5", (0.0, 0.0)),
    ("retry-after=1e9", (3590.0, 3600.1)),
    ("retry-after=soon", (0.0, 1.1)),
    ("", (0.0, 1.1)),
    ("retry-after-ms=2500", (1.0, 2.6)),
    ("retry-after=99999999999999999999999999", (3590.0, 3600.1)),
)


async def _told_to_wait(turn: Turn) -> None:
    field, (least, most) = _WAITS[turn.number % len(_WAITS)]
    field = field.replace("{date+9}", formatdate(time.time() + 9, usegmt=True))
    field = field.replace("{date-60}", formatdate(time.time() - 60, usegmt=True))
    turn.meets(f"with:{field}")
    got = await turn.call()
    turn.whole(got)
    first = turn.providers[0 if turn.first is turn.slot.first else 1]
    assert least <= _cooling(turn.world, first) <= most, (field, _cooling(turn.world, first))
    untouched(turn)


_SPENT: Final = {
    "anthropic": (
        '{"type":"error","error":{"type":"rate_limit_error","message":"You have reached your spend limit",'
        '"code":"enforced_spend_limit_reached","details":{"error_code":"enforced_spend_limit_reached"}}}'
    ),
    "openai": '{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}',
}


async def _left_alone(turn: Turn) -> None:
    """A call is answered; the next one too, by the other provider, and who refused the first is not asked."""
    turn.whole(await turn.call())
    before = len(turn.first.requests)
    turn.whole(await turn.call(), turn.spare)
    assert len(turn.first.requests) == before, "it was asked again"


async def _spent(turn: Turn) -> None:
    """The first call finds out, and the second one does not ask there again."""
    speaks = "openai" if turn.speaks == "gemini" else turn.speaks
    turn = replace(turn, speaks=speaks, spare_speaks=speaks)
    turn.meets(f"said:429:{_SPENT[turn.speaks]}")
    await _left_alone(turn)
    assert any(_parked(turn.world, name) for name in turn.providers)
    untouched(turn)


async def _overloaded(turn: Turn) -> None:
    turn.meets(("529", "503")[turn.number % 2])
    got = await turn.call()
    turn.whole(got)
    (first, _) = (await turn.record(got))["attempts"]
    assert first["blame"] == "provider", first
    asked = turn.providers[0 if turn.first is turn.slot.first else 1]
    assert _cooling(turn.world, asked) == 0, "somebody else's load is not our limit"
    means = turn.world.executor.means
    assert means.health.snapshot(means.clock.monotonic())[asked].error_rate > 0


async def _refused_key(turn: Turn) -> None:
    """That credential rests; neither the health of its provider nor the caller hears of it."""
    status = (401, 403)[turn.number % 2]
    message = f'{{"error":{{"message":"Incorrect API key provided: sk-canary-lab","code":{status}}}}}'
    turn.meets(f"said:{status}:{message}")
    await _left_alone(turn)
    untouched(turn)
    for fake in (turn.first, turn.spare):
        fake.script("*", [f"said:{status}:{message}"])
    last = await turn.call()
    assert b"sk-canary" not in last.body + repr(last.headers).encode()


async def _too_large(turn: Turn) -> None:
    turn.meets(
        ("page:413", 'said:413:{"error":{"message":"too large","code":"request_too_large"}}')[turn.number % 2]
    )
    got = await turn.call()
    got.refused(413)
    assert b"<html" not in got.body
    assert turn.asked == 1
    untouched(turn)


async def _overflowing(lab: Lab, n: int) -> None:
    """The small model says that it is too much: the large one answers, another small one is not asked."""
    it = await lab.world()
    slot = it.slots[0]
    for what, size in (("first", 4_000), ("spare", 200_000)):
        body = {"id": "long", "provider_id": f"{what}0-openai", "max_context_tokens": size}
        price = 0.001 if what == "first" else 0.01
        await it.admin("POST", "/models", {**body, "input_per_1k": price, "output_per_1k": price})
    body = {"id": "long", "provider_id": "first1-openai", "max_context_tokens": 4_000}
    await it.admin("POST", "/models", {**body, "input_per_1k": 0.002, "output_per_1k": 0.002})
    for number in range(n):
        turn = it.turn(number * len(it.slots), apart=True, speaks="openai", spare_speaks="openai")
        other = it.turn(number * len(it.slots) + 1, apart=True, speaks="openai")
        # Which of the small ones is asked first is the router's choice, by what it has learned of them.
        small = (slot.first, other.slot.first)
        for fake in small:
            fake.script("*", ["overflow"])
        got = await turn.call(model="long")
        turn.whole(got, slot.spare)
        assert sum(len(fake.requests) for fake in small) == 1, "another small one was asked"
        untouched(turn)
        untouched(other)
    it.slots[1].fresh(apart=True)
    for owner in ("first0-openai", "spare0-openai", "first1-openai"):
        await it.admin("DELETE", f"/models/long?provider={owner}")


async def _filtered(turn: Turn) -> None:
    """Said, paid, and nobody else is asked whether it would say more."""
    if turn.number % 3 == 2:
        body = '{"error":{"message":"The response was filtered","code":"content_filter"}}'
        turn.meets(f"said:400:{body}")
        got = await turn.call()
        got.refused(400)
    else:
        turn.meets(("finish:refusal", "finish:filter")[turn.number % 2])
        got = await turn.call()
        assert got.status == 200, got.body[:300]
        record = await turn.record(got)
        assert (record["outcome"], record["cost_nanousd"] > 0) == ("ok", True), record["outcome"]
    assert turn.asked == 1
    untouched(turn)


async def _moved(lab: Lab, n: int) -> None:
    """The address that it names is never asked, least of all with a credential."""
    it = await lab.world()
    target = it.slots[1].spare
    target.requests.clear()

    async def play(turn: Turn) -> None:
        status = (301, 302, 307, 308)[turn.number % 4]
        turn.meets(f"moved:{status}:{target.url}/v1/chat/completions")
        got = await turn.call()
        turn.whole(got)

    for number in range(n):
        await play(it.turn(number * len(it.slots)))
    assert target.requests == [], "it was followed"


_send = HttpTransport.send


async def _following(self: HttpTransport, request: Any, timeouts: Any) -> Any:
    response = await _send(self, request, timeouts)
    location = dict(response.headers).get("location")
    if 300 <= response.status < 400 and location:
        await response.close()
        request = type(request)(
            **{**{f: getattr(request, f) for f in request.__struct_fields__}, "url": location}
        )
        return await _send(self, request, timeouts)
    return response


def _blaming(
    self: HealthTracker, provider: str, fault: Any, now: float, *, started: float | None = None
) -> None:
    """Count whatever it was."""
    self._count(provider, fault, now, started)


CASES: Final = (
    Case(
        "F16",
        "429 with a Retry-After: seconds, dates, the past, negative, absurd, garbage, none",
        "the credential rests for just that long, an hour at most; garbage counts as nothing",
        "one reader of Retry-After with bounds",
        "the field is not read",
        lambda lab, n: lab.turns(n, _told_to_wait),
        off.patched(classify, "parse_retry_after", off.returning(None)),
        n=54,
        red=9,
        quick=True,
    ),
    Case(
        "F17",
        "429 that means that the money is spent",
        "not tried again there: the credential is parked, and the health of its provider untouched",
        "parking of credentials",
        "nothing parks",
        lambda lab, n: lab.turns(n, _spent),
        off.patched(parking, "sentence", off.returning(None)),
        quick=True,
    ),
    Case(
        "F18",
        "529 and 503: the provider has too much to do",
        "another one answers; the provider's health hears of it, our limit there does not",
        "overload is told from our own limits",
        "the first failure ends the call",
        lambda lab, n: lab.turns(n, _overloaded),
        off.no_failover,
    ),
    Case(
        "F20",
        "401 and 403 with the credential in its message",
        "that credential is parked, another provider answers, and the key stands in no answer",
        "parking of credentials, and words without keys",
        "nothing parks",
        lambda lab, n: lab.turns(n, _refused_key),
        off.patched(parking, "sentence", off.returning(None)),
    ),
    Case(
        "F21",
        "413, as JSON and as a page of somebody in front",
        "413 in the caller's dialect after one attempt",
        "what the caller got wrong stays with the caller",
        "whatever it was, somebody else is asked",
        lambda lab, n: lab.turns(n, _too_large),
        off.always_failover,
    ),
    Case(
        "F22",
        "the context is exceeded",
        "only a model with a larger one is asked, and nobody's health is touched",
        "the blame is decided once, and callers' faults move no health",
        "every fault counts against its provider",
        _overflowing,
        off.patched(HealthTracker, "failed", _blaming),
    ),
    Case(
        "F23",
        "the provider refuses or filters",
        "it is told and paid; nobody else is asked, and nobody's health is touched",
        "a refusal stays with the caller",
        "whatever it was, somebody else is asked",
        lambda lab, n: lab.turns(n, _filtered),
        off.always_failover,
        n=30,
        quick=True,
    ),
    Case(
        "F28",
        "a redirect to another host",
        "it is an error of the provider: the address is never asked",
        "redirects are not followed",
        "the transport follows them",
        _moved,
        off.patched(HttpTransport, "send", _following),
    ),
)
