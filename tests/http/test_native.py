"""`POST /v1/chat`, over HTTP; every answer is held to the document."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.fakes.house import House, Told, house
from tests.fakes.provider import FakeProvider
from tokenhub_core.dialects import sse
from tokenhub_core.types import Json

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def body(text: str = "Hello", request: Json | None = None, **more: object) -> Json:
    messages = [{"role": "user", "content": text}]
    return {"request": {"messages": messages, "model_hint": "gpt-4o", **(request or {})}, **more}


async def ask(it: House, said: object) -> Told:
    return await it.ask("POST", "/v1/chat", said)


async def logged(it: House, told: Told) -> Json:
    return await it.done("GET", f"/logs/{told.header('x-request-id')}")


async def test_an_answer_comes_with_its_decision(tmp_path: Path) -> None:
    """Four fields, as JSON; inside is the provider's own answer, and what is our affair went to nobody."""
    async with house(tmp_path) as it, FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        told = await ask(
            it, body(request={"meta": {"team": "search"}, "id": "mine"}, policy={"min_weight": 1})
        )
        assert (told.status, told.header("content-type")) == (200, "application/json")
        assert set(told.json) == {"negotiated_model", "estimated_cost_usd", "routing_reason", "response"}
        assert (told.json["negotiated_model"], told.json["routing_reason"]) == ("gpt-4o", "routed-hint-exact")
        assert told.json["response"]["object"] == "chat.completion"
        (sent,) = fake.requests
        assert set(sent.json) == {"model", "messages", "stream"}
        record = await logged(it, told)
        assert (record["path"], record["client_request_id"]) == ("/v1/chat", "mine")
        assert record["decision"]["policy"]["tags"] == ["team:search"]
        assert record["decision"]["policy"]["why"]["min_weight"] == "request"
        assert record["cost_nanousd"] == round(told.json["estimated_cost_usd"] * 1e9) > 0


async def test_a_stream_ends_with_its_decision(tmp_path: Path) -> None:
    """Chunks of chat completions, their end, and then ours."""
    async with house(tmp_path) as it, FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        told = await ask(it, body(request={"stream": True}))
        events = sse.Parser().feed(told.body)
        assert told.header("content-type").startswith("text/event-stream")
        assert [event.data for event in events].index(b"[DONE]") == len(events) - 2
        assert events[-1].name == "tokenhub.done"
        decision = orjson.loads(events[-1].data)
        assert decision["negotiated_model"] == "gpt-4o"
        record = await logged(it, told)
        assert record["cost_nanousd"] == round(decision["estimated_cost_usd"] * 1e9) > 0


async def test_a_stream_that_breaks_has_no_last_event(tmp_path: Path) -> None:
    """An error stands in its place."""
    async with house(tmp_path) as it, FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        fake.script("gpt-4o", ["no-terminal"])
        told = await ask(it, body(request={"stream": True}))
        assert b"tokenhub.done" not in told.body
        assert b'"error"' in told.body


async def test_the_answer_is_held_to_the_schema_and_given_its_form(tmp_path: Path) -> None:
    """The schema goes upstream as the provider has it; a stop for another reason, and usage, stay."""
    async with house(tmp_path) as it, FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        told = await ask(it, body(request={"output_schema": SCHEMA}))
        sent = fake.requests[0].json["response_format"]
        assert sent["json_schema"]["schema"] == SCHEMA
        content = told.json["response"]["choices"][0]["message"]["content"]
        assert set(orjson.loads(content)) == {"n"}
        spoken = await ask(
            it, body("echo: <think>a</think>**b**", output_format={"type": "text", "strip_think": True})
        )
        choice = spoken.json["response"]["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("b", "stop")
        assert spoken.json["response"]["usage"]["completion_tokens"] > 0


async def test_what_does_not_become_what_was_asked_for_is_refused(tmp_path: Path) -> None:
    """422 with the place; asked twice, paid twice."""
    async with house(tmp_path) as it, FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        told = await ask(it, body("echo: no JSON", output_format={"type": "json"}))
        assert (told.status, told.json["error"]["code"]) == (422, "invalid_output")
        record = await logged(it, told)
        assert [one["change"] for one in record["attempts"]] == ["", "schema-repair"]
        assert record["cost_nanousd"] == sum(one["cost_nanousd"] for one in record["attempts"])


@pytest.mark.parametrize(
    ("said", "status", "param"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (body(policy={"mode": "cheapest"}), 400, "policy.mode"),
        (body(request={"output_schema": {"$ref": "http://a.b/c"}}), 400, "output_schema.$ref"),
        (body(request={"messages": []}), 400, "request.messages"),
        (body(request={"model_hint": "nobody"}), 404, "model"),
    ],
)
async def test_a_refusal_is_typed_and_recorded(
    tmp_path: Path, said: object, status: int, param: str | None
) -> None:
    """In the shape of OpenAI's errors; nobody was asked."""
    async with house(tmp_path) as it, FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        told = await ask(it, said)
        assert (told.status, told.json["error"]["param"]) == (status, param)
        assert told.json["error"]["type"] == "invalid_request_error"
        assert fake.requests == []
        assert (await logged(it, told))["status"] == status


async def test_a_call_may_ask_for_less_than_the_operator_allows_and_not_for_more(tmp_path: Path) -> None:
    """As a directive may; and it is told."""
    async with house(tmp_path, settings={"DEFAULT_MAX_BUDGET_USD": "0.01"}) as it, FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        assert (await ask(it, body(policy={"max_budget_usd": 0.005}))).status == 200
        for more in (0.02, None):
            told = await ask(it, body(policy={"max_budget_usd": more}))
            assert (told.status, told.json["error"]["param"]) == (403, "policy.max_budget_usd")


async def test_a_directive_comes_before_the_body(tmp_path: Path) -> None:
    """It is the more particular wish; it is stripped here too."""
    async with house(tmp_path) as it, FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        text = "@@tokenhub output_format=text\necho: **b**"
        told = await ask(it, body(text, output_format={"type": "markdown"}))
        assert told.json["response"]["choices"][0]["message"]["content"] == "b"
        assert b"@@tokenhub" not in fake.requests[0].body


async def test_a_capability_that_is_asked_for_is_a_hard_limit(tmp_path: Path) -> None:
    """A model that is known to lack it does not serve."""
    async with house(tmp_path) as it, FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        await it.done("PATCH", "/models/gpt-4o", {"lacks": ["vision"]})
        assert (await ask(it, body())).status == 200
        told = await ask(it, body(capabilities={"vision": True}))
        assert told.status >= 400
        assert len(fake.requests) == 1


async def test_a_replay_is_the_very_same_answer(tmp_path: Path) -> None:
    """Under an idempotency key, with the decision around it; another policy is another call."""
    async with house(tmp_path) as it, FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        key = {"idempotency-key": "k"}
        first = await it.ask("POST", "/v1/chat", body(), key)
        again = await it.ask("POST", "/v1/chat", body(), key)
        other = await it.ask("POST", "/v1/chat", body(policy={"min_weight": 1}), key)
        assert (again.body, len(fake.requests)) == (first.body, 1)
        assert other.status == 422


async def test_an_alias_gives_its_answers_a_form_and_the_call_another(tmp_path: Path) -> None:
    """Kept, shown, and first among the operator's wishes; what the call asks for comes before it."""
    async with house(tmp_path, settings={"OUTPUT_FORMAT": "markdown"}) as it, FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        alias = {
            "name": "plain",
            "variants": [{"model_id": "gpt-4o"}],
            "output_format": "text",
            "strip_think": True,
        }
        assert (await it.done("POST", "/aliases", alias))["output_format"] == "text"
        text = "echo: <think>a</think>**b** "
        said = await it.chat("plain", messages=[{"role": "user", "content": text}])
        assert said.json["choices"][0]["message"]["content"] == "b"
        said = await it.chat("gpt-4o", messages=[{"role": "user", "content": text}])
        assert said.json["choices"][0]["message"]["content"] == "<think>a</think>**b**"
        told = await ask(it, body(text, request={"model_hint": "plain"}, output_format={"type": "markdown"}))
        assert told.json["response"]["choices"][0]["message"]["content"] == "**b**"
        why = (await logged(it, told))["decision"]["policy"]["why"]
        assert (why["output_format"], why["strip_think"]) == ("request", "alias plain")
        changed = await it.done("PATCH", "/aliases/plain", {"output_format": None})
        assert (changed["output_format"], changed["strip_think"]) == (None, True)
