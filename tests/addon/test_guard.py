"""Hooks fail closed, and the fence keeps callers out of places that are not theirs."""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import hooks
from mitmproxy.http import HTTPFlow

from tests.addon.clients import ANTHROPIC, H1, KEY, MESSAGES, OPENAI, Proxy, RefusedError, tunnel
from tests.addon.handing_off import hello
from tests.addon.inspection import inspecting, make_addon
from tests.addon.lanes import served
from tests.addon.scripted import ScriptedEngine
from tests.addon.upstream import Upstream
from tokenhub_addon.addon import TokenHub
from tokenhub_addon.guard import Fence
from tokenhub_core.errors import ConfigError

HOOKS: list[str] = sorted((hooks.all_hooks.keys() & vars(TokenHub).keys()) - {"socks5_auth"})
"""All but the one that only a SOCKS listener has: `test_doors.py` breaks it."""

_KEYED = {"Authorization": f"Bearer {KEY}"}


def _broken(*names: str, guarded: bool = True) -> type[TokenHub]:
    """Return the addon with these hooks raising."""

    def boom(self: TokenHub, *args: object) -> None:
        raise RuntimeError("boom")

    def body(namespace: dict[str, Any]) -> None:
        namespace.update(dict.fromkeys(names, boom))

    return types.new_class("Broken", (TokenHub,), {"guarded": guarded}, body)


async def _everything(proxy: Proxy) -> list[int]:
    """Send a call in every way, and something to other hosts; return the statuses, 0 for none."""
    statuses = []
    with contextlib.suppress(RefusedError, EOFError, OSError):
        reader, writer = await tunnel(proxy, "www.example.org")
        async with H1(reader, writer, "www.example.org"):
            writer.write(hello("www.example.org"))
            await asyncio.sleep(0.01)
    for connect in (
        H1.tls(proxy),
        H1.plain(proxy),
        H1.plain(proxy, "www.example.org"),
        H1.plain(proxy, "nowhere.example"),
        H1.plain(proxy, "10.0.0.1"),
    ):
        status = 0
        with contextlib.suppress(RefusedError, EOFError, OSError):
            async with await connect as client:
                status = (await client.ask(headers=_KEYED)).status
        statuses.append(status)
    async with await H1.plain(proxy) as client:
        await client.send(headers={**_KEYED, "Content-Length": "100"})
    return statuses


def _calls_that_got_out(upstream: Upstream) -> list[object]:
    return [
        *(host for host, _ in upstream.dials if host == OPENAI),
        *(request for request in upstream.requests if OPENAI.encode() in request),
    ]


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_that_raises_lets_no_call_out(confdir: Path, hook: str) -> None:
    """Whichever hook fails, no call reaches the host that it was meant for, and the failure is counted."""
    upstream = Upstream()
    await upstream.start()
    try:
        ours = make_addon(ScriptedEngine(), upstream, kind=_broken(hook))
        async with inspecting(confdir, ScriptedEngine(), addon=ours, upstream=upstream) as lane:
            statuses = await _everything(lane.proxy)
        assert _calls_that_got_out(upstream) == []
        assert ours.failures[hook] > 0
        assert statuses[-2:] != [200, 200]
    finally:
        await upstream.close()


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_that_raises_lets_no_call_out_of_serve(
    data_dir: Path, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same in the arrangement of `serve`, whose hooks are dispatched by our own manager.

    There a call over TLS is handed off, and answered whatever becomes of it later in the addon. Without `load`
    there are no options, and `serve` does not start.
    """
    monkeypatch.setattr("tokenhub_addon.engines.TokenHub", _broken(hook))
    upstream, engine = Upstream(), ScriptedEngine()
    await upstream.start()
    try:
        if hook == "load":
            with pytest.raises(ConfigError, match="tokenhub_data_dir"):
                await served(data_dir, engine, upstream=upstream).__aenter__()
            return
        async with served(data_dir, engine, upstream=upstream) as serve:
            addon = serve.addon
            assert isinstance(addon, TokenHub)
            handed_off, *statuses = await _everything(serve.proxy)
        before = {"configure", "running", "client_connected", "http_connect", "next_layer"}
        assert handed_off == (0 if hook in before else 200)
        assert _calls_that_got_out(upstream) == []
        assert addon.failures[hook] > 0
        assert statuses[-2:] != [200, 200]
    finally:
        await upstream.close()


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_the_guard_calls_would_get_out(confdir: Path, guarded: bool) -> None:
    """The control: with every hook raising, a call with its key leaves, but for the guard.

    `load` is left alone: without it mitmproxy does not even start.
    """
    upstream = Upstream()
    await upstream.start()
    try:
        ours = make_addon(ScriptedEngine(), upstream, kind=_broken(*set(HOOKS) - {"load"}, guarded=guarded))
        async with (
            inspecting(confdir, ScriptedEngine(), addon=ours, upstream=upstream) as lane,
            await H1.plain(lane.proxy) as client,
        ):
            with contextlib.suppress(EOFError):
                await client.ask(headers=_KEYED)
        assert bool(_calls_that_got_out(upstream)) is not guarded
        assert any(KEY.encode() in request for request in upstream.requests) is not guarded
    finally:
        await upstream.close()


async def test_a_failure_is_told_in_the_callers_dialect(confdir: Path) -> None:
    """A call that a hook failed at gets a 500 that its SDK understands, and no detail of ours."""
    upstream = Upstream()
    await upstream.start()
    try:
        ours = make_addon(ScriptedEngine(), upstream, kind=_broken("requestheaders"))
        async with (
            inspecting(confdir, ScriptedEngine(), addon=ours, upstream=upstream) as lane,
            await H1.tls(lane.proxy, ANTHROPIC) as client,
        ):
            answer = await client.ask(MESSAGES)
            assert answer.status == 500
            assert answer.body.replace(b" ", b"").startswith(b'{"type":"error"')
            assert b"boom" not in answer.body
    finally:
        await upstream.close()


async def test_a_refusal_that_fails_refuses_still(confdir: Path) -> None:
    """An error in telling the error leaves a bare 500, and nothing else."""

    class Worse(TokenHub):
        async def requestheaders(self, flow: HTTPFlow) -> None:
            raise RuntimeError("boom")

        def failure(self, flow: HTTPFlow) -> Any:
            raise RuntimeError("boom again")

    upstream = Upstream()
    await upstream.start()
    try:
        ours = make_addon(ScriptedEngine(), upstream, kind=Worse)
        async with (
            inspecting(confdir, ScriptedEngine(), addon=ours, upstream=upstream) as lane,
            await H1.plain(lane.proxy) as client,
        ):
            assert (await client.ask()).status == 500
        assert upstream.dials == []
    finally:
        await upstream.close()


# --- the fence ---------------------------------------------------------------------------------------------


async def _resolves_to(*addresses: str) -> Sequence[str]:
    return addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
        "100.100.100.200", "0.0.0.0", "0.1.2.3", "224.0.0.251", "239.1.1.1", "240.0.0.1", "255.255.255.255",
        "192.0.0.1", "198.18.0.1", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254",
        "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::a00:1", "64:ff9b::7f00:1",
        "2002:7f00:1::", "2002:a00:1::", "2001:0:4136:e378:8000:63bf:80ff:fffe", "2001:db8::1",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    """Loopback, private, link-local, shared, multicast and reserved, in every wrapping."""
    assert Fence().refusal("name", address, 80)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_a_public_address_is_open(address: str) -> None:
    """The rest of the world may be reached."""
    assert Fence().refusal("name", address, 80) == ""


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "127.0.0.1."]
)
async def test_other_spellings_of_loopback_are_refused(host: str) -> None:
    """Decimal, hexadecimal, octal and short forms are what the resolver makes of them."""
    assert (await Fence().check(host, 80)).refused


async def test_one_bad_address_is_enough() -> None:
    """A name that leads to a public and to a private address is refused."""
    fence = Fence(resolve=lambda host, port: _resolves_to("93.184.216.34", "10.0.0.1"))
    assert (await fence.check("mixed.example", 80)).refused


async def test_a_name_without_an_address_is_refused_where_it_counts() -> None:
    """What cannot be checked is not dialled: the name might have an address a moment later."""

    async def nothing(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    verdict = await Fence(resolve=nothing).check("nowhere.example", 80)
    assert verdict.refused
    assert not verdict.resolved
    assert not (await Fence(resolve=nothing).check("nowhere.example", 80, trusted=True)).refused


@pytest.mark.parametrize("allowed", ["10.0.0.0/8", "10.1.2.3", "Intern.Example.", " 10.1.0.0/16 "])
async def test_what_is_listed_is_open(allowed: str) -> None:
    """A network, an address or a name on the list may be reached."""
    fence = Fence([allowed], resolve=lambda host, port: _resolves_to("10.1.2.3"))
    assert not (await fence.check("intern.example", 80)).refused


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.0.0.2", "::1", "0.0.0.0", "::ffff:127.0.0.1", "1.2.3.4"]
)
def test_nothing_opens_our_own_listeners(address: str) -> None:
    """Neither the list nor an operator's own destination leads back into the proxy."""
    fence = Fence(["0.0.0.0/0", "::/0"], own=lambda: [("1.2.3.4", 8080)])
    assert fence.refusal("name", address, 8080)
    assert fence.is_own(address, 8080)
    assert not fence.refusal("name", address, 8081)


async def test_a_trusted_destination_may_be_private_but_not_ourselves() -> None:
    """The target of a reverse proxy is the operator's business, unless it is us."""
    fence = Fence(own=lambda: [("127.0.0.1", 8080)], resolve=lambda host, port: _resolves_to("127.0.0.1"))
    assert not (await fence.check("backend", 9000, trusted=True)).refused
    assert (await fence.check("backend", 8080, trusted=True)).refused
