from __future__ import annotations

from typing import Any

import orjson
import pytest

from tokenhub_core.dialects.ollama import OLLAMA_CHAT, OLLAMA_GENERATE
from tokenhub_core.errors import Kind, TokenHubError
from tokenhub_core.types import (
    Audio,
    Call,
    Image,
    Json,
    OutputFormat,
    Part,
    Role,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
    Turn,
)


def chat(*messages: Json, **fields: Any) -> Call:
    given = messages or ({"role": "user", "content": "Hi"},)
    return OLLAMA_CHAT.parse(OLLAMA_CHAT.open(orjson.dumps({"model": "m", "messages": given, **fields})))


def generate(**fields: Any) -> Call:
    return OLLAMA_GENERATE.parse(OLLAMA_GENERATE.open(orjson.dumps({"model": "m", "prompt": "Hi", **fields})))


def call(name: str, id_: str | None = None) -> Json:
    return {"function": {"name": name, "arguments": {"a": 1}}} | ({"id": id_} if id_ else {})


def result(content: str, **fields: Any) -> Json:
    return {"role": "tool", "content": content, **fields}


def ids(given: Call) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the ids of the tool calls, and of each result with its text."""
    parts: list[Part] = [part for turn in given.turns for part in turn.parts]
    results = [(part.id, part.content[0]) for part in parts if isinstance(part, ToolResult)]
    texts = [(id_, content.text) for id_, content in results if isinstance(content, Text)]
    return [part.id for part in parts if isinstance(part, ToolUse)], texts


def test_tool_calls_without_ids_get_some_and_results_find_theirs_by_name() -> None:
    """Other dialects match a result to its call by id alone."""
    given = chat(
        {"role": "assistant", "tool_calls": [call("f"), call("g"), call("f")]},
        result("g1", tool_name="g"),
        result("f1", tool_name="f"),
        result("f2", tool_name="f"),
    )
    assert ids(given) == (
        ["call_0", "call_1", "call_2"],
        [("call_1", "g1"), ("call_0", "f1"), ("call_2", "f2")],
    )


def test_results_without_a_name_answer_the_calls_in_order() -> None:
    """And a known id goes before anything else."""
    given = chat(
        {"role": "assistant", "tool_calls": [call("f", "x"), call("g", "y"), call("h")]},
        result("y1", tool_call_id="y", tool_name="f"),
        result("x1"),
        result("h1", tool_name="odd"),
        result("lost"),
        result("strange", tool_call_id="z"),
    )
    results = [("y", "y1"), ("x", "x1"), ("call_0", "h1"), ("", "lost"), ("z", "strange")]
    assert ids(given) == (["x", "y", "call_0"], results)


def test_images_are_told_apart_by_their_first_bytes() -> None:
    """The wire has no media type, every other dialect asks for one."""
    heads = {
        "image/png": "iVBORw0KGgoAAAANSUhEUg==",
        "image/jpeg": "/9j/4AAQSkZJRgABAQ==",
        "image/gif": "R0lGODlhAQABAIAAAAAA",
        "image/webp": "UklGRiQAAABXRUJQVlA4IA==",
        "application/octet-stream": "AAAA",
    }
    for media_type, data in heads.items():
        assert generate(images=[data]).turns[0].parts[0] == Image(media_type=media_type, data=data)
    wav = "UklGRiQAAABXQVZFZm10IA=="
    assert generate(images=[wav]).turns[0].parts == (Audio("audio/wav", wav), Text("Hi"))
    for odd in ("", "!", "A"):
        assert isinstance(generate(images=[odd]).turns[0].parts[0], Image)


@pytest.mark.parametrize(
    ("think", "thinking"),
    [
        (True, Thinking(True)),
        (False, Thinking(False)),
        ("high", Thinking(True, "high")),
        (None, Thinking()),
    ],
)
def test_thinking_is_a_switch_or_a_level(think: object, thinking: Thinking) -> None:
    """A level switches it on."""
    assert chat(think=think).thinking == thinking


def test_a_format_is_json_or_a_schema() -> None:
    """An empty one is none."""
    assert chat(format="json").output == OutputFormat()
    assert chat(format={"type": "object"}).output == OutputFormat({"type": "object"})
    empty = chat(format="")
    assert (empty.output, dict(empty.rest)) == (None, {})


def test_logprobs_are_counted() -> None:
    """Zero is only the chosen token."""
    assert chat().logprobs is None
    assert chat(logprobs=True).logprobs == 0
    assert chat(logprobs=True, top_logprobs=3).logprobs == 3
    off = chat(logprobs=False, top_logprobs=3)
    assert (off.logprobs, dict(off.rest)) == (None, {})


def test_what_runs_a_model_is_no_loss_and_what_steers_it_is() -> None:
    """Names of lost options are their wire paths."""
    options = {"num_gpu": 1, "num_thread": 2, "num_predict": -1, "num_ctx": 4096, "min_p": 0.1}
    given = chat(options=options, keep_alive="5m", truncate=True, shift=False)
    assert sorted(given.rest) == ["options.min_p", "options.num_ctx", "shift"]


def test_what_has_a_canonical_field_is_no_rest() -> None:
    """Where its value is one that can be read; any other value is kept as it came."""
    odd: Json = {"temperature": "hot", "top_k": 1.5, "stop": [1], "seed": True}
    assert sorted(chat(options=odd).rest) == sorted(f"options.{name}" for name in odd)
    good = {"temperature": 0, "top_k": 1, "stop": "x", "seed": 3, "presence_penalty": 1, "num_predict": 4}
    given = chat(options=good)
    assert (given.temperature, given.top_k, given.stop, given.seed) == (0, 1, ("x",), 3)
    assert (given.presence_penalty, given.max_output_tokens, dict(given.rest)) == (1, 4, {})


@pytest.mark.parametrize(("name", "value"), [("suffix", "end"), ("raw", True), ("context", [1, 2])])
def test_what_only_generate_can_do_is_refused_by_name(name: str, value: object) -> None:
    """Where it says nothing it is none."""
    with pytest.raises(TokenHubError) as caught:
        generate(**{name: value})
    assert (caught.value.fault.kind, caught.value.fault.param) == (Kind.INVALID, name)
    assert dict(generate(suffix="", raw=False, context=[], template="").rest) == {}


def test_a_completion_is_one_turn_after_the_system_prompt() -> None:
    """With its images before its text."""
    given = generate(system="s", images=["AAAA"])
    assert given.turns[0] == Turn(Role.SYSTEM, (Text("s"),))
    assert given.turns[1].role is Role.USER
    assert [type(part) for part in given.turns[1].parts] == [Image, Text]
    assert len(generate(system="").turns) == 1
