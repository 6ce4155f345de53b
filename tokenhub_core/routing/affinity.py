"""Which conversation a call goes on with, and who served it last. Pure: the clock is an argument.

A conversation has no id on the wire, but it leaves marks there, and the next call brings them back:

    held     the id of the answer that the call goes on from, or of the whole conversation at its provider
    calls    the ids of the tool calls that an answer made: the next call brings their results
    seals    signatures of thoughts, and thoughts that are encrypted
    turns    a chain of hashes over the turns: a call's own turns are the beginning of the next call's

An answer's marks are noted once it has succeeded, each with the model and provider that gave it. The next call is
looked up by those that it bears, the surest first: what it names as held, the results of its last turn, the seals of
the model's last words, the longest beginning of its turns, and at last tool calls further back.

What the system says is left out: unrelated conversations share it, and clients change it on the way. Ids are bound
to the user's first turn, because some models number their calls in every conversation alike. A mark that was left by
two who are not the same, within the time that it lasts, tells nothing and is passed over: such is the beginning
of two conversations, or an answer that was asked for twice.

Marks are hashed with a key of the installation (BLAKE2b, 16 bytes): whoever reads them learns nothing of what was
said, nor can try what it might have been. Turns are hashed at most once for a call, in one pass, and not at all where
ids tell enough. Of long texts the length and both ends count: that two conversations differ in nothing else happens to
nobody, and it keeps what a call costs to its turns, however long they are.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from itertools import islice
from typing import Any, Final, Protocol

import msgspec

from tokenhub_core.types import Bond, Left, Said, Speaker, Traces

FADES: Final = 3600.0
"""Seconds after which a conversation is not known any more."""
KEEP: Final = 32_768
"""Marks that are kept; the one that was left first goes first."""
_BACK: Final = 24
"""Turns, from the last one back, that are looked through for ids and seals."""
_TRIED: Final = 8
"""Marks of one kind that are looked up, and noted, for one call."""
_LONGEST_NAME: Final = 256
"""Characters. At the host that a call was meant for, callers choose the model's name."""
_END: Final = 512
"""Characters at either end of a text that are hashed with its length; what is shorter than both is hashed whole."""
_SAME_SEAL: Final = str.maketrans("-_", "+/", "=")
"""Between two alphabets of base64: some SDKs decode what is sealed, and write it anew."""


class Served(msgspec.Struct, frozen=True):
    """Who served a call, when (seconds since the epoch), and its input tokens as the provider counted them, else 0.

    Without a model it says that two have left the same mark.
    """

    model: str
    provider: str
    at: float
    tokens: int


class Thread:
    """One call within its conversation. What it costs to tell is spent when somebody asks."""

    __slots__ = ("_chain", "_root", "_salt", "bond", "traces")

    def __init__(self, traces: Traces, salt: bytes) -> None:
        self.traces = traces
        self.bond: Bond | None = None
        """Who served the conversation before; None where it is not known."""
        self._salt = salt
        self._root: bytes | None = None
        self._chain: tuple[list[bytes], bytes] | None = None

    def held(self, name: str) -> bytes:
        """Return the mark of something that a provider holds."""
        return self._mark(b"held", name.encode("utf-8", "surrogatepass"))

    def call(self, name: str) -> bytes:
        """Return the mark of a tool call."""
        return self._mark(b"call", self._first(), name.encode("utf-8", "surrogatepass"))

    def seal(self, value: str) -> bytes:
        """Return the mark of a sealed thought."""
        return self._mark(b"seal", value.translate(_SAME_SEAL).encode("utf-8", "surrogatepass"))

    def beginnings(self) -> list[bytes]:
        """Return the marks of those beginnings of the turns that the model answered, the longest first."""
        return self._chained()[0]

    def whole(self) -> bytes:
        """Return the mark of all turns."""
        return self._chained()[1]

    def said(self) -> Iterator[Said]:
        """Yield the turns, in their order."""
        return (one for raw in self.traces.turns if (one := self.traces.read(raw)) is not None)

    def _mark(self, kind: bytes, *parts: bytes) -> bytes:
        digest = blake2b(digest_size=16, key=self._salt, person=kind)
        for part in parts:
            digest.update(len(part).to_bytes(8) + part)
        return digest.digest()

    def _first(self) -> bytes:
        if self._root is None:
            turn = next((one for one in self.said() if one.by is Speaker.USER), None)
            self._root = self._mark(b"root", _told(turn)) if turn else b""
        return self._root

    def _chained(self) -> tuple[list[bytes], bytes]:
        if self._chain is None:
            chain = blake2b(digest_size=16, key=self._salt, person=b"turns")
            ends = deque[Any](maxlen=_TRIED)
            before: Speaker | None = None
            for one in self.said():
                # What holds thoughts alone is left out by some clients when they send it again.
                if one.words or one.calls:
                    if one.by is Speaker.MODEL and before is not None and before is not Speaker.MODEL:
                        ends.appendleft(chain.copy())
                    chain.update(_told(one))
                    before = one.by
            self._chain = [end.digest() for end in ends], chain.digest() if before else b""
        return self._chain


class Noted(msgspec.Struct, frozen=True, array_like=True):
    """A mark that an answer left, as other processes are told of it."""

    mark: bytes
    served: Served
    moves: bool
    """The latest answer has it, whoever left it before."""


class Bonds(Protocol):
    """Who knows conversations again."""

    def follow(self, traces: Callable[[], Traces], now: float) -> Thread:
        """Return the call as a part of its conversation, with the bond to whoever served it before."""
        ...

    def note(self, thread: Thread, served: Served, left: Left) -> None:
        """Hear that the call was answered, by whom, and what the answer leaves."""
        ...


class Loose:
    """The bonds of someone who takes every call for a conversation of its own."""

    def follow(self, traces: Callable[[], Traces], now: float) -> Thread:
        """Return a call without a bond; nothing is read of it."""
        return _ALONE

    def note(self, thread: Thread, served: Served, left: Left) -> None:
        """Note nothing."""


class Affinity:
    """The marks of conversations and who served them, at most `keep`, none older than `FADES`. Implements `Bonds`."""

    def __init__(self, salt: bytes, known: Iterable[tuple[bytes, Served]] = (), *, keep: int = KEEP) -> None:
        """Begin with what is known, the oldest first. `salt` is 1 to 64 bytes."""
        self._salt = salt
        self._keep = keep
        # A plain dict searches for its first entry among all that were taken out before.
        self._marks: OrderedDict[bytes, Served] = OrderedDict()
        self._changed: set[bytes] = set()
        self._gone: set[bytes] = set()
        self._fresh: list[Noted] | None = None
        for mark, served in known:
            self._put(mark, served)
        self._changed.clear()

    def __len__(self) -> int:
        return len(self._marks)

    def follow(self, traces: Callable[[], Traces], now: float) -> Thread:
        """Return the call as a part of its conversation, with the bond to whoever served it before."""
        thread = Thread(traces(), self._salt)
        last, answered, recent = _recent(thread.traces)
        given = thread.traces
        if not (answered or given.held or given.room):
            return thread
        loop = last is not None and last.by is Speaker.TOOL
        for by, mark in _borne(thread, last.calls if loop and last else (), recent):
            served = self._marks.get(mark)
            if served is not None and served.model and now - served.at <= FADES:
                lock = "stored_state" if by in {"response", "room"} else "tool_loop" if loop else ""
                if recent.seals and not lock:
                    lock = "thinking"
                age = max(0.0, now - served.at)
                thread.bond = Bond(served.model, served.provider, age, served.tokens, by, lock)
                break
        return thread

    def note(self, thread: Thread, served: Served, left: Left) -> None:
        """Hear that the call was answered, by whom, and what the answer leaves."""
        if len(served.model) > _LONGEST_NAME:
            return
        given = thread.traces
        marks = [thread.call(one) for one in left.calls[:_TRIED]]
        if not (marks and given.numbered) and (whole := thread.whole()):
            marks.append(whole)
        marks += [thread.seal(one) for one in left.seals[:_TRIED]]
        if given.goes_on and left.id:
            marks.append(thread.held(left.id))
        noted = [Noted(mark, served, False) for mark in marks]
        if given.room:
            noted.append(Noted(thread.held(given.room), served, True))
        for one in noted:
            self._put(one.mark, self._weighed(one))
        if self._fresh is not None:
            self._fresh += noted
        self._forget(served.at - FADES)

    def share(self) -> None:
        """Gather from now on what other processes are to be told."""
        self._fresh = []

    def fresh(self) -> list[Noted]:
        """Return what was noted here since this was last asked; nothing before `share`."""
        if not self._fresh:
            return []
        fresh, self._fresh = self._fresh, []
        return fresh

    def adopt(self, noted: Iterable[Noted]) -> None:
        """Take over what another process has noted, which saves it itself."""
        for one in noted:
            old = self._marks.get(one.mark)
            if one.moves and old is not None and old.at > one.served.at:
                continue
            self._put(one.mark, self._weighed(one), ours=False)

    def kept(self) -> list[tuple[bytes, Served]]:
        """Return every mark, the oldest first."""
        return list(self._marks.items())

    def changes(self) -> tuple[list[tuple[bytes, Served]], list[bytes]]:
        """Return what was noted since this was last asked, and what was forgotten."""
        changed, self._changed = self._changed, set()
        gone, self._gone = self._gone, set()
        return [(mark, self._marks[mark]) for mark in changed], list(gone)

    def _weighed(self, one: Noted) -> Served:
        """Return whose a mark is: nobody's where two have left it within the hour."""
        old, served = self._marks.get(one.mark), one.served
        torn = (
            not one.moves
            and old is not None
            and abs(served.at - old.at) <= FADES
            and (old.model, old.provider) != (served.model, served.provider)
        )
        return Served("", "", served.at, 0) if torn else served

    def _put(self, mark: bytes, served: Served, *, ours: bool = True) -> None:
        self._marks[mark] = served
        self._marks.move_to_end(mark)
        # One that is torn by what another has noted is so in the database, too.
        if ours or not served.model:
            self._changed.add(mark)
        self._gone.discard(mark)
        if len(self._marks) > self._keep:
            self._drop(next(iter(self._marks)))

    def _forget(self, before: float) -> None:
        while self._marks and self._marks[mark := next(iter(self._marks))].at < before:
            self._drop(mark)

    def _drop(self, mark: bytes) -> None:
        del self._marks[mark]
        self._changed.discard(mark)
        self._gone.add(mark)


class _Recent(msgspec.Struct):
    """What the latest turns bear: tool calls, the newest first, and the seals of the model's last words."""

    calls: list[str] = msgspec.field(default_factory=list)
    seals: list[str] = msgspec.field(default_factory=list)


def _recent(traces: Traces) -> tuple[Said | None, bool, _Recent]:
    """Return the last turn, whether a model has spoken before it, and what the latest turns bear."""
    found, last, spoken, over = _Recent(), None, False, False
    for raw in islice(reversed(traces.turns), _BACK):
        said = traces.read(raw)
        if said is None:
            continue
        last = last or said
        found.calls += reversed(said.calls)
        if said.by is Speaker.MODEL:
            spoken = True
            if not over:
                found.seals += said.seals
        else:
            over = spoken
        if over and found.calls:
            break
    return last, spoken or len(traces.turns) > _BACK, found


def _borne(thread: Thread, results: tuple[str, ...], recent: _Recent) -> Iterator[tuple[str, bytes]]:
    """Yield the marks that a call bears and what kind each is, the surest first; each is made when it is asked for."""
    given = thread.traces
    if given.held:
        yield "response", thread.held(given.held)
    if given.room:
        yield "room", thread.held(given.room)
    for name in results[-_TRIED:]:
        yield "calls", thread.call(name)
    for seal in recent.seals[:_TRIED]:
        yield "thinking", thread.seal(seal)
    for mark in thread.beginnings():
        yield "turns", mark
    for name in recent.calls[:_TRIED]:
        if name not in results:
            yield "calls", thread.call(name)


def _told(turn: Said) -> bytes:
    """Return a turn as it is hashed: each word with its length before it, so that no two turns are the same bytes."""
    pieces = [turn.by.value, *map(_sized, turn.words)]
    if turn.calls:
        pieces += ("|", *map(_sized, turn.calls))
    return "".join(pieces).encode("utf-8", "surrogatepass")


def _sized(word: str) -> str:
    size = len(word)
    return f"{size}:{word}" if size <= 2 * _END else f"{size}:{word[:_END]}{word[-_END:]}"


_ALONE: Final = Thread(Traces(), b"-")
LOOSE: Final = Loose()
