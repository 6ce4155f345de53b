"""The simulated Gemini and Ollama: shapes, thoughts, tools, streams in all their framings."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from tokenhub_core.providers.simulation.proofs import genuine, seal
from tokenhub_core.providers.simulator import Profile, Script, Simulator, play
from tokenhub_core.types import Dialect, Json, header

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
BOTH_TOOLS = "Use get_weather and get_time for the city of Paris"
CITY = {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]}
TOOLS = [{"functionDeclarations": [{"name": n, "parameters": CITY} for n in ("get_weather", "get_time")]}]
LOWER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTIONS = [
    {"type": "function", "function": {"name": name, "parameters": LOWER}}
    for name in ("get_weather", "get_time")
]


def joined(script: Script) -> bytes:
    assert script.status == 200, script
    return b"".join(data for _, data in script.frames)


def gemini(
    text: str, model: str = "gemini-3.1-pro-preview", *, how: str = "generateContent", **rest: Any
) -> Script:
    return google([{"role": "user", "parts": [{"text": text}]}], model, how=how, **rest)


def google(contents: list[Json], model: str, *, how: str = "generateContent", **rest: Any) -> Script:
    body = orjson.dumps({"contents": contents, **rest})
    return play(Dialect.GEMINI, body, target=f"/v1beta/models/{model}:{how}")


def parts(data: Json) -> list[Json]:
    found: list[Json] = data["candidates"][0]["content"]["parts"]
    return found


def lines(raw: bytes) -> list[Json]:
    return [orjson.loads(line) for line in raw.splitlines()]


def test_gemini_answers_whole_with_usage_that_leaves_thoughts_out() -> None:
    """Candidates and thoughts are counted apart, and the total holds both."""
    data = orjson.loads(joined(gemini("Hi", generationConfig={"thinkingConfig": {"includeThoughts": True}})))
    thought, text = parts(data)
    assert (thought["thought"], "thought" in text) == (True, False)
    assert 'You asked: "Hi".' in text["text"]
    usage = data["usageMetadata"]
    assert usage["totalTokenCount"] == (
        usage["promptTokenCount"] + usage["candidatesTokenCount"] + usage["thoughtsTokenCount"]
    )
    assert (data["candidates"][0]["finishReason"], data["modelVersion"]) == ("STOP", "gemini-3.1-pro-preview")
    assert genuine("gemini", text["thoughtSignature"])


def test_gemini_streams_events_or_one_array_that_say_the_same() -> None:
    """With `alt=sse` and without; both add up to the whole answer."""
    events = joined(gemini("Hi", how="streamGenerateContent?alt=sse")).decode().split("\n\n")[:-1]
    sse = [orjson.loads(event.removeprefix("data: ")) for event in events]
    script = gemini("Hi", how="streamGenerateContent")
    array = orjson.loads(joined(script))
    assert header(script.headers, "content-type") == "application/json"
    whole = parts(orjson.loads(joined(gemini("Hi"))))[0]["text"]
    for chunks in (sse, array):
        assert len(chunks) > 10
        assert "".join(part["text"] for chunk in chunks for part in parts(chunk)) == whole
        assert [chunk["candidates"][0].get("finishReason") for chunk in chunks[-2:]] == [None, "STOP"]
        assert "candidatesTokenCount" in chunks[-1]["usageMetadata"]
        assert "thoughtSignature" in parts(chunks[-1])[0]


def test_gemini_calls_tools_in_parallel_and_signs_the_first_call() -> None:
    """The calls go back with their signature, and the results are told."""
    data = orjson.loads(joined(gemini(BOTH_TOOLS, tools=TOOLS)))
    calls = parts(data)
    assert [call["functionCall"]["name"] for call in calls] == ["get_weather", "get_time"]
    assert [call["functionCall"]["args"] for call in calls] == [{"city": "Paris"}] * 2
    assert ["thoughtSignature" in call for call in calls] == [True, False]
    image = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    responses = [
        {"functionResponse": {"name": "get_weather", "response": {"output": "18"}, "parts": [image]}},
        {"functionResponse": {"name": "get_time", "response": {"error": "no clock"}}},
    ]
    contents: list[Json] = [
        {"role": "user", "parts": [{"text": BOTH_TOOLS}]},
        {"role": "model", "parts": calls},
        {"role": "user", "parts": responses},
    ]
    text = parts(orjson.loads(joined(google(contents, "gemini-3.1-pro-preview", tools=TOOLS))))[0]["text"]
    assert 'The tool get_weather answered: "18" with 1 image (image/png).' in text
    assert 'The tool get_time failed: "no clock"' in text


def test_an_older_gemini_asks_for_no_signature_and_names_no_call() -> None:
    """Ids and demanded signatures came with the third generation."""
    data = orjson.loads(joined(gemini(BOTH_TOOLS, "gemini-2.5-flash", tools=TOOLS)))
    assert [[*call] for call in parts(data)] == [["functionCall"]] * 2
    assert all("id" not in call["functionCall"] for call in parts(data))


@pytest.mark.parametrize("write", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padding", [b"", b"="])
def test_gemini_takes_bytes_in_either_alphabet(write: Callable[[bytes], bytes], padding: bytes) -> None:
    """As JSON for protocol buffers allows, with padding and without: its SDK writes the alphabet of URLs."""

    def written(data: bytes) -> str:
        return (write(data).rstrip(b"=") + padding * (-len(data) % 3)).decode()

    image = {"inlineData": {"mimeType": "image/png", "data": written(b"\x89PNG\xff\xfe\xfb\xef")}}
    sealed = [seal("gemini", str(number)) for number in range(8)]
    assert any("+" in one and "/" in one for one in sealed)
    said = [{"text": "a", "thoughtSignature": written(base64.b64decode(one))} for one in sealed]
    turns: list[Json] = [{"role": "user", "parts": [{"text": "Hi"}, image]}, {"role": "model", "parts": said}]
    model = "gemini-3.1-pro-preview"
    assert google([*turns, turns[0]], model).status == 200
    broken: Json = {"role": "model", "parts": [{"text": "a", "thoughtSignature": "a-_/+"}]}
    assert google([turns[0], broken, turns[0]], model).status == 400


def test_gemini_obeys_its_settings() -> None:
    """Schema, stop words, cap, candidates, log probabilities, allowed functions."""
    config: Json = {"responseMimeType": "application/json", "responseSchema": CITY}
    data = orjson.loads(joined(gemini("the weather in Paris", generationConfig=config)))
    assert orjson.loads(parts(data)[0]["text"]) == {"city": "Paris"}
    flash = "gemini-2.5-flash"
    data = orjson.loads(joined(gemini("Hi", flash, generationConfig={"stopSequences": ["asked"]})))
    assert parts(data)[0]["text"] == "You "
    data = orjson.loads(joined(gemini("Hi", flash, generationConfig={"max_output_tokens": 3})))
    assert data["candidates"][0]["finishReason"] == "MAX_TOKENS"
    config = {"candidateCount": 2, "responseLogprobs": True, "logprobs": 2}
    data = orjson.loads(joined(gemini("echo: a b", flash, generationConfig=config)))
    assert [one["index"] for one in data["candidates"]] == [0, 1]
    chosen = data["candidates"][0]["logprobsResult"]["chosenCandidates"]
    assert [token["token"] for token in chosen] == ["a ", "b"]
    calling = {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["get_time"]}}
    data = orjson.loads(joined(gemini("Hi", flash, tools=TOOLS, toolConfig=calling)))
    assert [call["functionCall"]["name"] for call in parts(data)] == ["get_time"]


def test_gemini_declines_by_its_finish_reason_and_blocks_a_prompt() -> None:
    """A refusal is a candidate without content, a blocked prompt has no candidate."""
    for how in ("generateContent", "streamGenerateContent"):
        data = orjson.loads(joined(gemini("please refuse", how=how)))
        data = data[-1] if isinstance(data, list) else data
        assert data["candidates"][0]["finishReason"] == "SAFETY"
        data = orjson.loads(joined(gemini("please filter", how=how)))
        data = data[-1] if isinstance(data, list) else data
        assert data["promptFeedback"] == {"blockReason": "PROHIBITED_CONTENT"}
        assert "candidates" not in data


def test_gemini_counts_tokens_as_it_charges_them() -> None:
    """In both forms of the request."""
    charged = orjson.loads(joined(gemini("Hi there")))["usageMetadata"]["promptTokenCount"]
    contents = [{"role": "user", "parts": [{"text": "Hi there"}]}]
    target = "/v1beta/models/gemini-2.5-pro:countTokens"
    for body in ({"contents": contents}, {"generateContentRequest": {"contents": contents}}):
        data = orjson.loads(joined(play(Dialect.GEMINI, orjson.dumps(body), target=target)))
        assert data["totalTokens"] == charged


def test_an_error_in_an_array_closes_it() -> None:
    """The array is whole JSON, and its last element is the error."""
    body = orjson.dumps({"contents": [{"parts": [{"text": "Hi"}]}]})
    for fault, least in (("content-error:503", 2), ("lifecycle-error:429", 1)):
        script = play(
            Dialect.GEMINI,
            body,
            target="/v1beta/models/gemini-2.5-pro:streamGenerateContent",
            profile=Profile(faults=(fault,)),
        )
        found = orjson.loads(joined(script))
        assert len(found) >= least
        assert found[-1]["error"]["status"] in ("UNAVAILABLE", "RESOURCE_EXHAUSTED")


def ollama(text: str, model: str = "qwen3:8b", *, more: Json | None = None, **rest: Any) -> Script:
    messages = [{"role": "user", "content": text, **(more or {})}]
    return play(Dialect.OLLAMA_CHAT, orjson.dumps({"model": model, "messages": messages, **rest}))


def test_ollama_streams_lines_unless_told_otherwise() -> None:
    """The lines add up to the whole answer; the last one counts."""
    script = ollama("Hi")
    assert header(script.headers, "content-type") == "application/x-ndjson"
    found = lines(joined(script))
    whole = orjson.loads(joined(ollama("Hi", stream=False)))
    assert "".join(line["message"]["content"] for line in found) == whole["message"]["content"]
    assert [line["done"] for line in found] == [False] * (len(found) - 1) + [True]
    counts = ("done_reason", "prompt_eval_count", "eval_count")
    assert [found[-1][name] for name in counts] == [whole[name] for name in counts]
    assert whole["created_at"] == "1970-01-01T00:00:00Z"


def test_ollama_thinks_sees_and_calls() -> None:
    """Thoughts in their own field, images by their bytes, arguments as objects."""
    whole = orjson.loads(joined(ollama("Hi", think=True, stream=False, more={"images": [PNG]})))
    assert "The question is" in whole["message"]["thinking"]
    assert "It came with 1 image (image/png)." in whole["message"]["content"]
    found = lines(joined(ollama(BOTH_TOOLS, tools=FUNCTIONS)))
    calls = [call for line in found for call in line["message"].get("tool_calls", ())]
    assert [call["function"] for call in calls] == [
        {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}},
        {"index": 1, "name": "get_time", "arguments": {"city": "Paris"}},
    ]
    messages = [
        {"role": "user", "content": BOTH_TOOLS},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_name": "get_weather", "content": "18"},
        {"role": "tool", "content": "noon"},
    ]
    body = {"model": "qwen3:8b", "messages": messages, "tools": FUNCTIONS, "stream": False}
    text = orjson.loads(joined(play(Dialect.OLLAMA_CHAT, orjson.dumps(body))))["message"]["content"]
    assert 'The tool get_weather answered: "18". The tool get_time answered: "noon".' in text


def test_ollama_obeys_its_settings() -> None:
    """Schema, cap, stop words, log probabilities."""
    whole = orjson.loads(joined(ollama("the weather in Paris", format=LOWER, stream=False)))
    assert orjson.loads(whole["message"]["content"]) == {"city": "Paris"}
    whole = orjson.loads(joined(ollama("Hi", stream=False, options={"num_predict": 3})))
    assert (whole["done_reason"], whole["eval_count"]) == ("length", 3)
    whole = orjson.loads(joined(ollama("Hi", stream=False, options={"stop": ["asked"]})))
    assert (whole["done_reason"], whole["message"]["content"]) == ("stop", "You ")
    whole = orjson.loads(joined(ollama("echo: a b", stream=False, logprobs=True, top_logprobs=2)))
    assert [(token["token"], len(token["top_logprobs"])) for token in whole["logprobs"]] == [
        ("a ", 2),
        ("b", 2),
    ]


def test_ollama_generates_from_a_prompt() -> None:
    """The other operation has its text in `response`."""
    body: Json = {"model": "qwen3:8b", "prompt": "echo: a b", "think": True}
    found = lines(joined(play(Dialect.OLLAMA_GENERATE, orjson.dumps(body))))
    assert "".join(line["response"] for line in found) == "a b"
    whole = orjson.loads(joined(play(Dialect.OLLAMA_GENERATE, orjson.dumps({**body, "stream": False}))))
    assert (whole["response"], bool(whole["thinking"])) == ("a b", True)


@pytest.mark.parametrize(
    ("path", "host", "key", "name"),
    [
        ("/api/tags", "", "models", "qwen3:8b"),
        ("/v1beta/models", "", "models", "models/gemini-2.5-pro"),
        ("/v1/models", "gemini", "models", "models/gemini-2.5-pro"),
        ("/v1/models", "ollama", "data", "qwen3:8b"),
        ("/v1/models", "anthropic", "data", "claude-sonnet-4-6"),
        ("/v1/models", "", "data", "text-embedding-3-small"),
    ],
)
def test_every_vendor_lists_its_models(path: str, host: str, key: str, name: str) -> None:
    """In its own shape."""
    data = orjson.loads(joined(Simulator().respond("GET", path, b"", host=host)))
    assert name in [item.get("id", item.get("name")) for item in data[key]]


def test_gemini_reads_a_repeated_prompt_from_its_cache() -> None:
    """By itself, once it is long enough."""
    vendors = Simulator()
    contents = [{"role": "user", "parts": [{"text": "Remember this well. " * 300}]}]
    body, target = orjson.dumps({"contents": contents}), "/v1beta/models/gemini-2.5-pro:generateContent"
    first, second = (orjson.loads(joined(vendors.respond("POST", target, body))) for _ in range(2))
    assert "cachedContentTokenCount" not in first["usageMetadata"]
    assert second["usageMetadata"]["cachedContentTokenCount"] == 1408


@pytest.mark.parametrize("dialect", [one for one in Dialect if one.translates])
@pytest.mark.parametrize("fault", ["stall", "reset", "truncate", "no-terminal", "ok"])
def test_every_stream_can_be_cut_in_its_middle(dialect: Dialect, fault: str) -> None:
    """In every dialect a fault leaves text before it and no end after it."""
    target = (
        "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse" if dialect is Dialect.GEMINI else ""
    )
    raw: Json = {"model": "qwen3:8b", "stream": True}
    if dialect is Dialect.GEMINI:
        raw = {"contents": [{"parts": [{"text": "Hi"}]}]}
    elif dialect in (Dialect.OPENAI_COMPLETIONS, Dialect.OLLAMA_GENERATE):
        raw["prompt"] = "Hi"
    elif dialect is Dialect.OPENAI_RESPONSES:
        raw["input"] = "Hi"
    else:
        raw["messages"] = [{"role": "user", "content": "Hi"}]
        raw |= {"max_tokens": 500} if dialect is Dialect.ANTHROPIC_MESSAGES else {}
    script = play(dialect, orjson.dumps(raw), target=target, profile=Profile(faults=(fault,)))
    told = joined(script)
    ends = (b"[DONE]", b"message_stop", b"response.completed", b'"finishReason"', b'"done":true')
    assert b"You " in told
    assert any(end in told for end in ends) is (fault == "ok")
