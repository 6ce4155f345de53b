"""What a directive may do: the operator, the host, the key, and what text may choose within them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.engine import Bench, chat
from tokenhub_core.errors import ConfigError
from tokenhub_core.leave import NAMES, ROLES, STEPS, Leave, Leaves, by_host, granted
from tokenhub_core.preparing import Rules
from tokenhub_core.types import ApiKey, Caller, Mode, Origin, Trust, header

FREE = ApiKey(id="k1", models=("*",), providers=("*",))


def trusting(**trust: Any) -> ApiKey:
    return msgspec.structs.replace(FREE, trust=Trust(**trust))


async def asked(text: str, *, key: ApiKey | None = None, **how: Any) -> tuple[str, Any]:
    """Return what a call is told of its directive, and its policy."""
    host, leaves = how.pop("host", ""), how.pop("leaves", Leaves())
    bench = Bench(rules=Rules(leaves=leaves, origin=False), **how)
    origin = Origin("https", host, 443) if host else None
    snapshot = msgspec.structs.replace(bench.snapshot(chat(text), origin=origin), caller=Caller(key=key))
    reply = await bench.engine.exchange(snapshot)
    record = bench.recorder.one
    told = header(reply.headers, "x-tokenhub-directive")
    assert told.partition(";")[0] == record.directive
    return told, record.plan.policy if record.plan else None


# --- text narrows, and nothing else ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "defaults", "told", "left"),
    [
        ("budget=0.4", {"max_budget_usd": 0.5}, "honoured", ("max_budget_usd", 0.4)),
        ("budget=0.5", {"max_budget_usd": 0.5}, "honoured", ("max_budget_usd", 0.5)),
        ("budget=0.6", {"max_budget_usd": 0.5}, "denied; budget", ("max_budget_usd", 0.5)),
        ("budget=none", {"max_budget_usd": 0.5}, "denied; budget", ("max_budget_usd", 0.5)),
        ("budget=none", {}, "honoured", ("max_budget_usd", None)),
        ("budget=50", {}, "honoured", ("max_budget_usd", 50.0)),
        ("latency=9000", {"max_latency_ms": 9000}, "honoured", ("max_latency_ms", 9000)),
        ("latency=9001", {"max_latency_ms": 9000}, "denied; latency", ("max_latency_ms", 9000)),
        ("latency=none", {"max_latency_ms": 9000}, "denied; latency", ("max_latency_ms", 9000)),
        ("min_weight=5", {"min_weight": 5}, "honoured", ("min_weight", 5)),
        ("min_weight=4", {"min_weight": 5}, "denied; min_weight", ("min_weight", 5)),
        ("min_weight=0", {}, "honoured", ("min_weight", 0)),
        ("validate=off", {"validate": True}, "denied; validate", ("validate", True)),
        ("validate=on", {"validate": True}, "honoured", ("validate", True)),
        ("strip_think=off", {"strip_think": True}, "denied; strip_think", ("strip_think", True)),
        ("strip_think=off", {}, "honoured", ("strip_think", False)),
        ("buffered=off", {"buffered": True}, "denied; buffered", ("buffered", True)),
        ("resume=off", {"resume": True}, "denied; resume", ("resume", True)),
        ("resume=on", {}, "honoured", ("resume", True)),
    ],
)
async def test_text_never_widens_what_the_operator_set(
    wish: str, defaults: dict[str, Any], told: str, left: tuple[str, Any]
) -> None:
    """Lower is honoured, higher is denied, and the caller is told which."""
    said, policy = await asked(f"@@tokenhub {wish}\nHi", defaults=defaults)
    assert (said, getattr(policy, left[0])) == (told, left[1])


async def test_what_is_allowed_of_a_directive_holds() -> None:
    """The rest of it is told, and the whole of it leaves the text."""
    said, policy = await asked(
        "@@tokenhub mode=cheap budget=9 latency=none\nHi",
        defaults={"max_budget_usd": 0.5, "max_latency_ms": 9000},
    )
    assert said == "honoured; denied=budget,latency"
    assert (policy.mode, policy.max_budget_usd, policy.max_latency_ms) == (Mode.CHEAP, 0.5, 9000)


_VALUES = {
    "mode": st.sampled_from(list(Mode)),
    "max_budget_usd": st.none() | st.floats(0, 100),
    "max_latency_ms": st.none() | st.integers(1, 3_600_000),
    "min_weight": st.integers(0, 10),
    "model": st.sampled_from(["*", "a", "b/c"]),
    "provider": st.sampled_from(["a", "b"]),
    "tags": st.just(("a",)),
}
_WISHES = st.fixed_dictionaries({}, optional=_VALUES)
_LIMITS = st.fixed_dictionaries(
    {}, optional={name: _VALUES[name] for name in ("max_budget_usd", "max_latency_ms", "min_weight")}
)
_LEAVES = st.builds(
    Leave,
    names=st.none() | st.frozensets(st.sampled_from(list(NAMES.values()))),
    max_budget_usd=_VALUES["max_budget_usd"],
    max_latency_ms=_VALUES["max_latency_ms"],
    models=st.sampled_from([("*",), ("a",), ("b/*",), ()]),
    providers=st.sampled_from([("*",), ("a",), ()]),
)


@given(_WISHES, _LEAVES, _LIMITS)
def test_nothing_that_is_granted_is_wider_than_anybody_allows(
    wishes: dict[str, Any], leave: Leave, limits: dict[str, Any]
) -> None:
    """Whatever is asked for, by whom, under which policy; and every wish is granted or told."""
    kept, denied = granted(wishes, leave, limits)
    assert {NAMES[name] for name in kept} | set(denied) == {NAMES[name] for name in wishes}
    assert {NAMES[name] for name in kept}.isdisjoint(denied)
    assert leave.names is None or {NAMES[name] for name in kept} <= leave.names
    for name in ("max_budget_usd", "max_latency_ms"):
        for bound in (limits.get(name), getattr(leave, name)):
            assert name not in kept or bound is None or (kept[name] is not None and kept[name] <= bound)
    assert kept.get("min_weight", 10) >= limits.get("min_weight", 0)
    assert kept.get("model", "*") in {"*", "a", "b/c"} if leave.models == ("*",) else kept.get("model") != "c"
    if leave.models == ():
        assert kept.get("model", "*") == "*"
    if leave.providers == ("a",):
        assert kept.get("provider", "a") == "a"


# --- keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "wish", "told"),
    [
        (FREE, "mode=cheap", "honoured"),
        (trusting(roles=frozenset()), "mode=cheap", "denied; role"),
        (trusting(roles=frozenset({"system"})), "mode=cheap", "denied; role"),
        (trusting(names=frozenset({"budget"})), "mode=cheap", "denied; mode"),
        (trusting(names=frozenset({"budget"})), "budget=0.1", "honoured"),
        (trusting(names=frozenset()), "tags=a", "denied; tags"),
        (trusting(max_budget_usd=0.2), "budget=0.3", "denied; budget"),
        (trusting(max_budget_usd=0.2), "budget=none", "denied; budget"),
        (trusting(max_budget_usd=0.2), "budget=0.2", "honoured"),
        (trusting(max_latency_ms=100), "latency=101", "denied; latency"),
        (ApiKey(id="k1", models=("gpt-4*",)), "model=claude-sonnet-4-5", "denied; model"),
        (ApiKey(id="k1", models=("gpt-4*",)), "model=gpt-4o", "honoured"),
        (ApiKey(id="k1", models=("gpt-4*",)), "model=*", "honoured"),
        (ApiKey(id="k1", models=("*",)), "provider=sim-openai", "denied; provider"),
        (ApiKey(id="k1", providers=("sim-*",)), "provider=sim-openai", "honoured"),
    ],
)
async def test_a_key_says_what_its_texts_may_choose(key: ApiKey, wish: str, told: str) -> None:
    """Whose, which, how far; and of models and providers those that it may use itself."""
    assert (await asked(f"@@tokenhub {wish}\nHi", key=key))[0] == told


def test_no_key_gives_leave_to_those_who_never_have_it() -> None:
    """What models and tools say is no wish of the user's, whatever a key's row holds."""
    key = trusting(roles=frozenset({"assistant", "tool", "system"}))
    assert Leaves().of("", key).roles == {"system"}
    assert {"user", "system", "developer"} == ROLES


# --- hosts -------------------------------------------------------------------------------------------------

_HOSTS = by_host(["api.openai.com=off", "*=mode+budget:0.1+latency:500", "direct=tags"])


@pytest.mark.parametrize(
    ("host", "wish", "told"),
    [
        ("api.openai.com", "mode=cheap", "denied; role"),
        ("api.anthropic.com", "mode=cheap", "honoured"),
        ("api.anthropic.com", "tags=a", "denied; tags"),
        ("api.anthropic.com", "budget=0.2", "denied; budget"),
        ("api.anthropic.com", "budget=0.1", "honoured"),
        ("api.anthropic.com", "latency=501", "denied; latency"),
        ("", "tags=a", "honoured"),
        ("", "mode=cheap", "denied; mode"),
    ],
)
async def test_the_operator_says_it_by_host(host: str, wish: str, told: str) -> None:
    """The host's own rule, else that of any host; calls that came to us have one of their own."""
    leaves = Leaves(hosts=_HOSTS)
    assert (await asked(f"@@tokenhub {wish}\nHi", host=host, leaves=leaves))[0] == told


def test_host_and_key_both_bind() -> None:
    """The narrower of each."""
    key = trusting(names=frozenset({"mode", "tags"}), max_budget_usd=0.05, signed=True, roles=ROLES)
    leave = Leaves(hosts=_HOSTS).of("api.mistral.ai", key)
    assert leave == Leave(ROLES, frozenset({"mode"}), 0.05, 500, True, max_steps=STEPS)
    assert Leaves().of("api.mistral.ai", None) == Leave(max_steps=STEPS)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("api.openai.com", "is none of"),
        ("=off", "must be host=off"),
        ("a.example=base_url", "'base_url' is none of mode, budget"),
        ("a.example=tags:1", "may have a :ceiling"),
        ("a.example=budget:x", "'x' is no ceiling of budget"),
        ("a.example=budget:-1", "is no ceiling"),
        ("a.example=budget:nan", "is no ceiling"),
        ("a.example=latency:1.5", "is no ceiling of latency"),
        ("a.example=latency:1000000000", "is no ceiling"),
    ],
)
def test_a_setting_that_cannot_be_used_says_why(item: str, said: str) -> None:
    """One line that names the item."""
    with pytest.raises(ConfigError, match=said) as raised:
        by_host([item])
    assert repr(item) in str(raised.value)


def test_a_setting_names_what_may_be_said_and_how_far() -> None:
    """Names after each other, some with a ceiling; nothing at all is one too."""
    assert by_host(["a.example=mode:1+budget:0+tags", "b.example=off"]) == {
        "a.example": Leave(ROLES, frozenset({"mode", "budget", "tags"}), max_budget_usd=0, max_steps=1),
        "b.example": Leave(frozenset()),
    }


@pytest.mark.parametrize(
    ("hosts", "told"),
    [
        ("*=mode:4", "honoured"),
        ("*=mode:3", "denied; mode"),
        ("*=tags", "denied; mode"),
    ],
)
async def test_a_host_bounds_what_a_mode_makes_of_a_call(hosts: str, told: str) -> None:
    """Three voters and a judge are four calls; `voters` is allowed with its mode and not by itself."""
    leaves = Leaves(Leave(max_steps=5), by_host([hosts]))
    said, _ = await asked("@@tokenhub mode=vote voters=3\nHi", host="api.openai.com", leaves=leaves)
    assert said == told
