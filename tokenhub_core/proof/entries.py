"""The entries of the chain of proofs: what each says, and how it is written. Pure.

    received   one a call, in the transaction of its record: which provider sent what. The caller has not yet got the
               end of the answer.
    delivered  one a call, once its answer has ended at the caller's connection: what went out there, and what that is
               compared with what was received.

A call with the first and without the second was cut off by a crash: what it was given is not known here, and a
transcript that its client kept is still compared with what the provider sent.

`docs/decisions/0006-proof-of-delivery.md` has the reasons.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct

from tokenhub_core.audit import chain
from tokenhub_core.audit.chain import Signer
from tokenhub_core.audit.entries import Head
from tokenhub_core.proof.reading import Called, Side, Sides
from tokenhub_core.proof.verdicts import Judged, Verdict

LABEL: Final = b"tokenhub proof 1\n"
"""What the hashes of these entries begin with, so that none stands for one of the audit log."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class Kind(StrEnum):
    """What an entry is about."""

    RECEIVED = "received"
    DELIVERED = "delivered"


class SentCall(Struct, frozen=True):
    """A tool call of the provider's. Hashes are in hex."""

    id: str
    name: str
    hash: str


class Received(Struct, frozen=True, tag="received", tag_field="kind"):
    """What a provider sent. `mended` is what its calls and words are after the repairs of its model's quirks."""

    provider: str
    model: str
    attempt: int
    dialect: str
    key: str
    """The name of the key that the hashes are made with."""
    size: int
    """Bytes, without the content encoding."""
    raw: str
    whole: bool
    read: bool
    calls: tuple[SentCall, ...]
    text: str = ""
    """The hash of the words, empty where only tool calls are proved."""
    voiced: str = ""
    """The hash of the words with what sound says among them, empty where there is none."""
    mended: tuple[SentCall, ...] | None = None
    """None: nothing was to be repaired."""
    mended_text: str = ""
    mended_voiced: str = ""


class GivenCall(Struct, frozen=True):
    """A tool call on both sides; an empty hash where a side had none in this place."""

    index: int
    id: str
    name: str
    sent: str
    given: str
    verdict: Verdict


class GivenText(Struct, frozen=True):
    """The words on both sides."""

    sent: str
    given: str
    verdict: Verdict


class Delivered(Struct, frozen=True, tag="delivered", tag_field="kind"):
    """What a caller was given."""

    answers: str
    """The call whose answer it is: another one's where an answer was given again."""
    provider: str
    model: str
    dialect: str
    """The caller's."""
    content_type: str
    key: str
    size: int
    raw: str
    identical: bool
    """Byte for byte what the provider sent."""
    whole: bool
    read: bool
    calls: tuple[GivenCall, ...]
    text: GivenText | None = None


class Proof(Struct, frozen=True):
    """One row. `at` is in microseconds since the epoch; `body` is the JSON of `Received` or `Delivered`."""

    seq: int
    at: int
    request_id: str
    kind: str
    verdict: str
    """The worst in it; empty for what was only received."""
    body: str
    key_id: str
    """Which of the vault's keys signed it, empty where the vault was not open."""
    previous: bytes
    hash: bytes = b""
    mac: bytes | None = None


class Draft(Struct, frozen=True):
    """What an entry is to say, before it has a place in the chain."""

    request_id: str
    said: Received | Delivered
    verdict: str = ""

    @property
    def kind(self) -> Kind:
        """Return what it is about."""
        return Kind.RECEIVED if isinstance(self.said, Received) else Kind.DELIVERED


def linked(draft: Draft, *, at: int, head: Head, signer: Signer | None) -> Proof:
    """Return the entry that stands behind `head`."""
    proof = Proof(
        seq=head.seq + 1,
        at=at,
        request_id=draft.request_id,
        kind=draft.kind.value,
        verdict=draft.verdict,
        body=msgspec.json.encode(draft.said).decode(),
        key_id=signer.key_id if signer else "",
        previous=head.hash,
    )
    return chain.closed(proof, signer, LABEL)


def received_in(proof: Proof) -> Received:
    """Return what the entry says; raises `ValueError` where its text was damaged."""
    return msgspec.json.decode(proof.body, type=Received)


def delivered_in(proof: Proof) -> Delivered:
    """As `received_in`."""
    return msgspec.json.decode(proof.body, type=Delivered)


def sent_calls(calls: tuple[Called, ...]) -> tuple[SentCall, ...]:
    """Return calls as they are stored."""
    return tuple(SentCall(plain(call.id), plain(call.name), call.hash.hex()) for call in calls)


def given_calls(found: tuple[Judged, ...]) -> tuple[GivenCall, ...]:
    """Return compared calls as they are stored."""
    return tuple(_given(index, one) for index, one in enumerate(found))


def sides_of(received: Received) -> Sides:
    """Return what was received, as far as it was stored: the hashes, and nothing of what they are made of."""
    sent = _side(received, received.calls, received.text, received.voiced)
    if received.mended is None:
        return Sides(sent, sent)
    mended = _side(received, received.mended, received.mended_text, received.mended_voiced)
    return Sides(sent, mended)


def plain(word: str) -> str:
    """Return an id or a name as it may be stored; models choose them, so what is no plain word is left out."""
    return word if _PLAIN.fullmatch(word) else ""


def _given(index: int, one: Judged) -> GivenCall:
    told = one.given or one.sent
    return GivenCall(
        index,
        plain(told.id) if told else "",
        plain(told.name) if told else "",
        one.sent.hash.hex() if one.sent else "",
        one.given.hash.hex() if one.given else "",
        one.verdict,
    )


def _side(received: Received, calls: tuple[SentCall, ...], text: str, voiced: str) -> Side:
    return Side(
        calls=tuple(Called(call.id, call.name, bytes.fromhex(call.hash)) for call in calls),
        said=bytes.fromhex(text),
        voiced=bytes.fromhex(voiced),
        size=received.size,
        raw=bytes.fromhex(received.raw),
        whole=received.whole,
        read=received.read,
    )
