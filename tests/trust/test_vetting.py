"""Nonces of signed directives over two processes."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Final

import pytest

from tests.fakes import redis as fake
from tokenhub_core.admission.pool import Nonces
from tokenhub_core.admission.vetting import Vetting
from tokenhub_core.redispool import RedisPool
from tokenhub_core.signing import Signatures, sign, signature, signed
from tokenhub_core.types import ANY, ApiKey

NOW: Final = 1_700_000_000
SECRET: Final = b"s" * 32
KEY: Final = ApiKey("k", "key", models=(ANY,), providers=(ANY,))
TAG: Final = sign(SECRET, "mode=cheap", key_id="k", nonce="n" * 16, expires=NOW + 60)
BODY: Final = b'{"messages": [{"content": "@@tokenhub[' + TAG.encode() + b'] mode=cheap"}]}'


class Table:
    """What all processes know, in this one."""

    def __init__(self) -> None:
        self.nonces = Nonces()
        self.there = True
        self.heard: list[tuple[str, bytes, float]] = []

    async def nonce(self, name: str, value: bytes, seconds: float, *, replace: bool) -> bytes | None:
        self.heard.append((name, value, seconds))
        if not self.there:
            return None
        now = NOW * 1000
        return self.nonces.put(name, value, now, now + round(seconds * 1000), replace=replace)


class Process:
    def __init__(self, table: Table, name: str, now: float = NOW) -> None:
        self.now = now
        self.signatures = Signatures(lambda key_id: SECRET)
        self.vetting = Vetting(table, self.signatures, name, now=lambda: now)

    async def call(self, within: str, body: bytes = BODY) -> str:
        """Return why the directive in a text is not honoured, empty where it is."""
        await self.vetting.vet("k", body)
        return self.read(within)

    def read(self, within: str) -> str:
        return self.signatures.refusal(signature(TAG, "mode=cheap"), KEY, within, self.now)


async def test_a_nonce_that_stood_in_a_text_at_one_process_stands_in_no_other_text_elsewhere() -> None:
    """The same text again is the same program, whichever process it comes to."""
    table = Table()
    one, two = Process(table, "one"), Process(table, "two")
    assert await one.call("first") == ""
    await one.vetting.close()

    assert await two.call("other") == "signature-replayed"
    assert await two.call("first") == ""
    assert await one.call("first") == ""


async def test_of_two_that_come_at_once_one_is_honoured() -> None:
    """A claim holds until it is known which text it was for."""
    table = Table()
    one, two = Process(table, "one"), Process(table, "two")
    await one.vetting.vet("k", BODY)

    assert await two.call("other") == "signature-unsure"
    assert one.read("first") == ""
    await one.vetting.close()


async def test_a_claim_that_stands_is_waited_for() -> None:
    """Three looks, a moment apart: the first process may be about to say which text it was."""
    table = Table()
    one, two = Process(table, "one"), Process(table, "two")
    await one.vetting.vet("k", BODY)
    table.heard.clear()
    assert await two.call("first") == "signature-unsure"
    assert table.heard == [("k:" + "n" * 16, b"ctwo", 5.0)] * 3

    assert one.read("first") == ""
    assert await two.call("other") == "signature-replayed"


@pytest.mark.parametrize(("now", "kept"), [(NOW, 60.0), (NOW + 58.5, 1.5), (NOW + 59.5, 1.0)])
async def test_a_nonce_is_known_to_all_until_it_expires(now: float, kept: float) -> None:
    """Claimed for a moment, then told with its text for as long as it is good; and asked about once."""
    table = Table()
    one = Process(table, "one", now)
    assert await one.call("first") == ""
    await one.vetting.close()
    name = "k:" + "n" * 16
    told = [(name, b"cone", 5.0), (name, b"d" + sha256(b"first").digest(), kept)]
    assert table.heard == told
    assert await one.call("first") == ""
    assert table.heard == told
    assert one.vetting._posts == set()


async def test_where_nobody_can_be_asked_a_new_nonce_is_not_honoured() -> None:
    """A replay must not pass because something is down; what this process has met itself goes on."""
    table = Table()
    one, two = Process(table, "one"), Process(table, "two")
    assert await one.call("first") == ""
    await one.vetting.close()
    table.there = False

    assert await two.call("first") == "signature-unsure"
    assert await one.call("first") == ""

    table.there, table.nonces = True, Nonces()
    one.vetting.publish()
    await one.vetting.close()
    assert await two.call("other") == "signature-replayed"


async def test_a_signature_that_was_not_seen_on_the_wire_is_not_honoured() -> None:
    """JSON can write a bracket in other ways: what was not vetted might be known elsewhere."""
    one = Process(Table(), "one")

    assert await one.call("first", BODY.replace(b"[", rb"\u005b")) == "signature-unsure"


def test_only_the_callers_own_signatures_are_asked_about() -> None:
    """Nobody claims another key's nonces, or makes many questions of one call."""
    assert signed(BODY, "k") == [("n" * 16, NOW + 60)]
    assert signed(BODY, "other") == []
    many = b"".join(b"@@tokenhub[k:%016d:9:" % number for number in range(100))
    assert len(signed(many, "k")) == 8


async def test_redis_keeps_the_same_contract(tmp_path: Path) -> None:
    """Whoever is first is told its own value, everybody else the first one, until it is replaced or ends."""
    if why := fake.missing():
        pytest.skip(why)
    with fake.redis(tmp_path) as server:
        pool = RedisPool.at(server.url, "one")

        async def put(value: bytes, *, replace: bool = False, name: str = "k:n") -> bytes:
            while (told := await pool.nonce(name, value, 60, replace=replace)) is None:
                pass  # a busy machine may not answer in time
            return told

        digest = b"d" + sha256(b"text").digest()
        assert await put(b"cone") == b"cone"
        assert await put(b"ctwo") == b"cone"
        assert await put(digest, replace=True) == digest
        assert await put(b"ctwo") == digest
        assert await put(b"ctwo", name="k:m") == b"ctwo"
        await pool.close()
