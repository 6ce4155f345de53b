"""What goes to a provider, and above all what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.errors import Blame, Kind, TokenHubError
from tokenhub_core.ports import Secret, UpstreamRequest
from tokenhub_core.providers.adapters import (
    Sending,
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
    ("traceparent", "00-1-2-01"),
)

ANTHROPIC = Dialect.ANTHROPIC_MESSAGES

PROVIDERS = {
    ProviderType.OPENAI: Provider("p", ProviderType.OPENAI, ("https://api.openai.com/v1",)),
    ProviderType.OPENAI_COMPATIBLE: Provider("p", ProviderType.OPENAI_COMPATIBLE, ("https://api.groq.com/openai/v1",)),
    ProviderType.VLLM: Provider("p", ProviderType.VLLM, ("http://10.0.0.1:8000", "http://10.0.0.2:8000/v1")),
    ProviderType.ANTHROPIC: Provider("p", ProviderType.ANTHROPIC, ("https://api.anthropic.com",), ANTHROPIC),
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
    **change: str,
) -> UpstreamRequest:
    provider = replace(PROVIDERS[kind], **change)  # type: ignore[arg-type]  # only text fields are changed here
    return upstream_request(
        Sending(
            provider=provider,
            model=Model("m", "p"),
            body=b"{}",
            dialect=provider.dialect,
            operation=DIALECTS[provider.dialect].operation(model="m", stream=stream),
            stream=stream,
            credential=credential,
            caller=caller,
            request_id="req-1",
            endpoint=endpoint,
        )
    )


def bare(provider: Provider) -> UpstreamRequest:
    return upstream_request(
        Sending(
            provider=provider,
            model=Model("m", provider.id),
            body=b"",
            dialect=provider.dialect,
            operation=DIALECTS[provider.dialect].operation(model="m", stream=False),
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


def test_probes_carry_the_credential_as_calls_do() -> None:
    """Each kind in its own header."""
    assert credential_headers(PROVIDERS[ProviderType.OPENAI], OURS) == (("authorization", "Bearer sk-ours"),)
    assert credential_headers(PROVIDERS[ProviderType.ANTHROPIC], OURS)[0] == ("x-api-key", "sk-ours")
    assert credential_headers(PROVIDERS[ProviderType.ORIGIN], OURS) == ()


def test_only_anthropic_speaks_anthropic_by_default() -> None:
    """The rest speak OpenAI's chat completions."""
    anthropic = [kind for kind in ProviderType if dialect_of(kind) is Dialect.ANTHROPIC_MESSAGES]
    assert anthropic == [ProviderType.ANTHROPIC]


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
