"""`tokenhub model` against a TokenHub that is serving."""

from __future__ import annotations

import pytest

from tests.cli.running import Running, Shell, columns
from tokenhub_core.cli.model import model

SLASHED = "meta-llama/Llama-3.1-8B:free"


@pytest.fixture
def run(served: Running) -> Shell:
    served.do(served.it.provider(served.fake, "p"))
    return Shell(model, served.it.data / "data")


def test_a_model_is_added_with_what_was_said(run: Shell) -> None:
    """The rest comes from the price catalogue, and what nobody knows is told as unknown."""
    told = run("add", SLASHED, "--provider", "p", "--weight", "0", "--context", "8000", "--upstream", "llama",
               "--input-per-1k", "0.0003", "--output-per-1k", "0")  # fmt: skip
    assert told == f"{SLASHED} at p: weight 0, $0.3 in, $0 out per million tokens\n"
    (shown,) = run.json("list")
    assert (shown["upstream"], shown["max_context_tokens"]) == ("llama", 8000)
    assert run("add", "gpt-4o", "--provider", "p").endswith("$2.5 in, $10 out per million tokens\n")
    assert run("add", "mine", "--provider", "p") == "mine at p: weight 5, price unknown\n"
    assert run.json("add", "mine", "--provider", "p")["pricing_source"] == "unknown"


def test_a_model_is_changed_by_what_is_named(run: Shell) -> None:
    """And by nothing else; zero is a value."""
    run("add", SLASHED, "--provider", "p", "--input-per-1k", "1", "--output-per-1k", "2")
    assert "weight 0" in run("set", SLASHED, "--weight", "0")
    told = run.json("set", SLASHED, "--disable", "--input-per-1k", "0")
    assert (told["weight"], told["enabled"], told["input_per_1k"], told["output_per_1k"]) == (0, False, 0, 2)
    assert run.json("set", SLASHED, "--enable")["enabled"] is True
    assert run.refusal("set", SLASHED) == "nothing to change: name at least one option"


def test_a_model_gets_the_quirks_that_are_named(run: Shell) -> None:
    """As many as it needs; others in their place, or none any more."""
    run("add", "m", "--provider", "p", "--quirk", "tool_names", "--quirk", "merge_turns")
    assert run.json("list")[0]["quirks"] == ["merge_turns", "tool_names"]
    run("set", "m", "--weight", "1")
    assert run.json("list")[0]["quirks"] == ["merge_turns", "tool_names"]
    assert run.json("set", "m", "--quirk", "thinking_tags")["quirks"] == ["thinking_tags"]
    assert "no quirk 'haste'" in run.refusal("set", "m", "--quirk", "haste")
    assert "exclude" in run.refusal("set", "m", "--quirk", "tool_names", "--no-quirks")
    assert run.json("set", "m", "--no-quirks")["quirks"] == []


def test_of_several_providers_one_is_named(run: Shell, served: Running) -> None:
    """The refusal says how."""
    served.do(served.it.provider(served.fake, "q"))
    for name in ("p", "q"):
        run("add", SLASHED, "--provider", name)
    assert "provider" in run.refusal("set", SLASHED, "--weight", "1")
    run("set", SLASHED, "--weight", "1", "--provider", "q")
    assert [(item["provider_id"], item["weight"]) for item in run.json("list")] == [("p", 5), ("q", 1)]
    assert run("remove", SLASHED, "--provider", "p") == f"{SLASHED} is removed\n"
    assert run.json("remove", SLASHED) == {"ok": True}
    assert "no model" in run.refusal("remove", SLASHED)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("add", "m", "--provider", "none"), "no provider 'none'"),
        (("add", "m", "--provider", "p", "--input-per-1k", "1"), "or neither"),
        (("add", "m", "--provider", "p", "--input-per-1k", "-1", "--output-per-1k", "1"), "input_per_1k"),
        (("add", "..", "--provider", "p"), "visible characters"),
        (("set", "none", "--weight", "1"), "no model 'none'"),
    ],
)
def test_the_servers_refusal_is_told(run: Shell, args: tuple[str, ...], words: str) -> None:
    """In its own words, in one line."""
    assert words in run.refusal(*args)


def test_the_list_is_a_table(run: Shell) -> None:
    """Of eighty columns, whatever the ids look like."""
    assert run("list") == "no model is registered\n"
    for name in ("a" * 100, "[red]x[/red]", ":smile:", SLASHED):
        run("add", name, "--provider", "p")
    run("add", "gpt-4o", "--provider", "p", "--weight", "10")
    listed = run("list").splitlines()
    assert columns(listed[0]) == ["model", "provider", "weight", "context", "$ per million", "on"]
    row = next(line for line in listed if line.startswith("gpt-4o"))
    assert columns(row) == ["gpt-4o", "p", "10", "128000", "2.5 / 10", "yes"]
    assert [line.split()[0] for line in listed if "[red]" in line or ":smile:" in line] == [
        ":smile:",
        "[red]x[/red]",
    ]
    assert any(line.startswith(SLASHED) for line in listed)
