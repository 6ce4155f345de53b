"""Records as rows: whatever strangers chose can be stored, and nothing secret is."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.store import rows
from tokenhub_core.types import (
    Attempt,
    Caller,
    Candidate,
    Composition,
    Dialect,
    Lane,
    Mode,
    Model,
    Outcome,
    Plan,
    Policy,
    Provider,
    ProviderType,
    Record,
    Skip,
    Skipped,
    Step,
    Terms,
    Timings,
    Usage,
)

_PROVIDER = Provider("anthropic", ProviderType.ANTHROPIC, ("https://api.anthropic.com",))
_PLAN = Plan(
    policy=Policy(
        mode=Mode.CHEAP,
        max_budget_usd=0.05,
        tags=("ci",),
        output_schema={"title": "the caller's own words"},
        why={"mode": "directive"},
    ),
    candidates=(
        Candidate(
            Model("claude", "anthropic"),
            _PROVIDER,
            0.5,
            Terms(cost=0.25, latency=0.125, failure=0.0625, weight=0.0625),
            estimated_nanousd=1200,
            pinned=True,
        ),
    ),
    skips=(Skip("gpt", "openai", Skipped.HEALTH_DOWN, "open until 12:00"),),
    input_tokens=10,
    output_tokens=20,
    reason="routed-hint-exact",
    fleet_version=7,
)


def _record(**changes: Any) -> Record:
    fields: dict[str, Any] = {
        "id": "req_1",
        "at": 1_700_000_000.123456,
        "outcome": Outcome.OK,
        "status": 200,
        "caller": Caller("127.0.0.1", Lane.HANDOFF, "regular", "alice", "openai-python"),
        "method": "POST",
        "path": "/v1/messages",
    }
    return Record(**(fields | changes))


def _row(record: Record) -> dict[str, Any]:
    return dict(zip(rows.COLUMNS, rows.record_row(record), strict=True))


def test_a_record_keeps_its_facts() -> None:
    """Each field of the record stands in the column of its name, in the unit of the schema."""
    row = _row(
        _record(
            dialect=Dialect.ANTHROPIC_MESSAGES,
            stream=True,
            model="claude",
            provider="anthropic",
            usage=Usage(10, 20, 3, 4, 5),
            cost_nanousd=1234,
            timings=Timings(queue_ms=0.5, route_ms=0.25, ttft_ms=None, total_ms=12.34567),
            fault="http_500",
            losses=("top_k",),
            stop="end",
            plan=_PLAN,
        )
    )
    assert row["at"] == 1_700_000_000_123_456
    assert (row["lane"], row["client_mode"], row["peer"]) == ("handoff", "regular", "127.0.0.1")
    assert (row["dialect"], row["mode"], row["tags"]) == ("anthropic_messages", "cheap", '["ci"]')
    assert (row["input_tokens"], row["cache_write_tokens"], row["reasoning_tokens"]) == (10, 4, 5)
    assert (row["queue_ms"], row["ttft_ms"], row["total_ms"]) == (0.5, None, 12.346)
    assert (row["error_class"], row["losses"], row["stop_reason"]) == ("http_500", '["top_k"]', "end")


def test_a_plan_explains_itself_without_the_callers_words() -> None:
    """The policy with its whys, every term of every score, every skip; of an output schema only that there was one."""
    told = rows.entry({"decision": rows.plan_json(_PLAN)})["decision"]
    assert (told["version"], told["fleet_version"], told["reason"]) == (1, 7, "routed-hint-exact")
    assert told["policy"]["why"] == {"mode": "directive"}
    assert (told["policy"]["output_schema"], told["policy"]["lossy"]) == (True, True)
    (first,) = told["candidates"]
    assert first["terms"] == {
        "cost": 0.25,
        "latency": 0.125,
        "failure": 0.0625,
        "weight": 0.0625,
        "loss": 0.0,
    }
    assert (first["model"], first["provider"], first["score"]) == ("claude", "anthropic", 0.5)
    assert (first["estimated_nanousd"], first["pinned"], first["losses"]) == (1200, True, [])
    assert told["skips"] == [
        {"model": "gpt", "provider": "openai", "reason": "health_down", "detail": "open until 12:00"}
    ]
    assert "own words" not in rows.plan_json(_PLAN)


def test_a_decision_of_an_older_version_is_shown_as_it_stands() -> None:
    """It was written as it is shown."""
    old = {"reason": "routed-weight-5", "candidates": [{"model": "m"}], "skips": []}
    assert rows.entry({"decision": orjson.dumps(old).decode()})["decision"] == old


def test_attempts_are_listed_in_order_with_their_own_usage() -> None:
    """Every try can be read back: when, what came, what it cost."""
    first = Attempt(1, "gpt", "openai", 0.0, 5.0, status=500, cause="http_500", ttft_limit_ms=10_400.0)
    second = Attempt(2, "claude", "anthropic", 5.0, 9.0, 7.5, 200, usage=Usage(1, 2), cost_nanousd=3)
    told = orjson.loads(rows.attempts_json((first, second)))
    assert [(a["n"], a["cause"], a["first_byte_ms"], a["output_tokens"]) for a in told] == [
        (1, "http_500", None, 0),
        (2, "", 7.5, 2),
    ]
    assert (told[0]["ttft_limit_ms"], "ttft_limit_ms" in told[1]) == (10_400.0, False)


@pytest.mark.parametrize(
    ("path", "stored"),
    [
        ("/v1/messages", "/v1/messages"),
        ("/v1/messages?beta=true", "/v1/messages?beta=true"),
        ("/v1beta/m:stream?key=AIza-secret&alt=sse", "/v1beta/m:stream?*&alt=sse"),
        ("/v1?sk-secret", "/v1?*"),
        ("/v1?sk-secret=&api_key=sk-secret", "/v1?*"),
        ("/v1?alt=sk%20secret", "/v1?*"),
        ("/v1?alt=sse&alt=sse", "/v1?alt=sse&*"),
    ],
)
def test_a_query_keeps_only_what_never_holds_a_secret(path: str, stored: str) -> None:
    """Keys travel in queries under names that nobody can list."""
    assert rows.bare_path(path) == stored


def test_long_text_is_cut_and_says_so() -> None:
    """A provider's message may be a page of HTML."""
    row = _row(_record(message="x" * 10_000, client_request_id="y" * 10_000))
    assert len(row["message"]) == 2000
    assert row["message"].endswith("…")
    assert len(row["client_request_id"]) == 256


def test_numbers_that_are_none_become_null() -> None:
    """A provider may report more tokens than 64 bits hold, and a clock may give nonsense."""
    row = _row(_record(usage=Usage(10**30), timings=Timings(total_ms=math.nan, queue_ms=math.inf)))
    assert row["input_tokens"] == 2**63 - 1
    assert (row["total_ms"], row["queue_ms"]) == (None, None)


@settings(max_examples=100, deadline=None)
@given(word=st.text(st.characters(exclude_categories=()), max_size=40), number=st.integers())
def test_whatever_strangers_chose_can_be_stored(word: str, number: int) -> None:
    """Every text column is valid UTF-8 without NUL, every JSON column can be read again, every count fits."""
    attempt = Attempt(
        1,
        word,
        word,
        0.0,
        math.nan,
        message=word,
        provider_request_id=word,
        usage=Usage(number),
        status=number,
    )
    record = _record(
        path="/" + word,
        caller=Caller(word, Lane.DIRECT, word, word, word),
        client_request_id=word,
        requested_model=word,
        message=word,
        losses=(word,),
        usage=Usage(number),
        cost_nanousd=number,
        attempts=(attempt,),
        plan=Plan(Policy(tags=(word,), why={word: word}), (), (), 0, 0, word),
    )
    row = _row(record)
    for value in row.values():
        if isinstance(value, str):
            assert "\0" not in value
            value.encode()
        elif isinstance(value, int):
            assert -(2**63) <= value < 2**63
    shown = rows.entry(row)
    assert len(shown["attempts"]) == len(shown["losses"]) == len(shown["tags"]) == 1


def test_an_entry_shows_json_columns_decoded() -> None:
    """A list that leaves the decision out stays readable, and so does a record that never had one."""
    row = _row(_record(losses=("top_k",)))
    assert rows.entry(row)["losses"] == ["top_k"]
    assert rows.entry(row)["decision"] is None
    del row["decision"]
    assert "decision" not in rows.entry(row)


def test_the_steps_of_a_call_are_stored_and_shown() -> None:
    """How several calls made an answer, and which attempt was for which; a single call has neither."""
    made = Composition(
        "vote", "only", (Step("voter-1", "m", "p", 7, "final"), Step("voter-2", cause="late")), 3
    )
    attempt = Attempt(1, "m", "p", 0.0, 1.0, step="voter-1")
    shown = rows.entry(_row(_record(composition=made, attempts=(attempt,))))
    assert msgspec.convert(shown["composition"], Composition) == made
    assert shown["attempts"][0]["step"] == "voter-1"
    plain = rows.entry(_row(_record(attempts=(Attempt(1, "m", "p", 0.0, 1.0),))))
    assert (plain["composition"], "step" in plain["attempts"][0]) == (None, False)
