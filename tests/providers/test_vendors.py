"""The table of vendors: what it must be for everybody who reads it."""

from __future__ import annotations

import re

import pytest

from tokenhub_core.providers import vendors
from tokenhub_core.providers.endpoints import check_endpoint
from tokenhub_core.providers.vendors import ANY, OPERATIONS, PASSED, VENDORS, Vendor
from tokenhub_core.types import Dialect, ProviderType


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.id)
def test_every_line_holds_together(vendor: Vendor) -> None:
    """A base that may be registered, found again by it, and nothing left as it is that is not spoken anywhere."""
    assert vendors.named(vendor.id) is vendor
    assert vendor.type not in {ProviderType.SIMULATOR, ProviderType.ORIGIN}
    spoken = {dialect for way in vendor.ways for dialect in way.dialects}
    assert set(vendor.also) <= spoken
    assert len(set(vendor.also)) == len(vendor.also)
    assert all(re.fullmatch(r"(?:/[a-z0-9]+|/\{\})*", way.prefix) for way in vendor.ways)
    if vendor.base:
        assert check_endpoint(vendor.base) == vendor.base
        assert vendors.at(vendor.base) is vendor
        assert vendors.of(vendor.type, vendor.base) is vendor
        assert vendor.base.startswith("http://localhost:" if vendor.local else "https://")
    else:
        assert vendor.base_key


def test_no_name_stands_twice() -> None:
    """Neither an id, nor a host, nor a variable: each leads to one vendor."""
    ids = [vendor.id for vendor in VENDORS]
    hosts = [host for vendor in VENDORS for host in vendor.hosts] + list(PASSED)
    keys = [key for vendor in VENDORS for key in vendor.keys]
    for names in (ids, hosts, keys):
        assert len(names) == len(set(names))


def test_every_dialect_has_an_operation_and_a_place() -> None:
    """Whatever we read is spoken by somebody, and by a host of which only its dialect is known."""
    assert set(OPERATIONS) == set(Dialect)
    for dialect in Dialect:
        assert any(dialect in way.dialects for vendor in VENDORS for way in vendor.ways)
        assert any(dialect in way.dialects for way in vendors.family(dialect))


def test_a_wide_name_is_one_label_below_a_name_of_the_vendors_own() -> None:
    """So that a certificate authority that may vouch for it cannot vouch for somebody else's."""
    wide = {host for vendor in VENDORS for host in vendor.hosts if "*" in host}
    assert all(host.startswith("*.") and "*" not in host[2:] and host.count(".") >= 3 for host in wide)
    assert not any("*" in host or ANY in host for host in PASSED)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://API.Groq.com:443", "groq"),
        ("https://me.openai.azure.com?api-version=1", "azure"),
        ("http://localhost:1234/v1", "lmstudio"),
        ("http://localhost:9999/v1", ""),
        ("https://a.b.openai.azure.com", ""),
        ("https://api.groq.com.evil.example", ""),
        ("", ""),
    ],
)
def test_a_vendor_is_known_by_its_host(url: str, name: str) -> None:
    """Whatever the path; by the whole name."""
    vendor = vendors.at(url)
    assert (vendor.id if vendor else "") == name


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("groq", None, (ProviderType.OPENAI_COMPATIBLE, "https://api.groq.com/openai/v1")),
        ("ollama", None, (ProviderType.OLLAMA, "http://localhost:11434/v1")),
        ("azure", None, (ProviderType.AZURE, "")),
        ("mine", None, (ProviderType.OPENAI, "")),
        ("mine", ProviderType.VLLM, (ProviderType.VLLM, "")),
        (
            "mine",
            ProviderType.GEMINI,
            (ProviderType.GEMINI, "https://generativelanguage.googleapis.com/v1beta"),
        ),
        ("mine", ProviderType.OLLAMA, (ProviderType.OLLAMA, "http://localhost:11434/v1")),
        ("deepseek", ProviderType.ANTHROPIC, (ProviderType.ANTHROPIC, "")),
    ],
)
def test_an_id_or_a_type_may_say_where_a_provider_is(
    name: str, kind: ProviderType | None, expected: tuple[ProviderType, str]
) -> None:
    """A known name says all; a type against it is another provider, and one must say where."""
    assert vendors.starting(name, kind) == expected


def test_the_operators_word_for_the_kind_wins_over_the_table() -> None:
    """A vendor's second API is registered under its own type; what merely speaks chat is one family."""
    assert vendors.of(ProviderType.OPENAI, "https://api.groq.com").id == "groq"
    assert vendors.of(ProviderType.ANTHROPIC, "https://api.deepseek.com/anthropic").hosts == ()
    assert (
        vendors.of(ProviderType.OPENAI, "https://generativelanguage.googleapis.com/v1beta/openai").hosts == ()
    )
