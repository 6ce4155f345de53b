"""Clients' API keys at work: every one in memory, found without waiting; every change durable first, then in force.

What this process changes holds here when the change returns. What another process on the same database changes is seen
by the number that each change counts up, which is asked for every `POLL` seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from msgspec import structs
from sqlalchemy import Connection

from tokenhub_core.admission import apikeys
from tokenhub_core.admission.apikeys import Book, Kept, KeyBody
from tokenhub_core.audit.entries import Action, Draft
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import Kind, TokenHubError, client_fault
from tokenhub_core.following import POLL, follow
from tokenhub_core.ports import Clock, Secret
from tokenhub_core.store import apikeys as rows
from tokenhub_core.store.rows import micros
from tokenhub_core.store.writer import Work, Writer
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.types import ApiKey, Json

SAVE_TURNS: Final = 10
"""Looks between two savings of when keys were used."""
WARN_TURNS: Final = 120
"""Looks between two looks for keys that should be rotated, or are about to expire."""

_log: Final = logging.getLogger(__name__)


def _unseen(now: float) -> None:
    del now


type _Edit = Callable[[Kept], Kept]
type _Telling = Callable[[Kept, Kept], list[Draft]]


@dataclass(frozen=True, slots=True)
class _Change:
    """What became of one key."""

    kept: Kept
    """As it stands now; without a secret where it was removed."""
    before: int
    """The number of the change before this one."""
    after: int
    """Its own number; that before it where nothing was changed."""
    told: list[Draft]


@dataclass(frozen=True, slots=True)
class Page:
    """Keys, the newest first. `next` goes into `before` for the page after this one; None at the end."""

    items: tuple[Kept, ...]
    total: int
    next: tuple[int, str] | None


class ApiKeys:
    """All keys. Implements `ports.KeyBook`; belongs to one event loop."""

    def __init__(
        self,
        audit: Audit,
        writer: Writer,
        bus: Bus,
        clock: Clock,
        *,
        salt: bytes,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._audit = audit
        self._database = audit.database
        self._writer = writer
        self._bus = bus
        self._clock = clock
        self._entropy = entropy
        self._pepper = apikeys.pepper(salt)
        self._book = Book(self._pepper)
        self._generation = 0
        self._used: dict[str, float] = {}
        # One change, or reading, at a time: what was read earlier must not be put in place later.
        self._turn = asyncio.Lock()
        self._looking: Callable[[float], None] = _unseen

    async def load(self) -> tuple[str, ...]:
        """Read every key, and return what the operator should know of them."""
        async with self._turn:
            await self._read()
        if strangers := self._book.strangers():
            which = "1 API key was" if strangers == 1 else f"{strangers} API keys were"
            return (f"{which} made with another salt file: put that back, or rotate them",)
        return ()

    def look_up(self, secret: str, now: float) -> ApiKey:
        """Return the key with this secret, and note that it was used; see `ports.KeyBook`."""
        key = self._book.look_up(secret, now)
        self._used[key.id] = now
        return key

    def named(self, key_id: str, now: float) -> ApiKey:
        """Return the key with this id, and note that it was used; see `ports.KeyBook`."""
        key = self._book.named(key_id, now)
        self._used[key.id] = now
        return key

    def watched(self, look: Callable[[float], None]) -> None:
        """Let `look` be called with the time after each change here, and after each look at those elsewhere."""
        self._looking = look

    # --- reading

    async def one(self, key_id: str) -> Kept:
        """Return a key as it is stored; raises `TokenHubError` (`NOT_FOUND`)."""
        return self._with_use(await asyncio.to_thread(self._find, key_id))

    async def page(self, *, limit: int, before: tuple[int, str] | None = None) -> Page:
        """Return at most `limit` keys as they are stored, behind the place `before`."""
        found, total = await asyncio.to_thread(self._page, limit + 1, before)
        items = tuple(map(self._with_use, found[:limit]))
        more = len(found) > limit
        return Page(items, total, (items[-1].key.created_at, items[-1].key.id) if more else None)

    def _find(self, key_id: str) -> Kept:
        with self._database.reading() as connection:
            return _found(connection, key_id)

    def _page(self, limit: int, before: tuple[int, str] | None) -> tuple[list[Kept], int]:
        with self._database.reading() as connection:
            return rows.page(connection, limit=limit, before=before), rows.count(connection)

    def _with_use(self, kept: Kept) -> Kept:
        used = micros(self._used.get(kept.key.id, 0))
        return structs.replace(kept, last_used_at=max(kept.last_used_at, used))

    # --- changing

    async def create(self, body: KeyBody) -> tuple[Kept, Secret]:
        """Make a key; its secret is returned here and never again."""
        secret, now = self._minted(), self._now()
        key_id = apikeys.new_id(self._entropy(apikeys.ID_BYTES))
        made = apikeys.known(secret.reveal(), self._pepper, now=now)
        kept = apikeys.created(body, key_id, made, now=now)

        def work(connection: Connection) -> _Change:
            number = rows.put(connection, kept)
            draft = Draft(Action.APIKEY_CREATE, key_id, after=apikeys.described(kept))
            return _Change(kept, number - 1, number, [draft])

        return (await self._commit(work)).kept, secret

    async def change(self, key_id: str, body: KeyBody) -> Kept:
        """Change what the body names; raises `TokenHubError`."""
        edit = partial(apikeys.changed, body=body, now=self._now())
        return self._with_use((await self._edit(key_id, edit, _plainly(Action.APIKEY_UPDATE))).kept)

    async def rotate(self, key_id: str, *, overlap: int = apikeys.OVERLAP) -> tuple[Kept, Secret]:
        """Give a key a new secret; the older ones go on for `overlap` seconds."""
        secret, now = self._minted(), self._now()
        made = apikeys.known(secret.reveal(), self._pepper, now=now)
        edit = partial(apikeys.rotated, secret=made, now=now, overlap=overlap)
        change = await self._edit(key_id, edit, _plainly(Action.APIKEY_ROTATE))
        return self._with_use(change.kept), secret

    async def revoke(self, key_id: str) -> None:
        """Remove a key: from now on nobody is let in with it."""

        def work(connection: Connection) -> _Change:
            was = _found(connection, key_id)
            number = rows.remove(connection, key_id)
            draft = Draft(Action.APIKEY_REVOKE, key_id, before=apikeys.described(was))
            return _Change(structs.replace(was, secrets=()), number - 1, number, [draft])

        await self._commit(work)

    async def _edit(self, key_id: str, edit: _Edit, telling: _Telling) -> _Change:
        """Do `edit` on what stands in the row when its turn has come."""

        def work(connection: Connection) -> _Change:
            was = _found(connection, key_id)
            now = edit(was)
            if now == was:
                number = rows.generation(connection)
                return _Change(was, number, number, [])
            number = rows.put(connection, now)
            return _Change(now, number - 1, number, telling(was, now))

        return await self._commit(work)

    async def _commit(self, work: Work[_Change]) -> _Change:
        """Do `work` and let it hold here, also when whoever asked for it leaves: memory must follow the rows."""

        def telling(connection: Connection) -> tuple[_Change, list[Draft]]:
            change = work(connection)
            return change, change.told

        async def both() -> _Change:
            async with self._turn:
                change = await self._audit.commit_telling(telling)
                if change.kept.secrets:
                    self._book.put(change.kept)
                else:
                    self._book.drop(change.kept.key.id)
                # Otherwise another process was in between, and `refresh` finds what it did.
                if change.before == self._generation:
                    self._generation = change.after
                self._looking(self._clock.now())
            return change

        return await asyncio.shield(asyncio.create_task(both(), name="api key change"))

    # --- in time

    async def refresh(self) -> None:
        """Take over what another process has changed; raises `TokenHubError` where the store fails."""
        if await asyncio.to_thread(self._last_change) != self._generation:
            async with self._turn:
                await self._read()

    async def save(self) -> None:
        """Store when keys were used last; raises `TokenHubError` where the store fails."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._writer.commit(
                partial(rows.note_used, used={key: micros(at) for key, at in used.items()})
            )
        except TokenHubError:
            self._used = {**used, **self._used}
            raise

    async def warn(self) -> None:
        """Tell, once, of every key that should be rotated or is about to expire; raises as `save` does."""
        now = self._now()
        for key_id in [one.key.id for one in self._book.kept.values() if apikeys.due(one, now=now)]:
            change = await self._edit(key_id, partial(_warned, now=now), partial(_warning, at=now))
            for draft in change.told:
                _log.warning("API key %s (%s): %s", key_id, change.kept.key.name, draft.reason)
                data = {"timestamp": self._clock.now(), **_moments(change.kept)}
                self._bus.publish(f"apikey_{draft.reason}", data)

    async def keep(self, every: float = POLL) -> None:
        """Do all three for ever, each in its time. While the store fails, the keys that are known go on."""
        await follow("API keys", self._look, every)

    async def _look(self, turn: int) -> None:
        try:
            await self.refresh()
            if turn % WARN_TURNS == 1:
                await self.warn()
            if turn % SAVE_TURNS == 0:
                await self.save()
        finally:
            self._looking(self._clock.now())

    async def close(self) -> None:
        """Save for the last time. A store that is gone does not keep anyone from ending."""
        try:
            await self.save()
        except TokenHubError as error:
            _log.warning("when API keys were used could not be saved: %s", error)

    async def _read(self) -> None:
        changes = await asyncio.to_thread(self._changes)
        self._book.follow(changes.kept, changes.ids)
        self._generation = changes.number

    def _changes(self) -> rows.Changes:
        with self._database.reading() as connection:
            return rows.changes(connection, since=self._generation)

    def _last_change(self) -> int:
        with self._database.reading() as connection:
            return rows.generation(connection)

    def _minted(self) -> Secret:
        return Secret(apikeys.minted(self._entropy(apikeys.SECRET_BYTES)))

    def _now(self) -> int:
        return micros(self._clock.now())


def _found(connection: Connection, key_id: str) -> Kept:
    found = rows.find(connection, key_id)
    if found is None:
        raise _unknown(key_id)
    return found


def _plainly(action: Action) -> _Telling:
    """Return what tells of a change by what is different."""

    def telling(was: Kept, now: Kept) -> list[Draft]:
        before, after = apikeys.differences(was, now)
        return [Draft(action, now.key.id, before=before, after=after)]

    return telling


def _warned(was: Kept, *, now: int) -> Kept:
    return apikeys.told(was, apikeys.due(was, now=now))


def _warning(was: Kept, _: Kept, *, at: int) -> list[Draft]:
    notices = apikeys.due(was, now=at)
    return [Draft(Action.APIKEY_WARN, was.key.id, after=_moments(was), reason=one) for one in notices]


def _moments(kept: Kept) -> Json:
    key = kept.key
    return {
        "key_id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "rotate_at": apikeys.seconds(key.rotate_at),
        "expires_at": apikeys.seconds(key.expires_at),
    }


def _unknown(key_id: str) -> TokenHubError:
    return client_fault(f"there is no API key {key_id!r}", kind=Kind.NOT_FOUND, param="id")
