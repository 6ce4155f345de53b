"""How entries hold each other, and the verifier. Pure.

    content   the entry's values but for its hash and its MAC, as one JSON array
    hash      SHA-256(label ‖ content); the content holds the hash of the entry before
    mac       HMAC-SHA256(audit key, hash), where the vault was open; the content says which key

The hash alone finds whoever changes rows and does not know of the chain; someone who does can compute it anew up to the
last entry, and is found by a head that is known elsewhere, or by the MACs: without the key nobody signs again.
`docs/decisions/0004-audit-chain.md` has the reasons. Any entries can be chained like this: what they are made of is
theirs, and each kind has a label of its own, so that no hash or MAC of one stands for the other.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import ClassVar, Final, Protocol, cast

import msgspec
import orjson
from msgspec import structs

from tokenhub_core.audit.entries import Cause, Draft, Entry, Head
from tokenhub_core.store.rows import dumps

GENESIS: Final = bytes(32)
"""What stands in the place of the hash before the first entry."""
START: Final = Head(0, GENESIS)

AUDIT: Final = b"tokenhub audit 1\n"
"""The label of the audit log."""

_UNSIGNED: Final = frozenset({"hash", "mac"})
_LONG: Final = 4000
_SHORT: Final = 300


class Link(Protocol):
    """What every kind of entry has, beside its own values. A frozen `msgspec.Struct`."""

    __struct_fields__: ClassVar[tuple[str, ...]]

    @property
    def seq(self) -> int:
        """Return its place, from 1."""
        ...

    @property
    def key_id(self) -> str:
        """Return which key signed it, empty where none did."""
        ...

    @property
    def previous(self) -> bytes:
        """Return the hash of the entry before it."""
        ...

    @property
    def hash(self) -> bytes:
        """Return its own."""
        ...

    @property
    def mac(self) -> bytes | None:
        """Return its signature."""
        ...


class Signer(msgspec.Struct, frozen=True):
    """The audit key of an open vault."""

    key_id: str
    key: bytes

    def __repr__(self) -> str:
        return f"Signer({self.key_id})"


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it was written. `what` is one of `changed`, `missing`, `link`, `mac`, `head`."""

    seq: int
    what: str
    text: str


class Report(msgspec.Struct, frozen=True):
    """What a verification came to."""

    findings: tuple[Finding, ...]
    entries: int
    signed: int
    """Entries whose MAC was checked and holds."""
    unchecked: int
    """Entries with a MAC whose key is not at hand."""
    covered: int
    """The last entry that a checked MAC vouches for; 0 where none does."""
    head: Head

    @property
    def ok(self) -> bool:
        """Tell whether nothing was found."""
        return not self.findings


def linked(draft: Draft, cause: Cause, *, at: int, head: Head, signer: Signer | None) -> Entry:
    """Return the entry that stands behind `head`."""
    entry = Entry(
        seq=head.seq + 1,
        at=at,
        actor=_text(cause.actor),
        source=_text(cause.source),
        program=_text(cause.program),
        request_id=_text(cause.request_id),
        action=draft.action.value,
        subject=_text(draft.subject),
        outcome=draft.outcome.value,
        reason=_text(draft.reason),
        count=draft.count,
        before=_json(draft.before),
        after=_json(draft.after),
        key_id=signer.key_id if signer else "",
        previous=head.hash,
    )
    return closed(entry, signer, AUDIT)


def closed[L: Link](entry: L, signer: Signer | None, label: bytes) -> L:
    """Return the entry with its hash and its MAC; `key_id` in it is the signer's."""
    digest = hash_of(entry, label)
    mac = _mac(signer.key, digest) if signer else None
    return cast("L", structs.replace(cast("msgspec.Struct", entry), hash=digest, mac=mac))


def hash_of(entry: Link, label: bytes = AUDIT) -> bytes:
    """Return the hash that the entry's content has."""
    values = [getattr(entry, name) for name in entry.__struct_fields__ if name not in _UNSIGNED]
    content = [value.hex() if isinstance(value, bytes) else value for value in values]
    return sha256(label + orjson.dumps(content)).digest()


class Verifier:
    """Takes every entry in the order of `seq`, and says what is wrong.

    `keys` are audit keys by their id; `heads` are places of the chain that are known from elsewhere; `label` is that
    of the entries. What is behind `trimmed` is the first one that is still there.
    """

    def __init__(
        self,
        keys: Mapping[str, bytes],
        heads: tuple[Head, ...] = (),
        *,
        label: bytes = AUDIT,
        trimmed: Head = START,
    ) -> None:
        self._keys = keys
        self._label = label
        self._heads = [head for head in heads if head.seq]
        self._findings: list[Finding] = []
        self._head = trimmed
        for head in self._heads:
            if head.seq == trimmed.seq and head.hash != trimmed.hash:
                self._find(head.seq, "head", f"entry {head.seq} was another one than is known of")
        self._entries = self._signed = self._unchecked = self._covered = 0

    def feed(self, entry: Link) -> None:
        """Look at the next entry."""
        expected = self._head.seq + 1
        if entry.seq != expected:
            last = entry.seq - 1
            gone = f"entry {last} is" if last == expected else f"entries {expected} to {last} are"
            self._find(expected, "missing", f"{gone} not there")
        elif entry.previous != self._head.hash:
            self._find(entry.seq, "link", f"entry {entry.seq} does not follow the one before it")
        if not hmac.compare_digest(hash_of(entry, self._label), entry.hash):
            self._find(entry.seq, "changed", f"entry {entry.seq} is not what was written")
        self._check_mac(entry)
        for head in self._heads:
            if head.seq == entry.seq and head.hash != entry.hash:
                self._find(entry.seq, "head", f"entry {entry.seq} is another one than is known of")
        self._head = Head(entry.seq, entry.hash)
        self._entries += 1

    def report(self) -> Report:
        """Return what came of it, once every entry was fed."""
        for head in self._heads:
            if head.seq > self._head.seq:
                text = f"the chain ends at {self._head.seq}, but entry {head.seq} is known of"
                self._find(head.seq, "head", text)
        return Report(
            tuple(self._findings), self._entries, self._signed, self._unchecked, self._covered, self._head
        )

    def _check_mac(self, entry: Link) -> None:
        if not entry.key_id:
            if entry.mac is not None:
                self._find(entry.seq, "mac", f"entry {entry.seq} has a MAC of no key")
            return
        if entry.mac is None:
            self._find(entry.seq, "mac", f"entry {entry.seq} was signed, and its MAC is gone")
            return
        key = self._keys.get(entry.key_id)
        if key is None:
            self._unchecked += 1
        elif hmac.compare_digest(_mac(key, entry.hash), entry.mac):
            self._signed += 1
            self._covered = entry.seq
        else:
            self._find(entry.seq, "mac", f"entry {entry.seq} was not signed by us")

    def _find(self, seq: int, what: str, text: str) -> None:
        self._findings.append(Finding(seq, what, text))


def head_of(text: str) -> Head:
    """Read a head as `Head` is written, `SEQ:HASH`; raises `ValueError`."""
    seq, _, digest = text.partition(":")
    found = Head(int(seq), bytes.fromhex(digest))
    if found.seq < 1 or len(found.hash) != len(GENESIS):
        raise ValueError(text)
    return found


def _mac(key: bytes, digest: bytes) -> bytes:
    return hmac.digest(key, digest, sha256)


def _text(value: str) -> str:
    """Return what every store can hold: valid UTF-8, no NUL, of a bounded length."""
    cut = value if len(value) <= _SHORT else value[: _SHORT - 1] + "…"
    return cut.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _json(value: Mapping[str, object] | None) -> str | None:
    """Return JSON; what is too long to keep is there by its digest."""
    if value is None:
        return None
    told = dumps(value)
    if len(told) > _LONG:
        raw = told.encode()
        told = dumps({"sha256": sha256(raw).hexdigest(), "bytes": len(raw)})
    return told
