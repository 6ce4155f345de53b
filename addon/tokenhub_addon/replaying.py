"""Calls that the user repeats in mitmproxy: the engine answers them like any other, as their first caller's.

A replay comes from the interface and from no client: mitmproxy marks it, and nobody can do that from outside. So it
needs no way over the network; the engine is asked directly, and the answer is put into the flow in one piece.

Whose call it is must not get lost, nor can the flow hold the key. When a call with a key comes in, its flow gets a
note: the id of the key, and a keyed hash of it that only this process can make. A copy of the flow keeps the note, a
file never gets it. At a replay the key is looked up by its id, as it is then: one that was revoked, disabled or has
expired opens nothing. A flow without a note is anonymous, and refused where callers have to show a key; one whose note
is not ours is refused always.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from mitmproxy import flow as base
from mitmproxy import http

from tokenhub_addon.callers import near
from tokenhub_addon.flows import NOTE, caller, drop_masks, lower, note, path_of, redact, unredacted, whole
from tokenhub_addon.host import EngineHost
from tokenhub_addon.inspect import InspectLane
from tokenhub_core.admission import identity
from tokenhub_core.admission.doorkeeper import Entry, allow, called, scope_of
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError, client_fault
from tokenhub_core.ports import Reply
from tokenhub_core.recognise import CHAT, Recognised
from tokenhub_core.types import ApiKey, Dialect, Origin, Snapshot

_KEPT: Final = 8 << 20
"""Bytes of a streamed answer that its flow gets; what is beyond is read and dropped."""


class Notes:
    """Makes and reads the notes that say whose a flow is. `secret` is this process's own."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def put(self, flow: http.HTTPFlow, key: ApiKey | None) -> None:
        """Note that a flow is the call of this key; of nobody in particular where there is none."""
        flow.metadata.pop(NOTE, None)
        if key is not None:
            flow.metadata[NOTE] = f"{key.id}.{self._mark(key.id)}"

    def key_id(self, flow: http.HTTPFlow) -> str:
        """Return the id of the key whose call it is, empty where it is nobody's; raises `TokenHubError` (`AUTH`)."""
        told = str(flow.metadata.get(NOTE, ""))
        if not told:
            return ""
        key_id, _, mark = told.rpartition(".")
        if not hmac.compare_digest(mark.encode(), self._mark(key_id).encode()):
            message = "the flow does not come from this TokenHub: nobody can tell whose call it is"
            raise client_fault(message, kind=Kind.AUTH, cause="replay_unknown")
        return key_id

    def _mark(self, key_id: str) -> str:
        return hmac.new(self._secret, key_id.encode(), hashlib.sha256).hexdigest()


class Replays:
    """The replayed calls that are under way."""

    def __init__(
        self, host: EngineHost, lane: InspectLane, new_id: Callable[[], str], *, secret: bytes
    ) -> None:
        self._host = host
        self._lane = lane
        self._new_id = new_id
        self.notes = Notes(secret)
        self._running: dict[str, asyncio.Task[http.Response]] = {}
        """By flow id."""

    def __len__(self) -> int:
        """Return how many are not over yet."""
        return len(self._running)

    async def answer(self, flow: http.HTTPFlow, what: Recognised, origin: Origin) -> http.Response | None:
        """Return the answer to a replayed call, None where its user has killed it."""
        flow.metadata.pop("tokenhub", None)
        flow.comment = flow.marked = ""
        if secrets := redact(flow.request):
            # mitmproxy has put by what the user typed in.
            flow._backup = None
            flow.backup()  # type: ignore[no-untyped-call] # mitmproxy's
        if what.operation != CHAT:
            message = "only routed calls can be replayed"
            fault = Fault(Kind.INVALID, Blame.CLIENT, message, cause="replay_refused")
            return self._refused(flow, fault, what, origin)
        bare = flow.request.copy()
        # What the user has typed in goes along; what was redacted before is gone.
        bare.headers.fields = tuple(unredacted(bare.headers.fields, secrets))
        bare.path = path_of(bare, secrets)
        drop_masks(bare)
        work = self._running[flow.id] = asyncio.create_task(
            self._asked(flow, bare, what, origin), name=f"tokenhub replay {flow.id}"
        )
        try:
            await asyncio.wait([work])
        finally:
            work.cancel()
            del self._running[flow.id]
        return None if work.cancelled() else work.result()

    def kill(self, flow: base.Flow) -> None:
        """Stop a replay that its user has killed; nothing where it is none."""
        if (work := self._running.get(flow.id)) is not None:
            work.cancel()

    async def _asked(
        self, flow: http.HTTPFlow, bare: http.Request, what: Recognised, origin: Origin
    ) -> http.Response:
        try:
            entry = await self._entry(flow, bare, what, origin)
            engine = await self._host.engine()
        except TokenHubError as error:
            return self._refused(flow, error.fault, what, origin)
        clock = self._lane.clock
        snapshot = Snapshot(
            id=self._new_id(),
            method=bare.method,
            path=entry.path,
            headers=entry.headers,
            body=bare.data.content or b"",
            received_at=clock.now(),
            started=clock.monotonic(),
            dialect=what.dialect,
            origin=origin,
            caller=caller(flow, entry),
        )
        self.notes.put(flow, entry.key)
        reply = await engine.exchange(snapshot)
        response = whole(Reply(reply.status, reply.headers, await _body(reply)), flow.request)
        if reply.summary is not None:
            note(flow, reply.summary)
        return response

    async def _entry(
        self, flow: http.HTTPFlow, bare: http.Request, what: Recognised, origin: Origin
    ) -> Entry:
        """Return the call as it comes in; raises `TokenHubError` where it may not."""
        gemini = what.dialect is Dialect.GEMINI
        found = identity.find(lower(bare.headers.fields), bare.path, gemini=gemini)
        keeper, now = await self._host.keeper(), self._lane.clock.now()
        key_id = "" if found.secret else self.notes.key_id(flow)
        if key_id:
            key = keeper.again(key_id, now)
            entry = Entry(found.headers, found.path, key, called(key))
        else:
            entry = keeper.admit(found, near=near(flow.client_conn), now=now)
        allow(entry.key, scope_of(what.dialect), host=origin.host)
        return entry

    def _refused(self, flow: http.HTTPFlow, fault: Fault, what: Recognised, origin: Origin) -> http.Response:
        flow.marked, flow.comment = ":warning:", fault.label
        return self._lane.refuse(flow, fault, what, origin)


async def _body(reply: Reply) -> bytes:
    """Return the whole body of a reply, of a stream its beginning."""
    if reply.frames is None:
        return reply.body
    kept = bytearray()
    async for frame in reply.frames:
        if len(kept) < _KEPT:
            kept += frame
    return bytes(kept)
