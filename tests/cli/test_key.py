"""`tokenhub provider key` against a TokenHub that is serving."""

from __future__ import annotations

import pytest

from tests.cli.running import Running, Shell
from tokenhub_core.cli.provider import provider

KEY = "sk-CANARY-of-the-second"


@pytest.fixture
def run(served: Running) -> Shell:
    return Shell(provider, served.it.data / "data")


def test_a_key_is_added_listed_switched_and_removed(run: Shell, served: Running) -> None:
    """One line each, and the key itself in none of them."""
    served.do(served.it.provider(served.fake, "p", "gpt-4o"))
    told = run("key", "add", "p", "second", "--api-key-stdin", "--memory", input=f"{KEY}\n")
    assert told == "p/second: memory, ready\n"
    listed = run("key", "list", "p")
    assert listed.split()[:4] == ["name", "where", "state", "left"]
    assert run("key", "disable", "p") == "p/default: disabled\n"
    served.call()
    assert served.fake.requests[-1].header("authorization") == f"Bearer {KEY}"
    assert run("key", "enable", "p") == "p/default: ready\n"
    assert "memory + 1" in run("list")
    assert run("key", "remove", "p", "second") == "p/second is removed\n"
    assert [item["name"] for item in run.json("key", "list", "p")] == ["default"]
    assert run.refusal("key", "remove", "p", "second") == "'p' has no credential 'second'"
    assert KEY not in told + listed + run("key", "list", "p", "--json")


def test_without_a_name_it_is_the_providers_own(run: Shell, served: Running) -> None:
    """Given anew, and taken away; the provider stays."""
    served.do(served.it.provider(served.fake, "p", "gpt-4o"))
    assert run("key", "add", "p", "--api-key-env", "SOME_KEY") == "p/default: env:SOME_KEY, missing\n"
    assert run("key", "remove", "p") == "p/default is removed\n"
    assert run("key", "list", "p") == "p has no credential\n"
    assert run.refusal("key", "add", "p", "x") == "give the key with --api-key-stdin or --api-key-env"


def test_what_is_parked_is_shown_and_unparked(run: Shell, served: Running) -> None:
    """With its reason; the history has both, the newest first."""
    served.do(served.it.provider(served.fake, "p", "gpt-4o"))
    assert run("key", "history", "p") == "nothing was ever parked\n"
    served.fake.script("gpt-4o", ["401"])
    served.call()
    assert "parked until" in run("key", "list", "p")
    assert run("key", "unpark", "p") == "p/default: ready\n"
    newest, oldest = run("key", "history", "p").splitlines()
    assert "default unparked, operator: unparked by hand" in newest
    assert "default parked until" in oldest
    assert oldest.endswith("automatic: http_401")
