"""`tokenhub provider` against a TokenHub that is serving."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cli.running import Running, Shell
from tokenhub_core.cli.provider import provider
from tokenhub_core.ports import Secret
from tokenhub_core.types import OnDisconnect

KEY = "sk-CANARY-on-stdin"


@pytest.fixture
def run(served: Running) -> Shell:
    return Shell(provider, served.it.data / "data")


def local(served: Running, *more: str) -> tuple[str, ...]:
    return ("add", "local", "--base-url", served.fake.url, *more)


def test_a_key_comes_from_standard_input_and_is_shown_to_nobody(run: Shell, served: Running) -> None:
    """It serves, and neither the answer nor the list has it."""
    told = run(*local(served, "--api-key-stdin", "--memory", "--model", "gpt-4o"), input=f"{KEY}\nmore\n")
    assert told.splitlines() == [
        f"local: openai at {served.fake.url}, memory",
        "gpt-4o at local: weight 5, $2.5 in, $10 out per million tokens",
    ]
    served.call()
    assert served.fake.requests[-1].header("authorization") == f"Bearer {KEY}"
    assert KEY not in told + run("list") + run("list", "--json")


def test_there_is_no_way_to_put_a_key_on_the_command_line(run: Shell) -> None:
    """Everyone on the machine reads those: no option takes one."""
    for command in provider.commands.values():
        taking = {
            name
            for option in command.params
            for name in option.opts
            if name.startswith("--") and not getattr(option, "is_flag", False)
        }
        assert taking <= {"--type", "--base-url", "--model", "--api-key-env", "--on-disconnect", "--data-dir"}


def test_what_becomes_of_those_who_leave_is_a_providers_own_policy(run: Shell, served: Running) -> None:
    """It is let go of, unless somebody says at its registration, or later, that it bills on."""
    assert run.json(*local(served))["provider"]["on_disconnect"] == "cancel"
    assert run("on-disconnect", "local", "drain") == "local: drain\n"
    assert run.json("list")[0]["on_disconnect"] == "drain"
    assert served.it.app.catalog.fleet.providers["local"].on_disconnect is OnDisconnect.DRAIN
    assert run.json(*local(served, "--on-disconnect", "drain"))["provider"]["on_disconnect"] == "drain"
    assert "'nobody'" in run.refusal("on-disconnect", "nobody", "drain")


def test_a_key_goes_to_the_vault_where_it_is_open(run: Shell, served: Running) -> None:
    """Without a vault the refusal says what else there is."""
    assert "cred_store" in run.refusal(*local(served, "--api-key-stdin"), input=KEY)
    served.do(served.it.app.vault.init(Secret("correct horse battery")))
    told = run.json(*local(served, "--api-key-stdin"), input=KEY)
    assert (told["provider"]["cred_store"], told["models"], told["listed"]) == ("vault", [], 0)


def test_the_well_known_need_only_a_key(run: Shell, served: Running) -> None:
    """Their address and their price list are known; a variable of the server's is named, not read here."""
    told = run("add", "anthropic", "--api-key-env", "SOME_KEY")
    first, second = told.splitlines()
    assert first == "anthropic: anthropic at https://api.anthropic.com/v1, env:SOME_KEY (missing)"
    assert second.endswith("models registered from the price catalogue")
    again = run.json("add", "anthropic", "--model", "claude-x")
    assert (again["provider"]["cred_store"], len(again["models"]), again["listed"]) == ("env:SOME_KEY", 1, 0)
    assert run.json("add", "openai", "--base-url", "https://eu.example")["provider"]["base_url"] == (
        "https://eu.example"
    )


@pytest.mark.parametrize(
    ("name", "kind", "base", "listed"),
    [
        ("groq", "openai_compatible", "https://api.groq.com/openai/v1", True),
        ("gemini", "gemini", "https://generativelanguage.googleapis.com/v1beta", True),
        ("lmstudio", "openai_compatible", "http://localhost:1234/v1", False),
        ("ollama", "ollama", "http://localhost:11434/v1", False),
    ],
)
def test_a_vendors_name_is_its_address(run: Shell, name: str, kind: str, base: str, listed: bool) -> None:
    """And its price list; what a server on this machine has loaded stands in none."""
    told = run.json("add", name)
    assert (told["provider"]["type"], told["provider"]["base_url"]) == (kind, base)
    assert (told["listed"] > 0) is listed


def test_a_type_may_say_where_too(run: Shell) -> None:
    """Google is where it always is; another type than the vendor's own is another server."""
    told = run.json("add", "mine", "--type", "gemini")
    assert told["provider"]["base_url"] == "https://generativelanguage.googleapis.com/v1beta"
    assert run.refusal("add", "groq", "--type", "vllm") == "--base-url is required"
    assert run.refusal("add", "azure") == "--base-url is required"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--api-key-stdin", "--api-key-env", "X"), "no other key option"),
        (("--memory", "--api-key-env", "X"), "no other key option"),
        (("--memory",), "--api-key-stdin"),
        (("--api-key-stdin",), "no key on standard input"),
        (("--base-url", "ftp://x"), "scheme"),
        (("--api-key-env", "A B"), "cred_store"),
    ],
)
def test_what_does_not_go_together_is_refused(
    run: Shell, served: Running, more: tuple[str, ...], words: str
) -> None:
    """In one line, with nothing registered."""
    assert words in run.refusal(*local(served, *more), input="")
    assert run.json("list") == []


def test_an_unknown_provider_needs_an_address(run: Shell) -> None:
    """Told before anything is asked of the server."""
    assert run.refusal("add", "mine") == "--base-url is required"


def test_several_endpoints_are_one_provider(run: Shell, served: Running) -> None:
    """In the order in which they are named."""
    told = run.json(
        "add", "v", "--type", "vllm", "--base-url", "http://127.0.0.1:1", "--base-url", "http://127.0.0.1:2"
    )
    assert (told["provider"]["type"], told["provider"]["endpoints"]) == (
        "vllm",
        ["http://127.0.0.1:1", "http://127.0.0.1:2"],
    )


def test_the_list_is_a_table(run: Shell, served: Running) -> None:
    """Of eighty columns; names are shown as they are, whatever they look like to a terminal."""
    assert run("list") == "no provider is registered\n"
    run(*local(served))
    name = "[bold]x[/] :smile:"[:18].replace("/", "|").replace(":", "*")
    run("add", name, "--base-url", "https://a-rather-long-name.of-a-company.example/with/a/path/v1")
    listed = run("list")
    assert listed.split()[:6] == ["id", "type", "endpoints", "credential", "models", "on"]
    assert name in listed
    assert [item["id"] for item in run.json("list")] == sorted(["local", name])


def test_a_provider_is_removed(run: Shell, served: Running) -> None:
    """Under any name; once."""
    run("add", "50% ü?#", "--base-url", "https://x.example")
    assert run("remove", "50% ü?#") == "50% ü?# is removed\n"
    assert run.refusal("remove", "50% ü?#") == "there is no provider '50% ü?#'"
    run(*local(served))
    assert run.json("remove", "local") == {"ok": True}


def test_in_a_simulation_one_is_told_that_it_does_not_serve_yet(simulated: Running) -> None:
    """Or they would wonder why every answer is still made up."""
    run = Shell(provider, simulated.it.data / "data")
    assert "not in service: this server simulates" in run(*local(simulated))


def test_a_refusal_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    """From the command line, with nobody serving."""
    program = "from tokenhub_core.cli import main; main()"
    for args in (
        ["provider", "list"],
        ["provider", "remove", "x"],
        ["model", "list"],
        ["logs"],
        ["explain", "x"],
    ):
        result = subprocess.run(
            [sys.executable, "-c", program, *args, "--data-dir", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
            env={name: value for name, value in os.environ.items() if not name.startswith("TOKENHUB_")},
        )
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("tokenhub: nothing is serving from ")
        assert result.stderr.count("\n") == 1


def test_a_terminal_is_asked_for_the_key(
    run: Shell, served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an echo."""
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    told = CliRunner().invoke(
        provider,
        [*local(served, "--api-key-stdin", "--memory"), "--data-dir", str(run.data)],
        input=f"{KEY}\n",
        standalone_mode=False,
    )
    assert told.exception is None
    assert "API key" in told.output
    assert KEY not in told.output
