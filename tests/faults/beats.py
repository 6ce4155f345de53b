"""A provider that speaks once a beat, for a long time, in many streams at once; a process of its own.

`python -m tests.faults.beats STREAMS BEATS APART` prints its port and serves until it is ended. A call whose last
message is `stream 17` is answered by events whose words are `17.0.12345.6789`: whose they are, which one of them it is,
and when it was written, by the clock that all processes of a machine share. Until so many streams are open each has an
event every ten seconds; from then on there are so many beats, so many seconds apart. The last words, `17.of.305`, say
how many there were.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from contextlib import suppress
from typing import Final

import orjson

_HEAD: Final = b"".join(
    (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n",
        b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n",
    )
)
_EARLY: Final = 10.0
_STOP: Final = {"index": 0, "delta": {}, "finish_reason": "stop"}


async def _serve(streams: int, beats: int, apart: float) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))

    there, all_ = 0, asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal there
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            whose = await _asked(reader)
            there += 1
            if there == streams:
                all_.set()
            await _beat(writer, whose, all_, beats, apart)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


async def _asked(reader: asyncio.StreamReader) -> str:
    """Read a request; return whose stream is asked for."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    body = orjson.loads(await reader.readexactly(length))
    return str(body["messages"][-1]["content"]).rpartition(" ")[2]


async def _beat(
    writer: asyncio.StreamWriter, whose: str, all_: asyncio.Event, beats: int, apart: float
) -> None:
    """Write each event at its own time, so that a late one does not delay those after it."""
    writer.write(_HEAD + _event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}]))
    early = 0
    while not all_.is_set():
        await _say(writer, f"{whose}.{early}.{time.monotonic():.4f}")
        early += 1
        with suppress(TimeoutError):
            await asyncio.wait_for(all_.wait(), _EARLY)
    began = time.monotonic()
    for number in range(beats):
        await asyncio.sleep(began + number * apart - time.monotonic())
        await _say(writer, f"{whose}.{early + number}.{time.monotonic():.4f}")
    await _say(writer, f"{whose}.of.{early + beats}")
    usage = {"prompt_tokens": 9, "completion_tokens": beats, "total_tokens": 9 + beats}
    writer.write(_event(choices=[_STOP]) + _event(choices=[], usage=usage) + _chunk(b"data: [DONE]\n\n"))
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def _say(writer: asyncio.StreamWriter, words: str) -> None:
    writer.write(_event(choices=[{"index": 0, "delta": {"content": words}, "finish_reason": None}]))
    await writer.drain()


def _event(**more: object) -> bytes:
    chunk = {
        "id": "chatcmpl-beats",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "beats",
        **more,
    }
    return _chunk(b"data: %b\n\n" % orjson.dumps(chunk))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
