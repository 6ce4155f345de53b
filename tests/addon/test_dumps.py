"""What mitmproxy writes of flows: nobody else can read the files, and no credential stands in them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import ssl
import stat
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import io
from mitmproxy.addons import cut, export, savehar
from mitmproxy.flow import Flow

from tests.addon.clients import CHAT, H1, KEY, OPENAI
from tests.addon.inspection import inspecting
from tests.addon.scripted import ScriptedEngine
from tests.addon.upstream import Upstream, standing_in
from tests.patience import PROGRAM_PATIENCE
from tokenhub_addon.flows import REDACTED

GOOGLE = "generativelanguage.googleapis.com"
GENERATE = "/v1beta/models/gemini-2.5-flash:generateContent"
SCRIPT = Path(__file__).parents[2] / "addon" / "tokenhub.py"
COOKIE = "sk-canary-cookie"
THEIRS = "sk-canary-set-cookie"
ANSWER = (
    f"HTTP/1.1 200 OK\r\nSet-Cookie: session={THEIRS}; HttpOnly\r\nContent-Length: 8\r\n\r\nupstream".encode()
)
FIELDS = {
    "Authorization": f"Bearer {KEY}",
    "X-Api-Key": KEY,
    "Cookie": f"session={COOKIE}",
    "X-Amz-Security-Token": KEY,
    "Helicone-Auth": f"Bearer {KEY}",
}


def mode(path: Path) -> int:
    """Return who may do what with a file."""
    return stat.S_IMODE(path.stat().st_mode)


def canaries(data: bytes) -> list[str]:
    """Return which credentials stand in these bytes."""
    return [name for name in (KEY, COOKIE, THEIRS) if name.encode() in data]


def flows(path: Path) -> list[Flow]:
    """Read a file of flows back."""
    with path.open("rb") as file:
        return [*io.FlowReader(file).stream()]


@pytest.fixture(autouse=True)
def _open_hearted() -> Iterator[None]:
    """Create files as most people's shells do: for everybody to read."""
    before = os.umask(0o022)
    yield
    os.umask(before)


# --- a real mitmdump ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def mitmdump(folder: Path, *args: str) -> Iterator[int]:
    """Run it with the addon as a script and the simulator behind; yield its port."""
    log = folder / "log"
    options = {"confdir": str(folder / "conf"), "listen_host": "127.0.0.1", "listen_port": "0"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("mitmdump")),
                *("-s", str(SCRIPT)),
                *(part for name, value in options.items() for part in ("--set", f"{name}={value}")),
                *args,
            ],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                "PYTHONPATH": os.pathsep.join(sys.path),
                "PYTHONUNBUFFERED": "1",
                "PYTHONWARNINGS": "ignore",
                "TOKENHUB_DATA_DIR": str(folder / "data"),
                "TOKENHUB_SIMULATE": "true",
            },
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        deadline = time.monotonic() + PROGRAM_PATIENCE
        while not (found := re.search(r"proxy listening at 127\.0\.0\.1:(\d+)", log.read_text())):
            assert time.monotonic() < deadline, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield int(found[1])
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(PROGRAM_PATIENCE)
    assert code == 0, log.read_text()


def ask(folder: Path, port: int, host: str, path: str, body: object) -> int:
    """Send one call through the proxy, with every credential that a program may have; return its status."""
    trust = ssl.create_default_context(cafile=str(folder / "conf" / "mitmproxy-ca-cert.pem"))
    client = http.client.HTTPSConnection("127.0.0.1", port, context=trust, timeout=PROGRAM_PATIENCE)
    client.set_tunnel(host, 443, headers={"Proxy-Authorization": f"Basic {KEY}"})
    with contextlib.closing(client):
        client.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **FIELDS})
        answer = client.getresponse()
        answer.read()
        return answer.status


def test_what_mitmdump_writes_holds_no_credential_and_is_private(tmp_path: Path) -> None:
    """`-w` and a HAR of routed calls; a file that was there for everybody to read is closed too."""
    saved, har = tmp_path / "flows", tmp_path / "calls.har"
    saved.touch(mode=0o644)
    with mitmdump(tmp_path, "-w", str(saved), "--set", f"hardump={har}") as port:
        chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
        assert ask(tmp_path, port, OPENAI, CHAT, chat) == 200
        generate = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
        assert ask(tmp_path, port, GOOGLE, f"{GENERATE}?key={KEY}&alt=json", generate) == 200
        assert mode(saved) == 0o600
    assert (mode(saved), mode(har)) == (0o600, 0o600)
    assert canaries(saved.read_bytes()) == []
    assert canaries(har.read_bytes()) == []
    assert [flow.metadata["tokenhub"]["attempts"] for flow in flows(saved)] == [1, 1]
    entries = json.loads(har.read_bytes())["log"]["entries"]
    assert [entry["response"]["status"] for entry in entries] == [200, 200]
    assert entries[1]["request"]["url"].endswith(f"{GENERATE}?key=***&alt=json")


# --- what stands in a flow ---------------------------------------------------------------------------------


async def test_a_key_in_the_query_reaches_the_engine_and_no_flow(confdir: Path) -> None:
    """Google's programs put it there."""
    engine = ScriptedEngine()
    async with (
        inspecting(confdir, engine) as lane,
        await H1.tls(lane.proxy, GOOGLE) as client,
    ):
        await client.ask(f"{GENERATE}?key={KEY}&alt=json", headers=FIELDS)
        assert lane.flow.request.path == f"{GENERATE}?key=***&alt=json"
        assert canaries(str(lane.flow.get_state()).encode()) == []
    (snapshot,) = engine.snapshots
    assert snapshot.path == f"{GENERATE}?key={KEY}&alt=json"
    assert ("cookie", f"session={COOKIE}") in snapshot.headers
    assert ("x-amz-security-token", KEY) in snapshot.headers


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("?alt=sse&key=***", f"?alt=sse&key={KEY}"),
        ("?key=other&alt=sse", "?key=other&alt=sse"),
        ("?alt=", "?alt="),
        ("", ""),
    ],
)
async def test_a_query_that_the_user_has_changed_stays_changed(confdir: Path, typed: str, sent: str) -> None:
    """The key comes back where its mask still stands."""
    engine = ScriptedEngine()
    async with (
        inspecting(confdir, engine, intercept="~q") as lane,
        await H1.tls(lane.proxy, GOOGLE) as client,
    ):
        await client.send(f"{GENERATE}?key={KEY}&alt=json")
        await lane.until(lambda: len(lane.view) == 1 and lane.flow.intercepted)
        lane.flow.request.path = GENERATE + typed
        lane.flow.resume()  # type: ignore[no-untyped-call] # mitmproxy's
        await client.answer()
    assert engine.snapshots[0].path == GENERATE + sent


async def test_what_passes_through_keeps_its_credentials_on_the_wire_only(
    confdir: Path, tmp_path: Path
) -> None:
    """Cookies in both directions and the key of the query reach the other side; the saved flow has none."""
    saved = tmp_path / "flows"
    async with (
        standing_in(tmp_path, answer=ANSWER) as upstream,
        inspecting(
            confdir, ScriptedEngine(), upstream=upstream, ssl_insecure=True, save_stream_file=str(saved)
        ) as lane,
        await H1.tls(lane.proxy, GOOGLE) as client,
    ):
        answer = await client.ask(f"/v1beta/files?key={KEY}", b"file", headers=FIELDS)
        assert answer.headers["set-cookie"] == f"session={THEIRS}; HttpOnly"
        assert f"/v1beta/files?key={KEY} ".encode() in upstream.requests[0]
        assert f"session={COOKIE}".encode() in upstream.requests[0]
    assert canaries(saved.read_bytes()) == []


async def test_a_replay_takes_no_mask_along(confdir: Path) -> None:
    """Where the key was taken out of the query, the engine gets none instead of three asterisks."""
    engine = ScriptedEngine()
    async with inspecting(confdir, engine) as lane:
        async with await H1.tls(lane.proxy, GOOGLE) as client:
            await client.ask(f"{GENERATE}?key={KEY}&alt=json", b"{}", headers=FIELDS)
        lane.call("replay.client", [lane.flow])
        await lane.until(lambda: len(engine.snapshots) == 2)
        again = engine.snapshots[1]
        assert again.path == f"{GENERATE}?alt=json"
        assert REDACTED not in str(again.headers)


# --- other people's hosts, and the commands of the interfaces ----------------------------------------------


async def test_flows_of_other_hosts_are_saved_without_credentials_too(confdir: Path, tmp_path: Path) -> None:
    """The host gets them, the flow list shows them, no file has them: in the stream and by each command."""
    upstream = Upstream(ANSWER)
    await upstream.start()
    saved = tmp_path / "flows"
    extra: list[Any] = [savehar.SaveHar(), cut.Cut(), export.Export()]
    async with (
        inspecting(
            confdir, ScriptedEngine(), upstream=upstream, after=extra, save_stream_file=str(saved)
        ) as lane,
        await H1.plain(lane.proxy, "www.example.org") as client,
    ):
        await client.ask("/login", headers=FIELDS)
        assert KEY.encode() in upstream.requests[0]
        assert KEY in str(lane.flow.get_state())
        written = {name: tmp_path / name for name in ("file", "har", "zhar.zhar", "cut", "curl")}
        written["file"].touch(mode=0o644)
        lane.call("save.file", [lane.flow], str(written["file"]))
        lane.call("save.har", [lane.flow], str(written["har"]))
        lane.call("save.har", [lane.flow], str(written["zhar.zhar"]))
        lane.call("cut.save", [lane.flow], ["request.header[x-api-key]", "request.path"], str(written["cut"]))
        lane.call("export.file", "curl", lane.flow, str(written["curl"]))
    await upstream.close()
    written["stream"] = saved
    assert {name: mode(path) for name, path in written.items()} == dict.fromkeys(written, 0o600)
    read = {name: path.read_bytes() for name, path in written.items()}
    read["zhar.zhar"] = zlib.decompress(read["zhar.zhar"])
    assert {name: canaries(data) for name, data in read.items()} == {name: [] for name in written}
    assert all(data for data in read.values())
    assert b"/login" in read["cut"]


async def test_a_file_that_is_named_later_is_private_from_its_first_byte(
    confdir: Path, tmp_path: Path
) -> None:
    """Also one that is there already, and one in a directory that is not."""
    old, new = tmp_path / "old", tmp_path / "folder" / "new"
    old.touch(mode=0o644)
    async with inspecting(confdir, ScriptedEngine()) as lane:
        for name in (str(old), f"+{old}", str(new)):
            lane.master.options.update(save_stream_file=name)  # type: ignore[no-untyped-call] # mitmproxy's
            assert mode(Path(name.removeprefix("+"))) == 0o600
    assert mode(new.parent) == 0o700


async def test_flows_that_do_not_end_are_written_without_credentials(confdir: Path, tmp_path: Path) -> None:
    """mitmproxy writes what is still under way when it leaves."""
    saved = tmp_path / "flows"
    async with inspecting(confdir, ScriptedEngine(), intercept="~q", save_stream_file=str(saved)) as lane:
        client = await H1.plain(lane.proxy, "www.example.org")
        await client.send("/login", headers=FIELDS)
        await lane.until(lambda: len(lane.view) == 1 and lane.flow.intercepted)
        lane.master.options.update(save_stream_file=None)  # type: ignore[no-untyped-call] # mitmproxy's
        assert [canaries(saved.read_bytes()), len(flows(saved))] == [[], 1]
        client.writer.close()


async def test_a_file_that_cannot_be_written_is_told_as_before(confdir: Path, tmp_path: Path) -> None:
    """mitmproxy says what is wrong; ours does not hide it."""
    async with inspecting(confdir, ScriptedEngine()) as lane:
        with pytest.raises(Exception, match="Is a directory"):
            lane.call("save.file", [], str(tmp_path))
