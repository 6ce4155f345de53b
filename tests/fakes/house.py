"""The whole application on a loopback port, and someone who asks it things.

    async with house(tmp_path) as it:
        answer = await it.admin("GET", "/providers")
        assert (answer.status, answer.json) == (200, {"items": [], "total": 0})

By default it has nothing configured, may reach no origin and does not simulate.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import aiohttp
import orjson
from aiohttp import web
from yarl import URL

from tests.fakes import contract
from tests.fakes.engine import chat
from tests.fakes.provider import FakeProvider
from tests.fakes.trust import trust_is_read_once
from tests.patience import PATIENCE
from tokenhub_core import app, config
from tokenhub_core.admission.doorkeeper import Doorkeeper
from tokenhub_core.app import App
from tokenhub_core.http.admin import Admin
from tokenhub_core.ports import KeyBook
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.telemetry.logs import discreet
from tokenhub_core.types import Headers, Json, header


@dataclass(frozen=True)
class Told:
    """One whole answer."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        assert self.header("content-type").startswith("application/json"), self
        return orjson.loads(self.body)

    def header(self, name: str) -> str:
        return header(self.headers, name)

    @property
    def fault(self) -> Json:
        """What an error of the admin API says."""
        error: Json = self.json["error"]
        return error


@dataclass
class House:
    """A running application."""

    app: App
    data: Path
    port: int
    session: aiohttp.ClientSession
    server: web.Server
    seen: list[bytes] = field(default_factory=list, repr=False)
    """Every body that was ever sent back, for those who look for what must not be there."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many clients' connections are open."""
        return len(self.server.connections)

    @property
    def token(self) -> str:
        return self.app.admin_token.reveal()

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    @property
    def bus(self) -> Bus:
        """The event bus, which nobody outside is given: it is taken from the handler that reads it."""
        for route in self.app.side.router.routes():
            owner = getattr(route.handler, "__self__", None)
            if isinstance(owner, Admin):
                return owner._desk.bus
        raise AssertionError("there is no admin API")

    async def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Told:
        """Send a request as it stands; a body that is no bytes is sent as JSON. The answer must be a declared one."""
        raw = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        data = None if raw is None else io.BytesIO(raw)
        url = URL(self.url + path, encoded=True)
        async with self.session.request(
            method, url, data=data, headers=headers, allow_redirects=False
        ) as response:
            told = Told(
                response.status,
                tuple((name.lower(), value) for name, value in response.headers.items()),
                await response.read(),
            )
        self.seen.append(told.body)
        media = told.header("content-type").partition(";")[0]
        contract.check(method, path, raw, contract.Said(told.status, media, told.body))
        return told

    async def admin(self, method: str, path: str, body: object = None) -> Told:
        """Ask the admin API."""
        return await self.ask(method, f"/admin/v1{path}", body, self.bearer)

    async def done(self, method: str, path: str, body: object = None) -> Json:
        """Ask the admin API for something that must succeed."""
        told = await self.admin(method, path, body)
        assert told.status < 300, (method, path, told.status, told.body)
        data: Json = told.json
        return data

    async def provider(self, fake: FakeProvider, name: str = "p", *models: str, **more: Any) -> None:
        """Register a fake provider and its models, with a key that is kept in memory."""
        body = {"id": name, "base_url": fake.url, "cred_store": "memory", "api_key": f"sk-{name}", **more}
        await self.done("POST", "/providers", body)
        for model in models:
            prices = {"input_per_1k": 0.002, "output_per_1k": 0.008}
            await self.done("POST", "/models", {"id": model, "provider_id": name, **prices})

    async def chat(
        self, model: str = "gpt-4o", headers: Mapping[str, str] | None = None, **more: Any
    ) -> Told:
        """Make one call."""
        return await self.ask("POST", "/v1/chat/completions", chat(model=model, **more), headers)

    async def raw(self, data: bytes) -> bytes:
        """Send bytes and return everything that comes back until the connection is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(PATIENCE):
                return await reader.read()
        finally:
            writer.transport.abort()


@asynccontextmanager
async def house(
    data: Path,
    *,
    simulate: bool = False,
    settings: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    drain: float = 1.0,
    book: KeyBook | None = None,
) -> AsyncIterator[House]:
    """Build and serve the application; `settings` by variable, without the prefix. `book` knows clients' keys.

    At the end, calls that are not over after `drain` seconds are cancelled.
    """
    given = {"CREDENTIALS_FILE": str(data / "credentials"), "ORIGIN": "false", **(settings or {})}
    parsed = config.parse(
        {f"TOKENHUB_{name}": value for name, value in given.items()},
        data_dir=data / "data",
        overrides={"simulate": simulate},
    )
    known = (
        nullcontext()
        if book is None
        else mock.patch.object(app, "Doorkeeper", lambda _, **more: Doorkeeper(book, **more))
    )
    with trust_is_read_once(), known:
        async with app.running(parsed, environ or {}) as running, aiohttp.ClientSession() as session:
            runner = web.AppRunner(
                running.side,
                handler_cancellation=True,
                access_log=None,
                auto_decompress=False,
                logger=discreet(),
                shutdown_timeout=drain,
            )
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            try:
                assert runner.server is not None
                yield House(running, data, runner.addresses[0][1], session, runner.server)
            finally:
                await runner.cleanup()
