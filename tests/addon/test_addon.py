"""The addon's life: options, the engine's start and end, and the modes that the operator configures."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import exceptions, options
from mitmproxy.addonmanager import Loader
from mitmproxy.master import Master

from tests.addon.clients import ANTHROPIC, CHAT, H1, MESSAGES, OPENAI, Proxy, tunnel
from tests.addon.inspection import inspecting, make_addon
from tests.addon.scripted import ScriptedEngine
from tests.addon.upstream import Upstream
from tests.patience import PROGRAM_PATIENCE
from tokenhub_addon.engines import alone
from tokenhub_addon.host import AddonOptions
from tokenhub_core.errors import ConfigError
from tokenhub_core.ports import Engine
from tokenhub_core.types import Dialect, Origin

_ROOT = Path(__file__).parents[2]
_SHIM = _ROOT / "addon" / "tokenhub.py"


# --- the engine --------------------------------------------------------------------------------------------


async def test_calls_wait_for_the_engine(confdir: Path) -> None:
    """A call that arrives before the engine is ready is answered once it is."""
    engine, ready = ScriptedEngine(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def slowly(_: AddonOptions) -> AsyncIterator[Engine]:
        await ready.wait()
        yield engine

    async with _upstream() as upstream:
        ours = make_addon(engine, upstream, make=slowly)
        async with inspecting(confdir, engine, addon=ours, upstream=upstream) as lane:
            connecting = asyncio.create_task(H1.tls(lane.proxy))
            await lane.until(lambda: lane.call("proxyserver.active_connections") > 0)
            assert not connecting.done()
            ready.set()
            async with await connecting as client:
                assert (await client.ask()).status == 200


@pytest.mark.parametrize("error", [ConfigError("no vault"), RuntimeError("boom")])
async def test_an_engine_that_does_not_start_answers_with_its_absence(
    confdir: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls fail at once and in their dialect, and the operator is told why."""

    @contextlib.asynccontextmanager
    async def never(_: AddonOptions) -> AsyncIterator[Engine]:
        if error.args:
            raise error
        yield ScriptedEngine()

    async with _upstream() as upstream:
        ours = make_addon(ScriptedEngine(), upstream, make=never)
        async with (
            inspecting(confdir, ScriptedEngine(), addon=ours, upstream=upstream) as lane,
            await H1.tls(lane.proxy, ANTHROPIC) as client,
        ):
            answer = await client.ask(MESSAGES)
            assert answer.status == 503
            assert b'"error"' in answer.body
        assert str(error) in caplog.text
        assert upstream.dials == []


async def test_the_engine_is_closed_where_it_was_opened(confdir: Path) -> None:
    """When mitmproxy ends, calls in flight are cancelled first and the engine is closed before it is gone."""
    events: list[str] = []
    engine = ScriptedEngine()

    @contextlib.asynccontextmanager
    async def told(options: AddonOptions) -> AsyncIterator[Engine]:
        events.append(f"open {options.simulate} {options.data_dir}")
        yield engine
        await asyncio.sleep(0.01)
        events.append(f"close {engine.running}")

    async with _upstream() as upstream:
        ours = make_addon(engine, upstream, make=told)
        async with inspecting(
            confdir,
            engine,
            addon=ours,
            upstream=upstream,
            tokenhub_simulate=True,
            tokenhub_data_dir="/somewhere",
        ) as lane:
            assert "tokenhub_tail" in lane.master.addons.lookup
    assert events == ["open True /somewhere", "close 0"]


# --- options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokenhub_extra_hosts", ["nonsense"]),
        ("tokenhub_extra_hosts", ["llm.example.org=klingon"]),
        ("tokenhub_max_body", 0),
    ],
)
async def test_an_option_that_cannot_be_used_is_refused(confdir: Path, name: str, value: Any) -> None:
    """mitmproxy keeps the old value and says what was wrong; the addon goes on."""
    async with inspecting(confdir, ScriptedEngine()) as lane:
        with pytest.raises(exceptions.OptionsError):
            lane.master.options.update(**{name: value})  # type: ignore[no-untyped-call] # mitmproxy's
        assert lane.addon.failures == {}
        async with await H1.tls(lane.proxy) as client:
            assert (await client.ask()).status == 200


async def test_extra_hosts_are_routed(confdir: Path) -> None:
    """A configured host is opened and routed, on its own port and in its own dialect."""
    engine = ScriptedEngine()
    settings: dict[str, Any] = {"tokenhub_extra_hosts": ["llm.example.org=anthropic_messages"]}
    async with inspecting(confdir, engine, **settings) as lane:
        async with await H1.plain(lane.proxy, "llm.example.org", port=8000) as client:
            assert (await client.ask(MESSAGES)).status == 200
        (snapshot,) = engine.snapshots
        assert snapshot.dialect is Dialect.ANTHROPIC_MESSAGES
        assert snapshot.origin == Origin("http", "llm.example.org", 8000)


async def test_a_compromised_ca_is_refused(confdir: Path) -> None:
    """With an option that makes mitmproxy sign with a leaked key, nothing is answered."""

    class Leaked:
        def load(self, loader: Loader) -> None:
            loader.add_option("emudhra", bool, True, "sign with a key that everybody has")

    async with (
        inspecting(confdir, ScriptedEngine(), before=[Leaked()]) as lane,
        await H1.plain(lane.proxy) as client,
    ):
        with pytest.raises(EOFError):
            await client.ask()
        assert lane.addon.failures["running"] == 1
        assert lane.upstream.dials == []


async def test_loggers_are_quiet_only_while_the_addon_runs(confdir: Path) -> None:
    """What chatters at every connection is turned down, and up again afterwards."""
    chatty = logging.getLogger("mitmproxy.proxy.server")
    before = chatty.level
    async with inspecting(confdir, ScriptedEngine()):
        assert chatty.getEffectiveLevel() >= logging.WARNING
    assert chatty.level == before


async def test_the_environment_sets_the_addon_as_it_sets_its_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a launcher too, what TOKENHUB_* variables say is what the addon's options begin with."""
    monkeypatch.setenv("TOKENHUB_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TOKENHUB_SIMULATE", "true")
    monkeypatch.setenv("TOKENHUB_ORIGIN", "false")
    monkeypatch.setenv("TOKENHUB_EXTRA_HOSTS", "llm.example.org=openai_chat")
    monkeypatch.setenv("TOKENHUB_ALLOW_PRIVATE", "10.0.0.0/8")
    monkeypatch.setenv("TOKENHUB_MAX_BODY_BYTES", "2048")
    master = Master(options.Options())
    master.addons.add(alone())  # type: ignore[no-untyped-call] # mitmproxy's
    seen = master.options
    assert (seen.tokenhub_simulate, seen.tokenhub_origin, seen.tokenhub_max_body) == (True, False, 2048)
    assert seen.tokenhub_extra_hosts == ["llm.example.org=openai_chat"]
    assert seen.tokenhub_allow_private == ["10.0.0.0/8"]
    monkeypatch.setenv("TOKENHUB_EXTRA_HOSTS", "llm.example.org=klingon")
    with pytest.raises(ConfigError, match="klingon"):
        alone()


# --- modes -------------------------------------------------------------------------------------------------


async def test_an_eager_socks_connection_to_a_listed_host_is_not_made(confdir: Path) -> None:
    """Even where mitmproxy wants to greet the host first, the last line of defence holds."""
    engine = ScriptedEngine()
    async with inspecting(confdir, engine, mode="socks5") as lane:
        lane.master.options.update(connection_strategy="eager")  # type: ignore[no-untyped-call] # mitmproxy's
        with contextlib.suppress(Exception):
            await tunnel(lane.proxy, OPENAI, via="socks5")
        assert lane.upstream.dials == []


async def test_what_is_not_http_does_not_reach_a_listed_host(confdir: Path) -> None:
    """A tunnel to a listed host that turns out to hold something else ends here."""
    async with inspecting(confdir, ScriptedEngine()) as lane:
        reader, writer = await tunnel(lane.proxy, OPENAI)
        writer.write(b"\x00\x01\x02 something else entirely\r\n\r\n")
        async with H1(reader, writer, OPENAI) as client:
            assert await client.at_end()
        assert lane.upstream.dials == []


async def test_the_operators_own_target_may_be_private(confdir: Path) -> None:
    """A reverse proxy to an address of the local network works: who runs the proxy has chosen it."""
    async with inspecting(confdir, ScriptedEngine(), mode="reverse:http://10.0.0.9:8000") as lane:
        async with await H1.plain(lane.proxy, "whatever") as client:
            client.absolute = ""
            assert (await client.ask("/")).body == b"upstream"
        assert lane.upstream.dials == [("10.0.0.9", 8000)]


async def test_a_proxy_that_is_spoken_to_in_tls_stays_a_proxy(confdir: Path) -> None:
    """TLS with the proxy itself is not mistaken for a tunnel to an unlisted host."""
    engine = ScriptedEngine()
    async with inspecting(confdir, engine) as lane:
        reader, writer = await tunnel(lane.proxy, "", via="direct")
        await writer.start_tls(lane.proxy.trust("http/1.1"), server_hostname="localhost")
        async with H1(reader, writer, OPENAI) as client:
            client.absolute = f"http://{OPENAI}"
            assert (await client.ask()).status == 200
        assert len(engine.snapshots) == 1


# --- as a script -------------------------------------------------------------------------------------------


async def test_the_script_works_in_plain_mitmdump(tmp_path: Path) -> None:
    """`mitmdump -s addon/tokenhub.py` answers a call from its own engine, and shows the decision."""
    settings = (f"tokenhub_data_dir={tmp_path / 'data'}", "tokenhub_simulate=true", "flow_detail=1")
    process = await _mitmdump(tmp_path, *(word for setting in settings for word in ("--set", setting)))
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PROGRAM_PATIENCE):
            while not (
                found := re.search(rb"listening at 127\.0\.0\.1:(\d+)", await process.stdout.readline())
            ):
                pass
        proxy = Proxy("127.0.0.1", int(found[1]), str(tmp_path / "conf" / "mitmproxy-ca-cert.pem"))
        body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hello"}]}'
        async with await H1.tls(proxy) as client:
            answer = await client.ask(CHAT, body, headers={"content-type": "application/json"})
        assert answer.status == 200, answer.body
        assert answer.headers["x-tokenhub-simulated"] == "true"
        assert b'"chat.completion"' in answer.body
    finally:
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
    assert process.returncode == 0, out


async def test_the_script_says_what_is_missing(tmp_path: Path) -> None:
    """Where the package cannot be imported, one line says so and what to do, and mitmproxy does not run on."""
    fake = tmp_path / "fake" / "tokenhub_addon"
    fake.mkdir(parents=True)
    (fake / "__init__.py").touch()
    script = tmp_path / "tokenhub.py"
    script.write_text(_SHIM.read_text())
    process = await _mitmdump(tmp_path, script=script, path=str(fake.parent))
    try:
        async with asyncio.timeout(PROGRAM_PATIENCE):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    told = [line for line in out.decode().splitlines() if "TokenHub" in line]
    assert len(told) == 1
    assert "pip install tokenhub" in told[0]
    assert process.returncode == 1


async def _mitmdump(
    folder: Path, *more: str, script: Path = _SHIM, path: str = ""
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from mitmproxy.tools.main import mitmdump; mitmdump()",
        *("-s", str(script), "--listen-host", "127.0.0.1", "-p", "0", "--set", f"confdir={folder / 'conf'}"),
        *more,
        env={**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore", "HOME": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


@contextlib.asynccontextmanager
async def _upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.close()
