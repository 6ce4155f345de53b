"""What an operator may say of a client's key: what is kept of it, and what is refused by name."""

from __future__ import annotations

import re

import msgspec
import pytest
from msgspec import structs

from tests.admission.test_apikeys import MOMENT, NOW, ONE, PEPPER, SECOND, body, kept, refusal
from tokenhub_core.admission.apikeys import (
    DAY,
    Kept,
    changed,
    created,
    duration,
    known,
)
from tokenhub_core.errors import TokenHubError
from tokenhub_core.types import ApiKey, Capture, Json, KeyLimits, Privacy, Scope, Trust


def test_a_key_of_which_only_the_name_is_said() -> None:
    """Chat and plan, with everything that there is; no end, no limits, no trust of its own."""
    assert kept() == Kept(
        ApiKey(
            id="key_1",
            name="nightly",
            prefix=ONE[:17],
            enabled=True,
            scopes=frozenset({Scope.CHAT, Scope.PLAN}),
            models=("*",),
            providers=("*",),
            hosts=("*",),
            created_at=NOW,
        ),
        (known(ONE, PEPPER, now=NOW),),
        updated_at=NOW,
    )


def test_all_that_can_be_said_is_kept() -> None:
    """Lists in their order and once, hosts in lower case."""
    found = kept(
        scopes=["embeddings", "passthrough"],
        models=["gpt-*", "b", "gpt-*"],
        providers=["origin:api.openai.com"],
        hosts=["API.openai.com"],
        project="apollo",
        tags=["a", "b"],
        limits={"requests_per_minute": 1, "tokens_per_minute": 2, "concurrency": 3, "max_output_tokens": 4},
        trust={"roles": ["user"], "names": ["mode", "tags"], "signed": True, "max_latency_ms": 9},
        privacy={"capture": "redacted", "retention_days": 7},
        rotation_days=30,
        expires_in="1h",
    )
    assert structs.asdict(found.key) == {
        "id": "key_1",
        "name": "nightly",
        "prefix": ONE[:17],
        "enabled": True,
        "scopes": {Scope.EMBEDDINGS, Scope.PASSTHROUGH},
        "models": ("gpt-*", "b"),
        "providers": ("origin:api.openai.com",),
        "hosts": ("api.openai.com",),
        "project": "apollo",
        "tags": ("a", "b"),
        "limits": KeyLimits(1, 2, 3, 4),
        "trust": Trust(frozenset({"user"}), frozenset({"mode", "tags"}), signed=True, max_latency_ms=9),
        "privacy": Privacy(Capture.REDACTED, 7),
        "created_at": NOW,
        "expires_at": NOW + 3600 * SECOND,
        "rotate_at": NOW + 30 * DAY * SECOND,
    }
    assert found.rotation_days == 30


def test_an_empty_list_allows_nothing() -> None:
    """It is kept as it is said, and no default takes its place."""
    found = kept(scopes=[], models=[], providers=[], hosts=[], trust={"roles": [], "names": []}).key
    assert (found.scopes, found.models, found.providers, found.hosts) == (frozenset(), (), (), ())
    assert found.trust == Trust(frozenset(), frozenset())


def test_scopes_may_be_the_text_of_a_list() -> None:
    """As programs for the original send them; what is no list of scopes is nothing."""
    assert kept(scopes='["chat"]').key.scopes == {Scope.CHAT}
    assert kept(scopes="[]").key.scopes == frozenset()
    for wrong in ("", "chat", '"chat"', "[1]", "{}", "null", "*"):
        assert refusal(scopes=wrong) == ("scopes", "scopes must be a list")


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"scopes": ["chat", "admin"]}, "scopes", "'admin' is none of chat, embeddings, passthrough, plan"),
        ({"scopes": ["*"]}, "scopes", "'*' is none of"),
        ({"scopes": '["CHAT"]'}, "scopes", "'CHAT' is none of"),
        ({"name": ""}, "name", "name must be 1 to 100 visible characters"),
        ({"name": " x"}, "name", "visible"),
        ({"name": "a\nb"}, "name", "visible"),
        ({"name": "x" * 101}, "name", "1 to 100"),
        ({"models": [""]}, "models", "1 to 200 visible"),
        ({"models": ["x" * 201]}, "models", "1 to 200"),
        ({"models": [str(n) for n in range(257)]}, "models", "models: at most 256"),
        ({"providers": ["x" * 301]}, "providers", "1 to 300"),
        ({"providers": [str(n) for n in range(257)]}, "providers", "at most 256"),
        ({"hosts": ["x" * 256]}, "hosts", "1 to 255"),
        ({"hosts": [str(n) for n in range(257)]}, "hosts", "at most 256"),
        ({"project": "x" * 65}, "project", "0 to 64"),
        ({"project": "\x1b[2J"}, "project", "visible"),
        ({"tags": [""]}, "tags", "visible"),
        ({"tags": ["x" * 65]}, "tags", "1 to 64"),
        ({"tags": [str(n) for n in range(33)]}, "tags", "at most 32"),
        (
            {"trust": {"roles": ["tool"]}},
            "trust.roles",
            "'tool' is none of assistant, developer, system, user",
        ),
        (
            {"trust": {"names": ["shell"]}},
            "trust.names",
            "'shell' is none of budget, buffered, durable, guarded, latency",
        ),
        (
            {"expires_in": "soon"},
            "expires_in",
            "expires_in: 'soon' is no duration: give one as in 90m, 12h, 30d",
        ),
        ({"expires_in": "0s"}, "expires_in", "expires_in must be above 0 and at most 100 years"),
        ({"expires_in": "36501d"}, "expires_in", "100 years"),
        ({"expires_in": "1h", "expires_at": 2e9}, "expires_at", "give expires_in or expires_at, not both"),
        ({"expires_at": NOW / SECOND}, "expires_at", MOMENT),
        ({"expires_at": NOW / SECOND - 1}, "expires_at", MOMENT),
        ({"expires_at": 0}, "expires_at", "to come"),
        ({"expires_at": -1}, "expires_at", "to come"),
        ({"expires_at": 1e11}, "expires_at", "seconds"),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields: Json, param: str, words: str) -> None:
    """The field, and what would be right."""
    where, message = refusal(**fields)
    assert where == param
    assert re.search(f"{re.escape(words)}($|[ ,])", message)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "x" * 100},
        {"name": "ünïcode name"},
        {"models": [str(n) for n in range(256)]},
        {"models": ["x" * 200]},
        {"providers": ["x" * 300]},
        {"providers": [str(n) for n in range(256)]},
        {"hosts": ["x" * 255]},
        {"hosts": [str(n) for n in range(256)]},
        {"project": ""},
        {"project": "x" * 64},
        {"tags": ["x" * 64]},
        {"tags": [str(n) for n in range(32)]},
        {"expires_in": "36500d"},
        {"expires_in": "1s"},
        {"expires_at": NOW / SECOND + 1},
        {"expires_at": 99_999_999_999},
        {"rotation_days": 3650},
        {"limits": {"concurrency": 1_000_000_000_000}},
        {"trust": {"roles": ["user", "assistant", "system", "developer"]}},
    ],
)
def test_what_just_can_be_is_taken(fields: Json) -> None:
    """The ends of every range."""
    assert kept(**fields).key.id == "key_1"


@pytest.mark.parametrize(
    "fields",
    [
        *({name: "x"} for name in ("id", "key", "secret", "digest", "prefix", "role", "monthly_budget_usd")),
        *({name: 1} for name in ("created_at", "updated_at", "last_used_at", "rotate_at", "rotation_told")),
        {"limits": {"spend": 1}},
        {"trust": {"admin": True}},
        {"scopes": None},
        {"scopes": 1},
        {"models": "*"},
        {"enabled": 1},
        {"enabled": None},
        {"name": None},
        {"rotation_days": -1},
        {"rotation_days": 3651},
        {"rotation_days": 1.5},
        {"limits": {"concurrency": 0}},
        {"limits": {"concurrency": -1}},
        {"limits": {"concurrency": 1_000_000_000_001}},
        {"expires_at": "2030-01-01"},
        {"expires_in": 3600},
    ],
)
def test_a_field_that_nobody_may_set_or_of_another_type_is_refused(fields: Json) -> None:
    """Before anything is made of it."""
    with pytest.raises(msgspec.ValidationError):
        body(**{"name": "x", **fields})


def test_a_key_needs_a_name() -> None:
    """Nobody would know later what it is for."""
    with pytest.raises(TokenHubError, match=r"^name is required$") as refused:
        created(body(), "key_1", known(ONE, PEPPER, now=NOW), now=NOW)
    assert refused.value.fault.param == "name"


def test_a_change_touches_what_it_names() -> None:
    """Limits and trust member by member; null gives one back to the default."""
    was = kept(
        models=["a"], limits={"concurrency": 3, "tokens_per_minute": 9}, trust={"roles": ["user"]}, tags=["t"]
    )
    now = changed(was, body(limits={"concurrency": None, "requests_per_minute": 5}), now=NOW + 1)
    assert now.key == structs.replace(was.key, limits=KeyLimits(5, 9, None, None))
    assert (now.updated_at, now.secrets) == (NOW + 1, was.secrets)
    now = changed(was, body(trust={"names": ["mode"]}), now=NOW + 1)
    assert now.key.trust == Trust(frozenset({"user"}), frozenset({"mode"}))
    assert changed(now, body(trust={"roles": None}), now=NOW).key.trust == Trust(None, frozenset({"mode"}))
    assert changed(was, body(enabled=False), now=NOW + 1).key == structs.replace(was.key, enabled=False)


def test_a_change_that_changes_nothing_is_none() -> None:
    """Also where it says again what is so already."""
    was = kept(tags=["a"], rotation_days=3)
    assert changed(was, body(), now=NOW + 9) is was
    same = body(name="nightly", tags=["a"], rotation_days=3, scopes=["plan", "chat"], limits={}, trust={})
    assert changed(was, same, now=NOW + 9) is was


def test_an_end_can_be_moved_and_taken_away() -> None:
    """From the moment of the change on."""
    was = kept(expires_in="1h")
    assert changed(was, body(expires_at=None), now=NOW).key.expires_at == 0
    assert changed(was, body(expires_in="2h"), now=NOW + SECOND).key.expires_at == NOW + 7201 * SECOND
    assert changed(was, body(expires_at=2e9 + 0.25), now=NOW).key.expires_at == 2_000_000_000_250_000
    assert changed(was, body(name="x"), now=NOW).key.expires_at == was.key.expires_at


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("90m", 5400),
        ("12h", 43_200),
        ("30d", 2_592_000),
        ("2w", 1_209_600),
        ("1h30m0s", 5400),
        ("0s", 0),
    ],
)
def test_a_duration_is_numbers_and_units(text: str, seconds: int) -> None:
    """As many as are needed."""
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "1", "h", "-1h", "1.5h", "1 h", "1H", "1y", "1h ", " 1h", "1h\n", "1000000000s", "٣h", "1hx"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """With an example of one."""
    with pytest.raises(ValueError, match=r"is no duration: give one as in 90m, 12h, 30d$"):
        duration(text)
