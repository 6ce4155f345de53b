"""Settings are read anew while calls run: checked whole, swapped at once, told; what cannot be used changes nothing.

    read     the environment file, the credentials file, the CA file, the list of hosts
    make     every part that follows, of all of it; whatever raises ends it here
    agree    with several workers each makes its own, of the same variables; one that cannot ends it for all
    put      in one turn of the loop, in every worker
    tell     the answer, the audit log, an event, the log

Calls that are under way go on with the rules that they were taken in by, attempts with the deadlines that they have.
One worker reloads for all; the supervisor's nonces see to it that there is one at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import msgspec

from tokenhub_core import hostlist, sources, terms
from tokenhub_core.audit.entries import Action
from tokenhub_core.catalog import Catalog
from tokenhub_core.config import Settings
from tokenhub_core.envfile import Given
from tokenhub_core.errors import Blame, ConfigError, Fault, Kind, TokenHubError
from tokenhub_core.opening import Kept
from tokenhub_core.renewals import Change, Fresh, Put, changes, effective
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.types import Json

BEGIN: Final = "reload"
"""Asks one worker to reload for all: what the supervisor does with a hang-up."""
_CHECK: Final = "reload.check"
_TAKE: Final = "reload.take"
_GOOD: Final = b"good"
_WITHIN: Final = 10.0
"""Seconds for the other workers to make their parts."""
_TURN: Final = 60.0
"""Seconds after which a reload that was not told to be over is taken for one."""
_TRIES: Final = 20
_PAUSE: Final = 0.5
"""Seconds."""
_BUSY: Final = "reloading"

_log: Final = logging.getLogger(__name__)


class Source(msgspec.Struct, frozen=True):
    """A file that settings come from."""

    name: str
    path: str
    state: Literal["absent", "same", "changed"]


class Report(msgspec.Struct, frozen=True):
    """What came of a reload."""

    changes: tuple[Change, ...]
    sources: tuple[Source, ...]
    added: tuple[str, ...]
    """Providers that were not there before,"""
    removed: tuple[str, ...]
    """and those that are there no more."""
    notes: tuple[str, ...]
    workers: int
    """How many have reloaded."""


@dataclass(frozen=True, slots=True)
class _Made:
    """Everything, made and checked, and not in its place yet."""

    settings: Settings
    """As they were read."""
    fresh: Fresh
    put: Put
    marks: Mapping[str, tuple[str, bytes]]
    notes: tuple[str, ...]


class Reloader:
    """Reloads one process, and through it all workers. Belongs to one event loop."""

    def __init__(self, given: Given, kept: Kept, catalog: Catalog, bus: Bus) -> None:
        self._given = given
        self._kept = kept
        self._catalog = catalog
        self._bus = bus
        # The list of hosts is a source of its own.
        self._settings = replace(kept.settings, extra_hosts=hostlist.configured(kept.settings))
        self._marks: Mapping[str, tuple[str, bytes]] = _marks(given, self._settings)
        self._one = asyncio.Lock()
        self._held: dict[bytes, _Made] = {}
        self._running: asyncio.Task[None] | None = None
        self._again = False
        kept.siblings.answering(BEGIN, self._begun)
        kept.siblings.answering(_CHECK, self._checked)
        kept.siblings.answering(_TAKE, self._taken)

    async def reload(self) -> Report:
        """Read everything anew and go on with it.

        Raises `ConfigError` where something cannot be used, `TokenHubError` where the store fails or another reload
        is under way; everything is as it was then.
        """
        try:
            async with self._one, self._alone():
                return await self._reload()
        except (ConfigError, TokenHubError) as error:
            reason = error.fault.message if isinstance(error, TokenHubError) else str(error)
            self._bus.publish("reload_refused", {"timestamp": self._kept.clock.now(), "reason": reason})
            _log.error("settings are as they were: %s", reason)
            raise

    async def told(self) -> Json:
        """Reload, and return the report as JSON tells it; raises as `reload` does."""
        report: Json = msgspec.to_builtins(await self.reload())
        return report

    def hang_up(self) -> None:
        """Reload soon; what comes of it the log and an event tell."""
        self._again = True
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._hung_up(), name="reload")

    async def close(self) -> None:
        """Let a reload that is under way come to its end."""
        if self._running is not None:
            await self._running

    async def _hung_up(self) -> None:
        # Who asks while one is under way may have changed what that one has read.
        while self._again:
            self._again = False
            await self._quietly()

    async def _quietly(self) -> None:
        for _ in range(_TRIES):
            try:
                await self.reload()
            except TokenHubError as error:
                if error.fault.cause == _BUSY:
                    # The other one may have read the files before they were what they are now.
                    await asyncio.sleep(_PAUSE)
                    continue
            except ConfigError:
                pass  # it was told
            except Exception:  # noqa: BLE001 - nobody waits for what comes of it
                _log.exception("settings could not be read anew")
            return

    # --- the steps

    async def _reload(self) -> Report:
        variables = await asyncio.to_thread(self._given.read)
        made = await self._make(variables)
        turn = secrets.token_bytes(8)
        workers = 1 + await self._agree(turn, variables)
        before = set(self._catalog.fleet.providers)
        kept = self._kept
        notes = await sources.seed(made.fresh.settings, self._catalog, kept.credentials, kept.vault)
        # From here on a worker that starts has what the others are about to have.
        kept.siblings.reloaded(msgspec.msgpack.encode(variables))
        changed, found = self._take(made)
        if workers > 1:
            await kept.siblings.everybody(_TAKE, turn, within=_WITHIN)
            await kept.changes.announce()
        after = set(self._catalog.fleet.providers)
        report = Report(
            changed,
            found,
            tuple(sorted(after - before)),
            tuple(sorted(before - after)),
            (*made.notes, *notes),
            workers,
        )
        await self._tell(report)
        return report

    async def _make(self, variables: Mapping[str, str]) -> _Made:
        """Return everything made of these variables; raises `ConfigError` and `TokenHubError`."""
        given = self._given
        settings = given.settings(variables)
        settings = replace(settings, extra_hosts=hostlist.configured(settings))
        fresh = Fresh(effective(self._settings, settings), given.environment(variables))
        marks = await asyncio.to_thread(_marks, given, fresh.settings)
        sources.examine(fresh.settings, self._catalog)
        notes = tuple(given.warnings(variables))
        return _Made(settings, fresh, self._kept.renewals.made(fresh), marks, notes)

    def _take(self, made: _Made) -> tuple[tuple[Change, ...], tuple[Source, ...]]:
        """Put everything in its place; return what that has changed."""
        changed = changes(self._settings, made.settings)
        found = tuple(
            Source(name, path, _state(self._marks.get(name), (path, mark)))
            for name, (path, mark) in made.marks.items()
        )
        made.put()
        self._settings, self._marks = made.fresh.settings, made.marks
        return changed, found

    async def _tell(self, report: Report) -> None:
        now, told = self._kept.clock.now(), msgspec.to_builtins(report)
        _log.info("settings were read anew: %d changes, %d workers", len(report.changes), report.workers)
        self._bus.publish("reloaded", {"timestamp": now, **told})
        await self._kept.audit.try_note(Action.SETTINGS_RELOAD, after=told)

    # --- several workers

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Keep other workers from reloading meanwhile; raises `TokenHubError` (409) where one does."""
        siblings = self._kept.siblings
        if not siblings.joined:
            yield
            return
        mine, found = secrets.token_bytes(8), None
        for _ in range(_TRIES):
            # None: the supervisor has too much to do to answer at once.
            found = await siblings.nonce(BEGIN, mine, _TURN, replace=False)
            if found is not None:
                break
        if found != mine:
            message = "another reload is under way: try again"
            raise TokenHubError(Fault(Kind.INVALID, Blame.CLIENT, message, cause=_BUSY, status=409))
        try:
            yield
        finally:
            await siblings.nonce(BEGIN, b"", 0, replace=True)

    async def _agree(self, turn: bytes, variables: Mapping[str, str]) -> int:
        """Let every other worker make its parts; return how many they are. Raises `ConfigError` where one cannot."""
        body = msgspec.msgpack.encode((turn, variables))
        answers = await self._kept.siblings.everybody(_CHECK, body, within=_WITHIN)
        for one in answers:
            if one != _GOOD:
                raise ConfigError(one.decode() or "a worker does not answer: none has changed")
        return len(answers)

    async def _begun(self, body: bytes) -> bytes:
        del body
        self.hang_up()
        return b""

    async def _checked(self, body: bytes) -> bytes:
        turn, variables = msgspec.msgpack.decode(body, type=tuple[bytes, dict[str, str]])
        # Whatever was held for a turn that did not come is of no use any more: there is one at a time.
        self._held.clear()
        try:
            self._held[turn] = await self._make(variables)
        except (ConfigError, TokenHubError) as error:
            return (error.fault.message if isinstance(error, TokenHubError) else str(error)).encode()
        return _GOOD

    async def _taken(self, body: bytes) -> bytes:
        if (made := self._held.pop(body, None)) is None:
            return b""
        self._take(made)
        return _GOOD


def _marks(given: Given, settings: Settings) -> dict[str, tuple[str, bytes]]:
    """Return where each source is, and what tells its content from another one: nothing where there is none."""
    listed = settings.data_dir / hostlist.NAME
    found: dict[str, Path | None] = {
        "environment file": given.file,
        "credentials file": terms.path(settings.credentials_file),
        "CA file": terms.path(settings.ca_file),
        "list of hosts": listed,
    }
    return {name: (str(path or ""), _mark(path)) for name, path in found.items()}


def _mark(path: Path | None) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest() if path is not None else b""
    except OSError:
        return b""


def _state(old: tuple[str, bytes] | None, new: tuple[str, bytes]) -> Literal["absent", "same", "changed"]:
    if old != new:
        return "changed"
    return "same" if new[1] else "absent"


def unheard() -> None:
    """Do nothing: where nobody can reload."""
