"""What is made of a call that passes by: it is priced, and in shadow weighed against what we would have done."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.engine import OPENAI, Bench, chat
from tests.fakes.watching import watcher
from tokenhub_core.types import (
    Caller,
    Dialect,
    Json,
    Model,
    Origin,
    Outcome,
    Prices,
    Record,
    Shadow,
    Snapshot,
    Timings,
    Usage,
)
from tokenhub_core.watching import Watch, Watcher

HOST = "api.openai.com"
TOLD = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}}
ANSWER = {"model": "gpt-4o-2024-08-06", "usage": TOLD}


def watched(
    asked: bytes,
    pieces: list[bytes],
    *,
    by: Watcher,
    kind: str = "application/json",
    encoding: str = "",
    status: int = 200,
    shadow: bool = True,
) -> Record:
    snapshot = Snapshot(
        "req_1",
        "POST",
        "/v1/chat/completions",
        (("content-type", "application/json"),),
        b"",
        1.0,
        0.0,
        Dialect.OPENAI_CHAT,
        Origin("https", HOST, 443),
        Caller(),
    )
    watch = Watch(snapshot, watcher=by, shadow=shadow)
    watch.ask(asked)
    watch.decide()
    watch.begin(status, (("content-type", kind), ("content-encoding", encoding)))
    for piece in pieces:
        watch.feed(piece)
    return watch.told(
        Record(
            id="req_1",
            at=1.0,
            outcome=Outcome.PASSED,
            status=status,
            caller=Caller(),
            method="POST",
            path="/v1/chat/completions",
            dialect=Dialect.OPENAI_CHAT,
            origin_host=HOST,
            timings=Timings(total_ms=500.0),
        )
    )


def shadow_of(asked: Json, models: list[Model], answer: Json = ANSWER) -> Shadow:
    bench = Bench(models=models, providers=[OPENAI])
    record = watched(orjson.dumps(asked), [orjson.dumps(answer)], by=watcher(engine=bench.engine))
    assert record.shadow is not None
    return record.shadow


@pytest.mark.parametrize("shadow", [False, True])
def test_what_passes_costs_what_the_list_says_of_the_model_that_answered(shadow: bool) -> None:
    """Dated names too, cached tokens at their own price; what the list does not know costs nothing known."""
    by = watcher(engine=Bench().engine)
    record = watched(b'{"model": "alias-of-theirs"}', [orjson.dumps(ANSWER)], by=by, shadow=shadow)
    assert record.usage == Usage(1000, 100, 400)
    assert record.cost_nanousd == 600 * 2500 + 400 * 1250 + 100 * 10_000
    other = orjson.dumps({**ANSWER, "model": "nobody-sells-it"})
    record = watched(orjson.dumps(chat()), [other], by=by, shadow=shadow)
    assert (record.cost_nanousd, record.shadow and record.shadow.paid) == (0, None)


@pytest.mark.parametrize(
    ("model", "nanousd"),
    [
        (Model("gpt-4o", "sim-openai", prices=Prices(2000, 8000, cache_read=0.0)), 600 * 2000 + 100 * 8000),
        (Model("mini", "sim-openai", prices=Prices(2000, 8000, cache_read=0.0)), 1000 * 2000 + 100 * 8000),
        (Model("mini", "sim-openai", pricing_source="unknown"), None),
    ],
    ids=["the same model", "another one", "no price"],
)
def test_cached_tokens_are_cached_at_the_same_model_only(model: Model, nanousd: int | None) -> None:
    """Another model has read nothing yet; and an unknown price makes no cost."""
    found = shadow_of(chat(model="auto"), [model], {**ANSWER, "model": "gpt-4o"})
    assert (found.model, found.nanousd, found.price) == (model.id, nanousd, model.pricing_source)


def test_a_call_that_would_have_stayed_costs_the_same() -> None:
    """To the last nano-dollar, cached tokens included, and takes the same time."""
    found = shadow_of(chat(model="gpt-4o-2024-08-06"), [])
    assert (found.same, found.provider) == (True, f"origin:{HOST}")
    assert found.nanousd == found.paid == 600 * 2500 + 400 * 1250 + 100 * 10_000
    assert found.expected_ms == found.took_ms


def test_a_time_that_nobody_learned_is_unknown() -> None:
    """It is not taken for none."""
    model = Model("mini", "sim-openai", prices=Prices(1, 1))
    assert shadow_of(chat(model="mini"), [model]).expected_ms is None


def test_losses_are_those_of_the_candidates_dialect() -> None:
    """A seed cannot be said to Anthropic."""
    by = watcher(engine=Bench().engine)
    asked = chat(model="claude-sonnet-4-5", seed=7)
    record = watched(orjson.dumps(asked), [orjson.dumps(ANSWER)], by=by)
    assert record.shadow is not None
    assert record.shadow.losses == ("seed",)


def test_a_body_that_we_would_refuse_for_its_size_is_only_remembered_in_part() -> None:
    """The shadow says 413, and nobody holds a gigabyte for it."""
    by = watcher(engine=Bench().engine, max_body=32 << 20)
    record = watched(b"x" * ((32 << 20) + 100), [orjson.dumps(ANSWER)], by=by)
    assert record.shadow is not None
    assert (record.shadow.fault, record.shadow.status) == ("body_too_large", 413)


_BY = watcher(engine=Bench().engine)
_BODIES = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([orjson.dumps(chat(stream=True)), orjson.dumps(chat()), b"{}", b"[]", b"null"]),
)
_PIECES = st.lists(
    st.one_of(
        st.binary(max_size=100),
        st.sampled_from(
            [b"data: {}\n\n", b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n', b"data: [DONE]\n\n", b"{"]
        ),
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(
    _BODIES,
    _PIECES,
    st.sampled_from(["application/json", "text/event-stream", "text/html", ""]),
    st.sampled_from(["", "gzip", "zstd", "br", "odd"]),
    st.sampled_from([200, 204, 400, 500]),
)
def test_whatever_passes_nothing_is_raised(
    asked: bytes, pieces: list[bytes], kind: str, encoding: str, status: int
) -> None:
    """Bytes that are nothing at all, in both directions; there is a record with a shadow at the end."""
    record = watched(asked, pieces, by=_BY, kind=kind, encoding=encoding, status=status)
    assert record.shadow is not None
    assert (record.outcome, record.status) == (Outcome.PASSED, status)
    made: Any = record.shadow
    assert made.took_ms <= 500.0
