"""What is measured: processes that are started, made ready, and asked at the end what they recorded."""

from __future__ import annotations

import http.client
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scripts.benchmark.certificates import Certificates
from scripts.benchmark.load import Route
from scripts.benchmark.processes import on
from scripts.benchmark.traffic import FOREIGN_MODEL, HOST, MODEL

BUFFERING: Final = "mitmdump"
STREAMING: Final = "mitmdump streaming"
HANDOFF: Final = "hand-off"
INSPECT: Final = "inspect"
SPLICE: Final = "splice"
"""The hand-off lane for connections that come out of no socket."""
SIDE: Final = "side server"
DIRECT: Final = "upstream alone"
LITELLM: Final = "LiteLLM"

_BIN: Final = Path(sys.executable).parent
_START_SECONDS: Final = 30.0
_SLOW_START_SECONDS: Final = 300.0
"""Its first start compiles some thousand modules."""
_STOP_SECONDS: Final = 15.0


class SubjectError(Exception):
    """A subject that does not start, or that did not do its work."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One way of a call to the upstream."""

    name: str
    route: Route
    pid: int = 0
    """0 where there is nothing between the load and the upstream."""
    data: Path | None = None
    """TokenHub's data directory."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the provider of the benchmark listens, and which authority vouches for it."""

    port: int
    certificates: Certificates
    pid: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process keeps its files and where it runs."""

    folder: Path
    """Made by whoever is put here."""
    cores: frozenset[int]
    """Empty leaves it to the kernel."""


@contextmanager
def upstream(certificates: Certificates, cores: frozenset[int]) -> Iterator[Upstream]:
    """Run the upstream."""
    program = [sys.executable, "-m", "scripts.benchmark.upstream"]
    with on(cores):
        process = subprocess.Popen(
            [*program, certificates.leaf, certificates.key],
            stdout=subprocess.PIPE,
            text=True,
            env=_environment({}),
        )
    with _ending(process):
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SubjectError("the upstream did not start")
        yield Upstream(int(line), certificates, process.pid)
        process.stdout.close()


def direct(up: Upstream) -> Subject:
    """Return the upstream as a subject: the floor under every latency."""
    return Subject(DIRECT, Route(up.port, trust=str(up.certificates.authority), translates=False))


@contextmanager
def mitmdump(up: Upstream, place: Place, *, streaming: bool) -> Iterator[Subject]:
    """Run stock mitmdump with its own addons, quiet, and trusting the upstream without a look.

    Clients ask it by CONNECT for the upstream's own address and name the intercepted host in TLS and in their
    Host header. So no script has to map one to the other, and nothing but mitmproxy's own work is measured. Out
    of the box it holds a streamed answer back until it is whole; `streaming` makes it pass bodies on as they come.
    """
    port = _free_port()
    options = {
        "confdir": place.folder,
        "listen_host": "127.0.0.1",
        "listen_port": port,
        "flow_detail": 0,
        "termlog_verbosity": "error",
        "ssl_insecure": "true",
        **({"stream_large_bodies": "1"} if streaming else {}),
    }
    flags = [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
    with _process([_BIN / "mitmdump", *flags], place, {}) as process:
        trust = place.folder / "mitmproxy-ca-cert.pem"
        _until(lambda: trust.exists() and _listens(port), process, place.folder)
        route = Route(port, connect=f"127.0.0.1:{up.port}", trust=str(trust), translates=False)
        yield Subject(STREAMING if streaming else BUFFERING, route, process.pid)


@contextmanager
def tokenhub(
    name: str,
    up: Upstream,
    place: Place,
    *,
    program: Sequence[str | Path] = (),
    flags: Sequence[str] = (),
) -> Iterator[Subject]:
    """Run `tokenhub serve` with one provider, the upstream, and one model; records go to disk before answers end.

    `program` stands in for the `tokenhub` command; `flags` are further ones.
    """
    if name == SPLICE:
        program = [sys.executable, "-m", "scripts.benchmark.hidden"]
    lane, data = "inspect" if name == INSPECT else "handoff", place.folder / "data"
    own: list[str | Path] = ["--lane", lane, "--port", "0", "--admin-port", "0", "--data-dir", data]
    command = [*(program or [_BIN / "tokenhub"]), "serve", *own, *flags, "--log-level", "warn"]
    extra = {"TOKENHUB_CA_FILE": str(up.certificates.authority)}
    told = data / "run" / "serve.json"
    with _process(command, place, extra) as process:
        _until(told.exists, process, place.folder)
        info = json.loads(told.read_text())
        token = (data / "admin-token").read_text().strip()
        proxy, side = (int(info[url].rpartition(":")[2]) for url in ("proxy_url", "side_url"))
        _register(side, token, up)
        intercepted = Route(proxy, connect=f"{HOST}:443", trust=info["ca_file"])
        yield Subject(name, Route(side) if name == SIDE else intercepted, process.pid, data)


@contextmanager
def litellm(program: Path, up: Upstream, place: Place) -> Iterator[Subject]:
    """Run LiteLLM's proxy with the same two models, one worker, a master key, and no database."""
    port = _free_port()
    base = f"https://127.0.0.1:{up.port}"
    models = {MODEL: (f"openai/{MODEL}", f"{base}/v1"), FOREIGN_MODEL: (f"anthropic/{FOREIGN_MODEL}", base)}
    config = {
        "model_list": [
            {"model_name": name, "litellm_params": {"model": model, "api_base": where, "api_key": "sk-bench"}}
            for name, (model, where) in models.items()
        ],
        "litellm_settings": {"ssl_verify": False, "drop_params": True, "telemetry": False},
        "general_settings": {"master_key": "sk-caller"},
    }
    flags = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    written = place.folder.with_suffix(".yaml")
    written.write_text(json.dumps(config))
    extra = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    with _process([program, "--config", written, *flags], place, extra) as process:
        _until(lambda: _listens(port), process, place.folder, _SLOW_START_SECONDS)
        yield Subject(LITELLM, Route(port, alike=False), process.pid)


def recorded(data: Path) -> int:
    """Return how many answered calls are on record in a data directory that nobody serves from any more."""
    with closing(sqlite3.connect(f"file:{data / 'tokenhub.sqlite'}?mode=ro", uri=True)) as database:
        found = database.execute("SELECT count(*) FROM request_logs WHERE outcome = 'ok'").fetchone()
    return int(found[0])


def _register(side: int, token: str, up: Upstream) -> None:
    providers = (
        _provider("bench", "openai", up),
        _provider("foreign", "anthropic", up),
    )
    models = (_model(MODEL, "bench"), _model(FOREIGN_MODEL, "foreign"))
    for path, body in (
        *(("/admin/v1/providers", provider) for provider in providers),
        *(("/admin/v1/models", model) for model in models),
    ):
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        with closing(http.client.HTTPConnection("127.0.0.1", side, timeout=10)) as connection:
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            if response.status != 201:
                raise SubjectError(f"POST {path} is answered {response.status}: {response.read()!r}")


def _provider(name: str, kind: str, up: Upstream) -> dict[str, object]:
    return {
        "id": name,
        "type": kind,
        "base_url": f"https://127.0.0.1:{up.port}",
        "cred_store": "memory",
        "api_key": "sk-bench",
    }


def _model(name: str, provider: str) -> dict[str, object]:
    return {
        "id": name,
        "provider_id": provider,
        "max_context_tokens": 128_000,
        "max_output_tokens": 16_000,
        "input_per_1k": 0.0025,
        "output_per_1k": 0.01,
    }


@contextmanager
def _process(
    command: Sequence[str | Path], place: Place, extra: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    place.folder.mkdir()
    environment = _environment({**extra, "HOME": str(place.folder)})
    with (place.folder / "log").open("wb") as log, on(place.cores):
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
    with _ending(process):
        yield process


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without anybody's keys, proxies and settings."""
    kept = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR")
    return {**{name: os.environ[name] for name in kept if name in os.environ}, **extra}


@contextmanager
def _ending[P: subprocess.Popen[Any]](process: P) -> Iterator[P]:
    """End the process on the way out, and say so where it does not end when asked."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(
    ready: Callable[[], bool],
    process: subprocess.Popen[bytes],
    folder: Path,
    seconds: float = _START_SECONDS,
) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            said = (folder / "log").read_text(errors="replace")[-2000:]
            raise SubjectError(f"{process.args!r} did not start: {said}")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
