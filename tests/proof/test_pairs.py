"""Every provider's answers in every client's dialect: translation is no tampering.

The inputs are those of `tests/dialects/pairs.py`.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import orjson
import pytest

from tests.dialects import pairs
from tests.dialects.pairs import CHATS
from tokenhub_core.dialects.registry import dialect
from tokenhub_core.proof.checking import compared
from tokenhub_core.proof.entries import Delivered
from tokenhub_core.proof.reading import Reading, Side, Sides, parser_of
from tokenhub_core.proof.verdicts import Verdict
from tokenhub_core.types import Dialect

KEY = bytes(range(32))
JSON = "application/json"

every = pytest.mark.parametrize(
    ("client", "provider"),
    [pytest.param(*pair, id="-to-".join(pair)) for pair in product(CHATS, CHATS)],
)


def sides(provider: Dialect, raw: bytes, content_type: str, size: int = 0) -> Sides:
    """Return a provider's answer as it is heard, in pieces of `size` bytes."""
    module = dialect(provider)
    reading = Reading(KEY, module, parser_of(module, content_type, begins=raw), texts=True)
    for at in range(0, len(raw), size or len(raw) or 1):
        reading.feed(raw[at : at + (size or len(raw))])
    return reading.end()


def verdict(
    sent: Sides, client: Dialect, raw: bytes, content_type: str, **more: Any
) -> tuple[Verdict, Delivered]:
    given: Side = sides(client, raw, content_type).sent
    return compared(sent, given, client, texts=True, **more)


def stream_type(name: Dialect) -> str:
    return pairs.TYPES[pairs.ending(name)]


@every
def test_a_whole_answer_is_the_same_in_every_dialect(client: Dialect, provider: Dialect) -> None:
    """Each call and the words are what the provider sent."""
    for path in pairs.inputs(provider, "answers"):
        raw = path.read_bytes()
        given = raw if client is provider else orjson.dumps(pairs.answered(client, provider, raw).data)
        found, said = verdict(sides(provider, raw, JSON), client, given, JSON)
        assert (found, said.read, said.whole) == (_least(said), True, True), (path.stem, said)


@every
def test_a_stream_is_the_same_in_every_dialect(client: Dialect, provider: Dialect) -> None:
    """However it was cut on its way. One that its provider broke off may end earlier still, and says nothing else."""
    for path in pairs.inputs(provider, "streams"):
        raw = path.read_bytes()
        given = raw if client is provider else pairs.streamed(client, provider, raw)[0]
        sent = sides(provider, raw, stream_type(provider), size=7)
        found, said = verdict(sent, client, given, stream_type(client))
        wanted = {_least(said)} if sent.sent.whole else {_least(said), Verdict.PARTIAL}
        assert found in wanted, (path.stem, said)
        assert (said.read, said.whole) == (True, sent.sent.whole), (path.stem, said)


def _least(said: Delivered) -> Verdict:
    """Return the verdict of an answer to which nothing was done."""
    lost = any(call.verdict is Verdict.LOST for call in said.calls)
    return Verdict.LOST if lost else Verdict.SAME
