"""What somebody who looks at flows can ask and do, with the real engine and its simulator behind it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from mitmproxy import contentviews, exceptions, flowfilter, http
from mitmproxy.tools.console import keymap

from tests.addon.clients import CHAT, H1, OPENAI
from tests.addon.inspection import Inspection, inspecting
from tests.addon.scripted import ScriptedEngine
from tests.fakes.trust import trust_is_read_once
from tokenhub_addon.desk import tell
from tokenhub_addon.engines import of
from tokenhub_addon.flows import NOTE
from tokenhub_addon.host import AddonOptions, Office, Running
from tokenhub_addon.reading import changed
from tokenhub_core import app, config
from tokenhub_core.admission.apikeys import KeyBody
from tokenhub_core.apikeys import ApiKeys
from tokenhub_core.app import App
from tokenhub_core.clock import SystemClock
from tokenhub_core.types import Dialect, Json

BODY: Json = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}


@dataclass(slots=True)
class Room:
    """The lane, and the application behind it."""

    lane: Inspection
    app: App

    @property
    def keys(self) -> ApiKeys:
        return cast("ApiKeys", self.app.keys)

    async def call(self, *, key: str = "", body: Json = BODY, **more: Any) -> http.HTTPFlow:
        """Make a call through the proxy, and return its flow once the log has told of it."""
        auth = f"anybody:{key}" if key else ""
        async with await H1.tls(self.lane.proxy, auth=auth) as client:
            await client.ask(CHAT, orjson.dumps({**body, **more}))
        flow = self.lane.flow
        await self.told(flow)
        return flow

    async def told(self, flow: http.HTTPFlow) -> None:
        await self.lane.until(lambda: "outcome" in flow.metadata.get("tokenhub", {}))

    async def replayed(self, flow: http.HTTPFlow) -> http.Response:
        self.lane.call("replay.client", [flow])
        await self.lane.until(lambda: flow.response is not None)
        assert flow.response is not None
        return flow.response


@asynccontextmanager
async def room(confdir: Path, folder: Path, **settings: Any) -> AsyncIterator[Room]:
    found: list[App] = []

    @asynccontextmanager
    async def make(_: AddonOptions) -> AsyncIterator[Running]:
        parsed = config.parse({}, data_dir=folder, overrides={"simulate": True, **settings})
        with trust_is_read_once():
            async with app.running(parsed, {}) as it:
                found.append(it)
                yield replace(of(it), office=Office(it.requests.get, it.catalog.put_mode))

    options = {f"tokenhub_{name}": value for name, value in settings.items()}
    async with inspecting(confdir, ScriptedEngine(), make=make, clock=SystemClock(), **options) as lane:
        await lane.until(lambda: bool(found))
        yield Room(lane, found[0])


async def test_a_flow_is_told_what_the_log_says_of_it(confdir: Path, tmp_path: Path) -> None:
    """Tokens, cost and outcome stand in its metadata and its comment; filters find them; the command shows them all."""
    async with room(confdir, tmp_path) as it:
        flow = await it.call()
        facts = flow.metadata["tokenhub"]
        assert (facts["outcome"], facts["model"], facts["asked"]) == ("ok", "gpt-4o", "gpt-4o")
        assert facts["output_tokens"] > 0
        assert facts["cost_usd"] > 0
        assert "gpt-4o @ sim-openai · routed-hint-exact · 1 attempt · " in flow.comment
        assert flow.comment.endswith(f"${facts['cost_usd']:.6f}")

        for found in (
            "~meta \"'provider': 'sim-openai'\"",
            "~meta \"'outcome': 'ok'\"",
            "~comment sim-openai",
        ):
            assert flowfilter.match(found, flow), found
        assert not flowfilter.match("~meta \"'outcome': 'error'\"", flow)

        told = it.lane.call("tokenhub.explain", [flow])
        assert f"How {facts['request_id']} was routed" in told
        assert "served by gpt-4o @ sim-openai" in told

        lost = await it.call(body={**BODY, "model": "nobody-has-this"})
        assert lost.marked == ":warning:"
        assert flowfilter.match("~meta model_not_found", lost)


async def test_a_call_reads_as_a_conversation(confdir: Path, tmp_path: Path) -> None:
    """Question and answer by who said them, streamed or not, and below it who decided and the cost; not an error."""
    async with room(confdir, tmp_path) as it:
        for stream in (False, True):
            flow = await it.call(stream=stream)
            asked = contentviews.prettify_message(flow.request, flow)
            assert asked.view_name == "Conversation"
            assert asked.text.splitlines()[-2:] == ["user:", "    Why is the sky blue?"]

            assert flow.response is not None
            answered = contentviews.prettify_message(flow.response, flow)
            assert answered.view_name == "Conversation"
            facts = flow.metadata["tokenhub"]
            lines = answered.text.splitlines()
            assert lines[0].startswith("assistant (gpt-4o")
            assert any(line.startswith("stopped: ") for line in lines)
            tokens = f"{facts['input_tokens']} + {facts['output_tokens']} tokens"
            assert lines[-2:] == [
                "served by gpt-4o @ sim-openai: routed-hint-exact",
                f"1 attempt, {tokens}, ${facts['cost_usd']:.6f}, {facts['request_id']}",
            ]
        lost = await it.call(body={**BODY, "model": "nobody-has-this"})
        assert lost.response is not None
        assert contentviews.prettify_message(lost.response, lost).view_name == "JSON"
        lost.request.content = b'{"messages": 7}'
        assert "messages" in contentviews.prettify_message(lost.request, lost).text


async def test_the_commands_do_what_they_say(confdir: Path, tmp_path: Path) -> None:
    """`resend` leaves the flow as it was and makes a new one, `simulate` makes none, `mode` sets that of its host."""
    async with room(confdir, tmp_path) as it:
        flow = await it.call()
        told = it.lane.call("tokenhub.simulate", flow, "model=gpt-4o-mini")
        assert "gpt-4o-mini @ sim-openai would be asked first" in told
        assert "gpt-4o @ sim-openai would be asked first" in it.lane.call("tokenhub.simulate", flow)
        assert len(it.lane.view) == 1

        it.lane.master.commands.execute("tokenhub.resend @focus model=gpt-4o-mini temperature=0")
        again = it.lane.flow
        assert again is not flow
        await it.told(again)
        assert again.metadata["tokenhub"]["model"] == "gpt-4o-mini"
        assert orjson.loads(again.request.content or b"")["temperature"] == 0
        assert orjson.loads(flow.request.content or b"")["model"] == "gpt-4o"
        for command in ("tokenhub.resend", "tokenhub.simulate"):
            with pytest.raises(exceptions.CommandError, match="expected name=value"):
                it.lane.call(command, flow, "gpt-4o-mini")

        it.lane.call("tokenhub.mode", flow, "observe")
        await it.lane.until(lambda: it.app.watcher.modes().of(OPENAI).value == "observe")
        assert it.lane.call("tokenhub.mode", flow) is None
        with pytest.raises(exceptions.CommandError, match="route, shadow, observe, off"):
            it.lane.call("tokenhub.mode", flow, "sometimes")
        assert it.lane.call("tokenhub.shadow", [flow]) == "none of these calls was in shadow"


# --- whose call it is ----------------------------------------------------------------------------------------


async def test_a_replay_is_made_for_its_first_caller(confdir: Path, tmp_path: Path) -> None:
    """Where callers have to show a key: as long as that key is good, however often, by a copy too; never without it."""
    async with room(confdir, tmp_path, anonymous=False) as it:
        kept, secret = await it.keys.create(KeyBody(name="ann"))
        flow = await it.call(key=secret.reveal())
        assert secret.reveal() not in str(flow.get_state())
        assert (await it.replayed(flow)).status_code == 200
        await it.told(flow)
        assert flow.metadata["tokenhub"]["key"] == kept.key.id

        it.lane.call("tokenhub.resend", flow, "model=gpt-4o-mini")
        copy = it.lane.flow
        await it.told(copy)
        assert copy.metadata["tokenhub"]["key"] == kept.key.id

        stranger = flow.copy()  # type: ignore[no-untyped-call] # mitmproxy's
        stranger.metadata.pop(NOTE)
        assert (await it.replayed(stranger)).status_code == 401

        other, _ = await it.keys.create(KeyBody(name="bob"))
        forged = flow.copy()  # type: ignore[no-untyped-call] # mitmproxy's
        forged.metadata[NOTE] = forged.metadata[NOTE].replace(kept.key.id, other.key.id)
        refused = await it.replayed(forged)
        assert refused.status_code == 401
        assert b"nobody can tell whose call it is" in (refused.content or b"")

        await it.keys.change(kept.key.id, KeyBody(enabled=False))
        assert (await it.replayed(flow)).status_code == 401
        await it.keys.change(kept.key.id, KeyBody(enabled=True))
        assert (await it.replayed(flow)).status_code == 200
        await it.keys.revoke(kept.key.id)
        assert (await it.replayed(flow)).status_code == 401


async def test_a_key_that_is_typed_in_counts(confdir: Path, tmp_path: Path) -> None:
    """The user may edit the request: a key of ours in it is asked for, and is in no flow afterwards; nor in a file."""
    async with room(confdir, tmp_path, anonymous=False) as it:
        _, secret = await it.keys.create(KeyBody(name="ann"))
        kept, mine = await it.keys.create(KeyBody(name="operator"))
        flow = await it.call(key=secret.reveal())
        flow.request.headers["authorization"] = f"Bearer {mine.reveal()}"
        assert (await it.replayed(flow)).status_code == 200
        await it.told(flow)
        assert flow.metadata["tokenhub"]["key"] == kept.key.id
        assert mine.reveal() not in str(flow.get_state())

        assert flow.metadata[NOTE]
        saved = tmp_path / "flows"
        it.lane.call("save.file", [flow], str(saved))
        assert b"sim-openai" in saved.read_bytes()
        assert NOTE.encode() not in saved.read_bytes()


# --- changes by hand, and what a flow is told ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "path", "changes", "wanted"),
    [
        (Dialect.OPENAI_CHAT, CHAT, [], (CHAT, {"model": "a", "n": 1})),
        (Dialect.OPENAI_CHAT, CHAT, ["model=b"], (CHAT, {"model": "b", "n": 1})),
        (Dialect.OPENAI_CHAT, CHAT, ["model=7"], (CHAT, {"model": "7", "n": 1})),
        (Dialect.OPENAI_CHAT, CHAT, ["n=", "user=ann=b"], (CHAT, {"model": "a", "user": "ann=b"})),
        (Dialect.OPENAI_CHAT, CHAT, ["stop=[1]"], (CHAT, {"model": "a", "n": 1, "stop": [1]})),
        (
            Dialect.GEMINI,
            "/v1beta/models/gemini-x:generateContent?alt=sse",
            ["model=gemini-y"],
            ("/v1beta/models/gemini-y:generateContent?alt=sse", {"model": "a", "n": 1}),
        ),
    ],
)
def test_a_change_is_a_field_of_the_body(
    dialect: Dialect, path: str, changes: list[str], wanted: tuple[str, Json]
) -> None:
    """JSON where it is JSON, else text; empty takes the field out; Gemini's model stands in the path."""
    where, body = changed(dialect, path, b'{"model":"a","n":1}', changes)
    assert (where, orjson.loads(body)) == wanted


@pytest.mark.parametrize(
    ("change", "body"), [("nothing", b"{}"), ("=x", b"{}"), ("a=b", b"[]"), ("a=b", b"{")]
)
def test_a_change_that_is_none_is_refused(change: str, body: bytes) -> None:
    """With a ValueError, which the command tells."""
    with pytest.raises(ValueError, match=r"."):
        changed(Dialect.OPENAI_CHAT, CHAT, body, [change])


ROW: Json = {
    "id": "r",
    "model_id": "m",
    "provider_id": "p",
    "reason": "why",
    "attempts": [{}],
    "error_class": "",
    "outcome": "ok",
    "requested_model": "asked",
    "input_tokens": 2,
    "output_tokens": 3,
    "cost_nanousd": 5_000,
    "key_id": "",
    "shadow": None,
}
SHADOW: Json = {"model": "n", "provider": "q", "fault": ""}


@pytest.mark.parametrize(
    ("row", "marker", "comment"),
    [
        ({}, "", "m @ p · why · 1 attempt · 5 tokens · $0.000005"),
        ({"attempts": [{}, {}]}, ":repeat:", "m @ p · why · 2 attempts · 5 tokens · $0.000005"),
        (
            {"outcome": "error", "error_class": "http_500"},
            ":warning:",
            "m @ p · why · 1 attempt · http_500 · 5",
        ),
        ({"outcome": "cancelled"}, ":scissors:", "m @ p · why · 1 attempt · cancelled"),
        (
            {"outcome": "passed", "model_id": "", "attempts": [], "shadow": SHADOW},
            ":eyes:",
            "why · passed · 5 tokens · $0.000005 · in shadow: n @ q",
        ),
        ({"outcome": "passed", "shadow": {**SHADOW, "model": "", "fault": "budget"}}, ":eyes:", "m @ p"),
    ],
)
def test_a_flow_is_marked_by_its_outcome(row: Json, marker: str, comment: str) -> None:
    """Errors, calls given up, second tries and calls in shadow are told apart in the list."""
    request = http.Request.make("POST", f"https://{OPENAI}/")
    flow = http.HTTPFlow(cast("Any", None), cast("Any", None))
    flow.request = request
    tell(flow, {**ROW, **row})
    assert flow.marked == marker
    assert flow.comment.startswith(comment)


# --- the manual ------------------------------------------------------------------------------------------------


def test_the_manual_shows_what_there_is() -> None:
    """Every command and option stands in it, and its bindings are ones that mitmproxy takes, for commands of ours."""
    text = (Path(__file__).parents[2] / "docs" / "console.md").read_text()
    commands = {found[1] for found in re.finditer(r'@command\.command\("(tokenhub\.\w+)"\)', _source("desk"))}
    assert len(commands) == 5
    for name in commands:
        assert f"| `{name} " in text
    for found in re.finditer(r'^            \(\s*"(\w+)",\s*\w', _source("addon"), re.MULTILINE):
        assert f"| `tokenhub_{found[1]}` |" in text
    shown = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert shown is not None
    bindings = keymap.KeymapConfig(cast("Any", None)).parse(shown[1])  # type: ignore[no-untyped-call] # mitmproxy's
    known = keymap.Keymap(cast("Any", None))  # type: ignore[no-untyped-call] # mitmproxy's
    for one in bindings:
        known._check_contexts(one["ctx"])  # type: ignore[no-untyped-call] # mitmproxy's
        assert {*re.findall(r"tokenhub\.\w+", one["cmd"])} <= commands
    assert {name for one in bindings for name in re.findall(r"tokenhub\.\w+", one["cmd"])} == commands


def _source(name: str) -> str:
    return (Path(__file__).parents[2] / "addon" / "tokenhub_addon" / f"{name}.py").read_text()
