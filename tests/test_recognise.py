"""What the recognition table promises."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.errors import ConfigError
from tokenhub_core.providers.vendors import PASSED, VENDORS
from tokenhub_core.recognise import (
    CHAT,
    HOSTS,
    PASSTHROUGH,
    Recognised,
    Recogniser,
    bare_host,
    deployment,
    extra_hosts,
    is_llm_host,
    normal_path,
    recognise,
)
from tokenhub_core.types import Dialect, Origin

_OPENAI_CHAT = Recognised(Dialect.OPENAI_CHAT, CHAT)
_ANTHROPIC_CHAT = Recognised(Dialect.ANTHROPIC_MESSAGES, CHAT)
_GOOGLE = "generativelanguage.googleapis.com"


@pytest.mark.parametrize(
    ("host", "path", "dialect"),
    [
        ("api.openai.com", "/v1/chat/completions", Dialect.OPENAI_CHAT),
        ("api.openai.com", "/v1/responses", Dialect.OPENAI_RESPONSES),
        ("api.openai.com", "/v1/completions", Dialect.OPENAI_COMPLETIONS),
        ("api.openai.com", "/v1/embeddings", Dialect.OPENAI_EMBEDDINGS),
        ("eu.api.openai.com", "/v1/chat/completions", Dialect.OPENAI_CHAT),
        ("api.anthropic.com", "/v1/messages", Dialect.ANTHROPIC_MESSAGES),
        ("api.anthropic.com", "/v1/messages?beta=true", Dialect.ANTHROPIC_MESSAGES),
        ("api.anthropic.com", "/v1/messages/count_tokens", Dialect.ANTHROPIC_COUNT_TOKENS),
        (_GOOGLE, "/v1beta/models/gemini-2.5-pro:generateContent", Dialect.GEMINI),
        (_GOOGLE, "/v1/models/gemini-2.5-pro:streamGenerateContent?alt=sse", Dialect.GEMINI),
        (_GOOGLE, "/v1alpha/models/gemini-2.5-pro:generateContent?key=k", Dialect.GEMINI),
        (_GOOGLE, "/v1beta/models/gemini-2.5-pro%3agenerateContent", Dialect.GEMINI),
        (_GOOGLE, "/v1beta/openai/chat/completions", Dialect.OPENAI_CHAT),
        (
            "me.openai.azure.com",
            "/openai/deployments/d-1/chat/completions?api-version=1",
            Dialect.OPENAI_CHAT,
        ),
        ("me.openai.azure.com", "/openai/deployments/d/completions", Dialect.OPENAI_COMPLETIONS),
        ("me.openai.azure.com", "/openai/deployments/d/embeddings", Dialect.OPENAI_EMBEDDINGS),
        ("me.openai.azure.com", "/openai/v1/responses", Dialect.OPENAI_RESPONSES),
        ("me.openai.azure.com", "/openai/responses?api-version=p", Dialect.OPENAI_RESPONSES),
        ("me.cognitiveservices.azure.com", "/openai/v1/chat/completions", Dialect.OPENAI_CHAT),
        ("me.services.ai.azure.com", "/models/chat/completions", Dialect.OPENAI_CHAT),
        ("me.services.ai.azure.com", "/anthropic/v1/messages", Dialect.ANTHROPIC_MESSAGES),
        ("api.mistral.ai", "/v1/chat/completions", Dialect.OPENAI_CHAT),
        ("api.groq.com", "/openai/v1/chat/completions", Dialect.OPENAI_CHAT),
        ("api.deepseek.com", "/chat/completions", Dialect.OPENAI_CHAT),
        ("api.deepseek.com", "/v1/chat/completions", Dialect.OPENAI_CHAT),
        ("api.deepseek.com", "/anthropic/v1/messages", Dialect.ANTHROPIC_MESSAGES),
        ("api.x.ai", "/v1/messages", Dialect.ANTHROPIC_MESSAGES),
        ("openrouter.ai", "/api/v1/chat/completions", Dialect.OPENAI_CHAT),
        ("openrouter.ai", "/api/v1/responses", Dialect.OPENAI_RESPONSES),
        ("openrouter.ai", "/api/v1/messages", Dialect.ANTHROPIC_MESSAGES),
        ("api-inference.together.ai", "/v1/chat/completions", Dialect.OPENAI_CHAT),
        ("api.fireworks.ai", "/inference/v1/completions", Dialect.OPENAI_COMPLETIONS),
        ("api.perplexity.ai", "/chat/completions", Dialect.OPENAI_CHAT),
        ("api.cohere.com", "/compatibility/v1/chat/completions", Dialect.OPENAI_CHAT),
        ("api.deepinfra.com", "/v1/openai/embeddings", Dialect.OPENAI_EMBEDDINGS),
        ("ollama.com", "/api/chat", Dialect.OLLAMA_CHAT),
        ("ollama.com", "/api/generate", Dialect.OLLAMA_GENERATE),
    ],
)
def test_calls_are_routed_in_the_dialect_of_their_host_and_path(
    host: str, path: str, dialect: Dialect
) -> None:
    """One host speaks several dialects: host and path together say which one it is."""
    assert recognise(host, "POST", path) == Recognised(dialect, CHAT)
    assert recognise(host, "post", path) == Recognised(dialect, CHAT)


_MAIN = {
    "api.openai.com": Dialect.OPENAI_CHAT,
    "api.anthropic.com": Dialect.ANTHROPIC_MESSAGES,
    _GOOGLE: Dialect.GEMINI,
    "openrouter.ai": Dialect.OPENAI_CHAT,
    "api.groq.com": Dialect.OPENAI_CHAT,
}


@pytest.mark.parametrize(
    ("host", "method", "path"),
    [
        ("api.openai.com", "GET", "/v1/chat/completions"),
        ("api.openai.com", "GET", "/v1/models"),
        ("api.openai.com", "POST", "/v1/chat/completions/abc"),
        ("api.openai.com", "POST", "/v1/Chat/Completions"),
        ("api.openai.com", "POST", "/v1/chat%2Fcompletions"),
        ("api.openai.com", "POST", "/v1/messages"),
        ("api.openai.com", "POST", "/v1/responses/resp_1/cancel"),
        ("api.openai.com", "GET", "/v1/responses"),
        ("api.openai.com", "POST", "/v1/images/generations"),
        ("api.anthropic.com", "POST", "/v1/messages/batches"),
        (_GOOGLE, "POST", "/v1beta/models/m:countTokens"),
        (_GOOGLE, "POST", "/v1beta/models/a/b:generateContent"),
        (_GOOGLE, "POST", "/v1beta/models/m:generateContent:x"),
        ("openrouter.ai", "POST", "/v1/chat/completions"),
        ("api.groq.com", "POST", "/v1/chat/completions"),
        ("api.anthropic.com", "POST", "/v1/chat/completions"),
        ("api.anthropic.com", "POST", ""),
    ],
)
def test_everything_else_on_a_listed_host_passes_through(host: str, method: str, path: str) -> None:
    """A request to a listed host that is no routed call keeps the host's dialect and is passed through."""
    found = recognise(host, method, path)
    assert found is not None
    assert found.operation == PASSTHROUGH
    assert found.dialect is _MAIN[host]


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("bedrock-runtime.us-east-1.amazonaws.com", "/model/anthropic.claude/converse-stream"),
        ("bedrock-runtime.eu-west-3.amazonaws.com", "/openai/v1/chat/completions"),
        (
            "us-central1-aiplatform.googleapis.com",
            "/v1/projects/p/locations/l/publishers/google/models/m:generateContent",
        ),
        ("aiplatform.googleapis.com", "/v1/models/m:generateContent"),
    ],
)
def test_bedrock_and_vertex_pass_whatever_is_asked_for(host: str, path: str) -> None:
    """Their calls are signed, or belong to an account of their own: nothing of them is routed."""
    found = recognise(host, "POST", path)
    assert found is not None
    assert found.operation == PASSTHROUGH


@pytest.mark.parametrize(
    "host",
    [
        "", ".", "openai.com", "api.openai.com.evil.example", "xapi.openai.com", "127.0.0.1", "[::1]:443",
        "localhost", "localhost:11434",
        "openai.azure.com", ".openai.azure.com", "*.openai.azure.com", "evil-openai.azure.com",
        "a.b.openai.azure.com", "me.openai.azure.com.evil.example", "me.evil.openai.azure.com.",
        "a/b.openai.azure.com", "-.openai.azure.com", "me\n.openai.azure.com", "azure.com",
        "s3.us-east-1.amazonaws.com", "bedrock-runtime.evil.amazonaws.com", "bedrock-runtime.us-east-1.evil.com",
        "storage.googleapis.com", "evil-aiplatform.googleapis.com", "x.us-central1-aiplatform.googleapis.com",
    ],
)  # fmt: skip
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
    path = data.draw(st.sampled_from(["/v1/chat/completions", "/v1/responses", "/v1/embeddings"]))
    spelled = "".join(
        f"%{ord(char):02x}" if char != "/" and data.draw(st.booleans()) else char for char in path
    )
    assert normal_path(spelled) == path
    assert normal_path(quote(path)) == path
    assert recognise("api.openai.com", "POST", spelled) == recognise("api.openai.com", "POST", path)


def test_no_host_of_the_list_stands_for_more_than_one_vendor() -> None:
    """Every vendor that is not on this machine is listed, and only Azure's customers have names of their own."""
    public = [host for vendor in VENDORS if not vendor.local for host in vendor.hosts]
    assert sorted([*public, *PASSED]) == list(HOSTS)
    assert len(HOSTS) == len(set(HOSTS))
    assert {host for host in HOSTS if "*" in host} == {
        "*.openai.azure.com", "*.cognitiveservices.azure.com", "*.services.ai.azure.com",
    }  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(HOSTS), st.from_regex(r"[a-z0-9-]{1,10}", fullmatch=True))
def test_a_longer_name_is_another_host(host: str, label: str) -> None:
    """Neither something after a listed name nor something before it is listed by it."""
    name = host.replace("*", "me")
    assert is_llm_host(name)
    assert not is_llm_host(f"{name}.{label}.example")
    assert not is_llm_host(f"{name}-{label}")
    assert not is_llm_host(f"{label}.x.{name}")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21", "my-gpt"),
        ("//openai/./deployments/a%20b/embeddings", "a b"),
        ("/openai/deployments/d", ""),
        ("/openai/v1/chat/completions", ""),
        ("/v1/chat/completions", ""),
    ],
)
def test_a_deployment_stands_in_its_path(path: str, name: str) -> None:
    """Azure's bodies need no model: the path says what is to answer."""
    assert deployment(path) == name


def test_extra_hosts_speak_the_dialect_they_are_listed_with() -> None:
    """A configured host is recognised like a public one, in its own dialect."""
    ours = Recogniser(extra_hosts(["LLM.example.org.=anthropic_messages", "[::1]:8000=openai_chat"]))
    assert ours.recognise("llm.example.org:8443", "POST", "/v1/messages") == _ANTHROPIC_CHAT
    assert ours.recognise("::1", "POST", "/v1/chat/completions") == _OPENAI_CHAT
    assert ours.is_llm_host("api.openai.com")
    assert not is_llm_host("llm.example.org")
    assert ours.hosts == tuple(sorted((*HOSTS, "::1", "llm.example.org")))


def test_an_extra_host_speaks_its_dialects_whole_family() -> None:
    """Whoever serves chat completions may serve embeddings; a local Ollama is routed only where it is listed."""
    ours = Recogniser(extra_hosts(["localhost=ollama_chat", "llm.example.org=openai_chat", "g.test=gemini"]))
    for host, path, dialect in (
        ("localhost:11434", "/api/chat", Dialect.OLLAMA_CHAT),
        ("localhost:11434", "/api/generate", Dialect.OLLAMA_GENERATE),
        ("localhost:11434", "/v1/chat/completions", Dialect.OPENAI_CHAT),
        ("llm.example.org", "/v1/responses", Dialect.OPENAI_RESPONSES),
        ("llm.example.org", "/v1/embeddings", Dialect.OPENAI_EMBEDDINGS),
        ("g.test", "/v1beta/models/m:generateContent", Dialect.GEMINI),
    ):
        assert ours.recognise(host, "POST", path) == Recognised(dialect, CHAT)
    assert ours.recognise("llm.example.org", "POST", "/v1/messages") == Recognised(
        Dialect.OPENAI_CHAT, PASSTHROUGH
    )


def test_an_extra_host_may_be_a_pattern() -> None:
    """Of one label, as those of the list."""
    ours = Recogniser(extra_hosts(["*.llm.corp.example=openai_chat"]))
    assert ours.recognise("team-1.llm.corp.example", "POST", "/v1/chat/completions") == _OPENAI_CHAT
    assert not ours.is_llm_host("llm.corp.example")
    assert not ours.is_llm_host("a.b.llm.corp.example")


@pytest.mark.parametrize("item", ["llm.example.org", "llm.example.org=klingon", "=openai_chat", ""])
def test_a_malformed_extra_host_is_named(item: str) -> None:
    """A line of configuration that cannot be used is refused by name."""
    with pytest.raises(ConfigError, match="extra host"):
        extra_hosts([item])


def test_a_public_origin_is_always_reached_over_tls() -> None:
    """A call that came over plain http goes on encrypted where its host is public, and as it came elsewhere."""
    ours = Recogniser({"llm.example.org": Dialect.OPENAI_CHAT})
    assert ours.origin("http", "api.openai.com", 80) == Origin("https", "api.openai.com", 443)
    assert ours.origin("http", "me.openai.azure.com", 80) == Origin("https", "me.openai.azure.com", 443)
    assert ours.origin("http", "API.openai.com.", 8080) == Origin("https", "api.openai.com", 8080)
    assert ours.origin("https", "api.openai.com", 8443) == Origin("https", "api.openai.com", 8443)
    assert ours.origin("http", "llm.example.org", 80) == Origin("http", "llm.example.org", 80)


def test_an_ipv6_address_without_brackets_keeps_its_colons() -> None:
    """Only one colon can be a port's."""
    assert bare_host("fe80::1") == "fe80::1"
    assert bare_host("[FE80::1]:443") == "fe80::1"
