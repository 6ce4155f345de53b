"""Base URLs: what people paste, and what must never be one."""

from __future__ import annotations

import pytest

from tokenhub_core.errors import ConfigError
from tokenhub_core.providers.endpoints import check_endpoint, forbidden, join, mount, site


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://api.openai.com", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/v1/chat/completions", "https://api.openai.com/v1/chat/completions"),
        ("https://api.groq.com/openai/v1", "https://api.groq.com/openai/v1/chat/completions"),
        ("https://openrouter.ai/api/v1/", "https://openrouter.ai/api/v1/chat/completions"),
        ("https://api.z.ai/api/paas/v4", "https://api.z.ai/api/paas/v4/chat/completions"),
        ("https://x.googleapis.com/v1beta/openai", "https://x.googleapis.com/v1beta/openai/chat/completions"),
        ("http://127.0.0.1:8000/models-of-v1", "http://127.0.0.1:8000/models-of-v1/v1/chat/completions"),
        ("https://v1.example.com", "https://v1.example.com/v1/chat/completions"),
    ],
)
def test_every_way_to_write_a_base_gives_the_same_operation(base: str, url: str) -> None:
    """`/v1` is added once, and only where the path names no version."""
    assert join(base, "/chat/completions") == url
    assert join(url, "/models") == url.replace("/chat/completions", "/models")


@pytest.mark.parametrize(
    ("base", "operation", "url"),
    [
        ("https://x.test", "/responses", "https://x.test/v1/responses"),
        ("https://x.test/v1/chat/completions", "/completions", "https://x.test/v1/completions"),
        ("https://x.test/v1/responses", "/embeddings", "https://x.test/v1/embeddings"),
        ("https://x.test/v1/messages", "/messages/count_tokens", "https://x.test/v1/messages/count_tokens"),
        ("https://x.test/v1/messages/count_tokens", "/messages", "https://x.test/v1/messages"),
        ("https://g.test", "/models/m:generateContent", "https://g.test/v1beta/models/m:generateContent"),
        (
            "https://g.test/v1/models/old:streamGenerateContent",
            "/models/m:streamGenerateContent?alt=sse",
            "https://g.test/v1/models/m:streamGenerateContent?alt=sse",
        ),
        ("http://localhost:11434", "/api/chat", "http://localhost:11434/api/chat"),
        ("http://localhost:11434/v1/", "/api/chat", "http://localhost:11434/api/chat"),
        ("http://localhost:11434/api", "/api/generate", "http://localhost:11434/api/generate"),
        (
            "http://localhost:11434/api/chat",
            "/chat/completions",
            "http://localhost:11434/v1/chat/completions",
        ),
        ("https://models", "/models", "https://models/v1/models"),
        ("https://x.test/my-models", "/models", "https://x.test/my-models/v1/models"),
    ],
)
def test_every_operation_finds_its_place(base: str, operation: str, url: str) -> None:
    """Gemini has a version of its own, Ollama's native paths have none, and a pasted operation is no base."""
    assert join(base, operation) == url


@pytest.mark.parametrize(
    ("base", "place"),
    [
        ("https://x.test", ("https://x.test", "")),
        ("https://x.test/", ("https://x.test", "")),
        ("https://x.test/openai", ("https://x.test", "")),
        ("https://x.test/openai/v1", ("https://x.test", "/openai/v1")),
        ("https://x.test/openai/v1/chat/completions", ("https://x.test", "/openai/v1")),
        ("https://x.test/gateway/v1", ("https://x.test/gateway", "/v1")),
        ("https://x.test/gateway", None),
        ("https://x.test/open", None),
    ],
)
def test_a_base_is_taken_apart_at_a_known_prefix(base: str, place: tuple[str, str] | None) -> None:
    """The longest that fits, behind whatever stands before it."""
    assert mount(base, ["/v1", "/openai/v1", ""]) == place


def test_a_site_is_scheme_host_and_port() -> None:
    """What vLLM's health lives under."""
    assert site("http://10.0.0.5:8000/v1/x") == "http://10.0.0.5:8000"
    assert site("https://me.openai.azure.com?api-version=1") == "https://me.openai.azure.com"


def test_an_api_version_stays_where_it_is_allowed() -> None:
    """One query for one kind of provider; everything else in a query is still refused."""
    dated = "https://me.openai.azure.com?api-version=2024-10-21"
    assert check_endpoint("https://Me.OpenAI.Azure.com:443/?api-version=2024-10-21", versioned=True) == dated
    assert check_endpoint(dated, versioned=True) == dated
    with pytest.raises(ConfigError):
        check_endpoint(dated)
    for wrong in (
        "?key=k",
        "?api-version=1&key=k",
        "?api-version=",
        "?",
        "?api-version=1#x",
        "?api-version=%31",
    ):
        with pytest.raises(ConfigError):
            check_endpoint(f"https://me.openai.azure.com{wrong}", versioned=True)


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://API.OpenAI.com:443/v1/", "https://api.openai.com/v1"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://127.0.0.1:80/", "http://127.0.0.1"),
        ("http://192.168.1.5:8000/v1", "http://192.168.1.5:8000/v1"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("https://gpu_box.internal:8443", "https://gpu_box.internal:8443"),
        ("sim://openai", "sim://openai"),
    ],
)
def test_good_endpoints_come_out_clean(url: str, clean: str) -> None:
    """One spelling per endpoint."""
    assert check_endpoint(url) == clean
    assert check_endpoint(clean) == clean


@pytest.mark.parametrize(
    "url",
    [
        "", "api.openai.com", "/v1", "ftp://example.com", "file:///etc/passwd", "https://", "https://:443",
        "http://example.com", "http://8.8.8.8", "https://user:pw@example.com", "https://user@example.com",
        "https://example.com/v1?x=1", "https://example.com/v1?", "https://example.com/#a", "https://example.com#",
        "https://example.com:0", "https://example.com:99999", "https://example.com:x",
        "https://exa mple.com", "https://example.com\t", "https://example.com\n.evil.com", "https://exämple.com",
        "https://example.com\\@evil.com", "https://-bad-.com", "https://a..b", "https://[::1",
        "http://169.254.169.254", "https://169.254.169.254/latest", "https://[fe80::1]", "https://[fd00:ec2::254]",
        "https://0.0.0.0", "https://[::]", "https://224.0.0.1", "https://255.255.255.255",
        "https://[::ffff:169.254.169.254]",
        "https://2130706433", "https://0x7f.1", "https://127.1", "https://example.0x1",
        "http://2130706433", "http://0x7f000001", "http://0x7f.1", "http://127.1", "http://0177.0.0.1",
        "http://example.1",
    ],
)  # fmt: skip
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    """Other schemes, credentials, queries, odd numbers, and addresses that nobody serves from."""
    with pytest.raises(ConfigError) as raised:
        check_endpoint(url)
    assert "\n" not in str(raised.value)
    assert "pw" not in str(raised.value)


def test_plain_http_to_a_name_needs_the_operators_word() -> None:
    """A flag opens http, and nothing else with it."""
    assert check_endpoint("http://gpu.internal:8000", allow_http=True) == "http://gpu.internal:8000"
    with pytest.raises(ConfigError):
        check_endpoint("http://169.254.169.254", allow_http=True)


def test_forbidden_addresses_are_known_in_every_spelling() -> None:
    """What a name resolves to may carry a zone or be a mapped address."""
    assert forbidden("fe80::1%eth0")
    assert forbidden("::ffff:169.254.1.1")
    assert forbidden("0.1.2.3")
    assert not forbidden("127.0.0.1")
    assert not forbidden("10.0.0.1")
    assert not forbidden("2606:4700::1111")
