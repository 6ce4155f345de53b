"""`tokenhub doctor` as a program: its own clients, and one that does everything right and wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.patience import PROGRAM_PATIENCE

_AGENT = """
import json, ssl, sys, urllib.request
import certifi
body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}).encode()
fields = {"content-type": "application/json"}
good = urllib.request.Request("https://api.openai.com/v1/chat/completions", body, fields)
print("answered", urllib.request.urlopen(good).status)
pinned = ssl.create_default_context(cafile=certifi.where())
try:
    urllib.request.urlopen("https://api.anthropic.com/v1/models", context=pinned)
except OSError as error:
    print("refused", error)
sys.exit(7)
"""


def doctor(folder: Path, *command: str) -> tuple[int, Any, str]:
    done = subprocess.run(
        [sys.executable, "-c", "from tokenhub_core.cli import main; main()", "doctor", "--json", *command],
        env={**os.environ, "TOKENHUB_DATA_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=PROGRAM_PATIENCE,
        check=False,
    )
    return done.returncode, json.loads(done.stdout or "null"), done.stderr


def test_python_curl_and_node_are_captured(tmp_path: Path) -> None:
    """Each by the variables that it reads, over the versions that it speaks; what is not installed is skipped."""
    code, told, errors = doctor(tmp_path)
    found = {one["check"]: one for one in told["findings"]}
    for check, program in (
        ("python, HTTP/1.1, by SSL_CERT_FILE", sys.executable),
        ("python, zstd", sys.executable),
        ("python, WebSocket", sys.executable),
        ("curl, HTTP/1.1, by CURL_CA_BUNDLE", "curl"),
        ("node, by NODE_EXTRA_CA_CERTS", "node"),
    ):
        assert found[check]["state"] == ("ok" if shutil.which(program) else "skipped"), (found[check], errors)
    assert found["curl, HTTP/2"]["state"] in {"ok", "skipped"}
    assert found["server"]["fix"] == "tokenhub serve"
    assert (code, told["ok"], told["exit_code"]) == (0, True, None)
    assert not any(tmp_path.iterdir())


def test_one_program_is_told_what_came_of_its_calls(tmp_path: Path) -> None:
    """What came through, with its lane; what pins certificates, with the remedy; its own output stays apart."""
    code, told, errors = doctor(tmp_path, "--", sys.executable, "-c", _AGENT)
    found = {one["check"]: one for one in told["findings"]}
    assert found["api.openai.com"]["state"] == "ok"
    assert "captured: 1 request over HTTP/1.1; hand-off lane" in found["api.openai.com"]["words"].replace(
        ", takes identity", ""
    )
    assert found["api.anthropic.com"]["state"] == "problem"
    assert "does not trust the CA" in found["api.anthropic.com"]["words"]
    assert "/v1" in found["api.anthropic.com"]["fix"]
    assert (code, told["exit_code"], told["ok"]) == (1, 7, False)
    assert "answered 200" in errors
    assert "refused" in errors
