"""Bodies that are no request: B01 to B15, in every dialect, over a socket.

Every body is refused with 400 and a place, before anything was reserved for it. The parsers themselves meet these and
generated ones in tests/dialects/test_bad_inputs.py and tests/fuzz; that memory stays within bounds is a figure of
`scripts/bench`, not of these scenes.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Final

import orjson
import pytest

from tests.bad_inputs.scenes import DOORS, Bad, bad_house, plain
from tests.dialects.test_bad_inputs import TURNS
from tokenhub_core.types import Dialect

pytestmark = pytest.mark.asyncio(loop_scope="module")


def _more(value: bytes) -> Callable[[bytes], bytes]:
    """Return what puts one more member of this value into a body."""
    return lambda right: right[:-1] + b',"x":' + value + b"}"


BODIES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "B01 nothing": lambda _: b"",
    "B01 blanks": lambda _: b" \r\n\t",
    "B02 a form": lambda _: b"model=gpt-4o&prompt=Hi",
    "B02 a list": lambda _: b"[{}]",
    "B02 a text": lambda _: b'"Hi"',
    "B03 cut in the middle": lambda right: right[: len(right) // 2],
    "B03 cut at the end": lambda right: right[:-1],
    "B03 two of them": lambda right: right + right,
    "B04 100,000 levels of lists": _more(b"[" * 100_000 + b"]" * 100_000),
    "B04 100,000 levels of objects": _more(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "B04 100,000 levels without an end": _more(b"[" * 100_000),
    "B08 a member twice": lambda right: b'{"x":1,"x":2,' + right[1:],
    "B08 a member twice, once escaped": lambda right: b'{"x":1,"\\u0078":2,' + right[1:],
    "B12 a lone surrogate": _more(b'"\\ud800"'),
    "B12 a byte that is no UTF-8": _more(b'"\xff"'),
    "B12 an overlong slash": _more(b'"\xc0\xaf"'),
    "B13 a byte order mark": lambda right: b"\xef\xbb\xbf" + right,
    "B13 UTF-16": lambda right: right.decode().encode("utf-16"),
    "B14 NaN": _more(b"NaN"),
    "B14 Infinity": _more(b"-Infinity"),
    "B14 1e999": _more(b"1e999"),
    "B15 5,000 digits": _more(b"9" * 5_000),
}


@pytest.mark.parametrize("row", BODIES)
async def test_b01_to_b15_a_body_that_is_no_request_is_refused_in_every_dialect(bad: Bad, row: str) -> None:
    """With 400, in words; the call that comes next finds everything free."""
    for door in DOORS:
        async with bad.harmless():
            message = await bad.refused(door, BODIES[row](orjson.dumps(plain(door))))
            assert 0 < len(message) < 500


async def test_b05_a_body_that_is_too_large_is_refused_before_it_is_read(bad: Bad) -> None:
    """100 MB, announced: the answer comes though not one byte of it was sent."""
    for door, path in DOORS.items():
        async with bad.harmless():
            told = await bad.head(bad.request(path=path, Content_Length="104857600"))
            assert told.startswith(b"HTTP/1.1 413 "), (door, told)


async def test_b05_a_body_that_grows_too_large_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In chunks nobody announces anything: the limit counts what has come."""
    async with bad_house(tmp_path, {"MAX_BODY_BYTES": "100000"}) as bad:
        bad.log = caplog
        async with bad.harmless():
            told = await bad.raw(
                "", b"\r\n" + b"2710\r\n%b\r\n" % bytes(10_000) * 12, Transfer_Encoding="chunked"
            )
        assert told.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("door", [door for door in DOORS if door in TURNS])
async def test_b06_a_million_turns_that_are_none_are_refused_at_the_first(bad: Bad, door: Dialect) -> None:
    """The answer names that one and no other."""
    right = {name: value for name, value in plain(door).items() if name != TURNS[door]}
    turns = b'{"' + TURNS[door].encode() + b'":[' + b",".join([b"1"] * 1_000_000) + b"]"
    async with bad.harmless():
        rest = b"," + orjson.dumps(right)[1:] if right else b"}"
        message = await bad.refused(door, turns + rest)
        assert len(message) < 500


async def test_b07_a_name_of_a_megabyte_is_a_name_that_nobody_knows(bad: Bad) -> None:
    """It is the provider's to judge: passed on as it came, and what it says of it is told in few words."""
    async with bad.harmless(calls=1):
        body = orjson.dumps(plain(Dialect.OPENAI_CHAT, **{"a" * 1_000_000: 1}))
        told = await bad.send(Dialect.OPENAI_CHAT, body, {"idempotency-key": "long"})
        assert told.status in {200, 400}, told.body
        assert len(told.body) < 10_000
        assert sum(len(value) for _, value in told.headers) < 10_000


@pytest.mark.parametrize("door", DOORS)
async def test_b09_a_bomb_is_not_unpacked(bad: Bad, door: Dialect) -> None:
    """200 MB of blanks in 200 kB, and bombs in bombs: refused as too large, or as an encoding that is not taken."""
    bomb = gzip.compress(b" " * 200_000_000, 1)
    for body, encoding in ((bomb, "gzip"), (gzip.compress(bomb), "gzip, gzip")):
        async with bad.harmless():
            await bad.refused(door, body, 413, 415, 400, headers={"content-encoding": encoding})


@pytest.mark.parametrize("door", DOORS)
async def test_b10_an_encoding_that_is_not_the_bodys_is_refused(bad: Bad, door: Dialect) -> None:
    """Said and not done, done and not said, unknown, and broken in the middle."""
    right = orjson.dumps(plain(door))
    packed = gzip.compress(right)
    for body, said in (
        *((right, "gzip"), (right, "br"), (right, "zstd"), (right, "deflate")),
        *(
            (packed, ""),
            (packed, "identity"),
            (packed[:-5], "gzip"),
            (right, "rot13"),
            (packed + b"x", "gzip"),
        ),
    ):
        async with bad.harmless():
            await bad.refused(door, body, 400, 415, headers={"content-encoding": said} if said else None)


CHUNKS: Final = {
    "larger than any number": b"ffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "negative": b"-1\r\n{}\r\n0\r\n\r\n",
    "no number": b"two\r\n{}\r\n0\r\n\r\n",
    "signed": b"+2\r\n{}\r\n0\r\n\r\n",
    "hexadecimal with its mark": b"0x2\r\n{}\r\n0\r\n\r\n",
    "longer than it says": b"1\r\n{}\r\n0\r\n\r\n",
    "a kilobyte of zeros": b"0" * 20_000 + b"2\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("row", CHUNKS)
async def test_b11_chunks_that_are_none_are_refused(bad: Bad, row: str) -> None:
    """And their connection ends: nobody could say where the next request begins."""
    async with bad.harmless():
        told = await bad.raw("", b"Connection: close\r\n\r\n" + CHUNKS[row], Transfer_Encoding="chunked")
        assert told.split(b" ", 2)[1] == b"400", told[:300]
        assert told.count(b"HTTP/1.") == 1


async def test_b11_a_body_byte_by_byte_is_a_body(bad: Bad) -> None:
    """Chunks of one byte are slow and not wrong."""
    body = orjson.dumps(plain(Dialect.OPENAI_CHAT))
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    async with bad.harmless(calls=1):
        told = await bad.raw("", b"Connection: close\r\n\r\n" + chunks, Transfer_Encoding="chunked")
        assert told.startswith(b"HTTP/1.1 200 ")
