"""The body for each candidate."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from tests.fakes.engine import ANTHROPIC, OPENAI, PAIR, chat, message
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.dialects.seals import MARK
from tokenhub_core.dispatch.bodies import Bodies
from tokenhub_core.errors import TokenHubError
from tokenhub_core.types import Candidate, Dialect, Json, Terms

TO_OPENAI = Candidate(PAIR[0], OPENAI, 0.0, Terms(), 0, dialect=OPENAI.dialect)
TO_ANTHROPIC = Candidate(PAIR[1], ANTHROPIC, 0.0, Terms(), 0, dialect=ANTHROPIC.dialect)


def bodies(body: Json, dialect: Dialect = Dialect.OPENAI_CHAT, **more: Any) -> Bodies:
    return Bodies(DIALECTS[dialect].open(orjson.dumps(body)), DIALECTS, **more)


def test_the_same_dialect_and_model_gets_the_callers_very_bytes() -> None:
    """Nothing to change, nothing changed: odd spacing and unknown fields included."""
    raw = b'{ "model" : "gpt-4o",\n "messages":[{"role":"user","content":"x"}], "new_field": 1e0 }'
    made = Bodies(DIALECTS[Dialect.OPENAI_CHAT].open(raw), DIALECTS).render(TO_OPENAI, None)
    assert (made.data, made.losses) == (raw, ())


def test_a_cap_replaces_the_callers_own() -> None:
    """The failover machine may ask for less."""
    made = bodies(chat(max_tokens=900)).render(TO_OPENAI, 100)
    assert orjson.loads(made.data)["max_tokens"] == 100


def test_another_dialect_is_rendered_and_its_losses_named() -> None:
    """What cannot be carried is told by the caller's own names."""
    made = bodies(chat(seed=1, max_tokens=5)).render(TO_ANTHROPIC, None)
    data = orjson.loads(made.data)
    assert (data["model"], data["max_tokens"]) == ("claude-sonnet-4-5", 5)
    assert made.losses == ("seed",)


def test_what_is_only_unsent_is_told_as_such_and_counts_for_nothing() -> None:
    """Who the user is changes neither the answer nor its price; what a cache is found by changes the price."""
    made = bodies(chat(metadata={"a": "b"}, store=True, seed=1, prompt_cache_key="k"))
    told = made.render(TO_ANTHROPIC, None).losses
    assert {*told} == {"unsent:metadata", "unsent:store", "seed", "prompt_cache_key"}
    assert {*made.losses(Dialect.ANTHROPIC_MESSAGES)} == {"seed", "prompt_cache_key"}
    alone = bodies(chat(metadata={"a": "b"}, store=True))
    assert alone.losses(Dialect.ANTHROPIC_MESSAGES) == ()


def test_a_call_that_leans_on_a_stored_one_goes_on_without_foreign_thoughts() -> None:
    """The id is the provider's own, and is honoured; what another dialect sealed is left out, and named."""
    sealed = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "encrypted_content": f"{MARK}anthropic_messages:x",
    }
    said = {"role": "user", "content": "Go on."}
    body = {"model": "m", "previous_response_id": "resp_1", "input": [sealed, said], "store": True}
    made = bodies(body, Dialect.OPENAI_RESPONSES)
    candidate = replace(TO_OPENAI, dialect=Dialect.OPENAI_RESPONSES)
    found = made.render(candidate, None)
    assert found.losses == ("thinking.signature",)
    wanted = {**body, "model": candidate.model.name, "input": [said]}
    assert orjson.loads(found.data) == wanted
    with pytest.raises(TokenHubError, match="previous_response_id"):
        made.losses(Dialect.OPENAI_CHAT)


def test_a_schema_from_a_directive_goes_upstream_in_the_providers_form() -> None:
    """Also where the dialect is the same and the body would else have passed as it was."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    openai = orjson.loads(bodies(chat(), output_schema=schema).render(TO_OPENAI, None).data)
    assert openai["response_format"]["json_schema"]["schema"] == schema
    anthropic = bodies(message(), Dialect.ANTHROPIC_MESSAGES, output_schema=schema).render(TO_ANTHROPIC, None)
    assert orjson.loads(anthropic.data)["output_config"]["format"]["schema"] == schema


@pytest.mark.parametrize(
    ("dialect", "body", "path"),
    [
        (Dialect.OPENAI_CHAT, chat(), ""),
        (Dialect.ANTHROPIC_MESSAGES, message(), ""),
        (Dialect.GEMINI, {"contents": [{"parts": [{"text": "Hello"}]}]}, "/v1beta/models/m:generateContent"),
        (Dialect.OLLAMA_CHAT, {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}, ""),
    ],
)
def test_what_is_added_to_a_conversation_says_who_said_it(dialect: Dialect, body: Json, path: str) -> None:
    """In the caller's own dialect too, where most words for roles are the caller's: the answer is not the user's."""
    opened = Bodies(DIALECTS[dialect].open(orjson.dumps(body), path), DIALECTS)
    again = opened.again("An answer", "It does not fit")
    resumed = opened.resumed("An answer", 3)
    assert again is not None
    assert resumed is not None
    candidate = Candidate(PAIR[0], OPENAI, 0.0, Terms(), 0, dialect=dialect)
    for made, roles in ((again, ["assistant", "user"]), (resumed, ["assistant"])):
        data = orjson.loads(made.render(candidate, None).data)
        turns = data["contents"] if dialect is Dialect.GEMINI else data["messages"]
        told = [turn["role"].replace("model", "assistant") for turn in turns[1:]]
        assert told == roles


def test_who_has_said_all_that_the_cap_allows_is_not_gone_on_with() -> None:
    """Neither the caller's cap nor the operator's leaves a token."""
    assert bodies(chat(max_tokens=5)).resumed("x" * 20, 5) is None
    assert bodies(chat(), cap=5).resumed("x" * 20, 5) is None
    left = bodies(chat(), cap=9).resumed("x" * 20, 5)
    assert left is not None
    assert orjson.loads(left.render(TO_ANTHROPIC, None).data)["max_tokens"] == 4
