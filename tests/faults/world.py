"""One TokenHub that runs, with all its lanes, between callers and providers that are both under control.

    async with world(folder) as it:
        turn = it.turn(3)
        turn.meets("cut:reset")
        got = await turn.call()

A turn is one repetition. What differs from turn to turn follows from its number: the lane, what the caller speaks, what
the providers speak, whether the answer is streamed. Every turn has a slot: two providers that serve the same model. A
slot is fresh at the beginning of a turn: nothing is held against its providers, and they answer well. Faults are met in
the order of attempts, whoever is asked (`meets`), so that no scene hangs on how candidates are ordered.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import orjson

from tests.fakes.trust import trust_is_read_once
from tests.faults.chaos import Chaos
from tests.patience import PATIENCE
from tokenhub_addon.listening import Served, serving
from tokenhub_core import config
from tokenhub_core.dispatch.executor import Executor
from tokenhub_core.dispatch.job import Patience
from tokenhub_core.pipeline import Pipeline
from tokenhub_core.types import Dialect, Headers, Json, Lane, header

LANES: Final = (Lane.DIRECT, Lane.HANDOFF, Lane.INSPECT)
CALLERS: Final = ("openai", "anthropic", "gemini", "responses")
SPEAKS: Final = ("openai", "anthropic", "gemini")
SLOTS: Final = 6
QUICK: Final = Patience(connect=0.8, ttft=1.0, stall=1.0, whole=1.2, gather=0.001, tick=0.25)
"""How long attempts may take in scenes whose provider falls silent."""
CALM: Final = Patience(connect=10.0, ttft=20.0, stall=20.0, whole=20.0, gather=0.001, tick=5.0)
"""And in all others: a busy machine is no fault."""

_HOSTS: Final = {
    "openai": ("api.openai.com", "/v1/chat/completions"),
    "responses": ("api.openai.com", "/v1/responses"),
    "anthropic": ("api.anthropic.com", "/v1/messages"),
}
_INPUT: Final = 0.002
_OUTPUT: Final = 0.008


_BREAK: Final = re.compile(rb"\r\n?|\n|\xef\xbb\xbf")


def asked(dialect: str, model: str, *, stream: bool, text: str = "Tell me") -> Json:
    """Return a small call in the words of its dialect."""
    match dialect:
        case "openai":
            return {
                "model": model,
                "stream": stream,
                "max_tokens": 200,
                "messages": [{"role": "user", "content": text}],
            }
        case "anthropic":
            return {
                "model": model,
                "stream": stream,
                "max_tokens": 200,
                "messages": [{"role": "user", "content": text}],
            }
        case "responses":
            return {"model": model, "stream": stream, "max_output_tokens": 200, "input": text}
    return {
        "contents": [{"role": "user", "parts": [{"text": text}]}],
        "generationConfig": {"maxOutputTokens": 200},
    }


@dataclass(frozen=True)
class Got:
    """What a caller got, and how it ended."""

    dialect: str
    streamed: bool
    status: int
    headers: Headers
    body: bytes = field(repr=False)
    took: float
    broke: str = ""
    """The error that reading it ended with, empty where it came to an end."""
    pieces: int = 0
    """How often a part of the body has come."""

    @property
    def id(self) -> str:
        return header(self.headers, "x-request-id")

    @property
    def sse(self) -> bool:
        return header(self.headers, "content-type").startswith("text/event-stream")

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of a stream's events, those that are JSON; in whatever dress they come."""
        lines = [line[5:].strip() for line in _BREAK.split(self.body) if line.startswith(b"data:")]
        return [orjson.loads(line) for line in lines if line.startswith(b"{")]

    @property
    def words(self) -> str:
        """The text of the answer, whole or so far."""
        if not self.streamed:
            return _text(self.dialect, self.json)
        return "".join(_piece(self.dialect, one) for one in self.events)

    @property
    def ended(self) -> bool:
        """Whether the stream has the event that says that all of it has come."""
        match self.dialect:
            case "openai":
                return any(line in (b"data: [DONE]", b"data:[DONE]") for line in _BREAK.split(self.body))
            case "anthropic":
                return b'"type":"message_stop"' in self.body
            case "responses":
                return b'"type":"response.completed"' in self.body
        return b'"finishReason"' in self.body

    @property
    def said(self) -> str:
        """The message of the error, that of the answer or that of the stream's last event; empty without one."""
        if self.streamed and self.sse:
            errors = [one for one in self.events if _error(one)]
            return str(_error(errors[-1])["message"]) if errors else ""
        try:
            found = _error(self.json)
        except orjson.JSONDecodeError:
            return ""
        return str(found.get("message", ""))

    def whole(self, words: str) -> None:
        """Hold it to be an answer with just these words, come to its end, without an error in it."""
        assert (self.status, self.broke, self.said) == (200, "", ""), (self, self.body[-300:])
        assert not self.streamed or self.ended, self.body[-300:]
        assert self.words == words, (self.dialect, self.streamed, self.words, words)

    def broken(self, words: str) -> None:
        """Hold it to be a stream that ends in an error event, behind a beginning of these words and no ending."""
        assert self.status == 200, (self, self.body[:300])
        assert self.said, self.body[-300:]
        assert not self.ended, "it looks like an answer that has come to its end"
        assert words.startswith(self.words), (self.words, words)
        assert self.broke == "", self.broke

    def refused(self, *statuses: int) -> str:
        """Hold it to be an error in the caller's dialect, with one of these statuses; return what it says."""
        assert self.status in statuses, (self.status, statuses, self.body[:300])
        data = self.json
        data = data[0] if isinstance(data, list) else data
        match self.dialect:
            case "anthropic":
                assert data["type"] == "error"
            case "gemini":
                assert data["error"]["code"] == self.status
            case _:
                assert set(data["error"]) >= {"message", "type", "code"}
        assert self.id.startswith("req_"), self.headers
        return self.said


def _error(data: Any) -> Json:
    if isinstance(data, list):
        data = data[0] if data else {}
    found = data.get("error")
    if not found and data.get("type") == "error" and "message" in data:
        return dict(data)
    if not found and isinstance(data.get("response"), dict):
        found = data["response"].get("error")
    return found if isinstance(found, dict) else {}


def _text(dialect: str, data: Any) -> str:
    match dialect:
        case "openai":
            return "".join(one["message"].get("content") or "" for one in data["choices"])
        case "anthropic":
            return "".join(one.get("text", "") for one in data["content"])
        case "responses":
            return "".join(
                part.get("text", "") for one in data["output"] for part in one.get("content") or ()
            )
    return _gemini(data)


def _gemini(data: Any) -> str:
    return "".join(
        part.get("text", "")
        for one in data.get("candidates") or ()
        for part in (one.get("content") or {}).get("parts") or ()
        if not part.get("thought")
    )


def _piece(dialect: str, data: Any) -> str:
    match dialect:
        case "openai":
            return "".join(one["delta"].get("content") or "" for one in data.get("choices") or ())
        case "anthropic":
            return str(data["delta"].get("text", "")) if data["type"] == "content_block_delta" else ""
        case "responses":
            return str(data["delta"]) if data["type"] == "response.output_text.delta" else ""
    return _gemini(data)


_SAME: Final = {
    Dialect.OPENAI_CHAT: "openai",
    Dialect.ANTHROPIC_MESSAGES: "anthropic",
    Dialect.GEMINI: "gemini",
    Dialect.OPENAI_RESPONSES: "responses",
}


def words(fake: Chaos) -> str:
    """Return the words that a provider's last answer was to have."""
    dialect, script = fake.played[-1]
    body = b"".join(data for _, data in script.frames)
    kind = (("content-type", header(script.headers, "content-type")),)
    return Got(_SAME[dialect], kind[0][1] != "application/json", 200, kind, body, 0.0).words


@dataclass(frozen=True)
class Slot:
    """Two providers for one turn at a time, who share what the next attempts meet."""

    number: int
    first: Chaos
    spare: Chaos

    def fresh(self, *, apart: bool) -> None:
        """Let both answer well; `apart` they have scripts of their own."""
        first, spare = self.first, self.spare
        for fake in (first, spare):
            fake._scripts, fake._calls = {"*": ("ok",)}, {}
            fake.requests.clear()
            fake.played.clear()
        if not apart:
            spare._scripts, spare._calls = first._scripts, first._calls

    def model(self, speaks: str, spare: str = "") -> str:
        return f"m{self.number}-{speaks}-{spare or speaks}"

    def providers(self) -> list[str]:
        return [f"{what}{self.number}-{speaks}" for what in ("first", "spare") for speaks in SPEAKS]


@dataclass(frozen=True)
class Doors:
    """Where a TokenHub is found, and what opens its admin API."""

    proxy_url: str
    side_url: str
    ca_file: str
    token: str

    def trust(self) -> ssl.SSLContext:
        """Return the trust of a client that knows its authority."""
        return ssl.create_default_context(cafile=self.ca_file)


@dataclass
class Outside:
    """Callers and providers of a TokenHub that may be another process."""

    doors: Doors
    session: aiohttp.ClientSession
    trust: ssl.SSLContext
    slots: list[Slot]

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.doors.token}"}

    async def admin(self, method: str, path: str, body: Json | None = None) -> Json:
        """Ask the admin API for something that must succeed."""
        url = f"{self.doors.side_url}/admin/v1{path}"
        async with self.session.request(method, url, json=body, headers=self.bearer) as response:
            data: Json = await response.json()
            assert response.status < 300, (method, path, response.status, data)
            return data

    async def metrics(self) -> str:
        async with self.session.get(f"{self.doors.side_url}/metrics", headers=self.bearer) as response:
            return await response.text()


@dataclass
class World(Outside):
    """See the module."""

    served: Served
    folder: Path
    stop: Callable[[], Awaitable[None]]
    """Lets it leave, as a signal does."""

    @property
    def pipeline(self) -> Pipeline:
        """The engine itself, behind whatever stands before it."""
        engine: Any = self.served.app.engine
        while not isinstance(engine, Pipeline):
            engine = getattr(engine, "_engine", None) or engine._inner
        return engine

    @property
    def executor(self) -> Executor:
        return self.pipeline._executor

    async def record(self, name: str) -> Json:
        """Return the record of a call, once it is there."""
        async with asyncio.timeout(PATIENCE):
            while True:
                row = await asyncio.to_thread(self.served.app.requests.get, name)
                if row is not None:
                    return row
                await asyncio.sleep(0.01)

    def turn(self, number: int, *, apart: bool = False, **given: Any) -> Turn:
        """Return repetition `number`, fresh; `given` fixes what would follow from it."""
        slot = self.slots[number % len(self.slots)]
        slot.fresh(apart=apart)
        means = self.executor.means
        for name in slot.providers():
            means.health.forget(name)
            means.keyring.forget(name, at=means.clock.now(), why="a new turn")
            # A budget that other turns have used up says nothing about this one.
            means.retries._buckets.pop(name, None)
        return replace(Turn.of(self, number), **given)

    def open_upstream(self) -> int:
        """How many connections to providers are in use."""
        transport: Any = self.executor.means.transport
        return int(len(transport._open) + transport._sending)


@dataclass(frozen=True)
class Call:
    """A call of one caller, at a slot of two providers."""

    world: Outside
    number: int
    slot: Slot
    lane: Lane
    caller: str
    speaks: str
    spare_speaks: str
    stream: bool

    @classmethod
    def of(cls, it: Outside, number: int) -> Self:
        """Return call `number`, at a slot as it is."""
        return cls(
            it,
            number,
            it.slots[number % len(it.slots)],
            lane=LANES[number % 3],
            caller=CALLERS[number // 3 % 4],
            speaks=SPEAKS[number // 2 % 3],
            spare_speaks=SPEAKS[number // 5 % 3],
            stream=number % 2 == 0,
        )

    @property
    def first(self) -> Chaos:
        """The provider that was asked first."""
        asked = [fake for fake in (self.slot.first, self.slot.spare) if fake.requests]
        return min(asked, key=lambda fake: fake.requests[0].at) if asked else self.slot.first

    @property
    def spare(self) -> Chaos:
        """The other one."""
        return self.slot.spare if self.first is self.slot.first else self.slot.first

    @property
    def asked(self) -> int:
        """How many attempts have arrived."""
        return len(self.first.requests) + len(self.spare.requests)

    @property
    def model(self) -> str:
        return self.slot.model(self.speaks, self.spare_speaks)

    @property
    def providers(self) -> tuple[str, str]:
        """The ids under which the two of the slot are registered for this turn."""
        number = self.slot.number
        return f"first{number}-{self.speaks}", f"spare{number}-{self.spare_speaks}"

    def meets(self, *faults: str) -> None:
        """Say what the next attempts meet; those after them are answered well."""
        self.slot.first.script("*", [*faults, "ok"])

    def request(self, **more: Any) -> tuple[str, dict[str, Any]]:
        """Return where a call goes, and what goes with it."""
        stream, model = self.stream, more.pop("model", self.model)
        if self.caller == "gemini":
            verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
            host, path = "generativelanguage.googleapis.com", f"/v1beta/models/{model}:{verb}"
        else:
            host, path = _HOSTS[self.caller]
        headers = dict(more.pop("headers", {}))
        body = asked(self.caller, model, stream=stream, text=more.pop("text", "Tell me")) | more
        options: dict[str, Any] = {"data": orjson.dumps(body)}
        options["headers"] = {"content-type": "application/json", **headers}
        doors = self.world.doors
        match self.lane:
            case Lane.DIRECT:
                return doors.side_url + path, options
            case Lane.HANDOFF:
                options |= {"proxy": doors.proxy_url, "ssl": self.world.trust}
                return f"https://{host}{path}", options
        options |= {"proxy": doors.proxy_url}
        return f"http://{host}{path}", options

    async def call(self, *, within: float = PATIENCE, **more: Any) -> Got:
        """Make a call and read what comes of it, to whatever end."""
        url, options = self.request(**more)
        began = time.monotonic()
        body, broke, pieces = bytearray(), "", 0
        async with asyncio.timeout(within), self.world.session.post(url, **options) as response:
            try:
                async for piece in response.content.iter_any():
                    pieces += 1
                    body += piece
            except (aiohttp.ClientError, ConnectionError) as error:
                broke = repr(error)
            headers = tuple((name.lower(), value) for name, value in response.headers.items())
            took = time.monotonic() - began
            return Got(self.caller, self.stream, response.status, headers, bytes(body), took, broke, pieces)

    @asynccontextmanager
    async def open(self, **more: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make a call whose head has come; leaving the block is leaving the call."""
        url, options = self.request(**more)
        async with asyncio.timeout(PATIENCE), self.world.session.post(url, **options) as response:
            yield response
            response.close()

    def whole(self, got: Got, by: Chaos | None = None) -> None:
        """Hold it to be the whole answer of one provider, the spare one unless said otherwise."""
        fake = by or self.spare
        assert fake.played, "it was not asked"
        got.whole(words(fake))

    def broken(self, got: Got) -> None:
        """Hold it to be a beginning of the first provider's answer and an error; nobody else was asked."""
        got.broken(words(self.first))
        assert self.spare.requests == []


@dataclass(frozen=True)
class Turn(Call):
    """One repetition."""

    world: World

    async def record(self, got: Got) -> Json:
        return await self.world.record(got.id)


def settings_for(folder: Path, **settings: Any) -> dict[str, str]:
    """Return what such a TokenHub is set to, as variables; `settings` by their names, in place of others."""
    given = {
        "origin": "false",
        "affinity": "off",
        "fallback": "false",
        "shutdown_drain_secs": "0.2",
        "allow_private": "127.0.0.1,fault.test",
        "allow_http": "true",
        "credentials_file": str(folder / "credentials"),
        **{name: str(value) for name, value in settings.items()},
    }
    return {f"TOKENHUB_{name.upper()}": value for name, value in given.items()}


@asynccontextmanager
async def slots_of(count: int, seed: int = 0) -> AsyncIterator[list[Slot]]:
    """Run so many pairs of providers."""
    async with AsyncExitStack() as stack:
        yield [
            Slot(
                number,
                await stack.enter_async_context(Chaos(seed=seed * 100 + 2 * number)),
                await stack.enter_async_context(Chaos(seed=seed * 100 + 2 * number + 1)),
            )
            for number in range(count)
        ]


@asynccontextmanager
async def world(
    folder: Path, *, slots: int = SLOTS, seed: int = 0, quirks: Mapping[str, str] = {}, **settings: Any
) -> AsyncIterator[World]:
    """Run one; `settings` by their names, in place of those that scenes need; a quirk for models of a dialect."""
    given = settings_for(folder, **{"port": 0, "admin_port": 0, **settings})
    parsed = config.parse(given, data_dir=folder / "data")
    async with AsyncExitStack() as stack:
        stack.enter_context(trust_is_read_once())
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        made = await stack.enter_async_context(slots_of(slots, seed))
        # Last, so that it leaves first: callers and providers are there to see how it does.
        ours = await stack.enter_async_context(AsyncExitStack())
        served = await ours.enter_async_context(serving(parsed, {}))
        token = served.app.admin_token.reveal()
        doors = Doors(served.proxy_url, served.side_url, str(served.ca_file), token)
        it = World(doors, session, doors.trust(), made, served, folder, ours.aclose)
        it.executor.patience = CALM
        await asyncio.gather(*(register(it, slot, quirks) for slot in made))
        yield it


async def register(it: Outside, slot: Slot, quirks: Mapping[str, str] = {}) -> None:
    """Register both providers of a slot, in each of the dialects, and models for every two of them."""
    for what, fake in (("first", slot.first), ("spare", slot.spare)):
        for speaks in SPEAKS:
            provider = {"id": f"{what}{slot.number}-{speaks}", "type": speaks, "base_url": fake.url}
            await it.admin(
                "POST", "/providers", {**provider, "cred_store": "memory", "api_key": "sk-canary-lab"}
            )
    for speaks, spare in itertools.product(SPEAKS, SPEAKS):
        for what, own, price in (("first", speaks, 1.0), ("spare", spare, 4.0)):
            prices = {"input_per_1k": _INPUT * price, "output_per_1k": _OUTPUT * price}
            name = {"id": slot.model(speaks, spare), "provider_id": f"{what}{slot.number}-{own}"}
            habits = {"quirks": [quirks[own]]} if own in quirks else {}
            await it.admin("POST", "/models", {**name, **prices, **habits})
