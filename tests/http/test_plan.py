"""`POST /v1/plan`: what it takes, what it answers, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from tests.fakes.house import House, Told, house
from tests.fakes.keys import SECRET, Book, limited
from tests.fakes.provider import FakeProvider
from tokenhub_core.routing.recompute import recompute
from tokenhub_core.types import Json, Scope, Trust

SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
KEY = {"authorization": f"Bearer {SECRET}"}


async def plan(it: House, orchestration: Json | None = None, **more: Any) -> Told:
    """Ask for a plan of something."""
    headers = more.pop("headers", None)
    asked = {"messages": [{"role": "user", "content": "How?"}], **more.pop("request", {})}
    body = {"request": asked, "orchestration": orchestration or {}, **more}
    return await it.ask("POST", "/v1/plan", body, headers)


@pytest_asyncio.fixture
async def fleet(it: House, fake: FakeProvider) -> House:
    """Three models at two providers."""
    await it.provider(fake, "p", "a", "b")
    await it.provider(fake, "q", "c")
    return it


@pytest.mark.parametrize(
    ("orchestration", "steps", "members"),
    [
        ({"mode": "adversarial"}, 3, {"initial_plan", "critique", "refined_plan"}),
        ({"mode": "adversarial", "iterations": 2}, 5, {"initial_plan", "critique", "refined_plan"}),
        ({"mode": "adversarial", "return_plan_only": True}, 1, {"initial_plan"}),
        (
            {"mode": "vote", "iterations": 2},
            3,
            {"responses", "selected", "decided_by", "judge", "judge_error"},
        ),
        ({"mode": "refine", "iterations": 1}, 2, {"refined_response", "iterations", "model"}),
    ],
)
async def test_each_mode_has_its_result(
    fleet: House, fake: FakeProvider, orchestration: Json, steps: int, members: set[str]
) -> None:
    """The four members of every result, the mode's own in `response`, and a record that costs as much."""
    told = await plan(fleet, orchestration)
    assert told.status == 200, told.body
    assert set(told.json) == {"negotiated_model", "estimated_cost_usd", "routing_reason", "response"}
    assert set(told.json["response"]) == members
    assert told.header("x-tokenhub-mode") == orchestration["mode"]
    assert len(fake.requests) == steps
    record = await fleet.done("GET", f"/logs/{told.header('x-request-id')}")
    assert record["cost_nanousd"] == pytest.approx(told.json["estimated_cost_usd"] * 1e9)
    assert record["cost_nanousd"] == sum(one["cost_nanousd"] for one in record["composition"]["steps"])
    assert [one["step"] for one in record["attempts"]] == [
        one["name"] for one in record["composition"]["steps"]
    ]


@pytest.mark.parametrize("orchestration", [{}, {"mode": ""}, {"mode": "planning"}])
async def test_planning_is_a_models_own_answer(fleet: House, fake: FakeProvider, orchestration: Json) -> None:
    """One call; the response is the completion."""
    told = await plan(fleet, orchestration)
    assert told.json["response"]["choices"][0]["message"]["content"]
    assert told.json["negotiated_model"] == fake.requests[0].model
    assert len(fake.requests) == 1


async def test_a_planner_plans_and_a_reviewer_reviews(fleet: House, fake: FakeProvider) -> None:
    """The models that are named for both sides are asked, and no one else."""
    wish = {"mode": "adversarial", "primary_model_id": "b", "review_model_id": "c"}
    await plan(fleet, wish)
    assert [one.model for one in fake.requests] == ["b", "c", "b"]
    assert "planner" in fake.requests[0].json["messages"][0]["content"]


async def test_a_judge_that_is_named_does_not_vote(fleet: House, fake: FakeProvider) -> None:
    """Three models, two voters, and the best one judges."""
    await fleet.done("PATCH", "/models/a", {"weight": 10})
    told = await plan(fleet, {"mode": "vote", "voters": 2, "review_model_id": "a"})
    assert told.status == 200
    assert [one.model for one in fake.requests][2:] == ["a"]
    assert {one.model for one in fake.requests[:2]} == {"b", "c"}


async def test_a_stream_tells_steps_and_then_the_result(fleet: House, fake: FakeProvider) -> None:
    """Events for the steps, in the order in which they end, and the result as the last one."""
    told = await plan(fleet, {"mode": "adversarial"}, request={"stream": True})
    events = [
        dict(line.split(b": ", 1) for line in one.split(b"\n")) for one in told.body.strip().split(b"\n\n")
    ]
    assert told.header("content-type") == "text/event-stream"
    assert [one[b"event"] for one in events] == [b"step", b"step", b"step", b"result"]
    told_of = [orjson.loads(one[b"data"])["step"] for one in events[:-1]]
    assert told_of == ["answer", "critique-1", "refine-1"]
    assert set(orjson.loads(events[-1][b"data"])["response"]) == {"initial_plan", "critique", "refined_plan"}
    record = await fleet.done("GET", f"/logs/{told.header('x-request-id')}")
    assert (record["outcome"], record["stream"], len(fake.requests)) == ("ok", True, 3)


async def test_parameters_go_to_the_models_and_notes_do_not(fleet: House, fake: FakeProvider) -> None:
    """Tools and settings are the call's; `meta` is the caller's own, and no parameter replaces the messages."""
    await plan(
        fleet,
        request={"parameters": {"temperature": 0.1, "messages": [], "stream": True}, "meta": {"who": "me"}},
    )
    (one,) = fake.requests
    assert one.json["temperature"] == 0.1
    assert [message["content"] for message in one.json["messages"]] == ["How?"]
    assert b"who" not in one.body
    assert not one.json.get("stream")


async def test_answers_get_the_form_that_the_body_asks_for(fleet: House, fake: FakeProvider) -> None:
    """Each answer to the conversation does, and none to a question of ours."""
    text = {"request": {"messages": [{"role": "user", "content": "echo: <think>hm</think>**b**"}]}}
    wished = {"output_format": {"type": "text", "strip_think": True}}
    told = await plan(fleet, {"mode": "vote", "voters": 2}, **text, **wished)
    assert [one["content"] for one in told.json["response"]["responses"]] == ["b", "b"]
    plain = await plan(fleet, {"mode": "vote", "voters": 2}, **text)
    assert plain.json["response"]["responses"][0]["content"] == "<think>hm</think>**b**"


async def test_answers_are_held_to_the_schema_of_the_body(fleet: House) -> None:
    """One that never fits is a 422 with the place; one that does is the answer. Its decision can be made again."""

    async def asked(text: str, schema: Json) -> Told:
        request = {"messages": [{"role": "user", "content": f"echo: {text}"}], "output_schema": schema}
        return await plan(fleet, {"mode": "adversarial"}, request=request)

    told = await asked('{"n":1}', SCHEMA)
    assert (told.status, told.json["response"]["refined_plan"]) == (200, '{"n":1}')
    shown = await fleet.done("GET", f"/decisions/{told.header('x-request-id')}")
    assert set(shown["steps"]) == {"critique-1", "refine-1"}
    assert recompute(shown["steps"]["critique-1"]).candidates
    nothing_fits = {**SCHEMA, "properties": {"n": {"type": "integer", "minimum": 2, "maximum": 1}}}
    refused = await asked('{"n":1}', nothing_fits)
    assert (refused.status, refused.json["error"]["param"]) == (422, "/n")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"orchestration": {"mode": "shout"}}, "orchestration.mode"),
        ({"orchestration": {"iterations": 11}}, "orchestration.iterations"),
        ({"orchestration": {"iterations": "two"}}, "orchestration.iterations"),
        ({"orchestration": {"odd": 1}}, "orchestration"),
        ({"request": {"messages": []}}, "request.messages"),
        ({"policy": {"max_budget_usd": -1}}, "policy.max_budget_usd"),
        ({"output_schema": {}}, ""),
        ({"request": {"output_schema": {"type": "strin"}}}, "output_schema.type"),
        ({"output_format": {"type": "yaml"}}, "output_format.type"),
        ({"output_format": {"type": "json", "max_tokens": 5}}, "output_format.max_tokens"),
        ({"policy": {"durable": "yes"}}, "policy.durable"),
    ],
)
async def test_a_bad_body_is_told_where(fleet: House, fake: FakeProvider, body: Json, param: str) -> None:
    """A 400 in OpenAI's shape that names the member; nobody is asked."""
    told = (
        await plan(fleet, **body) if "orchestration" not in body else await plan(fleet, body["orchestration"])
    )
    assert (told.status, told.json["error"]["param"] or "") == (400, param)
    assert fake.requests == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"request":1}', b"\xff"])
async def test_what_is_no_body_is_a_400(fleet: House, body: bytes) -> None:
    """Whatever comes, the answer is OpenAI's kind of error."""
    told = await fleet.ask("POST", "/v1/plan", body)
    assert (told.status, "message" in told.json["error"]) == (400, True)


async def test_a_model_that_is_not_known_is_a_404(fleet: House, fake: FakeProvider) -> None:
    """An explicit model is served or refused; nobody stands in for a name that means nothing."""
    told = await plan(fleet, {"mode": "refine", "primary_model_id": "nobody"})
    assert (told.status, told.json["error"]["code"], fake.requests) == (404, "model_not_found", [])


async def test_a_limit_on_the_call_is_the_body_s_to_lower(fleet: House, fake: FakeProvider) -> None:
    """More than the operator's default is not to be had, less is."""
    await fleet.done("PUT", "/routing-config", {"default_max_budget_usd": 0.5})
    for asked, allowed in ((0.1, 0.1), (5, 0.5)):
        told = await plan(fleet, {"mode": "refine", "iterations": 1}, policy={"max_budget_usd": asked})
        decision = await fleet.done("GET", f"/decisions/{told.header('x-request-id')}")
        # Two steps may come: the first may cost half.
        assert decision["policy"]["max_budget_usd"] == pytest.approx(allowed / 2)


async def test_a_directive_in_its_text_is_text(fleet: House, fake: FakeProvider) -> None:
    """What is to be done stands in the body; nothing in a prompt can make more of it."""
    asked = {"messages": [{"role": "user", "content": "@@tokenhub mode=vote voters=10\nHow?"}]}
    told = await plan(fleet, request=asked)
    assert told.header("x-tokenhub-directive") == ""
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("scopes", "status"),
    [
        ({Scope.PLAN, Scope.CHAT}, 200),
        ({Scope.PLAN}, 403),
        ({Scope.CHAT}, 403),
    ],
)
async def test_a_key_must_be_good_for_plans_and_for_calls(
    tmp_path: Path, scopes: set[Scope], status: int
) -> None:
    """The one scope alone lists models and makes no call; the other alone makes one call and not several."""
    book = Book(**{SECRET: limited(scopes=frozenset(scopes))})
    async with house(tmp_path, simulate=True, book=book) as it:
        told = await plan(it, headers=KEY)
        assert told.status == status, told.body


async def test_a_keys_ceiling_of_steps_holds(tmp_path: Path) -> None:
    """Three steps at most: two voters and a judge are, three voters are not."""
    book = Book(**{SECRET: limited(trust=Trust(max_steps=3))})
    async with house(tmp_path, simulate=True, book=book) as it:
        assert (await plan(it, {"mode": "vote", "voters": 2}, headers=KEY)).status == 200
        told = await plan(it, {"mode": "vote", "voters": 3}, headers=KEY)
        assert (told.status, told.json["error"]["code"]) == (403, "too_many_steps")


async def test_the_ceiling_of_a_key_is_kept_and_shown(it: House) -> None:
    """`trust.max_steps` is set by the admin API, and shown."""
    made = await it.done("POST", "/apikeys", {"name": "k", "trust": {"max_steps": 3}})
    assert made["trust"]["max_steps"] == 3
    assert (await it.done("GET", f"/apikeys/{made['id']}"))["trust"]["max_steps"] == 3
    assert (await it.admin("PATCH", f"/apikeys/{made['id']}", {"trust": {"max_steps": 0}})).status == 400


async def test_a_decision_tells_of_its_steps(fleet: House) -> None:
    """The decision of a call in several steps names each, who made it, what it cost and what was chosen."""
    told = await fleet.chat(
        "a", messages=[{"role": "user", "content": "@@tokenhub mode=refine iterations=1\nHi"}]
    )
    decision = await fleet.done("GET", f"/decisions/{told.header('x-tokenhub-decision')}")
    assert decision["composition"]["mode"] == "refine"
    assert [one["name"] for one in decision["composition"]["steps"]] == ["answer", "refine-1"]
    assert decision["composition"]["steps"][-1]["verdict"] == "final"
    assert b"Hi" not in str(decision["composition"]).encode()
