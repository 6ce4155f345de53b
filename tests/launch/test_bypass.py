from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.launch.bypass import bypass

HOSTS = ("api.openai.com", "*.openai.azure.com", "bedrock-runtime.*.amazonaws.com")


def test_loopback_is_exempt_and_first() -> None:
    """With nothing set by the user, loopback alone goes direct."""
    assert bypass((), llm_hosts=HOSTS) == ("localhost", "127.0.0.1", "::1")


def test_include_localhost_takes_the_user_s_loopback_entries_away_too() -> None:
    """Loopback comes through us when it was asked for, whatever the user's list says."""
    own = ("localhost,127.0.0.1,::1,127.0.0.0/8,my.localhost,corp.test",)

    assert bypass(own, llm_hosts=HOSTS, include_localhost=True) == ("corp.test",)


@pytest.mark.parametrize(
    "entry",
    [
        "api.openai.com",
        "API.OpenAI.com",
        "openai.com",
        ".openai.com",
        "*.openai.com",
        "com",
        "api.openai.com:443",
        "mine.openai.azure.com",
        "deep.mine.openai.azure.com",
        "azure.com",
        "bedrock-runtime.eu-west-1.amazonaws.com",
        "eu-west-1.amazonaws.com",
        "amazonaws.com",
        "*",
    ],
)
def test_an_entry_that_covers_an_llm_host_goes(entry: str) -> None:
    """The host itself, its parents, what stands below a pattern, and the star are taken out."""
    assert entry not in bypass((f"{entry},corp.test",), llm_hosts=HOSTS)
    assert "corp.test" in bypass((f"{entry},corp.test",), llm_hosts=HOSTS)


@pytest.mark.parametrize(
    "entry",
    [
        "corp.test",
        ".corp.test",
        "corp.test:8443",
        "10.0.0.0/8",
        "192.168.1.1",
        "fd00::1",
        "notopenai.com",
        "other.openai.com",
        "s3.eu-west-1.amazonaws.com",
    ],
)
def test_every_other_entry_of_the_user_stays(entry: str) -> None:
    """What has nothing to do with LLM hosts keeps going direct."""
    assert bypass((entry,), llm_hosts=HOSTS)[3:] == (entry,)


@pytest.mark.parametrize(
    ("entry", "left"),
    [("[::1]", ()), ("[fd00::1]", ("fd00::1",)), ("fd00::/8", ()), ("::1/128", ()), ("[::1]:80", ())],
)
def test_what_makes_httpx_raise_goes(entry: str, left: tuple[str, ...]) -> None:
    """IPv6 networks are taken out and brackets off."""
    assert bypass((entry,), llm_hosts=HOSTS)[3:] == left


@settings(max_examples=100)
@given(st.lists(st.text(alphabet="ab.*:/[]1, ", max_size=20), max_size=4), st.booleans())
def test_cleaning_twice_changes_nothing(own: list[str], localhost: bool) -> None:
    """A nested run finds the list as it would write it."""
    once = bypass(own, llm_hosts=("a.b", "*.ab"), include_localhost=localhost)

    assert bypass((",".join(once),), llm_hosts=("a.b", "*.ab"), include_localhost=localhost) == once
