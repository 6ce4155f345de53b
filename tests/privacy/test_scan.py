"""The canary scan: a real server is driven through every door, and nothing that it leaves holds a secret.

Planted are every credential that the server knows or is shown, and unique words in prompts and answers. Looked through
are its log, its whole data directory (the write-ahead log too) while it runs and afterwards, every answer, metrics,
events, every page of the admin API, what the commands print, the command lines of all processes and the environment
that programs are started with. Saved flows have scenes of their own in `tests/addon/test_dumps.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from tests.addon.clients import Proxy, tunnel
from tests.fakes.certificates import authority, server_context
from tests.patience import PATIENCE, PROGRAM_PATIENCE
from tests.privacy.canaries import Canaries, files, scanned

PLANTED: Final = (
    "vault-key", "refused-key", "env-key", "file-key", "own-key", "query-key", "proxy-password", "admin-token",
    "vault-password",
    "wrong-token", "wrong-password", "cookie", "kept-secret", "prompt", "answer", "passed", "set-cookie",
)  # fmt: skip
OWN: Final = frozenset({"prompt", "answer"})
"""What may stand in the answer to the very call that it belongs to."""
TOKENHUB: Final = str(Path(sys.executable).with_name("tokenhub"))
CHAT: Final = "/v1/chat/completions"
KINDS: Final = ("slow", "ok", "stream", "quotes", "nonsense", "no-model", "cut", "moves", "bad-key")


@dataclass
class Site:
    """A provider, and the host that calls are meant for: it quotes whatever it is shown."""

    canaries: Canaries
    slow: asyncio.Event = field(default_factory=asyncio.Event)
    hits: int = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer as the prompt says."""
        self.hits += 1
        text = (await request.read()).decode(errors="replace")
        if request.path != CHAT:
            body = {"object": "file", "id": self.canaries["passed"]}
            return web.json_response(body, headers={"set-cookie": f"s={self.canaries['set-cookie']}"})
        quoted = f"you said {text[:300]} with {request.headers.get('authorization', '')}"
        match re.search(r"do:([a-z-]+)", text):
            case found if found and found[1] == "bad-key":
                return _error(401, f"Incorrect API key provided: {quoted}", "invalid_api_key")
            case found if found and found[1] == "quotes":
                return _error(400, f"Invalid value: {quoted}", "")
            case found if found and found[1] == "moves" and self.canaries["vault-key"] in quoted:
                return _error(500, f"The server failed at {quoted}", "")
            case found if found and found[1] in {"stream", "cut", "slow"}:
                return await self._stream(request, found[1])
        message = {"role": "assistant", "content": self.canaries["answer"]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
        whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        return web.json_response({**whole, "usage": usage})

    async def _stream(self, request: web.BaseRequest, how: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        for delta in ({"role": "assistant", "content": self.canaries["answer"]}, {"content": " more"}):
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            await response.write(f"data: {json.dumps({**head, 'choices': [choice]})}\n\n".encode())
        if how == "slow":
            await self.slow.wait()
        if how == "cut":
            assert request.transport is not None
            request.transport.abort()
            return response
        end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        await response.write(f"data: {json.dumps(end)}\n\ndata: [DONE]\n\n".encode())
        return response


def _error(status: int, message: str, code: str) -> web.Response:
    told = {"message": message, "type": "invalid_request_error", "code": code or None}
    return web.json_response({"error": told}, status=status)


@asynccontextmanager
async def site(canaries: Canaries, folder: Path) -> AsyncIterator[tuple[Site, int, int]]:
    """Yield the site, and the ports where it speaks HTTP and TLS."""
    it = Site(canaries)
    tls = server_context(folder, authority(folder), address="127.0.0.1", names=["localhost"])
    runner = web.ServerRunner(
        web.Server(it.handle, access_log=None, handler_cancellation=True), shutdown_timeout=0.1
    )
    await runner.setup()
    for context in (None, tls):
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield it, runner.addresses[0][1], runner.addresses[1][1]
    finally:
        it.slow.set()
        await runner.cleanup()


@dataclass
class Server:
    """A `tokenhub serve` of its own process, and everything that came out of it."""

    canaries: Canaries
    process: asyncio.subprocess.Process
    environ: Mapping[str, str]
    data: Path
    log: Path
    session: aiohttp.ClientSession
    told: dict[str, Any]
    places: dict[str, bytes] = field(default_factory=dict)
    allowed: dict[str, set[str]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)

    @property
    def side(self) -> str:
        """Return the side server's URL."""
        return str(self.told["side_url"])

    def keep(self, place: str, data: bytes, *, may: frozenset[str] = frozenset()) -> None:
        """Remember what came from a place, and what may stand in it."""
        name = f"{len(self.places)} {place}"
        self.places[name], self.allowed[name] = data, set(may)

    async def admin(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str = "",
        may: frozenset[str] = frozenset(),
    ) -> None:
        """Ask the admin API, and keep the answer."""
        headers = {"authorization": f"Bearer {token or self.canaries['admin-token']}"}
        url = f"{self.side}/admin/v1{path}"
        async with self.session.request(method, url, json=body, headers=headers) as response:
            raw = await response.read()
            self.keep(f"{method} {path}", raw + repr(response.headers).encode(), may=may)

    async def page(self, path: str, headers: Mapping[str, str] | None = None) -> None:
        """Look at a page of the side server without showing anything."""
        async with self.session.get(self.side + path, headers=headers) as response:
            self.keep(path, await response.read() + repr(response.headers).encode())

    async def command(self, *args: str, may: frozenset[str] = frozenset()) -> None:
        """Run a command, and keep what it prints."""
        process = await asyncio.create_subprocess_exec(
            *(TOKENHUB, *args),
            env=self.environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PROGRAM_PATIENCE):
            out, err = await process.communicate()
        assert process.returncode == 0, (args, out, err)
        self.keep(f"tokenhub {args[0]}", out + err, may=may)


@asynccontextmanager
async def serve(canaries: Canaries, folder: Path, http: int, tls: int) -> AsyncIterator[Server]:
    """Run the server with every secret where an operator would put it."""
    credentials = folder / "credentials"
    provider = {"id": "filed", "type": "openai_compatible", "base_url": f"http://127.0.0.1:{http}/v1"}
    credentials.write_text(json.dumps({"providers": [{**provider, "api_key": canaries["file-key"]}]}))
    credentials.chmod(0o600)
    log = folder / "log"
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONWARNINGS": "ignore",
        "TOKENHUB_DATA_DIR": str(folder / "data"),
        "TOKENHUB_CREDENTIALS_FILE": str(credentials),
        "TOKENHUB_ADMIN_TOKEN": canaries["admin-token"],
        "TOKENHUB_VAULT_PASSWORD": canaries["vault-password"],
        "CANARY_ENV_KEY": canaries["env-key"],
        "TOKENHUB_PORT": "0",
        "TOKENHUB_ADMIN_PORT": "0",
        "TOKENHUB_LOG_LEVEL": "debug",
        "TOKENHUB_EXTRA_HOSTS": "localhost=openai_chat",
        "TOKENHUB_ALLOW_PRIVATE": "localhost",
        "TOKENHUB_CA_FILE": str(folder / "ca.pem"),
        "TOKENHUB_SHUTDOWN_DRAIN_SECS": "1",
        "COLUMNS": "300",
    }
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(TOKENHUB, "serve", env=environ, stdout=out, stderr=out)
    try:
        info = folder / "data" / "run" / "serve.json"
        async with asyncio.timeout(PROGRAM_PATIENCE):
            while not info.exists():
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.05)
        told = json.loads(info.read_bytes())
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            yield Server(canaries, process, environ, folder / "data", log, session, told)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PROGRAM_PATIENCE):
            await process.wait()


# --- what is done with it ----------------------------------------------------------------------------------


async def _configure(it: Server, http: int) -> None:
    base = f"http://127.0.0.1:{http}/v1"
    kind = {"type": "openai_compatible", "base_url": base}
    await it.admin("POST", "/providers", {"id": "vaulted", **kind, "api_key": it.canaries["vault-key"]})
    await it.admin("POST", "/providers", {"id": "envied", **kind, "cred_store": "env:CANARY_ENV_KEY"})
    await it.admin("POST", "/providers", {"id": "refused", **kind, "api_key": it.canaries["refused-key"]})
    for provider in ("vaulted", "envied", "filed", "refused"):
        prices = {"input_per_1k": 0.001, "output_per_1k": 0.001}
        for model in (f"only-{provider}", *(("shared",) if provider != "refused" else ())):
            await it.admin("POST", "/models", {"id": model, "provider_id": provider, **prices})


def _body(it: Server, kind: str, model: str) -> bytes:
    """Return a call; some of its own words are the credential that its program holds."""
    content = f"do:{kind} {it.canaries['prompt']}"
    body = {
        "model": "none" if kind == "no-model" else model,
        "messages": [{"role": "user", "content": content}],
    }
    streamed = {"stream": True} if kind in {"stream", "cut", "slow"} else {}
    return (
        b"{nonsense " + content.encode() if kind == "nonsense" else json.dumps({**body, **streamed}).encode()
    )


def _fields(it: Server) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "authorization": f"Bearer {it.canaries['own-key']}",
        "cookie": f"session={it.canaries['cookie']}",
        "user-agent": "canary/1",
    }


class Door:
    """One way in: a connection for each call."""

    def __init__(self, it: Server, name: str, port: int) -> None:
        self._it = it
        self.name = name
        self._port = port
        self._proxy = urlsplit(str(it.told["proxy_url"]))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str, str]:
        it = self._it
        if self.name == "direct":
            side = urlsplit(it.side)
            return *(await asyncio.open_connection(side.hostname, side.port)), "", f"127.0.0.1:{side.port}"
        assert self._proxy.hostname
        assert self._proxy.port
        proxy = Proxy(self._proxy.hostname, self._proxy.port, str(it.told["ca_file"]))
        host = f"localhost:{self._port}"
        if self.name == "plain":
            return *(await asyncio.open_connection(proxy.host, proxy.port)), f"http://{host}", host
        auth = f"user:{it.canaries['proxy-password']}"
        reader, writer = await tunnel(proxy, "localhost", self._port, auth=auth)
        await writer.start_tls(proxy.trust("http/1.1"), server_hostname="localhost")
        return reader, writer, "", host

    async def ask(self, body: bytes, *, path: str = CHAT, leave: bool = False) -> bytes:
        """Send a request and return all that comes back; `leave` in the middle of it."""
        reader, writer, prefix, host = await self._connect()
        fields = {"host": host, "content-length": str(len(body)), "connection": "close", **_fields(self._it)}
        if self.name == "plain":
            fields["proxy-authorization"] = f"Basic {self._it.canaries['proxy-password']}"
        lines = [f"POST {prefix}{path}?key={self._it.canaries['query-key']} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        try:
            async with asyncio.timeout(PATIENCE):
                if leave:
                    return await reader.readuntil(b"more")
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    return await reader.read()
                return b""
        finally:
            writer.transport.abort()


async def _calls(it: Server, door: Door) -> set[int]:
    """Make a call of each kind, and one that is not routed; return the statuses that came."""
    statuses = set()
    await it.admin("POST", "/providers/refused/credentials/default/unpark")
    for kind in KINDS:
        # A key that is refused is not shown again, so there is one for that.
        models = (
            ("shared", "only-vaulted", "only-envied", "only-filed")
            if kind != "bad-key"
            else ("only-refused",)
        )
        for model in models:
            answer = await door.ask(_body(it, kind, model), leave=kind == "slow")
            it.keep(f"{door.name} {kind} {model}", answer, may=OWN)
            it.ids += re.findall(r"x-tokenhub-decision: (\S+)", answer.decode(errors="replace"))
            statuses.add(int(answer[9:12]))
    if door.name != "direct":
        passed = await door.ask(b'{"a":1}', path="/v1/files")
        assert it.canaries["passed"].encode() in passed, passed
        it.keep(f"{door.name} passed", passed, may=frozenset({"passed", "set-cookie"}))
    return statuses


async def _administration(it: Server) -> None:
    """Ask every page of the admin API, make mistakes there, and use the secrets of one's own."""
    canaries = it.canaries
    await it.admin("GET", "/providers", token=canaries["wrong-token"])
    await it.admin("POST", "/vault/unlock", {"admin_password": canaries["wrong-password"]})
    await it.admin("PUT", "/vault/secrets/mine", {"value": canaries["kept-secret"]})
    await it.admin("GET", "/vault/secrets/mine", may=frozenset({"kept-secret"}))
    await it.admin("POST", "/providers", {"id": "broken", "api_key": canaries["vault-key"], "unknown": 1})
    await it.admin("POST", "/routing/simulate", {"model_hint": "shared"})
    await it.admin("POST", "/rehearse", {"policy": {"mode": "cheap"}})
    for path in (
        "/info", "/providers", "/models", "/routing-config", "/health", "/logs?limit=1000", "/vault",
        "/vault/secrets", "/audit?limit=1000", "/audit/verify", "/audit/export", "/aliases", "/modes",
        "/shadow/report", "/providers/vaulted/credentials", "/providers/vaulted/parkings",
    ):  # fmt: skip
        await it.admin("GET", path)
    for name in it.ids:
        await it.admin("GET", f"/decisions/{name}")
        await it.admin("GET", f"/logs/{name}")
    for path in ("/", "/ui/live", "/healthz", "/readyz", "/metrics", "/v1/models", "/admin/v1/nothing"):
        await it.page(path)
    await it.page("/", {"cookie": f"tokenhub_session={canaries['wrong-token']}"})
    for args in (
        ("logs",),
        ("explain", it.ids[0]),
        ("audit", "list"),
        ("vault", "status"),
        ("provider", "list"),
    ):
        await it.command(*args)
    # A variable of the operator's own choice is the program's as well; ours are not.
    await it.command("run", "--", "env", may=frozenset({"env-key"}))


async def _events(it: Server) -> bytes:
    """Return the events of the last calls, as many as are remembered."""
    headers = {"authorization": f"Bearer {it.canaries['admin-token']}"}
    url = f"{it.side}/admin/v1/events?replay=true"
    told = b""
    async with it.session.get(url, headers=headers) as response:
        while True:
            try:
                async with asyncio.timeout(1):
                    piece = await response.content.readany()
            except TimeoutError:
                return told
            told += piece


def _processes(it: Server) -> dict[str, bytes]:
    """Return the command line of every process, and the environment of what the server has started."""
    found: dict[str, bytes] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            found[f"{place}/cmdline"] = (place / "cmdline").read_bytes()
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == it.process.pid:
                found[f"{place}/environ"] = (place / "environ").read_bytes()
    return found


async def test_nothing_that_a_server_leaves_holds_a_secret(tmp_path: Path) -> None:
    """0 hits; and the drive itself did what it says: every door, every outcome, records and events of all."""
    canaries = Canaries(PLANTED)
    async with site(canaries, tmp_path) as (there, http, tls), serve(canaries, tmp_path, http, tls) as it:
        await _configure(it, http)
        for name in ("direct", "handoff", "plain"):
            statuses = await _calls(it, Door(it, name, http if name == "plain" else tls))
            assert {200, 400} <= statuses, (name, statuses)
        await _administration(it)
        it.keep("events", await _events(it))
        it.places |= files(it.data) | _processes(it)
        logged = json.loads(
            next(data for name, data in it.places.items() if " GET /logs?" in name).partition(b"<CIMulti")[0]
        )
        outcomes = {(row["lane"], row["outcome"]) for row in logged["logs"]}
        there.slow.set()
    it.places |= {f"{path} at the end": data for path, data in files(it.data).items()}
    it.places["log"] = it.log.read_bytes()

    assert "\n".join(scanned(it.places, canaries, it.allowed)) == ""
    assert outcomes >= {
        *(
            (lane, outcome)
            for lane in ("direct", "handoff", "inspect")
            for outcome in ("ok", "error", "cancelled")
        ),
        ("handoff", "passed"),
        ("inspect", "passed"),
    }
    assert there.hits > 60
    assert b"event: " in next(data for name, data in it.places.items() if name.endswith(" events"))
    assert any(name.endswith("-wal") and data for name, data in it.places.items())
    assert canaries.found(b"".join(it.places.values())) >= sorted(OWN)
    assert len(it.log.read_bytes().splitlines()) > 0
