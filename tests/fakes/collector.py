"""A collector on a loopback socket: takes OTLP over HTTP, and shows it as what it was."""

from __future__ import annotations

import gzip
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.patience import PATIENCE


@dataclass
class Collector:
    """What has come so far: by path, the bodies as they were before they were packed."""

    url: str = ""
    bodies: dict[str, list[bytes]] = field(default_factory=dict)
    headers: list[dict[str, str]] = field(default_factory=list)
    came: threading.Condition = field(default_factory=threading.Condition)

    def wait(self, path: str) -> bytes:
        """Return the first body for `path`, once it is here."""
        with self.came:
            assert self.came.wait_for(lambda: self.bodies.get(path), PATIENCE)
            return self.bodies[path][0]

    @property
    def everything(self) -> bytes:
        return b"".join(body for some in self.bodies.values() for body in some)


@contextmanager
def collecting(tls: ssl.SSLContext | None = None) -> Iterator[Collector]:
    """Serve a collector while the block lasts."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            with collector.came:
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                collector.bodies.setdefault(self.path, []).append(body)
                collector.came.notify_all()
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    collector.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    serving.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
