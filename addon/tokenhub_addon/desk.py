"""What somebody who looks at flows can ask and do: in mitmproxy's console, in mitmweb, and with `-s` in either.

Once a call has ended, its flow is told what the request log says of it: tokens, cost and outcome, in its metadata, its
comment and its marker. The commands read the same line, or ask the engine what it would do now.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from mitmproxy import command, contentviews, ctx, exceptions, http
from mitmproxy import flow as base
from mitmproxy.hooks import UpdateHook
from mitmproxy.log import ALERT
from rich.console import Console, RenderableType

from tokenhub_addon import flows as told
from tokenhub_addon.flows import REPEAT, WARNING, caller, drop_masks, lower
from tokenhub_addon.guard import Guarded, addon
from tokenhub_addon.host import EngineHost
from tokenhub_addon.passing import Ticket
from tokenhub_addon.reading import ConversationView, changed
from tokenhub_addon.replaying import Notes
from tokenhub_core.cli.decision import explained, imagined
from tokenhub_core.errors import TokenHubError
from tokenhub_core.http.decisions import of_record, of_simulation
from tokenhub_core.modes import HostMode, Match, Rule
from tokenhub_core.ports import Clock
from tokenhub_core.recognise import CHAT, Recognised
from tokenhub_core.types import NANO, Json, Origin, Snapshot

_ID: Final = "tokenhub_id"
"""The name in a flow's metadata of the id of its record, where the engine has not said it."""
_WIDTH: Final = 110
_WAITS: Final = (0.0, 0.2, 0.5, 1.0, 2.0)
"""Seconds before each look for a record that is on its way to the store."""

_log: Final = logging.getLogger(__name__)

type Target = Callable[[http.HTTPFlow], tuple[Recognised, Origin] | None]
"""Returns what a flow's request asks for and where it was going, None where it is for nobody we know."""


class Desk(Guarded):
    """The commands, the view of conversations, and what is told to flows afterwards."""

    name = "tokenhub_desk"

    def __init__(self, host: EngineHost, notes: Notes, target: Target, clock: Clock) -> None:
        super().__init__()
        self._host = host
        self._notes = notes
        self._target = target
        self._clock = clock
        self._view = ConversationView(target)
        self._tasks: set[asyncio.Task[None]] = set()

    def load(self, loader: object) -> None:
        """Offer the view of conversations."""
        del loader
        contentviews.add(self._view)

    def done(self) -> None:
        """Leave flows that wait for their record as they are."""
        for task in self._tasks:
            task.cancel()

    def accepted(self, flow: http.HTTPFlow, ticket: Ticket) -> None:
        """Hear of a call that was let in, before anybody answers it."""
        flow.metadata[_ID] = ticket.id
        self._notes.put(flow, ticket.entry.key)

    def response(self, flow: http.HTTPFlow) -> None:
        """Tell the flow what came of it."""
        self._follow(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        """Tell the flow what came of it."""
        self._follow(flow)

    # --- commands

    @command.command("tokenhub.explain")  # type: ignore[untyped-decorator] # mitmproxy's
    def explain(self, flows: Sequence[base.Flow]) -> str:
        """Show how these calls were routed: candidates, attempts, tokens, cost."""
        return "\n".join(self._explained(flow) for flow in flows)

    @command.command("tokenhub.simulate")  # type: ignore[untyped-decorator] # mitmproxy's
    def simulate(self, flow: base.Flow, *changes: str) -> str:
        """Show where this call would go now, without making it; with changes like `model=gpt-4o-mini`."""
        changing = self._changed(flow, changes)
        what, origin = self._called(changing)
        watcher = self._host.watcher
        if watcher is None:
            raise exceptions.CommandError("TokenHub's engine does not run")
        bare = changing.request.copy()
        drop_masks(bare)
        snapshot = Snapshot(
            id="simulated",
            method=bare.method,
            path=bare.path,
            headers=lower(bare.headers.fields),
            body=bare.data.content or b"",
            received_at=self._clock.now(),
            started=self._clock.monotonic(),
            dialect=what.dialect,
            origin=origin,
            caller=caller(changing),
        )
        foreseen = watcher.engine.foresee(snapshot)
        if foreseen.plan is None:
            fault = foreseen.fault
            return f"it would be refused: {fault.message}" if fault else "nothing can be told of it"
        told_of = of_simulation(foreseen.plan, foreseen.fault)
        return _text(imagined({"dialect": what.dialect.value, **told_of}))

    @command.command("tokenhub.resend")  # type: ignore[untyped-decorator] # mitmproxy's
    def resend(self, flow: base.Flow, *changes: str) -> None:
        """Make this call again as a new flow; with changes like `model=gpt-4o-mini` or `temperature=0`."""
        again = self._changed(flow, changes)
        self._called(again)
        again.response = again.error = None
        view = addon("view")
        view.add([again])
        ctx.master.commands.call("replay.client", [again])

    @command.command("tokenhub.mode")  # type: ignore[untyped-decorator] # mitmproxy's
    def mode(self, flow: base.Flow, mode: str = "") -> None:
        """Say what is done with calls to this flow's host, or set it: route, shadow, observe, off."""
        host = self._known(flow)[1].host
        if not mode:
            watcher = self._host.watcher
            found = watcher.modes().of(host) if watcher is not None else HostMode.ROUTE
            _log.log(ALERT, "calls to %s: %s", host, found.value)
            return
        if mode not in [*HostMode]:
            raise exceptions.CommandError(f"{mode}: one of {', '.join(HostMode)}")
        office = self._host.office
        if office is None:
            raise exceptions.CommandError("TokenHub's engine does not run, or is somebody else's")
        self._spawn(self._put(host, HostMode(mode)))

    @command.command("tokenhub.shadow")  # type: ignore[untyped-decorator] # mitmproxy's
    def shadow(self, flows: Sequence[base.Flow]) -> str:
        """Show what calls in shadow would have come to, each and in sum."""
        return "\n".join(_shadowed(filter(None, map(self._row, flows))))

    # --- ours

    def _explained(self, flow: base.Flow) -> str:
        row = self._row(flow)
        return told.explained(flow) if row is None else _text(explained(of_record(row)))

    def _row(self, flow: base.Flow) -> Json | None:
        """Return the line of the request log about a flow, None where there is none."""
        known = flow.metadata.get("tokenhub") or {}
        name = str(known.get("request_id") or flow.metadata.get(_ID, ""))
        office = self._host.office
        return office.record(name) if office is not None and name else None

    def _known(self, flow: base.Flow) -> tuple[Recognised, Origin]:
        found = self._target(flow) if isinstance(flow, http.HTTPFlow) else None
        if found is None:
            raise exceptions.CommandError("this flow is for no host that TokenHub knows")
        return found

    def _called(self, flow: base.Flow) -> tuple[Recognised, Origin]:
        found = self._known(flow)
        if found[0].operation != CHAT:
            raise exceptions.CommandError("this flow is no call that TokenHub routes")
        return found

    def _changed(self, flow: base.Flow, changes: Sequence[str]) -> http.HTTPFlow:
        """Return a copy of a flow with changes to its call."""
        what, _ = self._called(flow)
        assert isinstance(flow, http.HTTPFlow)
        again: http.HTTPFlow = flow.copy()  # type: ignore[no-untyped-call] # mitmproxy's
        again.comment = again.marked = ""
        for name in ("tokenhub", _ID):
            again.metadata.pop(name, None)
        request = again.request
        try:
            path, body = changed(what.dialect, request.path, request.content or b"", changes)
        except ValueError as error:
            raise exceptions.CommandError(str(error)) from None
        if changes:
            request.path, request.content = path, body
        return again

    async def _put(self, host: str, mode: HostMode) -> None:
        office = self._host.office
        assert office is not None
        try:
            await office.put_mode(Rule(Match(host), mode))
        except TokenHubError as error:
            _log.error("the mode of %s stays: %s", host, error.fault.message)
        else:
            _log.log(ALERT, "calls to %s: %s", host, mode.value)

    def _follow(self, flow: http.HTTPFlow) -> None:
        if self._host.office is not None and ("tokenhub" in flow.metadata or _ID in flow.metadata):
            self._spawn(self._tell(flow))

    async def _tell(self, flow: http.HTTPFlow) -> None:
        """Wait for the record of a flow, and put into the flow what is for people and for filters."""
        for delay in _WAITS:
            await asyncio.sleep(delay)
            row = await asyncio.to_thread(self._row, flow)
            if row is not None:
                tell(flow, row)
                ctx.master.addons.trigger(UpdateHook([flow]))
                return

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name="tokenhub desk")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def tell(flow: http.HTTPFlow, row: Json) -> None:
    """Put into a flow what its record says: metadata for filters, a comment and a marker for the list."""
    shadow = row.get("shadow") or {}
    facts = {
        "request_id": row["id"],
        "model": row["model_id"],
        "provider": row["provider_id"],
        "reason": row["reason"],
        "attempts": len(row["attempts"]),
        "fault": row["error_class"],
        "outcome": row["outcome"],
        "asked": row["requested_model"],
        "input_tokens": row["input_tokens"],
        "output_tokens": row["output_tokens"],
        "cost_usd": row["cost_nanousd"] / NANO,
        "key": row["key_id"],
    }
    if shadow:
        facts["shadow"] = f"{shadow['model']} @ {shadow['provider']}" if shadow["model"] else shadow["fault"]
    flow.metadata["tokenhub"] = facts
    flow.comment = _comment(facts)
    flow.marked = _marker(facts)


def _comment(facts: Json) -> str:
    tries = facts["attempts"]
    tokens = facts["input_tokens"] + facts["output_tokens"]
    parts = [
        f"{facts['model']} @ {facts['provider']}" if facts["model"] else "",
        facts["reason"],
        f"{tries} attempt{'' if tries == 1 else 's'}" if tries else "",
        facts["fault"],
        facts["outcome"] if facts["outcome"] in {"cancelled", "passed"} else "",
        f"{tokens} tokens" if tokens else "",
        f"${facts['cost_usd']:.6f}" if facts["cost_usd"] else "",
        f"in shadow: {facts['shadow']}" if facts.get("shadow") else "",
    ]
    return " · ".join(filter(None, parts))


def _marker(facts: Json) -> str:
    if facts["outcome"] == "error":
        return WARNING
    if facts["outcome"] == "cancelled":
        return ":scissors:"
    if facts.get("shadow"):
        return ":eyes:"
    return REPEAT if facts["attempts"] > 1 else ""


def _shadowed(rows: Iterable[Json]) -> Iterator[str]:
    paid = would = 0
    count = 0
    for row in rows:
        if not (shadow := row.get("shadow")):
            continue
        count += 1
        if shadow["fault"]:
            what = f"refused with {shadow['status']} {shadow['fault']}"
        elif shadow["same"]:
            what = "left where it was"
        else:
            what = f"{shadow['model']} @ {shadow['provider']}"
        cost = shadow["nanousd"]
        yield f"{row['requested_model']} @ {row['origin_host']}: {what}{_money(row['cost_nanousd'], cost)}"
        if cost is not None:
            paid, would = paid + row["cost_nanousd"], would + cost
    yield f"{count} in shadow{_money(paid, would)}" if count else "none of these calls was in shadow"


def _money(paid: int, would: int | None) -> str:
    return "" if would is None else f" (paid ${paid / NANO:.6f}, would have paid ${would / NANO:.6f})"


def _text(what: RenderableType) -> str:
    """Return what the command line would print, without colours."""
    console = Console(file=io.StringIO(), width=_WIDTH, highlight=False, emoji=False, color_system=None)
    with console.capture() as captured:
        console.print(what)
    return captured.get().rstrip("\n")
