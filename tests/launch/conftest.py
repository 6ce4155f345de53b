"""A world on loopback: a CA of its own, and a proxy that answers for every host with a leaf of that CA."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.patience import PROGRAM_PATIENCE
from tokenhub_core.launch.serveinfo import ServeInfo, write_serve_info

HOSTS = ("api.openai.com", "api.anthropic.com", "llm.test")

_CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-5",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "pong"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "pong"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


@dataclass(frozen=True)
class Authority:
    """A CA made for one test run: its certificate and a server context with a leaf for `HOSTS`."""

    file: Path
    context: ssl.SSLContext


@dataclass
class Proxy:
    """The proxy as a test sees it. `seen` lists CONNECT targets and requests in order of arrival."""

    port: int
    seen: list[str] = field(default_factory=list)
    authorization: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy
    context: ssl.SSLContext

    def do_CONNECT(self) -> None:
        self.proxy.seen.append(f"CONNECT {self.path}")
        if authorization := self.headers["proxy-authorization"]:
            self.proxy.authorization.append(authorization)
        if self.path.startswith("hangup.test"):
            self.close_connection = True
            return
        if self.path.startswith("refused.test"):
            self.send_error(403)
            return
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        if self.connection.recv(1, socket.MSG_PEEK) == b"\x16":
            self.connection = self.context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.close_connection = False

    def do_GET(self) -> None:
        self.proxy.seen.append(f"{self.command} {self.path}")
        self.rfile.read(int(self.headers["content-length"] or 0))
        if self.path.endswith("/chat/completions"):
            answer: object = _CHAT
        elif self.path.endswith("/v1/messages"):
            answer = _MESSAGE
        else:
            answer = {"pong": "x" * (300_000 if "large" in self.path else 1)}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()
        self.connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that do not trust us hang up, and the tests assert what they saw."""


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    place = tmp_path_factory.mktemp("ca")
    now = dt.datetime.now(dt.UTC)

    def certificate(name: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=2))
        )

    ca_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    ca = (
        certificate("Loopback CA", "Loopback CA", ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    leaf = (
        certificate("llm.test", "Loopback CA", leaf_key)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (place / "ca.pem").write_bytes(ca.public_bytes(pem))
    (place / "leaf.pem").write_bytes(
        leaf.public_bytes(pem)
        + leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "leaf.pem")
    context.set_alpn_protocols(["http/1.1"])
    return Authority(place / "ca.pem", context)


@pytest.fixture
def proxy(authority: Authority) -> Iterator[Proxy]:
    handler = type("_BoundHandler", (_Handler,), {"context": authority.context})
    server = _Server(("127.0.0.1", 0), handler)
    handler.proxy = proxy = Proxy(server.server_address[1])  # type: ignore[attr-defined]  # made just above
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield proxy
    server.shutdown()
    thread.join()
    server.server_close()


type Tokenhub = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tokenhub(tmp_path: Path, authority: Authority, proxy: Proxy) -> Tokenhub:
    """Run `tokenhub ARGS…` as a process of its own, in a world where our proxy is what serves."""
    data = tmp_path / "data"
    write_serve_info(
        data,
        ServeInfo(
            pid=os.getpid(),
            proxy_url=proxy.url,
            side_url="http://127.0.0.1:1",
            ca_file=str(authority.file),
            hosts=HOSTS,
            started_at=0.0,
        ),
    )

    def run(*args: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TOKENHUB_DATA_DIR": str(data)}
        return subprocess.run(
            [sys.executable, "-c", "from tokenhub_core.cli import main; main()", *args],
            env=base | dict(environ or {}),
            capture_output=True,
            text=True,
            timeout=PROGRAM_PATIENCE,
            check=False,
        )

    return run


@pytest.fixture
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("no `node` on this machine: its preload shim cannot be run")
    return found


@pytest.fixture
def authority_file(authority: Authority) -> Path:
    return authority.file
