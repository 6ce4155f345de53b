"""Credentials that clients bring: used, dropped or refused by rule, and never sent to somebody else's host."""

from __future__ import annotations

import pytest

from tests.fakes.keys import ANN
from tokenhub_core.admission.doorkeeper import Entry, let_pass
from tokenhub_core.admission.foreign import KEPT, Foreign, Leak, Use, leaking, parsed
from tokenhub_core.admission.identity import credentials, without_credentials
from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.types import ApiKey, Headers

HOST = "api.openai.com"
OPENAI, ANTHROPIC = f"sk-proj-{'a' * 40}", f"sk-ant-api03-{'b' * 40}"
GOOGLE = f"AIza{'c' * 35}"


def bringing(secret: str, key: ApiKey | None = None) -> Entry:
    return Entry((("accept", "x"), ("authorization", f"Bearer {secret}")), "/v1/x?a=b", key)


def refusal(rules: Foreign, entry: Entry, host: str = HOST) -> str:
    with pytest.raises(TokenHubError) as caught:
        rules.settled(entry, host)
    assert caught.value.fault.http_status == 403
    return caught.value.fault.label


def test_the_most_exact_rule_counts() -> None:
    """A name before `*.` and a name, that before `*`; without any the host gets what is brought."""
    rules = Foreign(parsed(["*=refuse", "*.openai.com=replace", "API.openai.com=use", "x.example = use"]))
    assert [rules.rule(host) for host in (HOST, "eu.openai.com", "x.example", "y.example")] == [
        Use.USE,
        Use.REPLACE,
        Use.USE,
        Use.REFUSE,
    ]
    assert KEPT.rule(HOST) is Use.USE
    rules.renew({HOST: Use.REFUSE})
    assert (rules.rule(HOST), rules.rule("y.example")) == (Use.REFUSE, Use.USE)


@pytest.mark.parametrize("item", ["", "api.openai.com", "=use", "a=b=", "api.openai.com=drop"])
def test_a_rule_that_makes_no_sense_is_one_line(item: str) -> None:
    """It names the item, and what is allowed."""
    with pytest.raises(ConfigError, match="must be host=rule, rule one of use, replace, refuse"):
        parsed([item])


def test_what_is_brought_is_used_dropped_or_refused() -> None:
    """With a key of ours a host that refuses can be called, and gets nothing of what else was brought."""
    theirs, ours = bringing(OPENAI), bringing(OPENAI, ANN)
    assert KEPT.settled(theirs, HOST) is theirs
    for rules, replaced in ((Foreign({HOST: Use.REPLACE}), True), (Foreign({"*": Use.REFUSE}), False)):
        dropped = rules.settled(ours, HOST)
        # Only where it is replaced does the request go with a provider's own.
        assert (dropped.stripped, dropped.replaced) == (True, replaced)
        assert (dropped.headers, dropped.path, dropped.key) == ((("accept", "x"),), "/v1/x?a=b", ANN)
        with pytest.raises(TokenHubError):
            let_pass(dropped, HOST)
    dropped = Foreign({HOST: Use.REPLACE}).settled(theirs, HOST)
    assert dropped.headers == (("accept", "x"),)
    with pytest.raises(TokenHubError):
        let_pass(dropped, HOST)
    assert refusal(Foreign({HOST: Use.REFUSE}), theirs) == "client_credential_refused"
    assert refusal(Foreign({HOST: Use.REFUSE}), Entry((), "/")) == "client_credential_refused"


@pytest.mark.parametrize(
    ("headers", "path", "found", "left", "rest"),
    [
        ((("authorization", "Bearer a"), ("x-api-key", "b")), "/p", ["a", "b"], (), "/p"),
        ((("authorization", " "), ("api-key", "c")), "/p?x=1", ["c"], (), "/p?x=1"),
        ((), "/p?key=d&x=1&k%65y=e", ["d", "e"], (), "/p?x=1"),
        ((), "/p?key=d", ["d"], (), "/p"),
        (
            (("sec-websocket-protocol", "realtime, openai-insecure-api-key.f, beta"),),
            "/p",
            ["f"],
            (("sec-websocket-protocol", "realtime, beta"),),
            "/p",
        ),
        ((("sec-websocket-protocol", "openai-insecure-api-key.f"),), "/p", ["f"], (), "/p"),
        ((("sec-websocket-protocol", "chat"),), "/p", [], (("sec-websocket-protocol", "chat"),), "/p"),
    ],
)
def test_credentials_are_found_and_dropped_wherever_they_stand(
    headers: Headers, path: str, found: list[str], left: Headers, rest: str
) -> None:
    """In every place where a provider's key can stand, and only there."""
    assert list(credentials(headers, path)) == found
    assert without_credentials(headers, path) == (left, rest)


@pytest.mark.parametrize(
    ("secret", "host", "kind"),
    [
        (OPENAI, "api.openai.com", ""),
        (OPENAI, "eu.api.openai.com", ""),
        (OPENAI, "api.openai.com.evil.example", "sk-proj-"),
        (OPENAI, "api.anthropic.com", "sk-proj-"),
        (ANTHROPIC, "api.anthropic.com", ""),
        (ANTHROPIC, "api.openai.com", "sk-ant-"),
        (GOOGLE, "generativelanguage.googleapis.com", ""),
        (GOOGLE, "api.x.ai", "AIza"),
        ("sk-ant-placeholder", "api.openai.com", ""),
        (f"sk-{'d' * 48}", "api.deepseek.com", ""),
    ],
)
def test_a_key_says_by_how_it_begins_whose_it_is(secret: str, host: str, kind: str) -> None:
    """What many vendors share, and what is too short to be a key, says nothing."""
    assert leaking(bringing(secret), host) == kind
    assert leaking(Entry((), f"/v1?key={secret}"), host) == kind


@pytest.mark.parametrize(
    ("kind", "hosts"),
    [
        ("sk-ant-", ["api.anthropic.com", "claude.ai"]),
        ("sk-or-", ["openrouter.ai", "eu.openrouter.ai"]),
        ("sk-proj-", ["api.openai.com"]),
        ("sk-svcacct-", ["api.openai.com"]),
        ("sk-admin-", ["eu.api.openai.com"]),
        ("AIza", ["generativelanguage.googleapis.com"]),
        ("gsk_", ["api.groq.com"]),
        ("xai-", ["api.x.ai"]),
        ("pplx-", ["api.perplexity.ai"]),
        ("nvapi-", ["integrate.api.nvidia.com"]),
        ("hf_", ["router.huggingface.co", "huggingface.co"]),
        ("csk-", ["api.cerebras.ai"]),
        ("fw_", ["api.fireworks.ai"]),
        ("tgp_v1_", ["api.together.xyz", "api.together.ai"]),
    ],
)
def test_every_vendors_key_may_leave_for_its_own_hosts_and_no_other(kind: str, hosts: list[str]) -> None:
    """A key is told by how it begins; whatever else it is."""
    secret = kind + "x" * 40
    assert [leaking(bringing(secret), host) for host in hosts] == [""] * len(hosts)
    assert leaking(bringing(secret), "llm.example") == kind
    shortest = kind + "x" * (20 - len(kind))
    assert leaking(bringing(shortest), "llm.example") == kind
    assert leaking(bringing(shortest[:-1]), "llm.example") == "", "that is no key"


def test_a_key_that_would_leave_for_another_host_is_refused_and_told() -> None:
    """By default; for a host whose own rule is `use` it goes, and is told all the same; nobody is told the key."""
    told: list[Leak] = []
    assert refusal(Foreign(tell=told.append), bringing(ANTHROPIC, ANN)) == "credential_leak"
    assert refusal(Foreign({"*": Use.USE}, tell=told.append), bringing(ANTHROPIC)) == "credential_leak"
    entry = bringing(ANTHROPIC)
    assert Foreign({HOST: Use.USE}, tell=told.append).settled(entry, HOST, peer="10.0.0.1") is entry
    assert told == [
        Leak(HOST, "sk-ant-", "", "k-ann"),
        Leak(HOST, "sk-ant-"),
        Leak(HOST, "sk-ant-", "10.0.0.1", refused=False),
    ]
    assert Foreign({HOST: Use.REPLACE}, tell=told.append).settled(entry, HOST).stripped
    assert len(told) == 3
