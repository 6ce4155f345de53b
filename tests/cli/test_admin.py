"""The commands' way to the admin API: one host, one token, the server's own words."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tokenhub_core.cli.admin import AdminClient, admin_client, running_client
from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.serveinfo import ServeInfo, write_serve_info
from tokenhub_core.ports import Secret

TOKEN = "the-admin-token"


@dataclass
class Server:
    """Answers everything alike and remembers what it was asked."""

    url: str = ""
    status: int = 200
    body: bytes = b'{"ok":true}'
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            state.asked.append((self.command, self.path, headers, body))
            self.send_response(state.status)
            for name, value in {"content-length": str(len(state.body)), **state.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(state.body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - the base class's names

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{http.server_address[1]}"
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture
def data(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the data directory of a TokenHub that is serving."""
    monkeypatch.delenv("TOKENHUB_ADMIN_TOKEN", raising=False)
    (tmp_path / "admin-token").write_text(TOKEN + "\n")
    tell(tmp_path, server.url)
    return tmp_path


def tell(data: Path, url: str, *, pid: int | None = None) -> None:
    write_serve_info(data, ServeInfo(pid or os.getpid(), url, url, "", (), 0.0))


def client(server: Server) -> AdminClient:
    return AdminClient(server.url, Secret(TOKEN))


def test_every_method_sends_the_token_and_json(server: Server) -> None:
    """What goes out, and the object that comes back."""
    one = client(server)
    answers = [
        one.get("/a?x=1"),
        one.post("/b", {"é": 1}),
        one.post("/b"),
        one.put("/c", {}),
        one.patch("/d", {"x": None}),
        one.delete("/e"),
    ]

    assert answers == [{"ok": True}] * 6
    assert [(method, path, body) for method, path, _, body in server.asked] == [
        ("GET", "/a?x=1", b""),
        ("POST", "/b", '{"é":1}'.encode()),
        ("POST", "/b", b""),
        ("PUT", "/c", b"{}"),
        ("PATCH", "/d", b'{"x":null}'),
        ("DELETE", "/e", b""),
    ]
    for _, _, headers, body in server.asked:
        assert headers["authorization"] == f"Bearer {TOKEN}"
        assert (headers.get("content-type") == "application/json") == bool(body)


def test_an_empty_answer_is_an_empty_object(server: Server) -> None:
    """204 has nothing to decode."""
    server.status, server.body = 204, b""

    assert client(server).delete("/x") == {}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":{"message":"the vault is locked"}}', "the vault is locked"),
        (b'{"error":{"message":"one\\ntwo\\u001b[31m"}}', r"one two \[31m"),
        (b'{"error":{"message":""}}', "status 409"),
        (b'{"error":{"message":7}}', "status 409"),
        (b'{"error":"no"}', "status 409"),
        (b"{}", "status 409"),
        (b"[]", "status 409"),
        (b"", "status 409"),
        (b"\xff<html>", "status 409"),
    ],
)
def test_a_refusal_is_told_in_the_servers_words(server: Server, body: bytes, words: str) -> None:
    """One line that does nothing to a terminal; the status where there are no words."""
    server.status, server.body = 409, body
    with pytest.raises(ConfigError, match=words) as caught:
        client(server).get("/x")

    assert str(caught.value).isprintable()
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'"ok"', b"\xff"])
def test_an_answer_that_is_no_object_is_refused(server: Server, body: bytes) -> None:
    """Something else listens there."""
    server.body = body
    with pytest.raises(ConfigError, match="not a JSON object"):
        client(server).get("/x")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(server: Server, status: int) -> None:
    """The token goes where it belongs and nowhere else."""
    server.status, server.headers = status, {"location": server.url + "/elsewhere"}
    with pytest.raises(ConfigError, match=f"status {status}|true"):
        client(server).get("/x")

    assert [path for _, path, _, _ in server.asked] == ["/x"]


def test_no_proxy_of_the_environment_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell behind TokenHub still reaches its admin API."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert client(server).get("/x") == {"ok": True}


@pytest.mark.parametrize(
    "url",
    ["http://example.com", "http://192.168.1.2:8090", "ftp://127.0.0.1", "http://localhost.example", ""],
)
def test_the_token_travels_encrypted_or_not_far(url: str) -> None:
    """Plain HTTP is for this machine only."""
    with pytest.raises(ConfigError, match="only https"):
        AdminClient(url, Secret(TOKEN))


@pytest.mark.parametrize(
    "url", ["https://example.com", "http://localhost:1", "http://[::1]:1", "http://127.9.9.9"]
)
def test_https_and_loopback_may_carry_it(url: str) -> None:
    """Whatever the way loopback is written."""
    AdminClient(url, Secret(TOKEN))


def test_a_server_that_is_gone_is_one_line() -> None:
    """With the address, and why."""
    with pytest.raises(ConfigError, match=r"cannot reach the admin API at http://127.0.0.1:1: .*refused"):
        AdminClient("http://127.0.0.1:1", Secret(TOKEN)).get("/x")


def test_what_cannot_be_sent_is_one_line(server: Server) -> None:
    """Half a character in a value or a letter outside ASCII in a path."""
    with pytest.raises(ConfigError, match="Unicode"):
        client(server).post("/x", {"a": "\udcff"})
    with pytest.raises(ConfigError, match="Unicode"):
        client(server).get("/é")
    with pytest.raises(ConfigError, match="cannot reach"):
        client(server).get("/a b")


# --- finding it --------------------------------------------------------------------------------------------


def test_the_running_server_and_its_token_are_found(data: Path, server: Server) -> None:
    """From the data directory alone."""
    running = running_client(data)
    assert running is not None
    for one in (admin_client(data), running):
        assert one.get("/x") == {"ok": True}

    assert {headers["authorization"] for _, _, headers, _ in server.asked} == {f"Bearer {TOKEN}"}


def test_the_default_place_is_used_where_none_is_named(
    data: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`TOKENHUB_DATA_DIR`, as everywhere."""
    monkeypatch.setenv("TOKENHUB_DATA_DIR", str(data))

    assert admin_client(None).get("/x") == {"ok": True}
    assert running_client(None) is not None


def test_the_token_of_the_environment_wins(
    data: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what the server was started with, then."""
    monkeypatch.setenv("TOKENHUB_ADMIN_TOKEN", "another")
    admin_client(data).get("/x")

    assert server.asked[0][2]["authorization"] == "Bearer another"


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "TOKENHUB_ADMIN_TOKEN is not set, .*admin-token: No such file"),
        (b"\n", "must be visible ASCII"),
        ("schlüssel".encode(), "must be visible ASCII"),
        (b"a\nb", "must be visible ASCII"),
        (b"\xff", "not text"),
    ],
)
def test_a_token_that_cannot_be_used_is_one_line(data: Path, token: bytes | None, words: str) -> None:
    """And the token is not in it."""
    if token is None:
        (data / "admin-token").unlink()
    else:
        (data / "admin-token").write_bytes(token)
    for find in (admin_client, running_client):
        with pytest.raises(ConfigError, match=words) as caught:
            find(data)
        assert "schl" not in str(caught.value)


def test_where_nobody_serves_there_is_no_client(tmp_path: Path) -> None:
    """Never served, or served by a process that is gone."""
    for _ in range(2):
        assert running_client(tmp_path) is None
        with pytest.raises(ConfigError, match="nothing is serving"):
            admin_client(tmp_path)
        tell(tmp_path, "http://127.0.0.1:1", pid=2**22 + 1)


def test_a_note_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Whether somebody serves is not known then, so nothing is done behind their back."""
    tell(tmp_path, "http://127.0.0.1:1")
    (tmp_path / "run" / "serve.json").write_text("{")
    for find in (admin_client, running_client):
        with pytest.raises(ConfigError, match="cannot read"):
            find(tmp_path)
