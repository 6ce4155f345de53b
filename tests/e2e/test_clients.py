"""Other clients than the SDKs: curl, plain http through the proxy, and whatever is none of our business."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import World
from tests.e2e.programs import needs_curl, run
from tests.fakes import certificates
from tests.fakes.listener import listener

pytestmark = pytest.mark.asyncio(loop_scope="session")

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]})
TOLD = "%{http_version} %{http_code} %{header_json}"


@needs_curl
@pytest.mark.parametrize("option", ["--http1.1", "--http2"])
async def test_curl_is_served_whatever_it_offers(world: World, option: str) -> None:
    """HTTP/1.1 and HTTP/2 on offer: the call is routed, without a word about certificates."""
    async with world.serve.provider("m") as provider:
        ran = await run(
            world.serve,
            *("curl", "-sS", option, "-H", "content-type: application/json", "-d", BODY, "-w", f"\n{TOLD}"),
            "https://api.openai.com/v1/chat/completions",
        )
        assert (ran.code, ran.err) == (0, "")
        answer, _, told = ran.out.partition("\n")
        version, status, headers = told.split(" ", 2)
        assert json.loads(answer)["choices"][0]["message"]["content"].startswith('You asked: "Hello".')
        assert json.loads(headers)["x-tokenhub-provider"] == [provider.id]
        # The hand-off lane serves HTTP/1.1 only and says so in the handshake; the inspect lane speaks both.
        expected = "2" if option == "--http2" and world.lane == "inspect" else "1.1"
        assert (version, status) == (expected, "200")
        (record,) = await world.serve.records_of(provider)
        assert (record["lane"], record["program"][:5]) == (world.lane, "curl/")


@needs_curl
async def test_a_streamed_answer_reaches_curl_event_by_event(world: World) -> None:
    """`curl -N` shows a stream as it comes, and its last line is the stream's own end."""
    async with world.serve.provider("m", speaks="anthropic"):
        body = {**json.loads(BODY), "stream": True}
        ran = await run(
            world.serve,
            *("curl", "-sSN", "-H", "content-type: application/json", "-d", json.dumps(body)),
            "https://api.openai.com/v1/chat/completions",
        )
        assert ran.err == ""
        assert ran.out.startswith("data: {")
        assert ran.out.endswith("data: [DONE]\n\n")


@needs_curl
async def test_plain_http_to_a_listed_host_is_routed_and_stays_here(world: World) -> None:
    """Absolute-form through the proxy: answered by the engine, whose record has the host that was meant."""
    async with world.serve.provider("m") as provider:
        ran = await run(
            world.serve,
            *("curl", "-sS", "-H", "content-type: application/json", "-H", "authorization: Bearer sk-own"),
            *("-d", BODY, "http://api.openai.com/v1/chat/completions"),
        )
        assert json.loads(ran.out)["choices"]
        assert "sk-own" not in str(provider.fake.requests)
        (record,) = await world.serve.records_of(provider)
        assert (record["lane"], record["origin_host"]) == ("inspect", "api.openai.com")


async def test_the_exit_code_is_the_programs_own(world: World) -> None:
    """`tokenhub run` adds nothing to what the program says and how it ends."""
    ran = await run(world.serve, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (ran.code, ran.out, ran.err) == (7, "out\n", "err\n")


# --- what is none of our business ---------------------------------------------------------------------------


async def tunnel(proxy_url: str, target: str) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask the proxy for a tunnel; return its answer and the open connection."""
    parts = urlsplit(proxy_url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n".encode())
    return await reader.readuntil(b"\r\n\r\n"), reader, writer


def echoing(seen: list[bytes]) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            seen.append(line)
            writer.write(line.upper())

    return echo


async def test_another_host_is_a_raw_tunnel(world: World, tmp_path: Path) -> None:
    """Its own certificate reaches the client: nothing was opened on the way, and nothing is recorded."""
    theirs = certificates.authority(tmp_path, "theirs")
    seen: list[bytes] = []
    before = len(await world.serve.records())
    async with listener(echoing(seen), tls=certificates.server_context(tmp_path, theirs)) as port:
        head, reader, writer = await tunnel(world.serve.info.proxy_url, f"localhost:{port}")
        assert b" 200 " in head
        trusting_them_only = ssl.create_default_context(cafile=str(theirs[2]))
        await writer.start_tls(trusting_them_only, server_hostname="127.0.0.1")
        writer.write(b"secret\n")
        assert await reader.readline() == b"SECRET\n"
        writer.close()
        await writer.wait_closed()

    assert seen == [b"secret\n"]
    assert len(await world.serve.records()) == before


@pytest.mark.parametrize("target", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]"])
async def test_a_private_address_that_nobody_allowed_is_refused(world: World, target: str) -> None:
    """The proxy is no way into the machine or its network."""
    async with listener(echoing([])) as port:
        head, _, writer = await tunnel(world.serve.info.proxy_url, f"{target}:{port}")
        assert b" 403 " in head
        writer.close()


async def test_our_own_ports_are_refused_though_their_name_is_allowed(world: World) -> None:
    """Neither the side server nor the proxy itself can be reached through the proxy."""
    for url in (world.serve.info.side_url, world.serve.info.proxy_url):
        head, _, writer = await tunnel(world.serve.info.proxy_url, f"localhost:{urlsplit(url).port}")
        assert b" 403 " in head
        writer.close()
