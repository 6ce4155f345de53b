"""Each official SDK holds a scripted conversation with a provider of each dialect; its own parser takes it all."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e import packages
from tests.e2e.matrix import (
    CALLS,
    CLIENTS,
    FEATURES,
    OLLAMA_OWN,
    ROWS,
    SPEAKERS,
    Client,
    Finding,
    Findings,
    Speaker,
    page,
)
from tests.e2e.programs import run
from tests.e2e.serving import PLACEHOLDERS, ROOT, Serve, measured, serving

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900)]

PAGE = ROOT / "docs" / "clients.md"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def serve(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serve]:
    """Nothing may reach an origin here."""
    folder = tmp_path_factory.mktemp("matrix")
    async with serving(folder, settings={"TOKENHUB_ORIGIN": "false"}) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def simulating(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serve]:
    """The built-in simulator serves here, its Ollama among others."""
    folder = tmp_path_factory.mktemp("simulating")
    async with serving(folder, settings={"TOKENHUB_ORIGIN": "false", "TOKENHUB_SIMULATE": "true"}) as running:
        yield running


@pytest.fixture(scope="module")
def findings() -> Findings:
    return {}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Node programs, in a folder from which they find their packages."""
    try:
        modules = packages.installed(packages.CLIENTS)
    except packages.MissingError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("scripts")
    for script in packages.CLIENTS.glob("*.mjs"):
        shutil.copy(script, folder)
    (folder / "node_modules").symlink_to(modules)
    return folder


@pytest.mark.parametrize("speaker", SPEAKERS, ids=[speaker.dialect for speaker in SPEAKERS])
@pytest.mark.parametrize("client", CLIENTS, ids=[client.program for client in CLIENTS])
async def test_a_conversation_goes_as_the_sdk_expects(
    serve: Serve,
    findings: Findings,
    request: pytest.FixtureRequest,
    client: Client,
    speaker: Speaker,
) -> None:
    """Every feature works, whatever the provider speaks, and the provider was asked in its own dialect."""
    command = _command(client, request)
    async with serve.provider(speaker.model, speaks=speaker.type) as provider:
        findings[client.name, speaker.dialect] = await _held(serve, command, speaker)

        elsewhere = [
            received.path
            for received in provider.fake.requests
            if not speaker.asked_at(client, received.path)
        ]
        assert elsewhere == []
        records = await serve.records_of(provider)
        assert {(record["outcome"], record["status"]) for record in records} == {("ok", 200)}
        assert len(records) == len(provider.fake.requests) == CALLS
        if client.dialect == speaker.dialect:  # nothing is translated, and nothing of the query is lost
            asked = {record["path"] for record in records}
            assert {received.path for received in provider.fake.requests} == asked


async def test_conversations_cross_into_ollamas_own_dialect(
    simulating: Serve, findings: Findings, request: pytest.FixtureRequest
) -> None:
    """Every feature works with a provider that is spoken to at `/api/chat` and nowhere else, whoever asks."""
    commands: dict[Client, tuple[str, str]] = {}
    for client in CLIENTS:
        with suppress(pytest.skip.Exception):
            commands[client] = _command(client, request)
    # All at once: this simulator takes its time, as its models would.
    held = await asyncio.gather(*(_held(simulating, command, OLLAMA_OWN) for command in commands.values()))
    for client, found in zip(commands, held, strict=True):
        findings[client.name, OLLAMA_OWN.dialect] = found

    records = [row for row in await simulating.records() if row["requested_model"] == OLLAMA_OWN.model]
    assert {(row["provider_id"], row["outcome"], row["status"]) for row in records} == {
        ("sim-ollama", "ok", 200)
    }
    assert {(row["dialect"], row["identical"]) for row in records} == {
        (client.dialect, False) for client in commands
    }
    assert len(records) == CALLS * len(commands)


async def test_the_page_of_clients_says_what_was_found(findings: Findings) -> None:
    """`docs/clients.md` is made from a run of the whole matrix."""
    missing = [
        f"{client.name} with {speaker.dialect}"
        for client, speaker in ROWS
        if (client.name, speaker.dialect) not in findings
    ]
    if missing:
        pytest.skip(f"not every conversation was held in this run: {missing[0]} and {len(missing) - 1} more")
    made = page(findings)
    measured(made)
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(made)
        return
    assert PAGE.read_text() == made


async def _held(serve: Serve, command: tuple[str, str], speaker: Speaker) -> dict[str, Finding]:
    """Hold a conversation; return what was found, by feature, if all of it went well."""
    ran = await run(
        serve,
        *command,
        speaker.model,
        PYTHONPATH=str(ROOT),
        GEMINI_API_KEY=PLACEHOLDERS["OPENAI_API_KEY"],
    )
    found = {line["feature"]: Finding(line["ok"], line["detail"]) for line in ran.lines}
    failed = {name: one.detail for name, one in found.items() if not one.ok}
    assert (failed, ran.code, tuple(found)) == ({}, 0, FEATURES), ran.err[-4000:]
    return found


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is there the package that it is in
        return False


def _command(client: Client, request: pytest.FixtureRequest) -> tuple[str, str]:
    if client.program.endswith(".mjs"):
        scripts: Path = request.getfixturevalue("scripts")
        return "node", str(scripts / client.program)
    if not _importable(client.module):
        pytest.skip(f"there is no Python module {client.module} here")
    return sys.executable, str(packages.CLIENTS / client.program)
