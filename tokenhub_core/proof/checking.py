"""What an answer on one side is against the other side, and a client's transcript against both. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from msgspec import Struct

from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.errors import Kind as Fault
from tokenhub_core.errors import client_fault
from tokenhub_core.proof import entries
from tokenhub_core.proof.canon import Hashing
from tokenhub_core.proof.entries import Delivered, GivenCall, GivenText, Kind, Proof, Received
from tokenhub_core.proof.reading import Reading, Side, Sides, parser_of
from tokenhub_core.proof.verdicts import Verdict, judged, judged_text, worst
from tokenhub_core.types import Dialect


class Bytes(StrEnum):
    """What the bytes of a transcript are."""

    SAME = "same"
    """Those that went out."""
    OTHER = "other"
    UNKNOWN = "unknown"
    """It is not known what went out: the server ended before that was written."""


class Story(Struct, frozen=True):
    """What the chain tells of one call."""

    request_id: str
    received: Received | None
    """Of the call whose answer it is."""
    delivered: Delivered | None
    verdict: Verdict | None
    """None: it is not known what was delivered."""


class Checked(Struct, frozen=True):
    """What a transcript came to."""

    bytes: Bytes
    verdict: Verdict
    """The worst of what follows: the transcript against what the provider sent."""
    whole: bool
    """The transcript came to the end of its answer."""
    calls: tuple[GivenCall, ...]
    text: GivenText | None


def compared(
    sides: Sides, given: Side, dialect: Dialect, *, texts: bool, failed: bool = False
) -> tuple[Verdict, Delivered]:
    """Return the worst that became of an answer, and what is to be said of it; names are for whoever asks to fill in.

    `failed` tells that the caller was given an error instead. What can be read on one side only is changed.
    """
    calls = judged(sides, given, dialect)
    identical = (given.size, given.raw) == (sides.sent.size, sides.sent.raw)
    words = None
    if texts:
        words = GivenText(sides.sent.said.hex(), given.said.hex(), judged_text(sides, given))
    verdicts = [*(one.verdict for one in calls), *([words.verdict] if words else [])]
    if sides.sent.read and not (given.read or identical or failed):
        verdicts.append(Verdict.CHANGED)
    said = Delivered(
        answers="",
        provider="",
        model="",
        dialect=dialect.value,
        content_type="",
        key="",
        size=given.size,
        raw=given.raw.hex(),
        identical=identical,
        whole=given.whole,
        read=given.read,
        calls=entries.given_calls(calls),
        text=words,
    )
    return worst(verdicts), said


def story(request_id: str, proofs: Iterable[Proof], earlier: Proof | None = None) -> Story | None:
    """Return what the entries of one call tell; None where there are none.

    `earlier` is what was received for the call whose answer was given again. Raises `ValueError` where an entry's text
    was damaged.
    """
    found = {proof.kind: proof for proof in proofs}
    if not found:
        return None
    received, delivered = found.get(Kind.RECEIVED) or earlier, found.get(Kind.DELIVERED)
    return Story(
        request_id,
        entries.received_in(received) if received else None,
        entries.delivered_in(delivered) if delivered else None,
        Verdict(delivered.verdict) if delivered else None,
    )


def checked(
    told: Story,
    transcript: bytes,
    *,
    hashing: Hashing,
    dialects: Mapping[Dialect, DialectModule],
    dialect: Dialect,
) -> Checked:
    """Compare what a client kept of an answer: the bytes of its body. `dialect` is the client's.

    Raises `TokenHubError` where the hashes were made with another key than is at hand.
    """
    received, delivered = told.received, told.delivered
    used = {one.key for one in (received, delivered) if one is not None}
    if used != {hashing.name}:
        raise client_fault(
            f"the hashes were made with the key {', '.join(sorted(used))}, and the one at hand is {hashing.name}",
            kind=Fault.NOT_FOUND,
            cause="proof_key",
        )
    module = dialects[dialect]
    texts = bool(received.text if received else delivered and delivered.text)
    name = delivered.answers if delivered else told.request_id
    parser = parser_of(
        module, delivered.content_type if delivered else _guessed(transcript), begins=transcript
    )
    reading = Reading(hashing.of(name), module, parser, texts=texts)
    reading.feed(transcript)
    side = reading.end().sent
    sides = entries.sides_of(received) if received else Sides(Side(), Side())
    verdict, said = compared(sides, side, dialect, texts=texts)
    return Checked(_bytes(side, delivered), verdict, side.whole, said.calls, said.text)


def _bytes(side: Side, delivered: Delivered | None) -> Bytes:
    if delivered is None:
        return Bytes.UNKNOWN
    return Bytes.SAME if side.raw.hex() == delivered.raw else Bytes.OTHER


def _guessed(transcript: bytes) -> str:
    """Return the type of a body of which nothing else is known."""
    begins = transcript.lstrip()[:1]
    if begins not in {b"{", b"["}:
        return "text/event-stream"
    several = begins == b"{" and b"\n{" in transcript
    return "application/x-ndjson" if several else "application/json"
