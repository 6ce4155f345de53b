from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.dialects.gemini import GEMINI
from tokenhub_core.dialects.gemini.schema import json_schema
from tokenhub_core.types import (
    Audio,
    Call,
    Choice,
    File,
    Image,
    Json,
    Opaque,
    OutputFormat,
    Part,
    Reasoning,
    Role,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)

PATH = "/v1beta/models/gemini-3-pro:generateContent"


def parse(contents: list[Json] | None = None, **fields: Any) -> Call:
    body = {"contents": contents or [{"parts": [{"text": "x"}]}], **fields}
    return GEMINI.parse(GEMINI.open(orjson.dumps(body), PATH))


def parts(*given: Json, role: str = "user") -> tuple[Part, ...]:
    (turn,) = parse([{"role": role, "parts": list(given)}]).turns
    return turn.parts


def call(name: str, **more: Any) -> Json:
    return {"functionCall": {"name": name, "args": {}, **more}}


def result(name: str, response: Json | None = None, **more: Any) -> Json:
    return {"functionResponse": {"name": name, "response": response or {"output": "x"}, **more}}


def config(**fields: Any) -> Call:
    return parse(generationConfig=fields)


# --- the conversation --------------------------------------------------------------------------------------


def test_calls_without_ids_get_them_and_results_find_theirs_by_name_and_order() -> None:
    """The same conversation has the same ids each time it is sent, and none that the caller uses."""
    turns = parse(
        [
            {"role": "model", "parts": [call("a"), call("b"), call("a"), call("c", id="call_1")]},
            {
                "role": "user",
                "parts": [result("b"), result("a"), result("a"), result("c", id="call_1"), result("z")],
            },
            {"role": "model", "parts": [call("a")]},
            {"role": "function", "parts": [result("a")]},
        ]
    ).turns
    ids = [[part.id for part in turn.parts if isinstance(part, ToolUse | ToolResult)] for turn in turns]
    assert ids == [
        ["call_0", "call_2", "call_3", "call_1"],
        ["call_2", "call_0", "call_3", "call_1", "call_4"],
        ["call_5"],
        ["call_5"],
    ]
    assert [turn.role for turn in turns] == [Role.ASSISTANT, Role.TOOL, Role.ASSISTANT, Role.TOOL]


@pytest.mark.parametrize(
    ("response", "text", "error"),
    [
        ({"output": "sunny"}, "sunny", False),
        ({"result": "sunny"}, "sunny", False),
        ({"error": "no"}, "no", True),
        ({"error": {"code": 1}}, '{"error":{"code":1}}', True),
        ({"sky": "blue"}, '{"sky":"blue"}', False),
        ({"output": 7}, '{"output":7}', False),
        ({"output": "a", "more": 1}, '{"output":"a","more":1}', False),
    ],
)
def test_a_functions_result_is_its_text_or_its_object(response: Json, text: str, error: bool) -> None:
    """Google documents `output` and `error` as what wraps a plain result."""
    (found,) = parts(result("f", response))
    assert isinstance(found, ToolResult)
    assert (found.content, found.is_error) == ((Text(text),), error)


def test_results_come_before_what_else_a_content_says() -> None:
    """As every other dialect wants them."""
    turns = parse([{"role": "user", "parts": [{"text": "and"}, result("f")]}]).turns
    assert [turn.role for turn in turns] == [Role.TOOL, Role.USER]


def test_media_is_told_apart_by_type_and_by_who_can_fetch_it() -> None:
    """Base64 comes in the alphabet that everybody reads."""
    found = parts(
        {"inlineData": {"mimeType": "image/png", "data": "-_8"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "AA=="}},
        {"inlineData": {"mimeType": "text/csv", "data": "AA==", "displayName": "a.csv"}},
        {"fileData": {"mimeType": "image/png", "fileUri": "https://x/a.png"}},
        {
            "fileData": {
                "mimeType": "image/png",
                "fileUri": "https://generativelanguage.googleapis.com/v1beta/files/a",
            }
        },
        {"fileData": {"mimeType": "video/mp4", "fileUri": "gs://bucket/a.mp4"}},
        {"fileData": {"fileUri": "https://x/b.pdf"}},
        {"fileData": {"fileUri": "http://[broken"}},
    )
    assert found == (
        Image(media_type="image/png", data="+/8="),
        Audio("audio/wav", "AA=="),
        File(media_type="text/csv", data="AA==", name="a.csv"),
        Image("https://x/a.png", "image/png"),
        File(file_id="https://generativelanguage.googleapis.com/v1beta/files/a", media_type="image/png"),
        File(file_id="gs://bucket/a.mp4", media_type="video/mp4"),
        File("https://x/b.pdf"),
        File(file_id="http://[broken"),
    )


def test_thoughts_and_signatures_are_reasoning() -> None:
    """A signature on anything but a call is a part of its own, sealed."""
    assert parts(
        {"text": "Hm.", "thought": True, "thoughtSignature": "YQ=="},
        {"text": "Yes", "thoughtSignature": "Yg=="},
        {"text": "", "thoughtSignature": "Yw=="},
        {**call("f"), "thoughtSignature": "ZA=="},
        {"thought": True},
        role="model",
    ) == (
        Reasoning("Hm.", "gemini:YQ=="),
        Text("Yes"),
        Reasoning(signature="gemini:Yg=="),
        Reasoning(signature="gemini:Yw=="),
        ToolUse("call_0", "f", "{}", signature="gemini:ZA=="),
        Reasoning(),
    )


def marked(text: str) -> str:
    return base64.urlsafe_b64encode(b"tokenhub-seal:" + text.encode()).decode()


def test_a_thought_that_another_dialect_signed_is_put_together_again() -> None:
    """Clients give back the pieces of a stream, each as its own content; the signature is for all of them."""
    pieces: list[Json] = [
        {"text": "I ", "thought": True},
        {"text": "think.", "thought": True},
        {"text": "", "thought": True, "thoughtSignature": marked("anthropic_messages:Eq>>?")},
        {"text": "", "thought": True, "thoughtSignature": marked("redacted:anthropic_messages:xyz")},
        {"text": "Hi"},
    ]
    contents: list[Json] = [{"parts": [{"text": "x"}]}]
    contents += [{"role": "model", "parts": [piece]} for piece in pieces]
    _, turn = parse(contents).turns
    assert turn.parts == (
        Reasoning("I think.", "anthropic_messages:Eq>>?"),
        Reasoning(redacted="anthropic_messages:xyz"),
        Text("Hi"),
    )


@pytest.mark.parametrize("value", ["dG9rZW5odWItc2VhbD", "dG9rZW5odWItc2VhbDo=!", "dG9rZW5odWItc2VhbDr/", 7])
def test_what_only_looks_like_a_mark_is_the_providers_own(value: Any) -> None:
    """Nothing is read into bytes that are not ours."""
    (found,) = parts({"text": "x", "thought": True, "thoughtSignature": value}, role="model")
    assert isinstance(found, Reasoning)
    assert found.signature in {f"gemini:{value}", ""}


def test_what_only_this_dialect_knows_is_opaque() -> None:
    """A kind of part, or a known kind in an unknown shape."""
    raws: list[Json] = [
        {"executableCode": {"code": "1"}},
        {"thoughtSignature": "YQ==", "later": 1},
        {"text": "x", "inlineData": None, "thought": True, "other": 2},
    ]
    assert [part.kind for part in parts(*raws, role="model") if isinstance(part, Opaque)] == [
        "executableCode",
        "later",
        "text",
    ]


# --- settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choosing", "choice", "kept"),
    [
        ({"mode": "AUTO"}, ToolChoice(), {}),
        ({"mode": "none"}, ToolChoice(Choice.NONE), {}),
        ({"mode": "ANY"}, ToolChoice(Choice.REQUIRED), {}),
        ({"mode": "ANY", "allowedFunctionNames": ["f"]}, ToolChoice(Choice.NAMED, "f"), {}),
        (
            {"mode": "ANY", "allowedFunctionNames": ["f", "g"]},
            ToolChoice(Choice.REQUIRED),
            {"toolConfig.functionCallingConfig.allowedFunctionNames": ["f", "g"]},
        ),
        ({"mode": "VALIDATED"}, None, {"toolConfig.functionCallingConfig": {"mode": "VALIDATED"}}),
        ({"mode": 7}, None, {"toolConfig.functionCallingConfig": {"mode": 7}}),
    ],
)
def test_a_tool_choice_is_read(choosing: Json, choice: ToolChoice | None, kept: Json) -> None:
    """What has no canonical word is kept whole."""
    call_ = parse(toolConfig={"functionCallingConfig": choosing})
    assert (call_.tool_choice, call_.rest) == (choice, kept)


@pytest.mark.parametrize(
    ("given", "thinking"),
    [
        ({"thinkingBudget": 0}, Thinking(enabled=False, budget_tokens=0)),
        ({"thinkingBudget": "512"}, Thinking(enabled=True, budget_tokens=512)),
        (
            {"thinkingLevel": "HIGH", "includeThoughts": True},
            Thinking(enabled=True, effort="high", show=True),
        ),
        ({"includeThoughts": False}, Thinking(show=False)),
    ],
)
def test_how_much_to_think_is_read(given: Json, thinking: Thinking) -> None:
    """A budget, a level, and whether the thoughts are shown."""
    assert config(thinkingConfig=given).thinking == thinking


SCHEMA = {"type": "object"}


@pytest.mark.parametrize(
    ("given", "output", "kept"),
    [
        ({"responseMimeType": "application/json"}, OutputFormat(), []),
        ({"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}, OutputFormat(SCHEMA), []),
        (
            {"responseMimeType": "application/json", "responseSchema": {"type": "OBJECT"}},
            OutputFormat(SCHEMA),
            [],
        ),
        ({"responseMimeType": "text/plain"}, None, []),
        (
            {"responseMimeType": "text/x.enum", "responseSchema": SCHEMA},
            None,
            ["responseMimeType", "responseSchema"],
        ),
        (
            {"responseMimeType": "application/json", "responseJsonSchema": True},
            None,
            ["responseJsonSchema", "responseMimeType"],
        ),
        ({"responseJsonSchema": SCHEMA}, None, ["responseJsonSchema"]),
    ],
)
def test_an_output_format_is_read(given: Json, output: OutputFormat | None, kept: list[str]) -> None:
    """What has no canonical form stays where it was."""
    call_ = config(**given)
    assert call_.output == output
    assert sorted(call_.rest) == [f"generationConfig.{name}" for name in kept]


def test_numbers_are_read_in_every_form_and_kept_where_they_are_none() -> None:
    """Protobuf's JSON takes numbers in quotes, and whole ones with a fraction of zero."""
    call_ = config(
        topK=40.0, seed="7", candidateCount=2, temperature=1, topP=0.5, responseLogprobs=True, logprobs=2
    )
    assert (call_.top_k, call_.seed, call_.n, call_.temperature, call_.top_p, call_.logprobs) == (
        40,
        7,
        2,
        1,
        0.5,
        2,
    )
    odd = {
        "topK": 1.5,
        "seed": "x",
        "temperature": True,
        "stopSequences": [7],
        "logprobs": 3,
        "thinkingConfig": 7,
    }
    assert config(**odd).rest == {f"generationConfig.{name}": value for name, value in odd.items()}
    assert config(responseLogprobs=True).logprobs == 0
    assert "generationConfig.logprobs" in config(responseLogprobs=True, logprobs="x").rest


def test_what_steers_tools_without_choosing_is_kept() -> None:
    """No choice is made for the caller."""
    found = parse(toolConfig={"retrievalConfig": {"languageCode": "en"}})
    assert (found.tool_choice, found.rest) == (None, {"toolConfig.retrievalConfig": {"languageCode": "en"}})


def test_functions_and_other_tools_are_told_apart() -> None:
    """A schema in Google's words is JSON Schema then."""
    tools = [
        {
            "functionDeclarations": [
                {"name": "f", "parameters": {"type": "OBJECT"}},
                {"name": "g", "parametersJsonSchema": True},
            ],
            "googleSearch": {},
        },
    ]
    first, second, third = parse(tools=tools).tools
    assert first == Tool("f", schema=SCHEMA)
    assert second == Tool("g", rest={"parametersJsonSchema": True})
    assert isinstance(third, Opaque)
    assert (third.kind, third.raw) == ("googleSearch", {"googleSearch": {}})


@pytest.mark.parametrize(
    ("given", "schema"),
    [
        (
            {"type": "STRING", "nullable": True, "enum": ["A"]},
            {"type": ["string", "null"], "enum": ["A", None]},
        ),
        ({"type": "STRING", "format": "enum", "enum": ["A"]}, {"type": "string", "enum": ["A"]}),
        ({"type": "TYPE_UNSPECIFIED", "any_of": [{"type": "NULL"}]}, {"anyOf": [{"type": "null"}]}),
        (
            {"anyOf": [{"type": "NUMBER"}], "nullable": True},
            {"anyOf": [{"type": "number"}, {"type": "null"}]},
        ),
        ({"type": "ARRAY", "min_items": "2", "maxItems": 3}, {"type": "array", "minItems": 2, "maxItems": 3}),
        (
            {"type": "INTEGER", "format": "int32", "example": 1},
            {"type": "integer", "examples": [1], "format": "int32"},
        ),
        ({"type": "INTEGER", "format": {"a": []}}, {"type": "integer", "format": {"a": []}}),
        (
            {
                "type": "OBJECT",
                "properties": {"any_of": {"type": "BOOLEAN"}, "b": {}},
                "propertyOrdering": ["b", "z"],
            },
            {"type": "object", "properties": {"b": {}, "any_of": {"type": "boolean"}}},
        ),
        (
            {"$defs": {"x_y": {"type": "STRING"}}, "$ref": "#/$defs/x_y"},
            {"$defs": {"x_y": {"type": "string"}}, "$ref": "#/$defs/x_y"},
        ),
        ({"type": ["STRING", None]}, {"type": ["string", None]}),
        (
            {"type": 7, "minLength": "x", "additionalProperties": False},
            {"type": 7, "minLength": "x", "additionalProperties": False},
        ),
    ],
)
def test_googles_schema_becomes_json_schema(given: Json, schema: Json) -> None:
    """Names of properties are the caller's own; reading it twice changes nothing."""
    assert orjson.dumps(json_schema(given)) == orjson.dumps(schema)
    assert json_schema(schema) == schema


# --- the way there and back --------------------------------------------------------------------------------

NAME = st.text("ab_", min_size=1, max_size=3)
VALUE = st.none() | st.integers(-3, 3) | NAME | st.lists(NAME, max_size=2)
OBJECT = st.dictionaries(NAME, VALUE, max_size=2)
SIGNED = st.sampled_from([{}, {"thoughtSignature": "YQ=="}, {"partMetadata": {"a_b": 1}}])
PART = st.builds(
    lambda part, extra: part | extra,
    st.one_of(
        st.builds(lambda text: {"text": text}, NAME),
        st.builds(lambda text: {"text": text, "thought": True}, NAME),
        st.builds(lambda name, args: {"functionCall": {"name": name, "args": args}}, NAME, OBJECT),
        st.builds(lambda name, id_: {"functionCall": {"id": id_, "name": name, "args": {}}}, NAME, NAME),
        st.builds(lambda code: {"executableCode": {"code": code}}, NAME),
        st.builds(
            lambda kind: {"inlineData": {"mimeType": f"{kind}/x", "data": "AA=="}},
            st.sampled_from(["image", "audio", "b"]),
        ),
        st.builds(lambda url: {"fileData": {"fileUri": f"https://{url}", "mimeType": "image/a"}}, NAME),
    ),
    SIGNED,
)
RESULT = st.builds(
    lambda name, response, ids: {"functionResponse": {**ids, "name": name, "response": response}},
    NAME,
    OBJECT | st.builds(lambda key, text: {key: text}, st.sampled_from(["output", "error", "x"]), NAME),
    st.sampled_from([{}, {"id": "a"}]),
)
CONTENT = st.builds(
    lambda role, found: role | {"parts": found},
    st.sampled_from([{"role": "model"}, {"role": "user"}, {}]),
    st.lists(PART, min_size=1, max_size=4),
)
RESULTS = st.builds(
    lambda found, more: {"role": "user", "parts": found + more},
    st.lists(RESULT, min_size=1, max_size=3),
    st.lists(PART, max_size=1),
)


@given(st.lists(CONTENT | RESULTS, min_size=1, max_size=4))
@settings(max_examples=120, deadline=None)
def test_any_conversation_comes_back_as_it_was(contents: list[Json]) -> None:
    """A provider of this dialect gets what the caller wrote, and nothing is lost."""
    body = {"contents": contents}
    found = GEMINI.parse(GEMINI.open(orjson.dumps(body), PATH))
    rendered = GEMINI.render(found, model="gemini-3-pro", max_output_tokens=None)
    assert rendered.data == body
    assert rendered.losses == ()


@pytest.mark.parametrize("number", [1e300, -1e300, 2.0**63])
def test_a_number_that_no_integer_holds_has_no_canonical_place(number: float) -> None:
    """It looks like a whole number and could not be written to any provider as one: it stays as it came."""
    call = config(topK=number)

    assert (call.top_k, call.rest["generationConfig.topK"]) == (None, number)
