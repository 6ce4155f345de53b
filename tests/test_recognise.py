"""What the recognition table promises."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.errors import ConfigError
from tokenhub_core.recognise import (
    CHAT,
    HOSTS,
    PASSTHROUGH,
    ROUTES,
    Recognised,
    Recogniser,
    bare_host,
    extra_hosts,
    is_llm_host,
    normal_path,
    recognise,
)
from tokenhub_core.types import Dialect, Origin

_OPENAI_CHAT = Recognised(Dialect.OPENAI_CHAT, CHAT)
_ANTHROPIC_CHAT = Recognised(Dialect.ANTHROPIC_MESSAGES, CHAT)


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        ("api.openai.com", "/v1/chat/completions", _OPENAI_CHAT),
        ("api.anthropic.com", "/v1/messages", _ANTHROPIC_CHAT),
        ("api.anthropic.com", "/v1/messages?beta=true", _ANTHROPIC_CHAT),
    ],
)
def test_chat_calls_are_routed(host: str, path: str, expected: Recognised) -> None:
    """The chat call of each public host is an operation that the engine answers."""
    assert recognise(host, "POST", path) == expected
    assert recognise(host, "post", path) == expected


@pytest.mark.parametrize(
    ("host", "method", "path"),
    [
        ("api.openai.com", "GET", "/v1/chat/completions"),
        ("api.openai.com", "GET", "/v1/models"),
        ("api.openai.com", "POST", "/v1/chat/completions/abc"),
        ("api.openai.com", "POST", "/v1/Chat/Completions"),
        ("api.openai.com", "POST", "/v1/chat%2Fcompletions"),
        ("api.openai.com", "POST", "/v1/messages"),
        ("api.anthropic.com", "POST", "/v1/messages/count_tokens"),
        ("api.anthropic.com", "POST", "/v1/chat/completions"),
        ("api.anthropic.com", "POST", ""),
    ],
)
def test_everything_else_on_a_listed_host_passes_through(host: str, method: str, path: str) -> None:
    """A request to a listed host that is no routed call keeps the host's dialect and is passed through."""
    assert recognise(host, method, path) == Recognised(HOSTS[host], PASSTHROUGH)


@pytest.mark.parametrize(
    "host",
    ["", ".", "openai.com", "api.openai.com.evil.example", "xapi.openai.com", "127.0.0.1", "[::1]:443"],
)
def test_other_hosts_are_not_recognised(host: str) -> None:
    """A host that is not listed is nobody's business, however much its name looks like one."""
    assert recognise(host, "POST", "/v1/chat/completions") is None
    assert not is_llm_host(host)


@pytest.mark.parametrize(
    "host",
    ["API.OpenAI.com", "api.openai.com.", "api.openai.com:443", "Api.OpenAI.com.:8443", " api.openai.com "],
)
def test_a_host_is_known_in_every_spelling(host: str) -> None:
    """Case, the trailing dot and a port do not hide a host."""
    assert is_llm_host(host)
    assert recognise(host, "POST", "/v1/chat/completions") == _OPENAI_CHAT


@pytest.mark.parametrize(
    "path",
    [
        "//v1//chat///completions",
        "/v1/chat/completions/",
        "/v1/chat/completions?api-version=1",
        "/v1/chat/completions#part",
        "/v1/%63hat/com%70letions",
        "/v1/./chat/x/../completions",
        "/v1/%2e/chat/x/%2E%2e/completions",
        "/../v1/chat/completions",
    ],
)
def test_another_spelling_of_a_routed_path_is_still_routed(path: str) -> None:
    """No spelling of a routed path goes around the engine."""
    assert recognise("api.openai.com", "POST", path) == _OPENAI_CHAT


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="abc/._~-%2eE?#é", max_size=40))
def test_a_normal_path_is_normal(path: str) -> None:
    """Normalising is idempotent unless decoding uncovers a new escape, and its result is always absolute."""
    once = normal_path(path)
    assert once.startswith("/")
    assert "//" not in once
    assert "?" not in once
    if "%" not in once:
        assert normal_path(once) == once


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_escaping_unreserved_characters_changes_nothing(data: st.DataObject) -> None:
    """Whatever letters of a routed path are percent-encoded, it is the same path."""
    route = data.draw(st.sampled_from(ROUTES))
    spelled = "".join(
        f"%{ord(char):02x}" if char != "/" and data.draw(st.booleans()) else char for char in route.path
    )
    assert normal_path(spelled) == route.path
    assert normal_path(quote(route.path)) == route.path


def test_extra_hosts_speak_the_dialect_they_are_listed_with() -> None:
    """A configured host is recognised like a public one, in its own dialect."""
    ours = Recogniser(extra_hosts(["LLM.example.org.=anthropic_messages", "[::1]:8000=openai_chat"]))
    assert ours.recognise("llm.example.org:8443", "POST", "/v1/messages") == _ANTHROPIC_CHAT
    assert ours.recognise("::1", "POST", "/v1/chat/completions") == _OPENAI_CHAT
    assert ours.is_llm_host("api.openai.com")
    assert not is_llm_host("llm.example.org")
    assert ours.hosts == ("::1", "api.anthropic.com", "api.openai.com", "llm.example.org")


@pytest.mark.parametrize("item", ["llm.example.org", "llm.example.org=klingon", "=openai_chat", ""])
def test_a_malformed_extra_host_is_named(item: str) -> None:
    """A line of configuration that cannot be used is refused by name."""
    with pytest.raises(ConfigError, match="extra host"):
        extra_hosts([item])


def test_a_public_origin_is_always_reached_over_tls() -> None:
    """A call that came over plain http goes on encrypted where its host is public, and as it came elsewhere."""
    ours = Recogniser({"llm.example.org": Dialect.OPENAI_CHAT})
    assert ours.origin("http", "api.openai.com", 80) == Origin("https", "api.openai.com", 443)
    assert ours.origin("http", "API.openai.com.", 8080) == Origin("https", "api.openai.com", 8080)
    assert ours.origin("https", "api.openai.com", 8443) == Origin("https", "api.openai.com", 8443)
    assert ours.origin("http", "llm.example.org", 80) == Origin("http", "llm.example.org", 80)


def test_an_ipv6_address_without_brackets_keeps_its_colons() -> None:
    """Only one colon can be a port's."""
    assert bare_host("fe80::1") == "fe80::1"
    assert bare_host("[FE80::1]:443") == "fe80::1"
