"""`tokenhub alias` against a TokenHub that is serving."""

from __future__ import annotations

import pytest

from tests.cli.running import Running, Shell, columns
from tokenhub_core.cli.alias import alias


@pytest.fixture
def run(served: Running) -> Shell:
    served.do(served.it.provider(served.fake, "p", "a", "b", "m=x"))
    return Shell(alias, served.it.data / "data")


def test_an_alias_is_added_shown_and_removed(run: Shell) -> None:
    """With a weight for each model; one without has the weight 1."""
    assert run("add", "fast", "a=3", "b") == "fast (weighted): a=3, b=1\n"
    assert run("show", "fast") == "fast (weighted): a=3, b=1\n"
    assert run.json("add", "fast", "b=0", "a", "--sticky", "key", "--disabled")["enabled"] is False
    assert run("show", "fast") == "fast (weighted, sticky by key, disabled): b=0, a=1\n"
    assert run("remove", "fast") == "fast is removed\n"
    assert "no alias 'fast'" in run.refusal("remove", "fast")
    assert run.json("list") == []


def test_a_pool_is_of_patterns(run: Shell) -> None:
    """Without weights; what it matches is shown."""
    assert run("add", "*", "a*", "b", "--strategy", "pool") == "* (pool): a*, b\n"
    assert run("show", "*") == "* (pool): a*, b\n2 models: a, b\n"


def test_an_equals_sign_in_an_id_is_no_weight(run: Shell) -> None:
    """Where the weight is said too; else the refusal says what is wrong."""
    assert run("add", "x", "m=x=2") == "x (weighted): m=x=2\n"
    assert run.refusal("add", "x", "m=x") == "m=x: a weight is a whole number"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("add", "a", "b"), "model's id"),
        (("add", "x", "unknown"), "no model 'unknown'"),
        (("show", "none"), "no alias 'none'"),
        (("report", "none"), "no alias 'none'"),
        (("report", "none", "--since", "yesterday"), "90m, 12h, 7d"),
    ],
)
def test_the_servers_refusal_is_told(run: Shell, args: tuple[str, ...], words: str) -> None:
    """In its own words, in one line."""
    assert words in run.refusal(*args)


def test_the_list_is_a_table(run: Shell, served: Running) -> None:
    """What has gone stands in it as such."""
    assert run("list") == "no alias is registered\n"
    run("add", "[red]x[/]", "a", "b=2")
    served.admin("DELETE", "/models/a")
    listed = run("list").splitlines()
    assert columns(listed[0]) == ["alias", "strategy", "sticky by", "models", "on"]
    assert any("[red]x[/]" in line and "a=1 (missing), b=2" in line for line in listed)
    assert "a is not registered and is left out" in run("show", "[red]x[/]")


def test_variants_are_compared(run: Shell, served: Running) -> None:
    """Each with its figures and their intervals; what cannot be known is a question mark."""
    run("add", "fast", "a", "b", "--strategy", "round_robin")
    for _ in range(3):
        served.call("fast")
    told = run("report", "fast")
    assert "a: 2 calls\n" in told
    assert "b: 1 calls\n" in told
    share = next(line for line in told.splitlines() if line.startswith("share of calls"))
    assert columns(share)[1:] == ["66.7", "20.8", "93.9"]
    assert any(
        line.startswith("latency, mean ms") and line.rstrip().endswith("?") for line in told.splitlines()
    )
    assert run.json("report", "fast", "--since", "1h")["requests"] == 3
