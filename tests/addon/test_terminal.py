"""mitmproxy's own user interfaces with the real addon and its simulator in them: on a terminal and in a browser."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.addon.clients import CHAT, KEY, OPENAI
from tests.fakes.terminal import Terminal, until
from tests.patience import PROGRAM_PATIENCE

_TOKENHUB = str(Path(sys.executable).with_name("tokenhub"))
"""More than anything here should take on a busy machine."""

_DECISION = "gpt-4o @ sim-openai · routed-hint-exact · 1 attempt"


def _environment(folder: Path) -> dict[str, str]:
    """Return an environment with nothing in it but a simulating TokenHub on a free port."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(folder),
        "TERM": "xterm-256color",
        "LC_ALL": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
        "TOKENHUB_DATA_DIR": str(folder / "data"),
        "TOKENHUB_SIMULATE": "true",
        "TOKENHUB_PORT": "0",
    }


def _call(folder: Path, port: int) -> int:
    """Send a call through the proxy with nothing but the standard library; return its status."""
    trust = ssl.create_default_context(cafile=str(folder / "data" / "ca" / "ca.pem"))
    client = http.client.HTTPSConnection("127.0.0.1", port, context=trust, timeout=PROGRAM_PATIENCE)
    client.set_tunnel(OPENAI, 443)
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]})
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    with contextlib.closing(client):
        client.request("POST", CHAT, body, headers)
        answer = client.getresponse()
        assert answer.headers["x-tokenhub-simulated"] == "true"
        assert b'"chat.completion"' in answer.read()
        return answer.status


def _keys(folder: Path) -> Path:
    """Write the bindings that the manual shows to a file."""
    manual = Path(__file__).parents[2] / "docs" / "console.md"
    shown = re.search(r"```yaml\n(.*?)```", manual.read_text(), re.DOTALL)
    assert shown is not None
    path = folder / "keys.yaml"
    path.write_text(shown[1])
    return path


# --- a terminal --------------------------------------------------------------------------------------------


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: that of a socket may have a hundred characters only."""
    with tempfile.TemporaryDirectory(prefix="th") as name:
        yield Path(name)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed (Debian: apt install tmux)")
def test_the_console_shows_a_call_and_its_decision(folder: Path) -> None:
    """On a real terminal: the call in the flow list, the decision in its details, and no credential anywhere."""
    terminal = Terminal(folder, _environment(folder), _TOKENHUB, "console")
    try:
        port = int(terminal.shows(r"\[127\.0\.0\.1:(\d+)\]")[1])
        assert _call(folder, port) == 200
        terminal.shows(rf"POST +{OPENAI} {CHAT} +200")
        terminal.type("Enter")
        terminal.shows(r"(?s)Flow Details.*Authorization: +\[redacted\]")
        assert KEY not in terminal.screen()
        terminal.type("Left")
        terminal.shows(rf"Comment: {_DECISION}")
        terminal.shows(r"(?s)Metadata:.*'provider': 'sim-openai'")
        terminal.type("Right")
        terminal.shows(r"user:\s+Hello")
        terminal.type(f":console.keymap.load {_keys(folder)}", "Enter")
        terminal.type("F2")
        terminal.shows(r"How req_\w+ was routed")
        terminal.type("q")
        terminal.type("F4")
        terminal.shows(r": tokenhub.resend @focus")
        terminal.type("model=gpt-4o-mini", "Enter")
        terminal.type("q")
        terminal.shows(r"\[\d/2\]")
        terminal.type("q", "y")
        assert terminal.code() == 0
    finally:
        terminal.close()


# --- a browser ---------------------------------------------------------------------------------------------


def test_the_web_interface_shows_a_call_and_its_decision(folder: Path) -> None:
    """mitmweb's JSON has the decision in the flow's comment, which is a column; without its token it says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        web_port = free.getsockname()[1]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [_TOKENHUB, "web", "--no-web-open-browser", "--web-port", str(web_port)],
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        printed = until(lambda: re.search(r"http://127\.0\.0\.1:\d+/\?(token=\w+)", log.read_text()))
        port = until(lambda: re.search(r"proxy listening at 127\.0\.0\.1:(\d+)", log.read_text()))
        assert _call(folder, int(port[1])) == 200

        def ask(path: str, token: str = printed[1]) -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{web_port}{path}?{token}") as answer:
                told: str = answer.read().decode()
                return told

        (flow,) = json.loads(ask("/flows"))
        assert (flow["request"]["pretty_host"], flow["request"]["path"]) == (OPENAI, CHAT)
        assert flow["comment"].startswith(_DECISION)
        assert KEY not in ask("/flows")
        assert json.loads(ask("/options"))["web_columns"]["value"][-1] == "comment"
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            ask("/flows", "token=wrong")
        refused.value.close()
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(PROGRAM_PATIENCE)
    assert code == 0, log.read_text()
    assert "alembic" not in log.read_text()
