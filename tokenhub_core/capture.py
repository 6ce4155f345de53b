"""The text of calls, kept where somebody asked for it: sealed, cut, and for a while.

    what is kept   the request and the answer as the caller sent and got them, each up to a size
    who asks       a key's `Privacy`, else the operator's `TOKENHUB_CAPTURE`; nobody by default
    where          a table of its own; each row sealed with a key of its own under the vault's, bound to its call
    how long       its retention, after which the sweeper deletes it

While the vault is not open nothing is kept, and the log says so once. A caller never waits for any of this, and what
cannot be kept is counted, not owed: a call is answered either way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec
from msgspec import structs

from tokenhub_core import encoding
from tokenhub_core.config import Settings
from tokenhub_core.errors import TokenHubError
from tokenhub_core.ports import Clock, Engine, Reply
from tokenhub_core.redaction import redacted
from tokenhub_core.store import captures as rows
from tokenhub_core.store.captures import Captured
from tokenhub_core.store.retention import DAY
from tokenhub_core.store.writer import Writer
from tokenhub_core.types import Capture, Snapshot, header
from tokenhub_core.vault import sealing
from tokenhub_core.vault.keys import KeyHolder

AT_ONCE: Final = 32
"""Calls whose text is being sealed at the same time; of further ones nothing is kept."""
_OVERLAP: Final = 8192
"""Bytes beyond what is kept that are redacted with it: what the cut would tear apart is known whole."""

_log: Final = logging.getLogger(__name__)


class Text(msgspec.Struct, frozen=True):
    """One direction of a call. `size` is in bytes; `whole` tells whether all of it was kept."""

    text: str
    size: int
    whole: bool


class Body(msgspec.Struct, frozen=True):
    """What is sealed."""

    mode: Capture
    request: Text
    answer: Text


class _Wish(msgspec.Struct, frozen=True):
    mode: Capture
    days: int


class Kept:
    """The first bytes of something that may be long."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.size = 0
        self._limit = limit

    def add(self, piece: bytes) -> None:
        """Take a piece of it."""
        self.size += len(piece)
        if len(self.data) < self._limit:
            self.data += piece[: self._limit - len(self.data)]


class Capturing:
    """An engine that remembers what went through another one, where that was asked for. Implements `ports.Engine`."""

    def __init__(self, engine: Engine, settings: Settings, keys: KeyHolder, shelf: Shelf) -> None:
        self._engine = engine
        self._usual = _Wish(Capture(settings.capture), settings.capture_days)
        self._limit = settings.capture_max_bytes
        self._keys = keys
        self._shelf = shelf
        self._shut = False

    def renew(self, settings: Settings) -> None:
        """Keep what other settings say, of calls that come from now on."""
        self._usual = _Wish(Capture(settings.capture), settings.capture_days)
        self._limit = settings.capture_max_bytes
        self._shelf.renew(settings)

    async def exchange(self, snapshot: Snapshot) -> Reply:
        """Answer one call."""
        wish = self._wish(snapshot)
        if wish.mode is Capture.NONE or not self._ready():
            return await self._engine.exchange(snapshot)
        reply = await self._engine.exchange(snapshot)
        answer = Kept(self._limit + _OVERLAP)
        if reply.frames is None:
            answer.add(reply.body)
            self._shelf.take(_Call(snapshot, wish, answer))
            return reply
        return structs.replace(
            reply, frames=_Overheard(reply.frames, _Call(snapshot, wish, answer), self._shelf)
        )

    def _wish(self, snapshot: Snapshot) -> _Wish:
        key, usual = snapshot.caller.key, self._usual
        if key is None or (key.privacy.capture is None and key.privacy.retention_days is None):
            return usual
        own = key.privacy
        return _Wish(
            usual.mode if own.capture is None else own.capture,
            usual.days if own.retention_days is None else own.retention_days,
        )

    def _ready(self) -> bool:
        """Tell whether there is a key to seal with; say once when there is none."""
        shut = self._keys.keys is None
        if shut and not self._shut:
            _log.warning("the vault is not open: what calls say is not kept, though it was asked for")
        self._shut = shut
        return not shut


@dataclass(frozen=True, slots=True)
class _Call:
    snapshot: Snapshot
    wish: _Wish
    answer: Kept


class _Overheard:
    """Frames on their way to the caller; what has passed when they end, however they end, is kept."""

    def __init__(self, frames: AsyncIterator[bytes], call: _Call, shelf: Shelf) -> None:
        self._frames = frames
        self._call = call
        self._shelf = shelf
        self._over = False

    def __aiter__(self) -> _Overheard:
        return self

    async def __anext__(self) -> bytes:
        try:
            frame = await anext(self._frames)
        except BaseException:
            self._end()
            raise
        self._call.answer.add(frame)
        return frame

    async def aclose(self) -> None:
        """End the exchange: the caller has left."""
        self._end()
        close = getattr(self._frames, "aclose", None)
        if close is not None:
            await close()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._shelf.take(self._call)


class Shelf:
    """Seals what was heard, in a thread, and hands it to the writer. Belongs to one event loop."""

    def __init__(
        self,
        writer: Writer,
        keys: KeyHolder,
        settings: Settings,
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._writer = writer
        self._keys = keys
        self._limit = settings.capture_max_bytes
        self._most_days = settings.log_retention_days
        self._clock = clock
        self._entropy = entropy
        self._tasks: set[asyncio.Task[None]] = set()

    def renew(self, settings: Settings) -> None:
        """Take over how much of a text is kept, and for how long at most."""
        self._limit = settings.capture_max_bytes
        self._most_days = settings.log_retention_days

    def take(self, call: _Call) -> None:
        """Keep a call. Returns at once; where too much is under way already, nothing of it is kept."""
        if len(self._tasks) >= AT_ONCE:
            _log.warning("the text of %s is not kept: too many calls at once", call.snapshot.id)
            return
        task = asyncio.create_task(self._keep(call), name=f"capture {call.snapshot.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Return once everything that was taken is with the writer."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, call: _Call) -> None:
        sealer = self._keys.sealer()
        if sealer is None:
            return
        now, name = self._clock.now(), call.snapshot.id
        days = call.wish.days if self._most_days is None else min(call.wish.days, self._most_days)
        nonce = self._entropy(sealing.NONCE_BYTES)
        try:
            sealed = await asyncio.to_thread(self._sealed, call, sealer, nonce)
        except Exception:  # noqa: BLE001 - whatever is wrong with a text, its call was answered
            _log.exception("the text of %s could not be kept", name)
            return
        row = Captured(name, now, now + days * DAY, sealer.key_id, sealed)
        if not self._writer.post(partial(rows.save, captured=row)):
            _log.error("the text of %s could not be kept: the queue is full or closed", name)

    def _sealed(self, call: _Call, sealer: sealing.Sealer, nonce: bytes) -> bytes:
        mode, snapshot = call.wish.mode, call.snapshot
        asked = Kept(self._limit + _OVERLAP)
        asked.add(_plain(snapshot))
        body = Body(mode, self._text(asked, mode), self._text(call.answer, mode))
        return sealer.seal(snapshot.id, msgspec.json.encode(body), nonce)

    def _text(self, kept: Kept, mode: Capture) -> Text:
        text = kept.data.decode("utf-8", "replace")
        if mode is Capture.REDACTED:
            text = redacted(text)
        cut = text.encode()[: self._limit].decode("utf-8", "ignore")
        return Text(cut, kept.size, kept.size <= self._limit)


def _plain(snapshot: Snapshot) -> bytes:
    """Return the request's body without its content encoding, as it came where that cannot be read."""
    try:
        return encoding.decoded(
            snapshot.body,
            header(snapshot.headers, "content-encoding"),
            limit=max(len(snapshot.body), 1 << 25),
        )
    except TokenHubError:
        return snapshot.body


def opened(captured: Captured, keys: KeyHolder) -> Body | None:
    """Return what was sealed, None where its key was replaced since.

    Raises `TamperedError` where it is not what was stored for this call.
    """
    sealer = keys.sealer()
    if sealer is None or sealer.key_id != captured.key_id:
        return None
    return msgspec.json.decode(sealer.unseal(captured.id, captured.sealed), type=Body)
