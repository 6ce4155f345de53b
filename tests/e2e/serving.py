"""`tokenhub serve` as a process of its own, in a world without keys, and the admin API to set it up with."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.fakes.provider import FakeProvider
from tests.patience import PATIENCE, PROGRAM_PATIENCE
from tokenhub_core.launch.serveinfo import ServeInfo, read_serve_info
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.store.database import open_database
from tokenhub_core.store.log import RequestLog
from tokenhub_core.types import Json

ROOT = Path(__file__).parents[2]
TOKENHUB = (str(Path(sys.executable).with_name("tokenhub")),)
"""The command, as the virtual environment installs it."""

CANARY = "sk-canary"
"""How every credential of these scenes begins: it may stand in a provider's request, and nowhere else."""
PLACEHOLDERS = {"OPENAI_API_KEY": "sk-placeholder", "ANTHROPIC_API_KEY": "sk-ant-placeholder"}
"""What the programs have in place of keys."""

INPUT_PER_1K, OUTPUT_PER_1K = 0.002, 0.008
"""Dollars; what every registered model costs."""

_SIGNS_OF_A_BUG = ("Traceback", "Task exception", "never retrieved", "was never awaited", "Unclosed")


@dataclass(frozen=True)
class Exit:
    """How a process that did not stay up has ended."""

    code: int
    output: str


@dataclass
class Registered:
    """A provider that is registered under `id` and serves `models`."""

    id: str
    fake: FakeProvider
    key: str
    models: tuple[str, ...]


@dataclass
class Serve:
    """A `tokenhub serve` that is ready."""

    data: Path
    process: asyncio.subprocess.Process
    info: ServeInfo
    log: Path
    ready_after: float
    """Seconds from its start until its ports were open."""
    session: aiohttp.ClientSession
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text()

    @property
    def admin_token(self) -> str:
        return (self.data / "admin-token").read_text().strip()

    async def admin(self, method: str, path: str, body: Json | None = None) -> Json:
        """Ask the admin API; an error is an assertion."""
        headers = {"authorization": f"Bearer {self.admin_token}"}
        url = f"{self.info.side_url}/admin/v1{path}"
        async with self.session.request(method, url, json=body, headers=headers) as response:
            data: Json = await response.json()
            assert response.status < 300, (method, path, response.status, data)
            return data

    async def records(self) -> list[Json]:
        """Return the latest records, newest first."""
        logs: list[Json] = (await self.admin("GET", "/logs?limit=1000"))["logs"]
        return logs

    async def records_of(self, provider: Registered) -> list[Json]:
        """Return the records of the calls that were tried at a provider, newest first."""
        rows = await self.records()
        return [row for row in rows if provider.id in {attempt["provider"] for attempt in row["attempts"]}]

    async def record(self, request_id: str) -> Json:
        """Return the one record of a call."""
        return await self.admin("GET", f"/logs/{request_id}")

    async def register(
        self, fake: FakeProvider, *models: str, speaks: str = "openai", url: str = "", **more: Any
    ) -> Registered:
        """Register a fake provider and its models under an id that nobody had before."""
        name = f"{speaks}-{next(self._ids)}"
        key = f"{CANARY}-{name}"
        provider = {"id": name, "type": speaks, "base_url": url or fake.url}
        await self.admin("POST", "/providers", {**provider, "cred_store": "memory", "api_key": key})
        for model in models:
            prices = {"input_per_1k": INPUT_PER_1K, "output_per_1k": OUTPUT_PER_1K}
            await self.admin("POST", "/models", {"id": model, "provider_id": name, **prices, **more})
        return Registered(name, fake, key, models)

    @asynccontextmanager
    async def provider(
        self, *models: str, profile: Profile | None = None, **how: Any
    ) -> AsyncIterator[Registered]:
        """Start a fake provider that is registered for as long as the block lasts."""
        async with FakeProvider(profile=profile or Profile()) as fake:
            registered = await self.register(fake, *models, **how)
            try:
                yield registered
            finally:
                # A scene that failed must not fail the next one.
                await self.admin("DELETE", f"/providers/{registered.id}")

    async def stop(self) -> None:
        """Ask it to leave; it must do so in good order, and have told of no bug and no credential."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        code = await _ended(self.process)
        assert code == 0, f"exit code {code}\n{self.output}"
        self.check()

    async def kill(self) -> None:
        """Let it die where it stands."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    def check(self) -> None:
        """Look for signs of a bug in what it printed, and for credentials in everything that it left."""
        told = self.output
        assert not [sign for sign in _SIGNS_OF_A_BUG if sign in told], told[-4000:]
        secrets = [CANARY, *PLACEHOLDERS.values()]
        for path in (self.log, *(path for path in self.data.rglob("*") if path.is_file())):
            content = path.read_bytes()
            assert not [word for word in secrets if word.encode() in content], path


def prices(input_tokens: int, output_tokens: int) -> int:
    """Return what so many tokens cost, in nano-dollars."""
    return round((input_tokens * INPUT_PER_1K + output_tokens * OUTPUT_PER_1K) * 1e6)


def bare_environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment with an empty home and not one key in it."""
    home.mkdir(parents=True, exist_ok=True)
    return {"PATH": os.environ["PATH"], "HOME": str(home), **more}


async def start(
    folder: Path,
    *options: str,
    settings: Mapping[str, str] | None = None,
    command: Sequence[str] = TOKENHUB,
    session: aiohttp.ClientSession,
) -> Serve | Exit:
    """Run `tokenhub serve` with its data in `folder`; return once it is ready, or has given up."""
    data, log, home = folder / "data", folder / "serve.log", folder / "home"
    environ = bare_environment(home, **dict(settings or {}))
    began = time.monotonic()
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *command,
            *("serve", "--data-dir", str(data), "--port", "0", "--admin-port", "0", *options),
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        async with asyncio.timeout(PROGRAM_PATIENCE):
            info = await announced(data, process.pid, unless=lambda: process.returncode is not None)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AssertionError(f"not ready within {PROGRAM_PATIENCE:g} s\n{log.read_text()}") from None
    if info is None:
        assert process.returncode is not None
        return Exit(process.returncode, log.read_text())
    return Serve(data, process, info, log, time.monotonic() - began, session)


@asynccontextmanager
async def serving(
    folder: Path,
    *options: str,
    settings: Mapping[str, str] | None = None,
    command: Sequence[str] = TOKENHUB,
) -> AsyncIterator[Serve]:
    """Run `tokenhub serve` for as long as the block lasts. At its end it must leave in good order."""
    async with aiohttp.ClientSession() as session:
        serve = await start(folder, *options, settings=settings, command=command, session=session)
        assert isinstance(serve, Serve), serve
        try:
            yield serve
        except BaseException:
            await serve.kill()
            raise
        await serve.stop()


async def announced(data: Path, pid: int, *, unless: Callable[[], bool] = bool) -> ServeInfo | None:
    """Return what this process tells of itself once it is ready, None where `unless` came first."""
    while not unless():
        info = read_serve_info(data)
        if info is not None and info.pid == pid:
            return info
        await asyncio.sleep(0.005)
    return None


def measured(line: str) -> None:
    """Tell what was measured; pytest shows it with `-s`, and where a scene fails."""
    sys.stdout.write(f"{line}\n")


def stored(data: Path) -> dict[str, Json]:
    """Return every record in the database of a `tokenhub serve` that has ended, by its id."""
    database = open_database(str(data / "tokenhub.sqlite"))
    try:
        log, found = RequestLog(database), dict[str, Json]()
        before: int | None = None
        while True:
            page = log.page(limit=1000, before_seq=before)
            found |= {row["id"]: row for row in page.items}
            if (before := page.next) is None:
                return found
    finally:
        database.close()


async def until[T](look: Callable[[], T], *, within: float = PATIENCE) -> T:
    """Return what `look` returns once that is true."""
    async with asyncio.timeout(within):
        while not (seen := look()):  # noqa: ASYNC110 -- what is looked at is another process
            await asyncio.sleep(0.01)
    return seen


async def eventually[T](look: Callable[[], Awaitable[T]], *, within: float = PATIENCE) -> T:
    """Return what `look` answers once that is true."""
    async with asyncio.timeout(within):
        while not (seen := await look()):  # noqa: ASYNC110 -- what is looked at is another process
            await asyncio.sleep(0.02)
    return seen


async def _ended(process: asyncio.subprocess.Process) -> int:
    try:
        async with asyncio.timeout(PROGRAM_PATIENCE):
            return await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AssertionError("it did not leave when it was asked to") from None
