"""What `Idempotency-Key` means: whose key it is, whether two calls are the same, and what is kept of an answer.

A key belongs to one owner: a key of ours, or an address with the credentials that it shows. Two owners never meet, and
nothing is kept under what they wrote: only digests are, of a length-prefixed form that no two different calls share.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from tokenhub_core.errors import client_fault
from tokenhub_core.types import Headers, Snapshot, header

HEADER: Final = "idempotency-key"
REPLAYED: Final = ("idempotency-replay", "true")
"""What an answer carries that was made for an earlier call."""
LONGEST: Final = 255
"""Characters of a key."""

_FORM: Final = b"tokenhub idempotency 1"
_CREDENTIALS: Final = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key"})
_ABSENT: Final = "\x00"
_OVERHEAD: Final = 1024
"""Bytes that an answer takes besides its own."""


class Mark(msgspec.Struct, frozen=True):
    """One idempotency key of one owner, and the call that it was used for."""

    id: bytes
    """The digest of owner and key."""
    owner: str
    """What people read: the id of the key of ours, or the address."""
    asked: bytes
    """The digest of the call: its body, path, dialect and host."""


class Kept(msgspec.Struct, frozen=True):
    """A finished answer."""

    request_id: str
    """The call that it was made for."""
    asked: bytes
    status: int
    headers: Headers
    body: bytes

    @property
    def size(self) -> int:
        """Return about how many bytes it takes."""
        return len(self.body) + sum(len(name) + len(value) for name, value in self.headers) + _OVERHEAD


def carried(headers: Headers) -> bool:
    """Tell whether a call has an idempotency key; names of `headers` in lower case."""
    return header(headers, HEADER, _ABSENT) is not _ABSENT


def mark(snapshot: Snapshot, address: str) -> Mark:
    """Return the mark of a call from this address that carries a key; raises `TokenHubError` (400) for a bad key."""
    given = [value for name, value in snapshot.headers if name == HEADER]
    key = given[0]
    if len(given) > 1:
        raise client_fault("there is more than one Idempotency-Key", cause="idempotency_key")
    if not key or len(key) > LONGEST or not key.isprintable():
        message = f"Idempotency-Key must have 1 to {LONGEST} printable characters"
        raise client_fault(message, cause="idempotency_key")
    caller = snapshot.caller
    if caller.key is not None:
        shown, owner = caller.key.id, ["key", caller.key.id]
    else:
        credentials = [value for name, value in snapshot.headers if name in _CREDENTIALS]
        shown, owner = address, ["address", address, caller.proxy_user, *credentials]
    origin = snapshot.origin.url if snapshot.origin else ""
    call = [snapshot.dialect.value, origin, snapshot.method, snapshot.path]
    return Mark(
        _digest(b"id", *map(_bytes, owner), _bytes(key)),
        shown,
        _digest(b"call", *map(_bytes, call), snapshot.body),
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _digest(*parts: bytes) -> bytes:
    """Return a digest that no other parts have, however their bytes are divided among them."""
    digest = hashlib.sha256(_FORM)
    digest.update(len(parts).to_bytes(8))
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()


class Tape:
    """The pieces of an answer that is under way, for several readers.

    Up to `most` bytes are kept from the beginning, so that a reader may still join. Beyond them the tape is not
    `whole`: nobody joins any more, and what all have read is let go.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._pieces: list[bytes] = []
        self._first = 0
        """The number of the first piece that is kept."""
        self._held = 0
        self._readers: dict[int, int] = {}
        """From each reader to the number of the piece that it reads next."""
        self._next = 0
        self.whole = True

    @property
    def readers(self) -> int:
        """Return how many read."""
        return len(self._readers)

    @property
    def full(self) -> bool:
        """Tell whether the writer should wait for the slowest reader."""
        return not self.whole and self._held > self._most

    def add(self, piece: bytes) -> None:
        """Write a piece."""
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held > self._most:
            self.whole = False
        self._let_go()

    def join(self) -> int:
        """Return a new reader, at the beginning; only of a `whole` tape."""
        assert self.whole
        self._next += 1
        self._readers[self._next] = 0
        return self._next

    def read(self, reader: int) -> bytes:
        """Return all that this reader has not read, empty where there is nothing yet."""
        at = self._readers[reader] - self._first
        found = b"".join(self._pieces[at:])
        self._readers[reader] = self._first + len(self._pieces)
        self._let_go()
        return found

    def leave(self, reader: int) -> None:
        """Hear that a reader reads no more."""
        self._readers.pop(reader, None)
        self._let_go()

    def all(self) -> bytes:
        """Return everything that was written; only of a `whole` tape."""
        assert self.whole
        return b"".join(self._pieces)

    def _let_go(self) -> None:
        if self.whole:
            return
        end = self._first + len(self._pieces)
        read = min(self._readers.values(), default=end) - self._first
        self._held -= sum(map(len, self._pieces[:read]))
        del self._pieces[:read]
        self._first += read


class Shelf:
    """Finished answers, up to `most` bytes of them and each until its time; the oldest go first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._kept: dict[bytes, tuple[Kept, float]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, name: bytes, kept: Kept, *, until: float, now: float) -> None:
        """Keep an answer; one that is larger than the shelf is not kept."""
        self.drop(name)
        if kept.size > self._most:
            return
        self._kept[name] = kept, until
        self._held += kept.size
        while self._held > self._most or next(iter(self._kept.values()))[1] <= now:
            self.drop(next(iter(self._kept)))

    def get(self, name: bytes, now: float) -> Kept | None:
        """Return the answer that is kept under this name."""
        kept, until = self._kept.get(name, (None, 0.0))
        return kept if until > now else None

    def drop(self, name: bytes) -> None:
        """Let go of an answer."""
        if (found := self._kept.pop(name, None)) is not None:
            self._held -= found[0].size
