"""Scenes behind a tun device (see `test_tun.py`): mitmproxy's own TCP in user space, and our server behind it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson
import pytest
import pytest_asyncio

from tests.e2e.serving import Serve, eventually, serving
from tokenhub_core.types import Json

pytestmark = pytest.mark.asyncio(loop_scope="session")

_HOST = "api.openai.com"
_DEVICE = "th0"
_SOMEWHERE = "198.51.100.7"
"""Where the host is: an address that nobody has (RFC 5737), and that the device leads to."""


@dataclass(frozen=True)
class Device:
    """A server whose proxy is a device, and a key for it."""

    serve: Serve
    key: str

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Connect to the host, as every program does."""
        trust = ssl.create_default_context(cafile=self.serve.info.ca_file)
        reader, writer = await asyncio.open_connection(_SOMEWHERE, 443, ssl=trust, server_hostname=_HOST)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    def request(self, *, key: str = "", **more: object) -> bytes:
        body = orjson.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], **more})
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {_HOST}\r\nauthorization: Bearer {key or self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def latest(self) -> Json:
        """Return the newest record."""
        return (await self.serve.records())[0]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def device(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Device]:
    await _ip("link", "set", "lo", "up")
    settings = {"TOKENHUB_MODES": f"regular,tun:{_DEVICE}", "TOKENHUB_SIMULATE": "1"}
    async with serving(tmp_path_factory.mktemp("tun"), settings=settings) as serve:
        await _ip("link", "set", _DEVICE, "up")
        await _ip("route", "add", "198.51.100.0/24", "dev", _DEVICE)
        made = await serve.admin("POST", "/apikeys", {"name": "of a device"})
        yield Device(serve, made["key"])


async def _ip(*words: str) -> None:
    process = await asyncio.create_subprocess_exec("ip", *words)
    assert await process.wait() == 0


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.partition(b": ")[::2] for line in head.lower().split(b"\r\n")[1:])
    if b"content-length" in fields:
        return int(head.split()[1]), await reader.readexactly(int(fields[b"content-length"]))
    return int(head.split()[1]), await reader.readuntil(b"\r\n0\r\n\r\n")


async def test_a_call_through_the_device_is_answered_and_recorded(device: Device) -> None:
    """Nobody has told the program of a proxy; several calls on one connection, and the record says how they came."""
    async with device.connection() as (reader, writer):
        for _ in range(3):
            writer.write(device.request())
            status, body = await _answer(reader)
            assert (status, orjson.loads(body)["object"]) == (200, "chat.completion")

    record = await device.latest()
    told = [record[name] for name in ("lane", "client_mode", "outcome", "origin_host")]
    assert told == ["handoff", "tun", "ok", _HOST]


async def test_a_stream_through_the_device_comes_whole(device: Device) -> None:
    """Every event up to the last one, in order."""
    async with device.connection() as (reader, writer):
        writer.write(device.request(stream=True))
        status, body = await _answer(reader)

    assert (status, body.count(b"data: [DONE]")) == (200, 1)


async def test_a_large_request_and_its_answer_pass_through_the_device(device: Device) -> None:
    """A megabyte does not get stuck in windows and buffers of two TCPs."""
    async with device.connection() as (reader, writer):
        writer.write(device.request(messages=[{"role": "user", "content": "word " * 200_000}]))
        status, _ = await _answer(reader)

    assert status == 200


async def test_who_comes_through_the_device_shows_a_key(device: Device) -> None:
    """It is no program that is known to run on this machine."""
    async with device.connection() as (reader, writer):
        writer.write(device.request(key="sk-placeholder"))
        assert (await _answer(reader))[0] == 401


async def test_forty_connections_at_once(device: Device) -> None:
    """They do not get in each other's way, and none stays."""

    async def call() -> int:
        async with device.connection() as (reader, writer):
            writer.write(device.request())
            return (await _answer(reader))[0]

    assert await asyncio.gather(*(call() for _ in range(40))) == [200] * 40


async def test_a_client_that_leaves_in_the_middle_is_noticed(device: Device) -> None:
    """Its call ends as one whose caller has left."""
    async with device.connection() as (reader, writer):
        writer.write(device.request(stream=True, messages=[{"role": "user", "content": "slow " * 2000}]))
        await reader.readuntil(b"data: ")

    async def told() -> bool:
        return bool((await device.latest())["outcome"] != "ok")

    await eventually(told)
