"""The Node preload shim, in a real Node: every way out leads through the proxy, and nothing shows."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.launch.conftest import Proxy, Tokenhub
from tests.patience import PROGRAM_PATIENCE
from tokenhub_core.launch.paths import shim_dir

_WAYS_OUT = {
    "https.get": """
require('https').get('https://llm.test/a', (r) => { r.resume(); r.on('end', () => console.log(r.statusCode)); });
""",
    "fetch": "fetch('https://llm.test/a').then(async (r) => { await r.text(); console.log(r.status); });",
    "an ES module's named import": """
import { connect } from 'tls';
const socket = connect({ host: 'llm.test', port: 443 }, () => {
  socket.write('GET /a HTTP/1.1\\r\\nHost: llm.test\\r\\nConnection: close\\r\\n\\r\\n');
});
socket.once('data', (d) => { console.log(String(d).slice(9, 12)); socket.destroy(); });
""",
    "tls.connect(port, host, options)": """
const socket = require('tls').connect(443, 'llm.test', { servername: 'llm.test' }, () => {
  socket.write('GET /a HTTP/1.1\\r\\nHost: llm.test\\r\\nConnection: close\\r\\n\\r\\n');
});
socket.once('data', (d) => { console.log(String(d).slice(9, 12)); socket.destroy(); });
""",
}


def _script(place: Path, text: str) -> str:
    file = place / ("program.mjs" if "import {" in text else "program.cjs")
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("way", _WAYS_OUT)
def test_node_s_ways_out_lead_through_the_proxy(
    tokenhub: Tokenhub, proxy: Proxy, node: str, tmp_path: Path, way: str
) -> None:
    """Whatever opens the TLS connection, the proxy gets a CONNECT and the program its answer."""
    result = tokenhub("run", "--", node, _script(tmp_path, _WAYS_OUT[way]))

    assert (result.stdout, result.stderr) == ("200\n", "")
    assert proxy.seen == ["CONNECT llm.test:443", "GET /a"]


def test_http2_reaches_the_proxy(tokenhub: Tokenhub, proxy: Proxy, node: str, tmp_path: Path) -> None:
    """http2.connect opens its connection with positional arguments, and comes through all the same."""
    text = """
const session = require('http2').connect('https://llm.test');
session.on('error', () => {});
session.on('close', () => console.log('closed'));
"""
    result = tokenhub("run", "--", node, _script(tmp_path, text))

    assert (result.stdout, result.stderr) == ("closed\n", "")
    assert proxy.seen == ["CONNECT llm.test:443"]


def test_plain_http_from_node_comes_through(
    tokenhub: Tokenhub, proxy: Proxy, node: str, tmp_path: Path
) -> None:
    """A call to http:// comes through the proxy, by a tunnel or in absolute form."""
    text = "require('http').get('http://llm.test/a', (r) => { r.resume(); console.log(r.statusCode); });"

    result = tokenhub("run", "--", node, _script(tmp_path, text))

    assert (result.stdout, result.stderr) == ("200\n", "")
    assert proxy.seen in (["CONNECT llm.test:80", "GET /a"], ["GET http://llm.test/a"])


def test_a_large_answer_and_a_large_request_pass_whole(
    tokenhub: Tokenhub, proxy: Proxy, node: str, tmp_path: Path
) -> None:
    """Back-pressure in both directions loses nothing."""
    text = """
const request = require('https').request('https://llm.test/large', { method: 'POST' }, async (r) => {
  let size = 0;
  for await (const chunk of r) { size += chunk.length; await new Promise(setImmediate); }
  console.log(size);
});
request.end('x'.repeat(2000000));
"""
    result = tokenhub("run", "--", node, _script(tmp_path, text))

    assert (result.stdout, result.stderr) == ("300012\n", "")


@pytest.mark.parametrize(
    ("host", "words"), [("refused.test", "answered 403"), ("hangup.test", "closed the connection")]
)
def test_a_proxy_that_refuses_is_an_ordinary_error(
    tokenhub: Tokenhub, node: str, tmp_path: Path, host: str, words: str
) -> None:
    """The program gets an error event with a code, as from any connection that fails."""
    text = f"require('https').get('https://{host}/').on('error', (e) => console.log(e.code, e.message));"

    result = tokenhub("run", "--", node, _script(tmp_path, text))

    assert result.stdout.startswith("ERR_PROXY_TUNNEL TokenHub's proxy at 127.0.0.1:")
    assert result.stdout.endswith(f"{words}\n")


def test_a_proxy_that_is_gone_is_an_ordinary_error(tokenhub: Tokenhub, node: str, tmp_path: Path) -> None:
    """A refused connection to the proxy is reported as one."""
    text = "require('https').get('https://llm.test/').on('error', (e) => console.log(e.code));"

    result = tokenhub("run", "--proxy", "http://127.0.0.1:1", "--", node, _script(tmp_path, text))

    assert (result.stdout, result.stderr) == ("ECONNREFUSED\n", "")


def test_an_idle_connection_does_not_keep_the_program_alive(
    tokenhub: Tokenhub, node: str, tmp_path: Path
) -> None:
    """A kept-alive connection in a pool lets the program end at once, as without us (idle limit: 5 s)."""
    text = _WAYS_OUT["https.get"] + "process.on('exit', () => console.log(process.uptime() < 3));"

    result = tokenhub("run", "--", node, _script(tmp_path, text))

    assert result.stdout == "200\ntrue\n"


def test_node_sends_the_credentials_of_the_proxy_s_url(
    tokenhub: Tokenhub, proxy: Proxy, node: str, tmp_path: Path
) -> None:
    """A proxy URL with user and password is sent with both, decoded."""
    url = proxy.url.replace("//", "//me:p%40ss@")

    result = tokenhub("run", "--proxy", url, "--", node, _script(tmp_path, _WAYS_OUT["https.get"]))

    assert result.stdout == "200\n"
    assert proxy.authorization == ["Basic bWU6cEBzcw=="]


def _bare(node: str, program: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    shim = shim_dir() / "node.cjs"
    base = {"PATH": os.environ["PATH"], "NODE_OPTIONS": f"--require={shim}"}
    return subprocess.run(
        [node, "-e", program],
        env=base | dict(environ),
        capture_output=True,
        text=True,
        timeout=PROGRAM_PATIENCE,
        check=False,
    )


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HTTPS_PROXY": "http://127.0.0.1:9"},
        {"TOKENHUB_ACTIVE": "1"},
        {"TOKENHUB_ACTIVE": "1", "HTTPS_PROXY": "not a url"},
        {"TOKENHUB_ACTIVE": "1", "HTTPS_PROXY": "socks5://127.0.0.1:9"},
    ],
    ids=["nothing", "not ours", "no proxy", "no url", "another protocol"],
)
def test_the_shim_does_nothing_where_something_is_off(node: str, environ: dict[str, str]) -> None:
    """Preloaded without a usable proxy, the shim is silent and leaves Node as it was."""
    program = "console.log(Symbol.for('tokenhub.shim') in globalThis)"

    result = _bare(node, program, environ)

    assert (result.stdout, result.stderr, result.returncode) == ("false\n", "", 0)


def test_loopback_and_exempt_hosts_go_direct(node: str, proxy: Proxy) -> None:
    """Names with what stands below them, host:port and IPv4 networks of NO_PROXY keep their own way."""
    program = """
const tls = require('tls');
for (const host of ['127.0.0.1', '10.1.2.3', 'sub.exempt.test', 'exempt.test', 'ported.test'])
  tls.connect({ host, port: 9, lookup: (name, options, done) => done(new Error('looked up')) })
    .on('error', () => {});
tls.connect({ host: 'ported.test', port: 10 }).on('error', () => {});
tls.connect({ host: 'notexempt.test', port: 10 }).on('error', () => {});
setTimeout(() => process.exit(), 300);
"""
    _bare(
        node,
        program,
        {
            "TOKENHUB_ACTIVE": "1",
            "HTTPS_PROXY": proxy.url,
            "NO_PROXY": "127.0.0.1, 10.0.0.0/8,.exempt.test,ported.test:9",
        },
    )

    assert sorted(proxy.seen) == ["CONNECT notexempt.test:10", "CONNECT ported.test:10"]
