"""Conversations in the running engine: they stay where they must, move where they have to, and outlive a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.dialects.conversations import CHAT, GEMINI, MESSAGES, OLLAMA, RESPONSES
from tests.fakes.engine import Bench
from tests.fakes.house import House, house
from tokenhub_core.clock import SystemClock
from tokenhub_core.learning import Learning
from tokenhub_core.preparing import Insight
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.routing.affinity import Affinity
from tokenhub_core.routing.bandit import STILL, Bandit
from tokenhub_core.routing.estimate import UNLEARNED, Estimates
from tokenhub_core.routing.learning import Learner
from tokenhub_core.routing.recompute import recompute
from tokenhub_core.routing.reward import Reward
from tokenhub_core.store.database import MEMORY, Database, open_database
from tokenhub_core.store.writer import Writer
from tokenhub_core.types import (
    Dialect,
    Json,
    Model,
    Outcome,
    Plan,
    Prices,
    Provider,
    ProviderType,
    Record,
    Snapshot,
    header,
)

SCHEMA: Json = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}


def simulated(name: str, dialect: Dialect) -> Provider:
    return Provider(name, ProviderType.SIMULATOR, (f"sim://{name}",), dialect)


HOMES = [
    simulated("one", CHAT),
    simulated("two", MESSAGES),
    simulated("three", CHAT),
    simulated("four", GEMINI),
]
STOCK = [
    Model("gpt-4o", "one", weight=6, prices=Prices(2_500, 10_000, cache_read=250)),
    Model("claude-sonnet-4-5", "two", weight=8, prices=Prices(3_000, 15_000)),
    Model("gpt-4o-mini", "three", weight=3, prices=Prices(150, 600)),
    Model("gemini-2.5-flash", "four", weight=5, prices=Prices(300, 2_500)),
]


def insight(*, explores: bool = True, estimates: Estimates = UNLEARNED) -> Insight:
    """Return what an engine knows that knows conversations again."""
    table, explorer = Affinity(b"salt"), Bandit() if explores else STILL
    return Insight(estimates, lambda: explorer, lambda: table)


def bench(**more: Any) -> Bench:
    """Return an engine that explores and knows conversations again."""
    return Bench(**{"models": STOCK, "providers": HOMES, "insight": insight(), **more})


def plan_of(record: Record) -> Plan:
    assert record.outcome is Outcome.OK, record
    assert record.plan is not None
    return record.plan


# --- tool loops -----------------------------------------------------------------------------------------------


class Agent:
    """A program that lets a model call a tool again and again, in one dialect."""

    def __init__(self, dialect: Dialect, task: str, **more: Any) -> None:
        self.dialect = dialect
        self._more = more
        first: Json = {"role": "user", "content": task}
        if dialect is GEMINI:
            first = {"role": "user", "parts": [{"text": task}]}
        self._turns: list[Json] = [first]

    def body(self) -> Json:
        """Return the next call: a tool has to be called."""
        asked: Json = {"model": "*", "stream": False, **self._more}
        match self.dialect:
            case Dialect.OPENAI_CHAT | Dialect.OLLAMA_CHAT:
                function = {"name": "look", "parameters": SCHEMA}
                asked |= {"messages": self._turns, "tools": [{"type": "function", "function": function}]}
                return asked if self.dialect is OLLAMA else asked | {"tool_choice": "required"}
            case Dialect.ANTHROPIC_MESSAGES:
                tools = [{"name": "look", "input_schema": SCHEMA}]
                return asked | {
                    "max_tokens": 400,
                    "messages": self._turns,
                    "tools": tools,
                    "tool_choice": {"type": "any"},
                }
            case Dialect.OPENAI_RESPONSES:
                tool: Json = {"type": "function", "name": "look", "parameters": SCHEMA, "strict": False}
                return asked | {"input": self._turns, "tools": [tool], "tool_choice": "required"}
        declared = [{"functionDeclarations": [{"name": "look", "parameters": SCHEMA}]}]
        forced = {"functionCallingConfig": {"mode": "ANY"}}
        return {"contents": self._turns, "tools": declared, "toolConfig": forced}

    def hear(self, answer: Json) -> None:
        """Take an answer, and give the results of the tools that it calls."""
        match self.dialect:
            case Dialect.OPENAI_CHAT:
                message = answer["choices"][0]["message"]
                results = [
                    {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}
                    for call in message["tool_calls"]
                ]
                self._turns += [message, *results]
            case Dialect.OLLAMA_CHAT:
                calls = answer["message"].get("tool_calls") or []
                self._turns += [
                    answer["message"],
                    *({"role": "tool", "tool_name": "look", "content": "sunny"} for _ in calls),
                ]
            case Dialect.ANTHROPIC_MESSAGES:
                calls = [block for block in answer["content"] if block["type"] == "tool_use"]
                told = [
                    {"type": "tool_result", "tool_use_id": call["id"], "content": "sunny"} for call in calls
                ]
                self._turns += [
                    {"role": "assistant", "content": answer["content"]},
                    {"role": "user", "content": told},
                ]
            case Dialect.OPENAI_RESPONSES:
                calls = [item for item in answer["output"] if item["type"] == "function_call"]
                outputs = [
                    {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
                    for call in calls
                ]
                self._turns += [*answer["output"], *outputs]
            case Dialect.GEMINI:
                content = answer["candidates"][0]["content"]
                calls = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
                told = [
                    {
                        "functionResponse": {
                            **{k: call[k] for k in ("id", "name") if k in call},
                            "response": {"output": "sunny"},
                        }
                    }
                    for call in calls
                ]
                self._turns += [content, {"role": "user", "parts": told}]


async def step(engine: Bench, agent: Agent) -> Record:
    """Let the agent make its next call; return its record."""
    snapshot = engine.snapshot(agent.body(), agent.dialect)
    if agent.dialect is GEMINI:
        snapshot = _at(snapshot, "/v1beta/models/*:generateContent")
    reply = await engine.engine.exchange(snapshot)
    assert reply.status == 200, reply.body
    agent.hear(orjson.loads(reply.body))
    return engine.recorder.records[-1]


def _at(snapshot: Snapshot, path: str) -> Snapshot:
    return Snapshot(**{name: getattr(snapshot, name) for name in snapshot.__struct_fields__} | {"path": path})


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, RESPONSES, GEMINI])
async def test_a_tool_loop_stays_with_who_began_it(dialect: Dialect) -> None:
    """Six programs with the same tools, ten rounds each, in turns, while exploring draws anew for every call."""
    engine = bench()
    agents = [Agent(dialect, f"Look at place {n}.") for n in range(6)]
    served: list[set[tuple[str, str]]] = [set() for _ in agents]
    for round_ in range(10):
        for agent, seen in zip(agents, served, strict=True):
            record = await step(engine, agent)
            plan = plan_of(record)
            seen.add((record.model, record.provider))
            drawn = {one.draw is not None for one in plan.candidates}
            if round_:
                assert plan.bond is not None
                assert (record.reason, plan.bond.lock, drawn) == ("routed-affinity", "tool_loop", {False})
            else:
                assert (record.reason, plan.bond, drawn) == ("routed-thompson", None, {True})
    assert [len(seen) for seen in served] == [1] * 6
    assert len(set.union(*served)) > 1


async def test_a_tool_that_is_called_by_name_alone_leads_back_too() -> None:
    """Ollama's clients give results without ids, and cannot force a call: one round each."""
    engine = bench()
    for n in range(8):
        agent = Agent(OLLAMA, f"Use the look tool for place {n}.")
        first, second = await step(engine, agent), await step(engine, agent)
        bond = plan_of(second).bond
        assert bond is not None
        assert (bond.lock, second.reason) == ("tool_loop", "routed-affinity")
        assert (second.model, second.provider) == (first.model, first.provider)


async def test_without_it_a_loop_is_torn_apart() -> None:
    """The same scene with affinity switched off: that is what it is for."""
    bandit = Bandit()
    engine = bench(insight=Insight(explorer=lambda: bandit))
    agent = Agent(CHAT, "Look at place 1.")
    records = [await step(engine, agent) for _ in range(10)]
    assert len({record.model for record in records}) > 1
    assert {plan_of(record).bond for record in records} == {None}


async def test_a_streamed_answers_tool_calls_are_known_as_well() -> None:
    """The ids stood in a stream, which went on as it came."""
    engine = bench(models=STOCK[:3])
    for n in range(8):
        opening = Agent(MESSAGES, f"Look at place {n}.", stream=True)
        _, frames = await engine.ask(opening.body(), MESSAGES)
        first = engine.recorder.records[-1]
        events = [orjson.loads(line[6:]) for line in frames.splitlines() if line.startswith(b"data: {")]
        calls = [one["content_block"] for one in events if one["type"] == "content_block_start"]
        (call,) = [block for block in calls if block["type"] == "tool_use"]
        opening.hear({"content": [{**call, "input": {"place": "x"}}]})
        await engine.ask(opening.body(), MESSAGES)
        second = engine.recorder.records[-1]
        bond = plan_of(second).bond
        assert bond is not None
        assert (bond.by, bond.lock) == ("calls", "tool_loop")
        assert (second.model, second.provider) == (first.model, first.provider)


async def test_a_provider_that_dies_in_a_loop_hands_it_over_and_the_tie_moves() -> None:
    """The third round fails over, with what is lost told; from then on the loop is at home with the new one."""
    faults = {"claude-sonnet-4-5": Profile(faults=("ok", "ok", "500"))}
    engine = bench(
        models=[Model("claude-sonnet-4-5", "two", weight=9), Model("gpt-4o-mini", "three", weight=1)],
        profiles=faults,
        insight=insight(explores=False),
        defaults={"mode": "high_confidence"},
    )
    agent = Agent(MESSAGES, "Look around.", top_k=5)
    records = [await step(engine, agent) for _ in range(5)]
    assert [record.model for record in records] == ["claude-sonnet-4-5"] * 2 + ["gpt-4o-mini"] * 3
    assert [record.reason for record in records] == [
        "routed-weight-9",
        "routed-affinity",
        "failover",
        "routed-affinity",
        "routed-affinity",
    ]
    assert records[1].losses == ()
    assert ["top_k" in record.losses for record in records[2:]] == [True] * 3
    bonds = [plan_of(record).bond for record in records]
    assert [bond and bond.model for bond in bonds] == [
        None,
        "claude-sonnet-4-5",
        "claude-sonnet-4-5",
        "gpt-4o-mini",
        "gpt-4o-mini",
    ]


@pytest.mark.parametrize(("fault", "stream"), [("500", False), ("content-error:500", True)])
async def test_a_call_that_failed_ties_nobody(fault: str, stream: bool) -> None:
    """Only who has answered has the conversation, and who broke off in the middle has not."""
    table = Affinity(b"salt")
    engine = bench(
        models=STOCK[:1], profiles={"gpt-4o": Profile(faults=(fault,))}, insight=Insight(bonds=lambda: table)
    )
    asked = {"model": "*", "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
    await engine.ask(asked)
    assert engine.recorder.one.outcome is Outcome.ERROR
    assert len(table) == 0


async def test_a_caller_that_stops_reading_once_the_model_has_stopped_is_known_again() -> None:
    """It has all that it came for, and goes on with it."""
    table = Affinity(b"salt")
    engine = bench(models=STOCK[:1], insight=Insight(bonds=lambda: table))
    asked = {"model": "*", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    reply = await engine.engine.exchange(engine.snapshot(asked))
    assert reply.frames is not None
    async for frame in reply.frames:
        if b'"finish_reason":"stop"' in frame.replace(b" ", b""):
            break
    await reply.frames.aclose()  # type: ignore[attr-defined] # as the server does
    assert len(table) == 1


async def test_thoughts_stay_with_their_maker() -> None:
    """A conversation that brings back a signature goes to who can open it, while exploring is on."""
    engine = bench(models=[STOCK[1], Model("claude-haiku-4-5", "two"), *STOCK[2:]])
    kept = 0
    for n in range(12):
        asked: Json = {
            "model": "*",
            "max_tokens": 3_000,
            "thinking": {"type": "enabled", "budget_tokens": 1_024},
            "messages": [{"role": "user", "content": f"Think about {n}."}],
        }
        _, body = await engine.ask(asked, MESSAGES)
        first = engine.recorder.records[-1]
        content = orjson.loads(body)["content"]
        asked["messages"] += [{"role": "assistant", "content": content}, {"role": "user", "content": "So?"}]
        await engine.ask(asked, MESSAGES)
        second = engine.recorder.records[-1]
        if "signature" in str(content):
            kept += 1
            bond = plan_of(second).bond
            assert bond is not None
            assert (bond.by, bond.lock) == ("thinking", "thinking")
            assert (second.model, second.provider, second.reason) == (
                first.model,
                first.provider,
                "routed-affinity",
            )
    assert kept > 2


# --- warmth ---------------------------------------------------------------------------------------------------


async def test_a_conversation_stays_where_its_cache_is_and_a_new_one_goes_where_it_is_cheaper() -> None:
    """What the simulator's prompt cache reports is learned and priced: the switch would cost more than it saves."""
    learner = Learner()
    engine = bench(
        models=[
            Model("gpt-4o", "one", prices=Prices(100, 100, cache_read=10)),
            Model("gpt-4o-mini", "three", prices=Prices(80, 80, cache_read=8)),
        ],
        insight=insight(explores=False, estimates=learner),
        defaults={"mode": "cheap"},
    )

    async def talk(model: str, turns: list[Json], words: str) -> Record:
        turns.append({"role": "user", "content": words})
        _, body = await engine.ask({"model": model, "max_tokens": 20, "messages": turns})
        turns.append(orjson.loads(body)["choices"][0]["message"])
        learner.learn(engine.recorder.records[-1])
        return engine.recorder.records[-1]

    turns: list[Json] = []
    first = await talk("gpt-4o", turns, "Read this. " + "All of it. " * 1_500)
    again = await talk("gpt-4o", turns, "And now?")
    assert (first.usage.cache_read_tokens, again.usage.cache_read_tokens > 1_024) == (0, True)

    free = await talk("*", turns, "And then?")
    fresh = await talk("*", [], "Read that. " + "All of it. " * 1_500)
    assert (free.model, fresh.model) == ("gpt-4o", "gpt-4o-mini")
    warm = plan_of(free).candidates[0]
    assert warm.expected.cached_tokens > 1_024
    assert warm.expected.nanousd < warm.estimated_nanousd
    assert warm.facts.cost == warm.expected.nanousd


# --- what is kept ---------------------------------------------------------------------------------------------


@pytest.fixture
def database() -> Iterator[Database]:
    database = open_database(MEMORY)
    yield database
    database.close()


async def test_what_is_forgotten_leaves_the_store_too(database: Database) -> None:
    """What stands in the table is what is known, after every saving."""
    writer = Writer(database)
    writer.start()
    learning = Learning(database, writer, SystemClock(), Reward(), salt=b"salt")
    learning.affinity = Affinity(b"salt", keep=3)
    engine = bench(insight=Insight(bonds=lambda: learning.affinity))
    after = Learning(database, writer, SystemClock(), Reward(), salt=b"salt")
    for n in range(5):
        await engine.ask({"model": "*", "messages": [{"role": "user", "content": f"Hello {n}"}]})
        await learning.save()
        await after.load()
        known, found = dict(learning.affinity.kept()), dict(after.affinity.kept())
        assert found.keys() == known.keys()
        assert {one.model for one in found.values()} <= {one.id for one in STOCK}
    await learning.close()
    await after.load()
    assert len(after.affinity) == 3
    await writer.close()


# --- the whole application, and a program that knows nothing of it --------------------------------------------

TOOLS: list[ChatCompletionToolParam] = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
]


async def rounds(it: House, turns: list[ChatCompletionMessageParam], count: int) -> list[tuple[str, str]]:
    """Let the official SDK run so many rounds of a tool loop; return who served each, and why."""
    served = []
    async with openai.AsyncOpenAI(base_url=f"{it.url}/v1", api_key="none", max_retries=0) as client:
        for _ in range(count):
            raw = await client.chat.completions.with_raw_response.create(
                model="*", messages=turns, tools=TOOLS, tool_choice="required"
            )
            message = raw.parse().choices[0].message
            turns.append(message.to_dict())  # type: ignore[arg-type] # as the SDK's own documents do
            turns.extend(
                {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
                for call in message.tool_calls or ()
            )
            headers = tuple((name.lower(), value) for name, value in raw.headers.items())
            served.append((header(headers, "x-tokenhub-model"), header(headers, "x-tokenhub-reason")))
    return served


async def test_an_agent_with_the_official_sdk_stays_with_one_model_over_a_restart(tmp_path: Path) -> None:
    """A loop over thirty models that are explored: one model from the first round to the last."""
    text = "What is the weather in Reykjavik?"
    turns: list[ChatCompletionMessageParam] = [{"role": "user", "content": text}]
    how: dict[str, Any] = {"simulate": True, "settings": {"EXPLORE": "thompson"}}
    async with house(tmp_path, **how) as it:
        before = await rounds(it, turns, 5)
        newest = (await it.done("GET", "/logs?limit=1"))["logs"][0]
        shown = (await it.done("GET", f"/decisions/{newest['id']}"))["affinity"]
        stored = (await it.done("GET", f"/logs/{newest['id']}"))["decision"]
    async with house(tmp_path, **how) as it:
        after = await rounds(it, turns, 5)
        await it.done("PUT", "/routing-config", {"affinity": "off"})
        reasons = {reason for _, reason in await rounds(it, turns, 3)}
    models = {model for model, _ in before + after}
    assert len(models) == 1
    assert [reason for _, reason in before + after] == ["routed-thompson"] + ["routed-affinity"] * 9
    assert reasons == {"routed-thompson"}
    assert ({shown["model"]}, shown["lock"]) == (models, "tool_loop")
    assert shown["by"] in {"calls", "turns"}
    assert recompute(stored).candidates[0].model.id in models
    kept = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*.sqlite*"))
    assert b"Reykjavik" not in kept
    salt = (tmp_path / "data" / "salt").read_bytes()
    assert salt not in kept
    assert (tmp_path / "data" / "salt").stat().st_mode & 0o077 == 0
