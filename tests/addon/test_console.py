"""The launchers of mitmproxy's own user interfaces.

They run in a process of their own: the interfaces bring libraries that warn when they are merely looked at.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PROGRAM_PATIENCE
from tokenhub_core.cli import COMMANDS

_LOOK = """
import asyncio, json, os, sys
from mitmproxy import options
from mitmproxy.tools.console.master import ConsoleMaster
from mitmproxy.tools.web.master import WebMaster
from tokenhub_addon.console import hosting, preset
from tokenhub_addon.engines import alone

async def look(base):
    opts = options.Options()
    master = hosting(base, alone, preset(os.environ))(opts)
    chain = [getattr(addon, "name", type(addon).__name__.lower()) for addon in master.addons.chain]
    return {"chain": chain, **{name: getattr(opts, name) for name in sys.argv[2:] if name in opts}}

print(json.dumps(asyncio.run(look({"console": ConsoleMaster, "web": WebMaster}[sys.argv[1]]))))
"""


def _python(folder: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        env={**os.environ, "TOKENHUB_DATA_DIR": str(folder / "data"), "PYTHONWARNINGS": "ignore", **environ},
        capture_output=True,
        text=True,
        timeout=PROGRAM_PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("kind", ["console", "web"])
def test_the_addon_stands_before_what_saves_and_shows_flows(kind: str, tmp_path: Path) -> None:
    """In both interfaces the addon comes before `save` and the view, and TokenHub's settings are the options'."""
    names = (
        "connection_strategy",
        "tokenhub_max_body",
        "listen_host",
        "listen_port",
        "confdir",
        "web_columns",
    )
    done = _python(tmp_path, "-c", _LOOK, kind, *names, TOKENHUB_MAX_BODY_BYTES="2048")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    chain = seen["chain"]
    assert chain.index("proxyserver") < chain.index("tokenhub") < chain.index("save") < chain.index("view")
    assert chain.index("tokenhub") < chain.index("nextlayer")
    assert seen["connection_strategy"] == "lazy"
    assert seen["tokenhub_max_body"] == 2048
    assert (seen["listen_host"], seen["listen_port"]) == ("127.0.0.1", 8080)
    assert seen["confdir"] == str(tmp_path / "data" / "ca" / "mitmproxy")
    assert (tmp_path / "data" / "ca" / "mitmproxy" / "mitmproxy-ca.pem").exists()
    assert "comment" in seen.get("web_columns", ["comment"])


@pytest.mark.parametrize("kind", ["console", "web"])
def test_the_command_hands_its_arguments_to_mitmproxy(kind: str, tmp_path: Path) -> None:
    """`tokenhub console|web` takes mitmproxy's own arguments, and shows our options among its own."""
    module, _, command = COMMANDS[kind][0].partition(":")
    done = _python(tmp_path, "-c", f"from {module} import {command}; {command}()", "--options")
    assert done.returncode == 0, done.stderr
    assert "tokenhub_max_body" in done.stdout


def test_a_setting_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    """A malformed extra host stops the launcher."""
    done = _python(tmp_path, "-c", _LOOK, "web", TOKENHUB_EXTRA_HOSTS="nonsense")
    assert done.returncode == 1
    assert "extra host 'nonsense'" in done.stderr
