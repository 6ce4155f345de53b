"""`tokenhub doctor`: proves what is captured on this machine, and of one program.

It starts a TokenHub of its own, on free ports and in a folder that it throws away, which answers every call from the
simulator; so nothing of what the doctor's own clients ask leaves this machine. A program that is named runs behind it
as `tokenhub run` would run it, and what it does at the proxy is looked at.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import signal
import socket
import sqlite3
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
import msgspec
from mitmproxy import ctx
from rich.text import Text

from tokenhub_addon.listening import serving
from tokenhub_addon.loop import loop_factory
from tokenhub_addon.witness import Witness
from tokenhub_core import __version__, config, envfile
from tokenhub_core.cli.admin import running_client
from tokenhub_core.cli.options import as_json, data_option, listing, plain, shown, tell
from tokenhub_core.cli.place import database_path, opened
from tokenhub_core.cli.run import OURS
from tokenhub_core.errors import ConfigError
from tokenhub_core.interception import shown as authority
from tokenhub_core.launch.client import prepare_client
from tokenhub_core.launch.diagnosis import (
    TRUST_VARIABLES,
    Finding,
    Sighting,
    State,
    of_probe,
    of_program,
    of_variables,
)
from tokenhub_core.launch.paths import data_dir
from tokenhub_core.launch.serveinfo import read_serve_info
from tokenhub_core.launch.serveinfo import serving as serving_info
from tokenhub_core.recognise import HOSTS
from tokenhub_core.telemetry import logs

_PATIENCE: Final = 30.0
"""Seconds that a client of our own has."""
_HOST: Final = "api.openai.com"
_URL: Final = f"https://{_HOST}/v1/chat/completions"
_BODY: Final = '{"model":"gpt-4o","max_tokens":5,"messages":[{"role":"user","content":"Hello"}]}'
_CODE_FOUND: Final = 1
"""The exit code where something is wrong."""

_PYTHON: Final = f"""
import urllib.request
request = urllib.request.Request({_URL!r}, {_BODY!r}.encode(), {{"content-type": "application/json"}})
assert urllib.request.urlopen(request, timeout=20).status == 200
"""
_ZSTD: Final = f"""
import urllib.request, zstandard
body = zstandard.compress({_BODY!r}.encode())
fields = {{"content-type": "application/json", "content-encoding": "zstd", "accept-encoding": "zstd"}}
assert urllib.request.urlopen(urllib.request.Request({_URL!r}, body, fields), timeout=20).status == 200
"""
_WEBSOCKET: Final = f"""
import os, ssl, http.client, urllib.parse
proxy = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"])
client = http.client.HTTPSConnection(proxy.hostname, proxy.port, context=ssl.create_default_context(), timeout=20)
client.set_tunnel({_HOST!r}, 443)
fields = {{"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13",
          "sec-websocket-key": "dG9rZW5odWIgZG9jdG9yIQ=="}}
client.request("GET", "/v1/responses", headers=fields)
assert client.getresponse().status in (101, 403, 426)
"""
_NODE: Final = f"""
fetch({_URL!r}, {{method: "POST", headers: {{"content-type": "application/json"}}, body: {_BODY!r}}})
  .then((answer) => process.exit(answer.status === 200 ? 0 : 1), (error) => {{
    console.error(String(error.cause ?? error)); process.exit(1); }});
"""


@dataclass(frozen=True, slots=True)
class _Probe:
    """A client of our own."""

    check: str
    program: str
    arguments: tuple[str, ...]
    want: str = ""
    """The version that it has to speak."""
    trust: str = ""
    """The one variable by which it has to find our CA; empty for all of them."""


_CURL: Final = (
    "-sS",
    "-f",
    "-m",
    "20",
    "-o",
    os.devnull,
    "-H",
    "content-type: application/json",
    "-d",
    _BODY,
    _URL,
)
_PROBES: Final = (
    _Probe(
        "python, HTTP/1.1, by SSL_CERT_FILE", sys.executable, ("-c", _PYTHON), "HTTP/1.1", "SSL_CERT_FILE"
    ),
    _Probe("python, zstd", sys.executable, ("-c", _ZSTD)),
    _Probe("python, WebSocket", sys.executable, ("-c", _WEBSOCKET)),
    _Probe("curl, HTTP/1.1, by CURL_CA_BUNDLE", "curl", ("--http1.1", *_CURL), "HTTP/1.1", "CURL_CA_BUNDLE"),
    _Probe("curl, HTTP/2", "curl", ("--http2", *_CURL), "HTTP/2.0"),
    _Probe("node, by NODE_EXTRA_CA_CERTS", "node", ("-e", _NODE), "", "NODE_EXTRA_CA_CERTS"),
)


@click.command(
    short_help="Prove what is captured on this machine, and of one program.",
    context_settings={"allow_interspersed_args": False},
)
@as_json
@data_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def doctor(*, command: tuple[str, ...], json: bool, data: Path | None) -> None:
    """Prove what is captured on this machine, and of one program.

    With COMMAND, run it behind a TokenHub that answers every call itself, and say what came through, by which lane,
    and what to do about what did not. Without, look at this machine, and let clients of our own call: Python, curl
    and node. What COMMAND prints goes to standard error. Exit code 1: something is wrong.

    \b
        tokenhub doctor
        tokenhub doctor -- python agent.py
    """
    logs.configure("error")
    place = data or data_dir(os.environ)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        if command:
            found, code = runner.run(_of_program(command))
        else:
            found, code = [*_machine(place), *runner.run(_of_probes())], None
    bad = any(one.state is State.PROBLEM for one in found)
    if not shown({"ok": not bad, "exit_code": code, "findings": msgspec.to_builtins(found)}, json=json):
        _print(found)
        if code is not None:
            tell(plain(f"{command[0]} ended with {code}"))
    sys.exit(_CODE_FOUND if bad else 0)


def _print(found: Sequence[Finding]) -> None:
    styles = {State.OK: "green", State.WARNING: "yellow", State.PROBLEM: "bold red", State.SKIPPED: "dim"}
    table = listing("", "check", "found")
    for one in found:
        words = plain(one.words)
        if one.fix:
            words.append("\n→ ").append(plain(one.fix).plain, style="bold")
        table.add_row(Text(one.state.value, style=styles[one.state]), plain(one.check), words)
    tell(table)


# --- clients -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _ward() -> AsyncIterator[tuple[Witness, dict[str, str]]]:
    """Serve from a folder of its own; yield who sees, and the environment for a program."""
    with tempfile.TemporaryDirectory(prefix="tokenhub-doctor-") as name:
        place = Path(name)
        given = {"simulate": True, "port": 0, "admin_port": 0, "lane": "inspect", "origin": False}
        settings = config.parse({}, data_dir=place, overrides=given)
        async with serving(settings, {}) as served:
            own = {_address(served.proxy_url), _address(served.side_url)}
            witness = Witness(served.app.recogniser.is_llm_host, own)
            ctx.master.addons.add(witness)  # type: ignore[no-untyped-call] # mitmproxy's
            changes = prepare_client(os.environ, place)
            base = {name: value for name, value in os.environ.items() if name not in OURS}
            yield witness, changes.apply(base)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80


async def _of_program(command: Sequence[str]) -> tuple[list[Finding], int]:
    async with _ward() as (witness, environ):
        code = await _run(command, environ, sys.stderr.fileno())
        return of_program(witness.seen, name=Path(command[0]).name, side=_side()), code


def _side() -> str:
    """Return the URL for clients without a proxy, of the TokenHub that the user has, not of ours."""
    with suppress(ConfigError):
        if (info := read_serve_info(data_dir(os.environ))) is not None:
            return f"{info.side_url}/v1"
    return "http://127.0.0.1:8090/v1"


async def _run(command: Sequence[str], environ: Mapping[str, str], out: int) -> int:
    try:
        process = await asyncio.create_subprocess_exec(*command, env=dict(environ), stdout=out)
    except OSError as error:
        raise ConfigError(f"{command[0]}: {error.strerror}") from None
    # The program gets the terminal's signals itself, and we wait for it to end.
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, lambda: _end(process))
    return await process.wait()


def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()


async def _of_probes() -> list[Finding]:
    async with _ward() as (witness, environ):
        return [await _probed(probe, witness, environ) for probe in _PROBES]


async def _probed(probe: _Probe, witness: Witness, environ: Mapping[str, str]) -> Finding:
    program = shutil.which(probe.program)
    if program is None:
        return Finding(probe.check, State.SKIPPED, f"{probe.program} is not installed")
    if probe.want == "HTTP/2.0" and b"HTTP2" not in (await _said(program, "--version"))[1]:
        return Finding(probe.check, State.SKIPPED, "this curl speaks no HTTP/2")
    others = {name for name in TRUST_VARIABLES if probe.trust and name != probe.trust}
    given = {name: value for name, value in environ.items() if name not in others}
    witness.seen.clear()
    code, said = await _said(program, *probe.arguments, environ=given)
    seen: list[Sighting] = [*witness.seen]
    return of_probe(probe.check, seen, code=code, said=said.decode("utf-8", "replace"), want=probe.want)


async def _said(
    program: str, *arguments: str, environ: Mapping[str, str] | None = None
) -> tuple[int | None, bytes]:
    """Run a client; return its exit code, None where it did not end in time, and what it printed."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        env=None if environ is None else dict(environ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=pipe,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_PATIENCE):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return None, b""
    return process.returncode, said


# --- this machine --------------------------------------------------------------------------------------------


def _machine(place: Path) -> Iterator[Finding]:
    yield Finding("versions", State.OK, _versions())
    settings = envfile.settings(os.environ, place)
    yield from _server(place, settings)
    yield _certificate(place, settings)
    yield from _database(place)
    yield _clock()
    missing = [name for name in TRUST_VARIABLES if (file := os.environ.get(name)) and not _readable(file)]
    yield from of_variables(os.environ, missing, [*HOSTS])


def _versions() -> str:
    return (
        f"tokenhub {__version__}, Python {platform.python_version()}, mitmproxy {version('mitmproxy')}, "
        f"{ssl.OPENSSL_VERSION.partition('  ')[0]}, SQLite {sqlite3.sqlite_version}"
    )


def _server(place: Path, settings: config.Settings) -> Iterator[Finding]:
    """Say whether something serves; where it does, whether it is well, else whether its ports are free."""
    try:
        info = serving_info(place)
    except ConfigError as error:
        yield Finding("server", State.WARNING, str(error), "tokenhub serve")
        for name, port in (("proxy port", settings.port), ("side port", settings.admin_port)):
            if port and not _free(settings.host, port):
                words = f"{settings.host}:{port} is taken by another program"
                yield Finding(name, State.WARNING, words, "end that program, or choose another port")
        return
    yield Finding("server", State.OK, f"proxy {info.proxy_url}, side server {info.side_url}")
    yield from _rings(settings, {_address(info.proxy_url), _address(info.side_url)})
    client = running_client(place)
    if client is None:
        return
    try:
        told = client.get("/admin/v1/info")
        providers = client.get("/admin/v1/providers")["items"]
    except ConfigError as error:
        yield Finding("admin API", State.PROBLEM, str(error), "tokenhub admin login")
        return
    if told["vault"] == "locked":
        yield Finding("vault", State.WARNING, "the vault is locked", "tokenhub vault unlock")
    else:
        yield Finding("vault", State.OK, f"the vault is {told['vault']}")
    own = {_address(info.proxy_url), _address(info.side_url)}
    for one in providers:
        if any(_address(url) in own for url in one["endpoints"]):
            words = f"provider {one['id']} leads back to TokenHub itself"
            yield Finding("loop", State.PROBLEM, words, f"tokenhub provider remove {one['id']}")


def _rings(settings: config.Settings, own: set[tuple[str, int]]) -> Iterator[Finding]:
    for mode in settings.modes:
        kind, _, where = mode.partition(":")
        if kind in {"upstream", "reverse"} and _address(where.partition("@")[0]) in own:
            words = f"mode {mode} leads back to TokenHub itself"
            yield Finding("loop", State.PROBLEM, words, "name another proxy in TOKENHUB_MODES")


def _free(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_server((host, port)):
        return True
    return False


def _certificate(place: Path, settings: config.Settings) -> Finding:
    if not (place / "ca").exists():
        return Finding("CA", State.OK, "none yet: `tokenhub serve` makes it")
    try:
        found = authority(place, settings.extra_hosts, time.time())
    except (ConfigError, OSError) as error:
        return Finding("CA", State.PROBLEM, str(error), "tokenhub ca rotate")
    if found.alarms:
        return Finding("CA", State.PROBLEM, "; ".join(map(str, found.alarms)), "tokenhub ca show")
    return Finding("CA", State.OK, f"{found.facts.file}")


def _database(place: Path) -> Iterator[Finding]:
    path = database_path(place)
    if "://" not in path and not Path(path).exists():
        yield Finding("database", State.OK, "none yet: `tokenhub serve` makes it")
        return
    try:
        with opened(place) as database, database.reading():
            pass
    except ConfigError as error:
        yield Finding("database", State.PROBLEM, str(error), "tokenhub db check")
    else:
        yield Finding("database", State.OK, "it opens and can be read")


def _clock() -> Finding:
    """Compare the clock with the newest thing that was certainly made before now: this program."""
    made = Path(__file__).stat().st_mtime
    if time.time() < made - 86_400:
        return Finding(
            "clock", State.PROBLEM, "it is earlier than this program", "set the clock: TLS goes by it"
        )
    return Finding("clock", State.OK, time.strftime("%Y-%m-%d %H:%M:%S %z"))


def _readable(path: str) -> bool:
    try:
        Path(path).read_bytes()
    except OSError:
        return False
    return True
