"""Requests that HTTP does not have, or has in two ways: B22 to B27 and B31, at the side server and in every lane.

One request in is one request out, or none. The lanes are held to it with an engine that counts what reaches it; the
house shows that nothing is left behind. 100 MB of header are refused at the first kilobytes, and how much memory that
takes is a figure of `scripts/bench`.
"""

from __future__ import annotations

import asyncio
from typing import Final

import orjson
import pytest

from tests.addon.clients import CHAT, H1, OPENAI
from tests.addon.lanes import Front, Lanes
from tests.addon.scripted import ScriptedEngine
from tests.bad_inputs.scenes import Bad, plain
from tests.patience import PATIENCE
from tokenhub_core.types import Dialect, Lane

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIELDS: Final = {
    "B23 a NUL in a value": b"X-A: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
    "B23 a lone CR in a value": b"X-A: a\rX-B: b\r\nContent-Length: 2\r\n\r\n{}",
    "B23 a NUL in a name": b"X\x00A: a\r\nContent-Length: 2\r\n\r\n{}",
    "B24 a folded line": b"X-A: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "B24 a folded length": b"Content-Length:\r\n 2\r\n\r\n{}",
    "B24 a space before the colon": b"Content-Length : 2\r\n\r\n{}",
    "B24 a name with a space": b"X A: a\r\nContent-Length: 2\r\n\r\n{}",
    "B24 a name with a slash": b"X/A: a\r\nContent-Length: 2\r\n\r\n{}",
    "B24 no name": b": a\r\nContent-Length: 2\r\n\r\n{}",
    "B24 no colon": b"X-A\r\nContent-Length: 2\r\n\r\n{}",
    "B25 a length and chunks": b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "B25 chunks and a length": b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "B25 two lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}}",
    "B25 two lengths in one": b"Content-Length: 2, 3\r\n\r\n{}}",
    "B25 a negative length": b"Content-Length: -1\r\n\r\n",
    "B25 a signed length": b"Content-Length: +2\r\n\r\n{}",
    "B25 a length that is no number": b"Content-Length: two\r\n\r\n{}",
    "B25 another coding": b"Transfer-Encoding: rot13\r\n\r\n{}",
    "B25 chunks that are not the last coding": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "B25 chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "B25 nearly chunked": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "B27 a field of 1 MB": b"X-A: " + b"a" * 1_000_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    "B27 10,000 fields": b"".join(b"X-%d: a\r\n" % n for n in range(10_000)) + b"Content-Length: 2\r\n\r\n{}",
}
"""What follows the first two lines of a request."""


@pytest.mark.parametrize("row", FIELDS)
async def test_b23_to_b27_fields_that_are_none_are_refused(bad: Bad, row: str) -> None:
    """The side server says 400 or 431 and hangs up, and nothing is left of it."""
    async with bad.harmless():
        told = await bad.told(bad.request(rest=FIELDS[row]))
        # What is too large is not read to its end, and a reset may overtake the answer.
        assert (told == b"" and "B27" in row) or told.split(b" ", 2)[1] in {b"400", b"431"}, told[:300]
        assert told.count(b"HTTP/1.") <= 1


async def test_b23_to_b27_no_lane_reads_them(lane: Lanes, caplog: pytest.LogCaptureFixture) -> None:
    """Refused or cut off, one answer at most; the engine and the host hear nothing, and the next client is served."""
    engine = ScriptedEngine()
    async with lane(engine) as running:
        for row, fields in FIELDS.items():
            async with await running.client() as client:
                client.writer.write(
                    f"POST {CHAT} HTTP/1.1\r\nHost: {client.host}\r\nConnection: close\r\n".encode() + fields
                )
                told = await _rest(client)
                assert told.count(b"HTTP/1.") <= 1, row
                assert told.split(b" ", 2)[1:2] != [b"200"], row
            assert engine.snapshots == [], row
        assert running.upstream.dials == []
        await _goes_on(running)
    assert [one.getMessage() for one in caplog.records if one.exc_info] == []


async def _rest(client: H1) -> bytes:
    """Return what comes until the connection ends."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await client.reader.read()
        except ConnectionError:
            return b""


async def _goes_on(running: Front) -> None:
    """The next client of the same lane is answered."""
    async with await running.client() as client:
        assert (await client.ask()).status == 200


HOSTS: Final = {
    "another host": ("http://www.example.org", "api.openai.com"),
    "with a user": ("http://api.openai.com@www.example.org", "api.openai.com"),
    "a fragment": ("http://api.openai.com#@www.example.org", "api.openai.com"),
}


async def test_b26_an_address_and_a_host_that_differ_lead_to_no_other_place(proxied: Lanes) -> None:
    """The target decides where a request would go (RFC 9112, 3.2.2): nothing goes elsewhere under a listed name."""
    engine = ScriptedEngine()
    async with proxied(engine) as running:
        for row, (target, host) in HOSTS.items():
            async with await H1.plain(running.proxy) as client:
                head = f"POST {target}{CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n"
                client.writer.write(f"{head}Connection: close\r\n\r\n{{}}".encode())
                told = await _rest(client)
            if row != "another host":
                assert not told.startswith(b"HTTP/1.1 2"), row
        # A call that names a listed host is one to it, and stays here.
        assert {one.origin.host for one in engine.snapshots if one.origin} <= {OPENAI}
        assert running.upstream.dials == []
        await _goes_on(running)


@pytest.mark.parametrize(
    "host", ["", "[", "a b", "evil.example", "127.0.0.1@evil.example", "x/#@", "127.0.0.1#.evil.example"]
)
async def test_b26_a_host_that_is_not_ours_is_served_nothing(bad: Bad, host: str) -> None:
    """Neither a call nor the admin API, whatever the route's name looks like behind it."""
    async with bad.harmless():
        for path in ("/v1/chat/completions", "/admin/v1/info"):
            head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {bad.key}\r\nConnection: close\r\n"
            told = await bad.it.raw(head.encode() + b"Content-Length: 2\r\n\r\n{}")
            assert told.split(b" ", 2)[1] in {b"400", b"401", b"403", b"421"}, told[:200]


async def test_b22_two_requests_in_a_row_with_one_key_are_one_call(bad: Bad) -> None:
    """Sent before the first is answered, as a replay of early data would be: the second gets the first one's answer."""
    body = orjson.dumps(plain(Dialect.OPENAI_CHAT))
    size = {"Content_Length": str(len(body)), "Idempotency_Key": "twice"}
    first = bad.request(rest=b"\r\n" + body, **size)
    last = bad.request(rest=b"Connection: close\r\n\r\n" + body, **size)
    async with bad.harmless(calls=1):
        told = await bad.it.raw(first + last)
        assert told.count(b"HTTP/1.1 200 OK") == 2
        assert told.lower().count(b"idempotency-replay: true") == 1


async def test_b22_what_follows_a_request_that_was_refused_is_not_read(bad: Bad) -> None:
    """A request inside the body of one that cannot be read stays what it was: bytes."""
    inner = bad.request(rest=b"Content-Length: 2\r\n\r\n{}")
    async with bad.harmless():
        told = await bad.it.raw(bad.request(rest=FIELDS["B25 a length and chunks"] + inner))
        assert told.count(b"HTTP/1.") == 1


@pytest.mark.parametrize(
    "method", ["GET", "PUT", "DELETE", "TRACE", "CONNECT", "PROPFIND", "post", "X" * 1_000]
)
async def test_b31_another_method_is_no_call(bad: Bad, method: str) -> None:
    """405 or 400, and CONNECT opens no tunnel."""
    target = "127.0.0.1:22" if method == "CONNECT" else "/v1/chat/completions"
    async with bad.harmless():
        head = f"{method} {target} HTTP/1.1"
        told = await bad.raw(head, b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")
        assert told.split(b" ", 2)[1] in {b"400", b"403", b"404", b"405"}, told[:200]


async def test_b31_a_websocket_where_there_is_none_is_refused(lane: Lanes) -> None:
    """An upgrade on the path of a call: an answer in HTTP, no connection, and no call."""
    engine = ScriptedEngine()
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    async with lane(engine) as running:
        async with await running.client() as client:
            await client.send(CHAT, b"", method="GET", headers=upgrade)
            status = (await client.answer()).status
            assert status == (405 if running.lane is Lane.DIRECT else 426)
        assert engine.snapshots == []
        assert running.upstream.dials == []
        await _goes_on(running)
