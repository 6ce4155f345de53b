"""Every command in the documents works: typed in the order of its page, or named here with the reason why it is not."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click
import pytest
import pytest_asyncio

from tests.cli.running import Running, running
from tests.documents.commands import ROOT, Command, commands, documents, mentioned
from tests.documents.terminal import Terminal
from tests.e2e.serving import Serve, eventually, serving
from tests.proof.saying import delivered
from tokenhub_core.ca import CertificateAuthority
from tokenhub_core.cli import _tokenhub
from tokenhub_core.recognise import HOSTS

NOT_TYPED: Final[Mapping[tuple[str, str], str]] = {
    (
        "*",
        "scripts/",
    ): "of the repository, and minutes long: tests/test_scripts.py, and each run of the tests",
    ("*", "pip install"): "takes packages from an index",
    ("*", "tokenhub serve"): "runs until it is told to end: tests/e2e/test_serve.py",
    ("*", "tokenhub console"): "takes the terminal: tests/addon",
    ("*", "tokenhub web"): "runs until it is told to end: tests/addon",
    ("*", "docker"): "needs Docker",
    ("*", "kubectl"): "needs a cluster",
    ("*", "export TOKENHUB_"): "sets what a server reads that is started after it: tests/test_config.py",
    ("README.md", ".venv/bin/mitmproxy"): "takes the terminal: tests/addon",
    (
        "docs/connect.md",
        "tokenhub run -- node",
    ): "tests/launch/test_node.py, with and without a proxy of Node's own",
    ("docs/connect.md", "tokenhub run -- claude"): "a package of npm: `scripts/test agents`",
    ("docs/connect.md", "tokenhub doctor"): "lets three clients call, for seconds: tests/e2e/test_doctor.py",
    ("docs/database.md", "createuser"): "needs PostgreSQL's own administrator",
    ("docs/database.md", "pg_dump"): "needs a PostgreSQL",
    ("docs/database.md", "pg_restore"): "needs a PostgreSQL",
    ("docs/database.md", "tokenhub db restore"): "refuses while the server runs: tests/cli/test_db.py",
    ("docs/deploy.md", "mkdir"): "makes secrets for a composition",
    ("docs/deploy.md", "for name in"): "makes secrets for a composition",
    ("docs/deploy.md", "chmod"): "makes secrets for a composition",
    ("docs/deploy.md", "cd ../.."): "needs Docker",
    ("docs/durable.md", "temporal"): "runs until it is told to end: tests/workflows",
    ("docs/durable.md", "TOKENHUB_TEMPORAL"): "runs until it is told to end: tests/workflows",
    ("docs/durable.md", "tokenhub workflow"): "needs a Temporal: tests/workflows/test_admin.py",
    ("docs/events.md", "curl -N"): "has no end: tests/http/test_admin_events.py",
    ("docs/log.md", "tokenhub logs --follow"): "has no end: tests/cli/test_logs.py",
    ("docs/operating.md", "tokenhub prices refresh --from https"): "fetches a list: tests/cli/test_prices.py",
    ("docs/ui.md", "UPDATE_PICTURES"): "takes pictures: tests/http/test_ui_pictures.py",
    ("docs/tutorial-console.md", "tokenhub run"): "the first call of docs/tutorial-program.md",
    ("docs/proof.md", "TOKENHUB_PROOF"): "runs until it is told to end: tests/e2e/test_serve.py",
}
"""(page, how the command begins) → why nobody types it here; `*` is every page."""

PASSWORD: Final = "correct horse battery"
ASKED: Final = {"vault init": PASSWORD, "admin user add": PASSWORD}
GIVEN: Final = {
    "--api-key-stdin": "sk-placeholder\n",
    "apikey revoke": "y\n",
    "apply": "y\n",
    "ca rotate": "y\n",
}
"""What is typed, and what comes on standard input, by words of the command."""


def reason(command: Command) -> str:
    """Return why a command is not typed, nothing where it is."""
    for (page, begins), why in NOT_TYPED.items():
        if page in {"*", command.page} and command.text.startswith((begins, f".venv/bin/{begins}")):
            return why
    return ""


@dataclass(frozen=True)
class Scene:
    """What a page takes for granted."""

    settings: Mapping[str, str] = field(default_factory=dict)
    given: Callable[[Running], Mapping[str, str]] = lambda _: {}
    """Makes what the page speaks of; returns what its words stand for."""


def _sealed(it: Running) -> Mapping[str, str]:
    it.admin("POST", "/vault/init", {"admin_password": PASSWORD})
    return {}


def _keyed(it: Running) -> Mapping[str, str]:
    made = it.admin("POST", "/apikeys", {"name": "app", "models": ["*"], "providers": ["*"]})
    return {"key_1f0c…": made["id"], "key:ak_7f3": f"key:{made['id']}", "KEY ": f"{made['id']} "}


def _budgeted(it: Running) -> Mapping[str, str]:
    made = it.admin("POST", "/budgets", {"owner": "project:mine", "limit": 5_000_000})
    return {**_keyed(it), "bud_3f9c0a1b2c": made["id"]}


def _hooked(it: Running) -> Mapping[str, str]:
    made = it.admin("POST", "/webhooks", {"url": "https://hook.example/", "kinds": ["health_change"]})
    return {"hook_1f…": made["id"]}


def _imported(it: Running) -> Mapping[str, str]:
    folder = it.it.data
    model = {
        "model_name": "gpt-4o",
        "litellm_params": {"model": "openai/gpt-4o", "api_key": "os.environ/NO_KEY"},
    }
    (folder / "config.yaml").write_text(f'{{"model_list": [{model}]}}'.replace("'", '"'))
    (folder / ".tokenhub").mkdir()
    (folder / ".tokenhub" / "env").write_text("TOKENHUB_DEFAULT_MODE=cheap\n")
    provider = '{"id": "q", "type": "openai", "base_url": "https://q.example", "api_key": "sk-placeholder"}'
    (folder / ".tokenhub" / "credentials").write_text(f'{{"providers": [{provider}], "models": []}}')
    (folder / ".tokenhub" / "credentials").chmod(0o600)
    return {**_sealed(it), "~/": f"{folder}/"}


def _proved(it: Running) -> Mapping[str, str]:
    told = it.do(it.it.chat())
    name = told.header("x-request-id")
    it.do(delivered(it.it, name))
    (it.it.data / "answer.txt").write_bytes(told.body)
    return {"req_…": name, "812:9f3c…": it.admin("GET", "/proofs")["head"]}


def _audited(it: Running) -> Mapping[str, str]:
    it.admin("PUT", "/modes", {"host": "api.openai.com", "mode": "shadow"})
    CertificateAuthority.open(it.it.data / "data" / "ca", HOSTS, now=time.time)
    return {"812:9f3c…": it.admin("GET", "/audit")["head"]}


def _local(it: Running) -> Mapping[str, str]:
    it.do(it.it.provider(it.fake, "local", "mistral-large"))
    return {}


def _priced(it: Running) -> Mapping[str, str]:
    _sealed(it)
    for name in ("openai", "anthropic"):
        models = {"openai": ("gpt-4o-mini", "gpt-4o", "gpt-5"), "anthropic": ("claude-haiku-4-5",)}[name]
        it.do(it.it.provider(it.fake, name, *models))
    (it.it.data / "list.json").write_text("{}")
    (it.it.data / "policy.json").write_text('{"mode": "cheap"}')
    it.call("gpt-4o")
    return {}


def _captured(it: Running) -> Mapping[str, str]:
    _sealed(it)
    name = it.call("gpt-4o")

    async def kept() -> bool:
        return (await it.it.admin("GET", f"/logs/{name}/body")).status == 200

    it.do(eventually(kept))
    return {" ID ": f" {name} "}


def _named(it: Running) -> Mapping[str, str]:
    it.do(it.it.provider(it.fake, "p", "gpt-4o"))
    it.admin("POST", "/aliases", {"name": "fast", "variants": [{"model_id": "gpt-4o"}]})
    return {}


def _registered(it: Running) -> Mapping[str, str]:
    it.do(it.it.provider(it.fake, "p", "gpt-4o", "claude-sonnet-4-5"))
    return {" ID ": " p "}


def _backed(it: Running) -> Mapping[str, str]:
    (it.it.data / "backup").mkdir()
    return {"/backup/": f"{it.it.data}/backup/"}


SCENES: Final[Mapping[str, Scene]] = {
    "docs/apikeys.md": Scene(given=_keyed),
    "docs/budgets.md": Scene(given=_budgeted),
    "docs/database.md": Scene(given=_backed),
    "docs/directives.md": Scene(given=lambda it: {**_sealed(it), **_keyed(it)}),
    "docs/events.md": Scene(given=_hooked),
    "docs/import.md": Scene(given=_imported),
    "docs/operating.md": Scene(given=_priced),
    "docs/output.md": Scene(given=lambda it: {"http://127.0.0.1:8899": it.it.url}),
    "docs/privacy.md": Scene({"CAPTURE": "full"}, _captured),
    "docs/proof.md": Scene({"PROOF": "all"}, _proved),
    "docs/quirks.md": Scene(given=_local),
    "docs/resilience.md": Scene(given=_registered),
    "docs/rehearsal.md": Scene(given=_priced),
    "docs/shadow.md": Scene(given=_named),
    "docs/trust.md": Scene(given=_audited),
}
"""Pages whose commands need something that is there; the others' need a server and nothing else."""
SIMULATED: Final = frozenset({"docs/output.md", "docs/proof.md", "docs/privacy.md"})
"""Pages whose calls the simulator answers."""
THROUGH: Final = ("README.md", "docs/connect.md", "docs/tutorial-program.md", "docs/tutorial-team.md")
"""Pages whose commands go through the proxy: they have a `tokenhub serve`."""

_PROGRAM: Final = """
import json, urllib.request
asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
call = urllib.request.Request("https://api.openai.com/v1/chat/completions", json.dumps(asked).encode())
call.add_header("content-type", "application/json")
print(urllib.request.urlopen(call).read().decode())
"""

_TYPED: Final = {
    name: typed
    for page in documents()
    if (name := str(page.relative_to(ROOT))) and (typed := [one for one in commands(page) if not reason(one)])
}
_BESIDE: Final = tuple(name for name in _TYPED if name not in THROUGH)


@pytest.mark.parametrize("page", _BESIDE)
def test_the_commands_of_a_page_work(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page, beside a server that has what the page speaks of."""
    scene = SCENES.get(page, Scene())
    simulate = page in SIMULATED
    monkeypatch.chdir(tmp_path)
    with running(tmp_path, simulate=simulate, settings=scene.settings) as it:
        terminal = Terminal(tmp_path, tmp_path / "data", {**scene.given(it)}, GIVEN, ASKED)
        for command in _TYPED[page]:
            terminal.type(command)


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Serve]:
    """A `tokenhub serve` of these very sources, answered by the simulator."""
    settings = {"PYTHONPATH": f"{ROOT}:{ROOT / 'addon'}"}
    command = (sys.executable, "-c", "from tokenhub_core.cli import main; main()")
    async with serving(tmp_path, "--simulate", settings=settings, command=command) as serve:
        yield serve


@pytest.mark.parametrize("page", THROUGH)
def test_the_commands_of_a_page_work_through_the_proxy(
    page: str, served: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the page; a program of one's own is a few lines of Python that know nothing of us."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "your_program.py").write_text(_PROGRAM)
    names = {"http://127.0.0.1:8090": served.info.side_url}
    terminal = Terminal(tmp_path, served.data, names, GIVEN, ASKED)
    for command in _TYPED[page]:
        if "$ID" in command.text:
            terminal.environ["ID"] = terminal.latest()
        told = terminal.type(command)
        if "/v1/chat/completions" in command.text:
            assert '"choices"' in told, command


def test_what_is_not_typed_is_there_to_be_typed() -> None:
    """A reason goes when its command does."""
    every = [one for page in documents() for one in commands(page)]
    unused = [
        (page, begins)
        for page, begins in NOT_TYPED
        if not any(
            page in {"*", one.page} and one.text.startswith((begins, f".venv/bin/{begins}")) for one in every
        )
    ]
    assert unused == []
    assert len(every) - sum(map(bool, map(reason, every))) > 100


def _uses() -> Iterator[tuple[str, list[str]]]:
    """Yield every use of `tokenhub` that a page shows or mentions: where, and its words."""
    for page in documents():
        name = str(page.relative_to(ROOT))
        for one in commands(page):
            if one.words[0] == "tokenhub":
                yield str(one), one.words[1:]
        for said in mentioned(page) if page.parent.name != "decisions" else ():
            yield f"{name}: {said}", re.split(r"[\s|]+", said)[1:]


def test_whatever_is_said_of_a_command_is_so() -> None:
    """The commands and options that a page names are there, also where it only speaks of them."""
    wrong = [where for where, words in _uses() if not _known(words)]
    assert wrong == []


def _known(words: list[str]) -> bool:
    """Tell whether these words lead to a command, and whether it has the options among them."""
    command: click.Command = _tokenhub
    context = click.Context(command)
    while isinstance(command, click.Group) and words:
        if words[0].startswith("-"):
            break
        below = command.get_command(context, words[0])
        if below is None:
            # `tokenhub provider, model` and a placeholder are said of the group itself.
            return not re.fullmatch(r"[a-z-]+", words[0])
        command, words = below, words[1:]
    there = {one for parameter in command.params for one in (*parameter.opts, *parameter.secondary_opts)}
    ours = words[: words.index("--")] if "--" in words else words
    if command.context_settings.get("ignore_unknown_options"):
        return True
    options = (word.partition("=")[0] for word in ours if re.match(r"--\w", word))
    return all(option in there | {"--help", "--version"} for option in options)


@pytest.mark.parametrize("words", [["lgos"], ["provider", "ad"], ["logs", "--sinse", "2h"]])
def test_a_command_that_is_not_there_is_seen(words: list[str]) -> None:
    """A name, a name below, an option."""
    assert not _known(words)
