"""What the simulated vendors refuse, each in its vendor's words."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tokenhub_core.providers.simulation.asking import RejectedError
from tokenhub_core.providers.simulation.proofs import seal
from tokenhub_core.providers.simulation.wires import WIRES, dialect_at, read
from tokenhub_core.providers.simulator import Simulator, play
from tokenhub_core.types import Dialect, Json

CHAT, MESSAGES, RESPONSES = Dialect.OPENAI_CHAT, Dialect.ANTHROPIC_MESSAGES, Dialect.OPENAI_RESPONSES
GEMINI, OLLAMA = Dialect.GEMINI, Dialect.OLLAMA_CHAT
PRO = "/v1beta/models/gemini-3.1-pro-preview:generateContent"
OPEN = {"type": "object", "properties": {"a": {"type": "string"}}}


def user(content: Any) -> Json:
    return {"role": "user", "content": content}


def called(*ids: str, arguments: Any = "{}") -> Json:
    calls = [
        {"id": name, "type": "function", "function": {"name": "f", "arguments": arguments}} for name in ids
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(name: str) -> Json:
    return {"role": "tool", "tool_call_id": name, "content": "x"}


def chat(*messages: Json, **rest: Any) -> Json:
    return {"model": "gpt-4o", "messages": [*messages] or [user("Hi")], **rest}


def used(*ids: str) -> Json:
    return {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": name, "name": "f", "input": {}} for name in ids],
    }


def told(*ids: str) -> Json:
    return user([{"type": "tool_result", "tool_use_id": name, "content": "x"} for name in ids])


def claude(*messages: Json, **rest: Any) -> Json:
    return {"model": "m", "max_tokens": 2000, "messages": [*messages] or [user("Hi")], **rest}


def response(*items: Json, model: str = "gpt-5", **rest: Any) -> Json:
    return {"model": model, "input": [*items] or "Hi", **rest}


def call_item(name: str) -> Json:
    return {"type": "function_call", "call_id": name, "name": "f", "arguments": "{}"}


def output(name: str) -> Json:
    return {"type": "function_call_output", "call_id": name, "output": "x"}


def gemini(*turns: Json, **rest: Any) -> Json:
    return {"contents": [*turns] or [{"role": "user", "parts": [{"text": "Hi"}]}], **rest}


def turn(role: str, *parts: Json) -> Json:
    return {"role": role, "parts": [*parts]}


def declared(schema: Json, name: str = "f") -> Json:
    return {"tools": [{"functionDeclarations": [{"name": name, "parameters": schema}]}]}


ASKED = turn("user", {"text": "Hi"})
CALL = {"functionCall": {"name": "f", "args": {}}}
SIGNED = {**CALL, "thoughtSignature": seal("gemini", "n")}
ANSWER = {"functionResponse": {"name": "f", "response": {"output": "x"}}}
ENABLED = {"type": "enabled", "budget_tokens": 1024}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (chat(wrong=1), "Unknown parameter: 'wrong'."),
        (chat(user("Hi"), result("c")), "must be a response to a preceeding message with 'tool_calls'"),
        (chat(user("Hi"), called("c")), "did not have response messages: c"),
        (chat(user("Hi"), called("c"), user("So?")), "did not have response messages: c"),
        (chat(user("Hi"), called("c", "c"), result("c")), "Duplicate value for 'id' of 'c'"),
        (chat(user("Hi"), called("c"), result("c"), result("c")), "Duplicate value for 'tool_call_id' of 'c'"),
        (chat(user("Hi"), called("c", arguments={}), result("c")), "expected a string"),
        (chat({"role": "model", "content": "x"}), "Invalid value: 'model'. Supported values are"),
        (chat(user(None)), "expected one of a string or array of objects"),
        (chat({"role": "system", "content": [{"type": "image_url", "image_url": {"url": "https://a/b"}}]}),
         "Image URLs are only allowed for messages with role 'user'"),
        (chat(user([{"type": "image", "source": {}}])), "Invalid value: 'image'"),
        (chat(user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,%%"}}])), "base64"),
        (chat(stop=["a"] * 5), "array too long"),
        (chat(top_logprobs=2), "only allowed when 'logprobs' is enabled"),
        (chat(temperature=3), "Invalid 'temperature'"),
        (chat(parallel_tool_calls=False), "only allowed when 'tools' are specified"),
        (chat(stream_options={"include_usage": True}), "only allowed when 'stream' is enabled"),
        (chat(tools=[{"type": "function", "function": {"name": "a b"}}]), "does not match pattern"),
        (chat(tools=[{"type": "function", "function": {"name": "f", "parameters": OPEN, "strict": True}}]),
         "'additionalProperties' is required to be supplied and to be false"),
        (chat(response_format={"type": "json_schema", "json_schema": {"name": "n", "strict": True,
              "schema": {**OPEN, "additionalProperties": False}}}), "Missing 'a'"),
        ({**chat(), "model": "gpt-5", "max_tokens": 5}, "Use 'max_completion_tokens' instead"),
        ({**chat(), "model": "o4-mini", "temperature": 0.2}, "Only the default (1) value is supported"),
    ],
)  # fmt: skip
def test_openai_chat_refuses(data: Json, words: str) -> None:
    """With status 400 and its own sentence."""
    refused(CHAT, data, words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (claude(wrong=1), "wrong: Extra inputs are not permitted"),
        (claude(used("t")), 'first message must use the "user" role'),
        (claude(user("Hi"), told("t")), "unexpected `tool_use_id` found in `tool_result` blocks: t"),
        (claude(user("Hi"), used("t"), user("So?")), "`tool_use` ids were found without `tool_result`"),
        (claude(user("Hi"), used("t")), "`tool_use` ids were found without `tool_result`"),
        (claude(user("Hi"), used("t", "t"), told("t")), "`tool_use` ids must be unique"),
        (claude(user("Hi"), used("t"), told("t"), used("t"), told("t")), "`tool_use` ids must be unique"),
        (claude(user("Hi"), used("t"), told("t", "t")), "each tool_use must have a single result"),
        (claude(user("Hi"), used("a|b"), told("a|b")), "String should match pattern '^[a-zA-Z0-9_-]+$'"),
        (claude(user("")), "non-empty content"),
        (claude(user([{"type": "text", "text": ""}])), "text content blocks must be non-empty"),
        (claude(user([{"type": "image_url", "image_url": {}}])), "Input tag 'image_url' found using 'type'"),
        (claude(user([{"type": "image", "source": {"type": "base64", "media_type": "image/svg", "data": "QQ=="}}])),
         "media_type: Input should be 'image/jpeg'"),
        (claude({"role": "tool", "content": "x"}), "Input should be 'user' or 'assistant'"),
        (claude(tools=[{"name": "f", "input_schema": {}}]), "input_schema.type: Input should be 'object'"),
        (claude(tool_choice={"type": "tool", "name": "g"}), "not found in provided tools"),
        (claude(thinking={"type": "enabled", "budget_tokens": 100}), "greater than or equal to 1024"),
        (claude(thinking={"type": "enabled", "budget_tokens": 4000}), "must be greater than `thinking.budget_tokens`"),
        (claude(thinking=ENABLED, temperature=0.2), "`temperature` may only be set to 1"),
        (claude(thinking=ENABLED, tools=[{"name": "f", "input_schema": {"type": "object"}}],
                tool_choice={"type": "any"}), "Thinking may not be enabled when tool_choice forces tool use"),
        (claude(user("Hi"), used("t"), told("t"), thinking=ENABLED), "Expected `thinking` or `redacted_thinking`"),
        ({"model": "m", "messages": [user("Hi")]}, "max_tokens: Field required"),
        ({"max_tokens": 5, "messages": [user("Hi")]}, "model: Field required"),
    ],
)  # fmt: skip
def test_anthropic_refuses(data: Json, words: str) -> None:
    """With status 400 and its own sentence."""
    refused(MESSAGES, data, words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (response(messages=[]), "Unknown parameter: 'messages'."),
        (response(max_tokens=5), "Unknown parameter: 'max_tokens'."),
        (response(max_output_tokens=5), "Expected a value >= 16"),
        (response(previous_response_id="resp_1"), "Previous response with id 'resp_1' not found."),
        (response(user("Hi"), call_item("c")), "No tool output found for function call c."),
        (response(user("Hi"), output("c")), "No tool call found for function call output with call_id c."),
        (response(user("Hi"), call_item("c"), call_item("c"), output("c")), "Duplicate item"),
        (response(user([{"type": "text", "text": "x"}])), "Invalid value: 'text'. Supported values are: 'input_text'"),
        (response({"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}), "'output_text'"),
        (response({"role": "tool", "content": "x"}), "Invalid value: 'tool'"),
        (response(user("Hi"), {"type": "reasoning", "id": "rs_x", "summary": []}), "Item with id 'rs_x' not found."),
        (response(user("Hi"), {"type": "reasoning", "id": "rs_x", "summary": [], "encrypted_content": "x"}),
         "could not be verified"),
        (response(user("Hi"), {"type": "reasoning", "id": "rs_x", "summary": [],
                               "encrypted_content": seal("openai", "n")}), "without its required following item"),
        (response(user("Hi"), {"type": "reasoning", "id": "rs_x", "summary": [],
                               "encrypted_content": seal("anthropic", "n")}), "could not be verified"),
        (response(user("Hi"), {**call_item("c"), "id": "toolu_1"}, output("c")), "begins with 'fc'"),
        (response(tools=[{"type": "function", "function": {"name": "f"}}]), "'tools[0].name'"),
        (response(tools=[{"type": "function", "name": "f", "parameters": OPEN, "strict": True}]),
         "'additionalProperties' is required"),
        (response(model="gpt-4o", reasoning={"effort": "low"}), "'reasoning.effort' is not supported"),
        (response(temperature=0.2), "'temperature' is not supported with this model"),
    ],
)  # fmt: skip
def test_openai_responses_refuses(data: Json, words: str) -> None:
    """With its own sentence."""
    refused(RESPONSES, data, words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gemini(wrong=1), 'Unknown name "wrong": Cannot find field.'),
        (gemini(generationConfig={"max_tokens": 1}), "Unknown name \"maxTokens\" at 'generation_config'"),
        ({"contents": []}, "contents is not specified"),
        (gemini(turn("assistant", {"text": "x"})), "Please use a valid role: user, model."),
        (gemini(turn("user")), "contents.parts must not be empty"),
        (gemini(turn("user", {"type": "text", "text": "x"})), 'Unknown name "type"'),
        (gemini(turn("user", {"text": "x", "inlineData": {}})), "must have one initialized field"),
        (gemini(ASKED, turn("model", SIGNED)), "number of function response parts is equal"),
        (gemini(ASKED, turn("model", SIGNED), turn("user", ANSWER, ANSWER)), "number of function response parts"),
        (gemini(turn("model", SIGNED), turn("user", ANSWER)), "function call turn comes immediately after a user turn"),
        (gemini(ASKED, turn("model", CALL), turn("user", ANSWER)), "missing a thought_signature"),
        (gemini(ASKED, turn("model", {**CALL, "thoughtSignature": "QUJD"}), turn("user", ANSWER)), "not valid"),
        (gemini(**declared({"type": "object", "additionalItems": {}})), 'Unknown name "additionalItems"'),
        (gemini(**declared({"type": "object", "properties": {"a": {"const": 1}}})),
         "Unknown name \"const\" at 'tools[0].function_declarations[0].parameters.properties[0].value'"),
        (gemini(**declared({"type": ["string", "null"]})), "Invalid value at"),
        (gemini(**declared({"type": "object"}, "1f")), "Invalid function name"),
        (gemini(generationConfig={"stopSequences": ["a"] * 6}), "at most 5"),
        (gemini(generationConfig={"responseSchema": {"type": "OBJECT"}}), "Unsupported response mime type"),
        (gemini(generationConfig={"logprobs": 2}), "logprobs requires response_logprobs"),
        (gemini(generationConfig={"thinkingConfig": {"thinkingBudget": 0}}), "Budget 0 is invalid"),
        (gemini(toolConfig={"functionCallingConfig": {"mode": "REQUIRED"}}), "Invalid value at 'tool_config"),
    ],
)  # fmt: skip
def test_gemini_refuses(data: Json, words: str) -> None:
    """With its own sentence."""
    refused(GEMINI, data, words, target=PRO)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"messages": [user("Hi")]}, "model is required"),
        ({"model": "qwen3:8b", "messages": [user([{"type": "text", "text": "x"}])]},
         "cannot unmarshal array into Go struct field ChatRequest.messages.content of type string"),
        ({"model": "qwen3:8b", "messages": [user("Hi"), called("c"), result("c")]},
         "cannot unmarshal string into Go struct field ChatRequest.messages.tool_calls.function.arguments"),
        ({"model": "qwen3:8b", "messages": [{**user("Hi"), "images": ["data:image/png;base64,AAAA"]}]},
         "illegal base64 data"),
        ({"model": "llama3.1:8b", "messages": [user("Hi")], "think": True}, "does not support thinking"),
        ({"model": "qwen3:8b", "messages": [user("Hi")], "think": "most"}, "invalid think value"),
        ({"model": "gemma3", "messages": [user("Hi")], "tools": [{"type": "function", "function": {"name": "f"}}]},
         "registry.ollama.ai/library/gemma3:latest does not support tools"),
        ({"model": "qwen3:8b", "messages": [user("Hi")], "format": "yaml"}, "invalid format"),
    ],
)  # fmt: skip
def test_ollama_refuses(data: Json, words: str) -> None:
    """With its own sentence, and nothing around it."""
    refused(OLLAMA, data, words)
    body = b"".join(part for _, part in play(OLLAMA, orjson.dumps(data)).frames)
    assert [*orjson.loads(body)] == ["error"]


@pytest.mark.parametrize(
    ("dialect", "data", "words"),
    [
        (Dialect.OPENAI_EMBEDDINGS, {"model": "m"}, "Missing required parameter: 'input'."),
        (Dialect.OPENAI_EMBEDDINGS, {"model": "m", "input": ["a", ""]}, "'$.input' is invalid"),
        (Dialect.OPENAI_EMBEDDINGS, {"model": "text-embedding-ada-002", "input": "a", "dimensions": 8},
         "does not support specifying dimensions"),
        (Dialect.OPENAI_EMBEDDINGS, {"model": "text-embedding-3-small", "input": "a", "dimensions": 4000},
         "Must be less than or equal to 1536"),
        (Dialect.OPENAI_COMPLETIONS, {"model": "m", "prompt": {}}, "Invalid type for 'prompt'"),
        (Dialect.OPENAI_COMPLETIONS, {"model": "m", "messages": []}, "Unknown parameter: 'messages'."),
        (Dialect.OPENAI_COMPLETIONS, {"model": "m", "prompt": "x", "logprobs": 9}, "Expected a value <= 5"),
        (Dialect.ANTHROPIC_COUNT_TOKENS, claude(), "max_tokens: Extra inputs are not permitted"),
        (Dialect.OLLAMA_GENERATE, {"model": "m", "prompt": ["x"]}, "cannot unmarshal array"),
    ],
)  # fmt: skip
def test_the_small_operations_refuse(dialect: Dialect, data: Json, words: str) -> None:
    """Each what it cannot use."""
    refused(dialect, data, words)


def refused(dialect: Dialect, data: Json, words: str, target: str = "") -> None:
    with pytest.raises(RejectedError) as caught:
        read(dialect, orjson.dumps(data), target)
    assert words in caught.value.message
    assert play(dialect, orjson.dumps(data), target=target).status == caught.value.status


@pytest.mark.parametrize(
    ("dialect", "data"),
    [
        (CHAT, chat(user("Hi"), called("a", "b"), result("b"), result("a"), user("So?"))),
        (CHAT, chat(user([{"type": "text", "text": "x"}]), {"role": "assistant", "content": None, "refusal": "no"})),
        (MESSAGES, claude(user("Hi"), used("a", "b"), told("b", "a"), {"role": "assistant", "content": "ok"})),
        (MESSAGES, claude(user("Hi"), used("t"), told("t"), thinking={"type": "adaptive"})),
        (RESPONSES, response(user("Hi"), call_item("c"), output("c"), user("So?"))),
        (RESPONSES, response(user("Hi"), client_metadata={"x": "y"})),
        (RESPONSES, response(user("Hi"), tools=[{"type": "function", "name": "f", "strict": False, "parameters":
                                                 {"type": "object", "properties": {"type": {"type": "string"}}}}])),
        (GEMINI, gemini(ASKED, turn("model", CALL), turn("user", ANSWER), ASKED)),
        (GEMINI, gemini(ASKED, turn("model", SIGNED, CALL), turn("user", ANSWER, ANSWER))),
        (GEMINI, gemini(ASKED, turn("model", {**CALL, "thoughtSignature": "skip_thought_signature_validator"}),
                        turn("user", ANSWER))),
        (GEMINI, gemini(system_instruction={"parts": [{"text": "x"}]}, generation_config={"max_output_tokens": 9})),
    ],
)  # fmt: skip
def test_what_is_right_is_accepted(dialect: Dialect, data: Json) -> None:
    """The rules refuse no honest conversation: an older turn needs no signature, and a call that is not the first."""
    assert play(dialect, orjson.dumps(data), target=PRO if dialect is GEMINI else "").status == 200


def test_every_dialect_has_a_wire_and_a_path() -> None:
    """The table is complete, and a path leads to its dialect whatever stands before it."""
    assert set(WIRES) == set(Dialect)
    paths = {
        "/v1/chat/completions": CHAT,
        "/openai/deployments/x/chat/completions?api-version=1": CHAT,
        "/v1/completions": Dialect.OPENAI_COMPLETIONS,
        "/v1/responses": RESPONSES,
        "/v1/embeddings": Dialect.OPENAI_EMBEDDINGS,
        "/v1/messages": MESSAGES,
        "/v1/messages/count_tokens?beta=true": Dialect.ANTHROPIC_COUNT_TOKENS,
        "/v1beta/models/g:streamGenerateContent?alt=sse": GEMINI,
        "/v1beta/models/g:countTokens": GEMINI,
        "/v1beta/models/g:embedContent": None,
        "/api/chat": OLLAMA,
        "/api/generate": Dialect.OLLAMA_GENERATE,
        "/v1/files": None,
    }
    assert {path: dialect_at(path) for path in paths} == paths


@pytest.mark.parametrize("dialect", Dialect)
def test_no_vendor_reads_what_is_no_object(dialect: Dialect) -> None:
    """Broken JSON and other JSON are a 400 in every dialect."""
    for raw in (b"{", b"[]", b""):
        assert play(dialect, raw, target=PRO).status == 400


@pytest.mark.parametrize(
    ("path", "data", "words"),
    [
        ("/v1/chat/completions", {**chat(), "model": "gpt-0"}, "The model `gpt-0` does not exist"),
        ("/v1/messages", claude(), "model: m"),
        ("/v1beta/models/gemini-0:generateContent", gemini(), "models/gemini-0 is not found"),
        ("/api/chat", {"model": "x", "messages": []}, "model 'x' not found"),
        ("/v1/nothing", {}, "Invalid URL (POST /v1/nothing)"),
    ],
)
def test_a_model_or_path_that_nobody_has_is_a_404(path: str, data: Json, words: str) -> None:
    """In the vendor's words; with a profile of its name there is such a model."""
    script = Simulator().respond("POST", path, orjson.dumps(data))
    assert script.status == 404
    assert words in b"".join(part for _, part in script.frames).decode()
    if path != "/v1/nothing":
        assert Simulator(any_model=True).respond("POST", path, orjson.dumps(data)).status == 200
