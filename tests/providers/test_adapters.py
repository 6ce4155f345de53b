"""What goes to a provider, and above all what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.errors import Blame, Kind, TokenHubError
from tokenhub_core.ports import Secret, UpstreamRequest
from tokenhub_core.providers.adapters import (
    Sending,
    also_of,
    credential_headers,
    dialect_of,
    health_url,
    models_url,
    upstream_request,
)
from tokenhub_core.types import Dialect, Headers, Model, Provider, ProviderType, header

OURS = Secret("sk-ours")
CALLERS_KEY = "canary-of-the-caller"

CALLER: Headers = (
    ("host", "api.openai.com"),
    ("authorization", f"Bearer {CALLERS_KEY}"),
    ("x-api-key", CALLERS_KEY),
    ("api-key", CALLERS_KEY),
    ("x-goog-api-key", CALLERS_KEY),
    ("cookie", CALLERS_KEY),
    ("proxy-authorization", CALLERS_KEY),
    ("connection", "keep-alive, x-private"),
    ("x-private", CALLERS_KEY),
    ("keep-alive", "timeout=5"),
    ("transfer-encoding", "chunked"),
    ("te", "trailers"),
    ("upgrade", "h2c"),
    ("expect", "100-continue"),
    ("content-length", "17"),
    ("content-type", "application/json; charset=utf-8"),
    ("accept-encoding", "gzip, br, zstd"),
    ("user-agent", "OpenAI/Python 3.54.0"),
    ("x-stainless-lang", "python"),
    ("x-tokenhub-mode", "cheap"),
    ("anthropic-beta", "context-1m"),
    ("anthropic-version", "2024-01-01"),
    ("openai-organization", "org-1"),
    ("openai-project", "proj-1"),
    ("openai-beta", "responses=v1"),
    ("x-goog-api-client", CALLERS_KEY),
    ("traceparent", "00-1-2-01"),
)

ANTHROPIC = Dialect.ANTHROPIC_MESSAGES
GOOGLE = "https://generativelanguage.googleapis.com"

OPERATIONS = {
    Dialect.OPENAI_CHAT: "/chat/completions",
    Dialect.ANTHROPIC_MESSAGES: "/messages",
    Dialect.OPENAI_RESPONSES: "/responses",
    Dialect.OPENAI_COMPLETIONS: "/completions",
    Dialect.OPENAI_EMBEDDINGS: "/embeddings",
    Dialect.ANTHROPIC_COUNT_TOKENS: "/messages/count_tokens",
    Dialect.GEMINI: "/models/m:generateContent",
    Dialect.OLLAMA_CHAT: "/api/chat",
    Dialect.OLLAMA_GENERATE: "/api/generate",
}

PROVIDERS = {
    ProviderType.OPENAI: Provider("p", ProviderType.OPENAI, ("https://api.openai.com/v1",)),
    ProviderType.OPENAI_COMPATIBLE: Provider("p", ProviderType.OPENAI_COMPATIBLE, ("https://api.groq.com/openai/v1",)),
    ProviderType.VLLM: Provider("p", ProviderType.VLLM, ("http://10.0.0.1:8000", "http://10.0.0.2:8000/v1")),
    ProviderType.ANTHROPIC: Provider("p", ProviderType.ANTHROPIC, ("https://api.anthropic.com",), ANTHROPIC),
    ProviderType.GEMINI: Provider("p", ProviderType.GEMINI, (GOOGLE,), Dialect.GEMINI),
    ProviderType.OLLAMA: Provider("p", ProviderType.OLLAMA, ("http://localhost:11434",)),
    ProviderType.AZURE: Provider("p", ProviderType.AZURE, ("https://me.openai.azure.com",)),
    ProviderType.SIMULATOR: Provider("p", ProviderType.SIMULATOR, ("sim://anthropic",), ANTHROPIC),
    ProviderType.ORIGIN: Provider("p", ProviderType.ORIGIN, ("https://api.openai.com/v1/chat/completions?a=b%20c",)),
}  # fmt: skip


def made(
    kind: ProviderType,
    *,
    credential: Secret | None = OURS,
    caller: Headers = CALLER,
    stream: bool = False,
    endpoint: int = 0,
    trace: Headers = (),
    **change: str,
) -> UpstreamRequest:
    provider = replace(PROVIDERS[kind], **change)  # type: ignore[arg-type]  # only text fields are changed here
    return upstream_request(
        Sending(
            provider=provider,
            model=Model("m", "p"),
            body=b"{}",
            dialect=provider.dialect,
            operation=OPERATIONS[provider.dialect],
            stream=stream,
            credential=credential,
            caller=caller,
            request_id="req-1",
            trace=trace,
            endpoint=endpoint,
        )
    )


def spoken(
    kind: ProviderType,
    base: str,
    dialect: Dialect,
    *,
    operation: str = "",
    body: bytes = b"{}",
    model: str = "m",
    stream: bool = False,
    caller: Headers = CALLER,
) -> UpstreamRequest:
    """Return what is sent for a call that a provider is spoken to in this dialect for."""
    return upstream_request(
        Sending(
            provider=Provider("p", kind, (base,), dialect, cred_store="vault"),
            model=Model(model, "p"),
            body=body,
            dialect=dialect,
            operation=operation or OPERATIONS[dialect],
            stream=stream,
            credential=OURS,
            caller=caller,
            request_id="req-1",
        )
    )


def bare(provider: Provider) -> UpstreamRequest:
    return upstream_request(
        Sending(
            provider=provider,
            model=Model("m", provider.id),
            body=b"",
            dialect=provider.dialect,
            operation=OPERATIONS[provider.dialect],
            stream=False,
            credential=None,
            caller=(),
            request_id="r",
        )
    )


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        (ProviderType.OPENAI, "https://api.openai.com/v1/chat/completions"),
        (ProviderType.OPENAI_COMPATIBLE, "https://api.groq.com/openai/v1/chat/completions"),
        (ProviderType.VLLM, "http://10.0.0.1:8000/v1/chat/completions"),
        (ProviderType.ANTHROPIC, "https://api.anthropic.com/v1/messages"),
        (ProviderType.GEMINI, f"{GOOGLE}/v1beta/models/m:generateContent"),
        (ProviderType.OLLAMA, "http://localhost:11434/v1/chat/completions"),
        (ProviderType.AZURE, "https://me.openai.azure.com/openai/v1/chat/completions"),
        (ProviderType.SIMULATOR, "sim://anthropic/v1/messages"),
        (ProviderType.ORIGIN, "https://api.openai.com/v1/chat/completions?a=b%20c"),
    ],
)
def test_each_kind_has_its_operation(kind: ProviderType, url: str) -> None:
    """The URL follows from the kind, its dialect and its base."""
    request = made(kind)
    assert (request.method, request.url, request.body) == ("POST", url, b"{}")


def test_several_endpoints_take_turns() -> None:
    """The attempt's counter picks the endpoint, round and round."""
    hosts = [made(ProviderType.VLLM, endpoint=at).url.split("/")[2] for at in range(4)]
    assert hosts == ["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.1:8000", "10.0.0.2:8000"]


@pytest.mark.parametrize("kind", [kind for kind in ProviderType if kind is not ProviderType.ORIGIN])
def test_nothing_of_the_callers_authority_reaches_another_provider(kind: ProviderType) -> None:
    """Keys, cookies, hop-by-hop fields and unknown headers stay here."""
    headers = made(kind).headers
    assert all(CALLERS_KEY not in value for _, value in headers)
    allowed = {
        "authorization", "x-api-key", "anthropic-version", "anthropic-beta", "content-type", "accept",
        "accept-encoding", "user-agent", "x-request-id", "traceparent", "tracestate",
        "x-goog-api-key", "api-key", "openai-beta",
    }  # fmt: skip
    assert {name for name, _ in headers} <= allowed
    assert header(headers, "user-agent").startswith("tokenhub/")
    assert header(headers, "content-type") == "application/json"
    assert header(headers, "x-request-id") == "req-1"
    assert header(headers, "traceparent") == ("00-1-2-01" if kind is not ProviderType.SIMULATOR else "")


def test_a_bearer_is_sent_only_where_there_is_a_credential() -> None:
    """A local server without a key gets no empty `Bearer`."""
    assert header(made(ProviderType.OPENAI).headers, "authorization") == "Bearer sk-ours"
    for credential in (None, Secret(""), Secret(" \n")):
        assert not header(made(ProviderType.VLLM, credential=credential).headers, "authorization")


def test_anthropic_gets_its_key_its_version_and_the_callers_betas() -> None:
    """The caller's own version counts, else the usual one; betas go along."""
    headers = made(ProviderType.ANTHROPIC).headers
    assert header(headers, "x-api-key") == "sk-ours"
    assert not header(headers, "authorization")
    assert header(headers, "anthropic-version") == "2024-01-01"
    assert header(headers, "anthropic-beta") == "context-1m"
    plain = made(ProviderType.ANTHROPIC, caller=()).headers
    assert header(plain, "anthropic-version") == "2023-06-01"
    assert not header(plain, "anthropic-beta")


def test_an_account_is_named_only_beside_the_callers_own_key() -> None:
    """OpenAI refuses an organisation that the key does not belong to."""
    assert not header(made(ProviderType.OPENAI).headers, "openai-organization")
    with_own = made(ProviderType.OPENAI, cred_store="caller").headers
    assert header(with_own, "openai-organization") == "org-1"
    assert header(with_own, "openai-project") == "proj-1"
    assert not header(
        made(ProviderType.OPENAI_COMPATIBLE, cred_store="caller").headers, "openai-organization"
    )


COMPATIBLE, VLLM, GEMINI = ProviderType.OPENAI_COMPATIBLE, ProviderType.VLLM, ProviderType.GEMINI
OLLAMA, AZURE, OPENAI = ProviderType.OLLAMA, ProviderType.AZURE, ProviderType.OPENAI
DATED = "https://me.openai.azure.com?api-version=2024-10-21"


@pytest.mark.parametrize(
    ("kind", "base", "dialect", "url"),
    [
        (COMPATIBLE, "https://api.groq.com", Dialect.OPENAI_CHAT, "https://api.groq.com/openai/v1/chat/completions"),
        (OPENAI, "https://api.groq.com/openai", Dialect.OPENAI_RESPONSES, "https://api.groq.com/openai/v1/responses"),
        (COMPATIBLE, "https://api.perplexity.ai", Dialect.OPENAI_CHAT, "https://api.perplexity.ai/chat/completions"),
        (COMPATIBLE, "https://api.deepseek.com", Dialect.OPENAI_CHAT, "https://api.deepseek.com/v1/chat/completions"),
        (COMPATIBLE, "https://api.deepseek.com/beta", Dialect.OPENAI_CHAT, "https://api.deepseek.com/beta/chat/completions"),
        (COMPATIBLE, "https://api.deepseek.com/v1", Dialect.OPENAI_COMPLETIONS, "https://api.deepseek.com/beta/completions"),
        (COMPATIBLE, "https://api.deepseek.com/v1", Dialect.ANTHROPIC_MESSAGES, "https://api.deepseek.com/anthropic/v1/messages"),
        (COMPATIBLE, "https://api.z.ai/api/coding/paas/v4", Dialect.OPENAI_CHAT, "https://api.z.ai/api/coding/paas/v4/chat/completions"),
        (COMPATIBLE, "https://openrouter.ai/api", Dialect.ANTHROPIC_MESSAGES, "https://openrouter.ai/api/v1/messages"),
        (COMPATIBLE, "https://llm.corp.test/gw", Dialect.OPENAI_EMBEDDINGS, "https://llm.corp.test/gw/v1/embeddings"),
        (ProviderType.ANTHROPIC, "https://me.services.ai.azure.com/anthropic", Dialect.ANTHROPIC_MESSAGES, "https://me.services.ai.azure.com/anthropic/v1/messages"),
        (ProviderType.ANTHROPIC, "https://api.anthropic.com", Dialect.ANTHROPIC_COUNT_TOKENS, "https://api.anthropic.com/v1/messages/count_tokens"),
        (GEMINI, f"{GOOGLE}/v1", Dialect.GEMINI, f"{GOOGLE}/v1/models/m:generateContent"),
        (GEMINI, GOOGLE, Dialect.OPENAI_EMBEDDINGS, f"{GOOGLE}/v1beta/openai/embeddings"),
        (GEMINI, "https://gw.test/google/v1beta", Dialect.GEMINI, "https://gw.test/google/v1beta/models/m:generateContent"),
        (GEMINI, "https://gw.test/google", Dialect.GEMINI, "https://gw.test/google/v1beta/models/m:generateContent"),
        (OLLAMA, "http://10.0.0.7:11434", Dialect.OLLAMA_CHAT, "http://10.0.0.7:11434/api/chat"),
        (OLLAMA, "http://10.0.0.7:11434/v1", Dialect.OLLAMA_GENERATE, "http://10.0.0.7:11434/api/generate"),
        (OLLAMA, "https://ollama.com/api", Dialect.OPENAI_CHAT, "https://ollama.com/v1/chat/completions"),
        (VLLM, "http://10.0.0.1:8000", Dialect.OPENAI_COMPLETIONS, "http://10.0.0.1:8000/v1/completions"),
        (AZURE, "https://me.openai.azure.com/openai/v1", Dialect.OPENAI_RESPONSES, "https://me.openai.azure.com/openai/v1/responses"),
        (AZURE, "https://gw.test/az/openai", Dialect.OPENAI_CHAT, "https://gw.test/az/openai/v1/chat/completions"),
        (AZURE, DATED, Dialect.OPENAI_CHAT, "https://me.openai.azure.com/openai/deployments/m/chat/completions?api-version=2024-10-21"),
        (AZURE, DATED.replace("?", "/openai?"), Dialect.OPENAI_EMBEDDINGS, "https://me.openai.azure.com/openai/deployments/m/embeddings?api-version=2024-10-21"),
        (AZURE, DATED, Dialect.OPENAI_RESPONSES, "https://me.openai.azure.com/openai/responses?api-version=2024-10-21"),
        (ProviderType.SIMULATOR, "sim://x", Dialect.GEMINI, "sim://x/v1beta/models/m:generateContent"),
        (ProviderType.SIMULATOR, "sim://x", Dialect.OLLAMA_CHAT, "sim://x/api/chat"),
        (ProviderType.SIMULATOR, "sim://x", Dialect.OPENAI_RESPONSES, "sim://x/v1/responses"),
    ],
)  # fmt: skip
def test_each_dialect_has_its_place_at_each_vendor(
    kind: ProviderType, base: str, dialect: Dialect, url: str
) -> None:
    """Whatever part of its base was given; a place that was named and fits is kept."""
    assert spoken(kind, base, dialect).url == url


def test_a_deployments_name_cannot_lead_elsewhere() -> None:
    """It is one segment, whatever is in it."""
    url = spoken(AZURE, DATED, Dialect.OPENAI_CHAT, model="../x?y#z/ü").url
    assert url.startswith("https://me.openai.azure.com/openai/deployments/..%2Fx%3Fy%23z%2F%C3%BC/chat/")


@pytest.mark.parametrize(
    ("kind", "base", "dialect", "name", "value"),
    [
        (GEMINI, GOOGLE, Dialect.GEMINI, "x-goog-api-key", "sk-ours"),
        (GEMINI, GOOGLE, Dialect.OPENAI_EMBEDDINGS, "authorization", "Bearer sk-ours"),
        (AZURE, DATED, Dialect.OPENAI_CHAT, "api-key", "sk-ours"),
        (OLLAMA, "https://ollama.com", Dialect.OLLAMA_CHAT, "authorization", "Bearer sk-ours"),
        (COMPATIBLE, "https://api.deepseek.com", Dialect.ANTHROPIC_MESSAGES, "x-api-key", "sk-ours"),
        (COMPATIBLE, "https://openrouter.ai", Dialect.ANTHROPIC_MESSAGES, "authorization", "Bearer sk-ours"),
        (COMPATIBLE, "https://llm.corp.test", Dialect.OPENAI_CHAT, "authorization", "Bearer sk-ours"),
    ],
)
def test_a_key_goes_in_the_one_field_that_is_read_there(
    kind: ProviderType, base: str, dialect: Dialect, name: str, value: str
) -> None:
    """And in no other: a second one would be taken for a mistake."""
    headers = spoken(kind, base, dialect).headers
    carrying = [item for item in headers if "sk-ours" in item[1]]
    assert carrying == [(name, value)]


@pytest.mark.parametrize("kind", [kind for kind in ProviderType if kind is not ProviderType.ORIGIN])
def test_a_key_in_a_callers_query_stays_here(kind: ProviderType) -> None:
    """What frames the stream goes along, the rest of the query was meant for another host."""
    operation = f"/models/m:streamGenerateContent?key={CALLERS_KEY}&alt=sse&access_token={CALLERS_KEY}&$x=1"
    base = PROVIDERS[kind].endpoints[0]
    url = spoken(kind, base, Dialect.GEMINI, operation=operation, stream=True).url
    assert CALLERS_KEY not in url
    assert url.partition("?")[2] == "alt=sse"


def test_the_origin_gets_a_callers_keys_as_it_sent_them() -> None:
    """In whatever field or query its vendor reads them."""
    target = f"{GOOGLE}/v1beta/models/m:streamGenerateContent?alt=sse&key={CALLERS_KEY}"
    request = spoken(ProviderType.ORIGIN, target, Dialect.GEMINI, stream=True)
    assert request.url == target
    for name in ("x-goog-api-key", "api-key", "x-api-key", "x-goog-api-client"):
        assert header(request.headers, name) == CALLERS_KEY


def test_what_a_vendor_alone_understands_goes_to_no_other() -> None:
    """Betas of one vendor are nonsense or an error at the next, also in its own dialect."""
    for kind, base, own in (
        (ProviderType.ANTHROPIC, "https://api.anthropic.com", {"anthropic-beta", "anthropic-version"}),
        (COMPATIBLE, "https://openrouter.ai/api/v1", {"anthropic-version"}),
    ):
        headers = spoken(kind, base, ANTHROPIC).headers
        assert {name for name, _ in headers if name.startswith("anthropic-")} == own
    for kind in (OPENAI, COMPATIBLE, AZURE, VLLM):
        beta = header(spoken(kind, "https://x.test", Dialect.OPENAI_CHAT).headers, "openai-beta")
        assert beta == ("responses=v1" if kind is OPENAI else "")


@pytest.mark.parametrize(
    ("dialect", "operation", "accept"),
    [
        (Dialect.OPENAI_RESPONSES, "/responses", "text/event-stream"),
        (Dialect.OLLAMA_CHAT, "/api/chat", "application/x-ndjson"),
        (Dialect.OLLAMA_GENERATE, "/api/generate", "application/x-ndjson"),
        (Dialect.GEMINI, "/models/m:streamGenerateContent?alt=sse", "text/event-stream"),
        (Dialect.GEMINI, "/models/m:streamGenerateContent", "application/json"),
    ],
)
def test_a_stream_is_asked_for_in_its_own_framing(dialect: Dialect, operation: str, accept: str) -> None:
    """Events, lines or an array; a whole answer is JSON everywhere."""
    for stream in (True, False):
        headers = spoken(COMPATIBLE, "https://x.test", dialect, operation=operation, stream=stream).headers
        assert header(headers, "accept") == (accept if stream else "application/json")


@pytest.mark.parametrize(
    ("kind", "base", "model", "body", "sent"),
    [
        (COMPATIBLE, "https://api.mistral.ai", "m", b'{"max_completion_tokens": 5,"a":1}', b'{"max_tokens":5,"a":1}'),
        (COMPATIBLE, "https://api.mistral.ai", "m", b'{"max_tokens": 5}', b'{"max_tokens": 5}'),
        (COMPATIBLE, "https://api.mistral.ai", "m", b'{"max_tokens":4,"max_completion_tokens":5}', b'{"max_tokens":4}'),
        (COMPATIBLE, "https://api.mistral.ai", "m", b'{"max_completion_tokens":null}', b"{}"),
        (COMPATIBLE, "https://api.mistral.ai", "m", b'{"x":"max_completion_tokens"}', b'{"x":"max_completion_tokens"}'),
        (OLLAMA, "http://10.0.0.7:11434", "m", b'{"max_completion_tokens":5}', b'{"max_tokens":5}'),
        (COMPATIBLE, "https://api.groq.com", "m", b'{"max_completion_tokens": 5}', b'{"max_completion_tokens": 5}'),
        (OPENAI, "https://api.openai.com", "gpt-4o", b'{"max_tokens": 5}', b'{"max_tokens": 5}'),
        (OPENAI, "https://api.openai.com", "o3-mini", b'{"max_tokens": 5}', b'{"max_completion_tokens":5}'),
        (OPENAI, "https://api.openai.com", "gpt-5.1", b'{"max_tokens": 5}', b'{"max_completion_tokens":5}'),
        (
            AZURE, "https://me.openai.azure.com", "gpt-5",
            b'{"max_tokens":null,"max_completion_tokens":5}', b'{"max_completion_tokens":5}',
        ),
    ],
)  # fmt: skip
def test_a_cap_goes_under_the_name_that_is_known_there(
    kind: ProviderType, base: str, model: str, body: bytes, sent: bytes
) -> None:
    """Where the other one would be refused or ignored; everywhere else the bytes stay as they are."""
    assert spoken(kind, base, Dialect.OPENAI_CHAT, body=body, model=model).body == sent


def test_only_chat_has_two_names_for_its_cap() -> None:
    """Legacy completions know the old one everywhere."""
    body = b'{"max_tokens": 5}'
    assert (
        spoken(OPENAI, "https://api.openai.com", Dialect.OPENAI_COMPLETIONS, body=body, model="o3").body
        is body
    )


def test_streams_are_asked_for_uncompressed() -> None:
    """A compressed stream arrives in lumps."""
    for kind in ProviderType:
        assert header(made(kind, stream=True).headers, "accept-encoding") == "identity"
        assert header(made(kind, stream=False).headers, "accept-encoding") == "gzip, deflate"


def test_the_origin_gets_what_was_meant_for_it_and_nothing_of_ours() -> None:
    """The caller's key and headers go along; what belongs to its connection or to us does not."""
    headers = made(ProviderType.ORIGIN).headers
    names = [name for name, _ in headers]
    assert header(headers, "authorization") == f"Bearer {CALLERS_KEY}"
    assert header(headers, "user-agent") == "OpenAI/Python 3.54.0"
    assert header(headers, "openai-organization") == "org-1"
    assert header(headers, "x-stainless-lang") == "python"
    assert header(headers, "x-request-id") == "req-1"
    assert all("sk-ours" not in value for _, value in headers)
    assert len(names) == len(set(names))
    for gone in (
        "host", "connection", "x-private", "keep-alive", "transfer-encoding", "te", "upgrade", "expect",
        "content-length", "proxy-authorization", "x-tokenhub-mode",
    ):  # fmt: skip
        assert gone not in names


def test_the_origins_callers_own_request_id_is_kept() -> None:
    """What the caller correlates by stays as it was."""
    headers = made(ProviderType.ORIGIN, caller=(("x-request-id", "mine"),)).headers
    assert [value for name, value in headers if name == "x-request-id"] == ["mine"]


def test_an_origin_given_by_host_alone_gets_its_dialects_path() -> None:
    """Where the caller's path is not known the usual one is taken."""
    provider = Provider("o", ProviderType.ORIGIN, ("https://api.anthropic.com",), Dialect.ANTHROPIC_MESSAGES)
    request = bare(provider)
    assert request.url == "https://api.anthropic.com/v1/messages"


@pytest.mark.parametrize("value", ["sk\r\nx-evil: 1", "sk\x00", "schlüssel", "two words"])
def test_a_credential_that_no_header_can_carry_is_the_credentials_fault(value: str) -> None:
    """It is refused before anything is sent, and not shown."""
    with pytest.raises(TokenHubError) as raised:
        made(ProviderType.OPENAI, credential=Secret(value))
    assert (raised.value.fault.kind, raised.value.fault.blame) == (Kind.AUTH, Blame.CREDENTIAL)
    assert value not in raised.value.fault.message


def test_a_line_break_after_a_credential_is_no_part_of_it() -> None:
    """Files end in one."""
    assert (
        header(made(ProviderType.OPENAI, credential=Secret("sk-a\n")).headers, "authorization")
        == "Bearer sk-a"
    )


def test_a_provider_without_endpoints_is_a_fault_of_ours() -> None:
    """Not an index error."""
    with pytest.raises(TokenHubError) as raised:
        bare(Provider("p", ProviderType.OPENAI, ()))
    assert raised.value.fault.blame is Blame.US


def test_a_request_does_not_show_its_credential() -> None:
    """Neither headers nor body stand in a repr."""
    assert "sk-ours" not in repr(made(ProviderType.OPENAI))


def test_models_and_health_have_urls_of_their_own() -> None:
    """Every kind lists its models; vLLM has a health page at its root; the origin is nobody's to probe."""
    assert models_url(PROVIDERS[ProviderType.OPENAI]) == "https://api.openai.com/v1/models"
    assert health_url(PROVIDERS[ProviderType.ANTHROPIC]) == "https://api.anthropic.com/v1/models"
    assert health_url(PROVIDERS[ProviderType.VLLM], 1) == "http://10.0.0.2:8000/health"
    assert health_url(PROVIDERS[ProviderType.SIMULATOR]) == "sim://anthropic/v1/models"
    assert health_url(PROVIDERS[ProviderType.ORIGIN]) == ""
    assert models_url(PROVIDERS[GEMINI]) == f"{GOOGLE}/v1beta/models"
    assert models_url(PROVIDERS[OLLAMA]) == "http://localhost:11434/v1/models"
    assert models_url(PROVIDERS[AZURE]) == "https://me.openai.azure.com/openai/v1/models"
    assert models_url(Provider("p", AZURE, (DATED,))) == (
        "https://me.openai.azure.com/openai/models?api-version=2024-10-21"
    )


def test_probes_carry_the_credential_as_calls_do() -> None:
    """Each kind in its own header."""
    assert credential_headers(PROVIDERS[ProviderType.OPENAI], OURS) == (("authorization", "Bearer sk-ours"),)
    assert credential_headers(PROVIDERS[ProviderType.ANTHROPIC], OURS)[0] == ("x-api-key", "sk-ours")
    assert credential_headers(PROVIDERS[ProviderType.ORIGIN], OURS) == ()
    assert credential_headers(PROVIDERS[GEMINI], OURS) == (("x-goog-api-key", "sk-ours"),)
    assert credential_headers(PROVIDERS[AZURE], OURS) == (("api-key", "sk-ours"),)
    assert credential_headers(Provider("p", OPENAI, ()), OURS) == (("authorization", "Bearer sk-ours"),)


def test_only_anthropic_and_google_have_a_main_dialect_of_their_own() -> None:
    """The rest speak OpenAI's chat completions."""
    main = {kind: dialect_of(kind) for kind in ProviderType if dialect_of(kind) is not Dialect.OPENAI_CHAT}
    assert main == {ProviderType.ANTHROPIC: ANTHROPIC, GEMINI: Dialect.GEMINI}


def test_what_else_a_provider_speaks_follows_from_its_kind_and_its_place() -> None:
    """Of an unknown server only what cannot be translated is left as it is, of several what all of them speak."""
    chat_family = (Dialect.OPENAI_RESPONSES, Dialect.OPENAI_COMPLETIONS, Dialect.OPENAI_EMBEDDINGS)
    assert also_of(OPENAI, "https://api.openai.com") == chat_family
    assert also_of(OPENAI, "https://x.test") == chat_family
    assert also_of(AZURE, DATED) == chat_family
    assert also_of(ProviderType.ANTHROPIC, "https://x.test") == (Dialect.ANTHROPIC_COUNT_TOKENS,)
    assert also_of(COMPATIBLE, "https://x.test") == (Dialect.OPENAI_EMBEDDINGS,)
    assert also_of(COMPATIBLE, "https://api.cerebras.ai") == (Dialect.OPENAI_COMPLETIONS,)
    assert Dialect.ANTHROPIC_MESSAGES in also_of(COMPATIBLE, "https://openrouter.ai/api/v1")
    assert also_of(VLLM, "http://10.0.0.1:8000") == (Dialect.OPENAI_COMPLETIONS, Dialect.OPENAI_EMBEDDINGS)
    assert {Dialect.OLLAMA_CHAT, Dialect.OLLAMA_GENERATE} <= set(also_of(OLLAMA, "http://10.0.0.7:11434"))
    assert Dialect.OPENAI_CHAT not in also_of(GEMINI, GOOGLE)
    assert also_of(ProviderType.ORIGIN, "https://x.test") == also_of(OPENAI) == ()
    both = also_of(COMPATIBLE, "https://api.groq.com", "https://x.test")
    assert both == (Dialect.OPENAI_EMBEDDINGS,)


NAMES = ["traceparent", "anthropic-beta", "anthropic-version", "openai-organization", "x-other", "connection"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.text(st.sampled_from("ab\r\n\0\t"), max_size=6))),
    st.sampled_from(ProviderType),
)
def test_no_header_can_smuggle_another(caller: list[tuple[str, str]], kind: ProviderType) -> None:
    """Whatever the caller sent, no value that leaves holds a line break."""
    for _, value in made(kind, caller=tuple(caller), cred_store="caller").headers:
        assert not set(value) & set("\r\n\0")


def test_a_trace_of_ours_is_told_to_registered_providers_only() -> None:
    """In the place of the caller's own; the host that a call was meant for gets what its caller sent."""
    ours = (("traceparent", "00-3-4-01"),)
    for kind, told in ((ProviderType.OPENAI, "00-3-4-01"), (ProviderType.ORIGIN, "00-1-2-01")):
        headers = made(kind, trace=ours).headers
        assert [value for name, value in headers if name == "traceparent"] == [told]
