"""Bodies of any size and kind pass unchanged, both ways, and neither side waits for the other in vain."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator

import orjson
import pytest
from aiohttp import web

from tests.fakes.listener import listener, reset
from tests.http.test_passthrough import Front, front, on_port, settled
from tests.patience import PATIENCE
from tokenhub_core.types import Outcome, Usage

LARGE = 24 << 20


def noise(size: int) -> bytes:
    """Return bytes that no two places of look alike."""
    block = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(2048))
    return (block * (size // len(block) + 1))[:size]


# --- the very bytes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [True, False])
async def test_large_bodies_pass_unchanged_both_ways(chunked: bool) -> None:
    """The hash of what was sent is the hash of what came, up and down, with a length or in chunks."""
    data = noise(LARGE)
    arrived = hashlib.sha256()

    async def host(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        if not chunked:
            response.content_length = len(data)
        async for piece in request.content.iter_any():
            arrived.update(piece)
        await response.prepare(request)
        for start in range(0, len(data), 1 << 20):
            await response.write(data[start : start + (1 << 20)])
        return response

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]

    headers = {} if chunked else {"content-length": str(len(data))}
    came = hashlib.sha256()
    async with (
        on_port(host) as port,
        front(port) as it,
        it.session.post(it.url("/v1/files"), data=pieces(), headers=headers) as response,
    ):
        async for piece in response.content.iter_any():
            came.update(piece)
    assert arrived.digest() == came.digest() == hashlib.sha256(data).digest()
    assert it.recorder.one.message == f"{LARGE} bytes up, {LARGE} bytes down"


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br"])
async def test_what_is_encoded_stays_encoded(encoding: str) -> None:
    """A request and an answer in any encoding, an invalid one too, byte by byte."""
    data = gzip.compress(b"text") + b"\x00 and more than that"

    async def host(request: web.BaseRequest) -> web.StreamResponse:
        assert request.headers["content-encoding"] == encoding
        return web.Response(body=await request.read(), headers={"content-encoding": encoding})

    headers = {"content-encoding": encoding, "content-type": "application/json"}
    async with (
        on_port(host) as port,
        front(port) as it,
        it.session.post(it.url("/v1/files"), data=data, headers=headers, compress=False) as response,
    ):
        assert response.headers["content-encoding"] == encoding
        assert await response.read() == data


async def test_a_form_passes_as_it_was_written() -> None:
    """A multipart body keeps its boundary, its order and its odd line ends."""
    form = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    form += b'--x\r\nContent-Disposition: form-data; name="file"; filename="\xc3\xa9.wav"\r\n\r\n'
    form += b"\n\r\n\x00\r\n--x--\r\n"
    got: list[bytes] = []

    async def host(request: web.BaseRequest) -> web.StreamResponse:
        assert request.headers["content-type"] == "multipart/form-data; boundary=x"
        got.append(await request.read())
        return web.json_response({"text": "hi", "usage": {"input_tokens": 14, "output_tokens": 45}})

    headers = {"content-type": "multipart/form-data; boundary=x"}
    async with (
        on_port(host) as port,
        front(port) as it,
        it.session.post(it.url("/v1/audio/transcriptions"), data=form, headers=headers) as response,
    ):
        await response.read()
    assert got == [form]
    record = it.recorder.one
    assert (record.requested_model, record.usage) == ("whisper-1", Usage(14, 45))


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "OPTIONS", "PROPFIND"])
async def test_any_method_passes_with_its_body(method: str) -> None:
    """Known ones and others."""

    async def host(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=request.method.encode() + await request.read())

    async with (
        on_port(host) as port,
        front(port) as it,
        it.session.request(method, it.url("/v1/files/f"), data=b"body") as response,
    ):
        assert await response.read() == method.encode() + b"body"
    assert it.recorder.one.method == method


async def test_usage_is_read_while_the_answer_passes() -> None:
    """A stream's first piece is not held back, and its last tells the counts."""
    more = asyncio.Event()

    async def host(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"model":"img-1"}\n\n')
        await more.wait()
        await response.write(b'data: {"usage":{"input_tokens":5,"output_tokens":6}}\n\n')
        return response

    async with (
        on_port(host) as port,
        front(port) as it,
        it.session.post(it.url("/v1/images/generations"), json={"model": "asked-1"}) as response,
    ):
        async with asyncio.timeout(PATIENCE):
            assert await response.content.readany() == b'data: {"model":"img-1"}\n\n'
            more.set()
            await response.read()
    record = it.recorder.one
    assert (record.usage, record.usage_estimated, record.stream) == (Usage(5, 6), False, True)
    assert (record.requested_model, record.model) == ("asked-1", "img-1")


# --- odd moments --------------------------------------------------------------------------------------------


async def test_trailers_and_interim_answers_do_no_harm() -> None:
    """In a request and in an answer; what comes after on the connection is still understood."""

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"0\r\n")
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
            writer.write(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 1\r\n\r\n"
            )
        await reader.read()

    upload = b"POST /v1/files HTTP/1.1\r\nHost: x\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n"
    upload += b"%b\r\n3\r\nabc\r\n0\r\nX-Sum: 2\r\n\r\n"
    async with listener(host) as port, front(port) as it:
        got = await it.raw(upload % b"" + upload % b"Connection: close\r\n")
    assert got.count(b"4\r\nbody\r\n0\r\n") == 2
    assert [record.outcome for record in it.recorder.records] == [Outcome.PASSED] * 2


async def _early(it: Front, upload: int) -> bytes:
    """Begin an upload that is never finished; return the answer that came all the same."""
    reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
    head = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 40}\r\n\r\n"
    writer.write(head.encode() + bytes(upload))
    try:
        async with asyncio.timeout(PATIENCE):
            answer = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readuntil(b"0\r\n\r\n") if b"chunked" in answer.lower() else b""
            return answer + body
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("upload", [0, 100_000, 8 << 20])
@pytest.mark.parametrize("ends", ["stays", "closes"])
async def test_an_answer_before_the_end_of_the_request_arrives(upload: int, ends: str) -> None:
    """A host may refuse what it has not read; nobody waits for the rest of the upload.

    A host that closes on what it has not read resets the connection, and its words may be lost on the way.
    """
    lost = ends == "closes" and upload > 0

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno!\r\n0\r\n\r\n")
        await writer.drain()
        if ends == "stays":
            await asyncio.Event().wait()
        writer.close()

    async with listener(host) as port, front(port) as it:
        answer = await _early(it, upload)
        await settled(it, 1)
    if lost and answer.startswith(b"HTTP/1.1 502 "):
        assert it.recorder.one.fault == "origin_unreachable"
        return
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"no!" in answer
    assert (it.recorder.one.outcome, it.recorder.one.status) == (Outcome.PASSED, 413)


async def test_an_answer_streams_while_the_request_does() -> None:
    """Both directions at once, in step."""

    async def host(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for piece in request.content.iter_any():
            await response.write(piece.upper())
        return response

    async with on_port(host) as port, front(port) as it:
        said: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def pieces() -> AsyncIterator[bytes]:
            while (piece := await said.get()) is not None:
                yield piece

        said.put_nowait(b"one")
        async with asyncio.timeout(PATIENCE), it.session.post(it.url("/"), data=pieces()) as response:
            assert await response.content.readany() == b"ONE"
            said.put_nowait(b"two")
            assert await response.content.readany() == b"TWO"
            said.put_nowait(None)
            assert await response.content.readany() == b""


async def test_a_host_that_resets_an_upload_is_told_of() -> None:
    """502 and no hang, where it never said a word."""

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reset(writer)

    async with listener(host) as port, front(port) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(
            b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n" + bytes(1 << 20)
        )
        async with asyncio.timeout(PATIENCE):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 502 ")
        writer.transport.abort()
        await settled(it, 1)
    assert it.recorder.one.fault == "origin_unreachable"


async def test_a_client_that_leaves_its_upload_leaves_no_whole_request() -> None:
    """The host is not made to believe that the part is everything."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        heard.put_nowait(await reader.read(-1))

    async with listener(host) as port, front(port) as it:
        _, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"POST /v1/files HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")
        await asyncio.sleep(0.05)
        writer.transport.abort()
        async with asyncio.timeout(PATIENCE):
            got = await heard.get()
        await settled(it, 1)
    assert b"part" in got
    assert not got.endswith(b"0\r\n\r\n")
    assert (it.recorder.one.outcome, it.recorder.one.message) == (
        Outcome.CANCELLED,
        "4 bytes up, 0 bytes down",
    )


async def test_an_upload_that_nobody_reads_is_not_collected() -> None:
    """What a host does not take is not taken from the client either."""
    wrote = 0

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader, writer
        await asyncio.Event().wait()

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal wrote
        while True:
            writer.write(bytes(65_536))
            await writer.drain()
            wrote += 65_536

    async with listener(host) as port, front(port) as it:
        _, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        flooding = asyncio.create_task(flood(writer))
        before = -1
        async with asyncio.timeout(PATIENCE):
            while before != wrote or not wrote:
                before = wrote
                await asyncio.sleep(0.1)
        flooding.cancel()
        writer.transport.abort()
    # Most of it lies in the sockets.
    assert 0 < wrote < 32 << 20


async def test_the_meter_never_stands_in_the_way() -> None:
    """A body that is none of what its head says passes all the same."""
    data = b'{"usage":' * 20_000

    async def host(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(
            body=data, headers={"content-type": "application/json", "content-encoding": "gzip"}
        )

    async with (
        on_port(host) as port,
        front(port) as it,
        it.session.post(it.url("/v1/embeddings"), data=orjson.dumps({"model": 7})) as response,
    ):
        assert await response.read() == data
    assert (it.recorder.one.outcome, it.recorder.one.usage) == (Outcome.PASSED, Usage())
