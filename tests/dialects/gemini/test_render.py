from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.gemini import GEMINI
from tokenhub_core.providers.simulation.profiles import SIMULATED_MODELS
from tokenhub_core.providers.simulator import play
from tokenhub_core.types import (
    Audio,
    Call,
    Choice,
    Dialect,
    File,
    Image,
    Json,
    Opaque,
    OutputFormat,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
)

GEMINIS = [model.id for model in SIMULATED_MODELS if model.dialect is Dialect.GEMINI]
UNSIGNED = "skip_thought_signature_validator"
PATH = "/v1beta/models/gemini-3-pro:generateContent"


def user(*parts: Part) -> Turn:
    return Turn(Role.USER, parts)


def model(*parts: Part) -> Turn:
    return Turn(Role.ASSISTANT, parts)


def tool(*parts: Part) -> Turn:
    return Turn(Role.TOOL, parts)


def render(*turns: Turn, to: str = "gemini-3-pro", cap: int | None = None, **fields: Any) -> Rendered:
    call = Call(Dialect.OPENAI_CHAT, "m", turns or (user(Text("x")),), **fields)
    return GEMINI.render(call, model=to, max_output_tokens=cap)


def contents(*turns: Turn, **fields: Any) -> list[tuple[str, list[Json]]]:
    return [(content["role"], content["parts"]) for content in render(*turns, **fields).data["contents"]]


def config(**fields: Any) -> tuple[Json, tuple[str, ...]]:
    rendered = render(**fields)
    return rendered.data.get("generationConfig", {}), rendered.losses


def own(body: Json, to: str = "gemini-3-pro") -> Rendered:
    call = GEMINI.parse(GEMINI.open(orjson.dumps(body), PATH))
    return GEMINI.render(call, model=to, max_output_tokens=None)


# --- the conversation --------------------------------------------------------------------------------------


def test_a_whole_call_of_another_dialect_becomes_this_body(golden: Callable[[str, object], None]) -> None:
    """Everything that a call can hold is carried or named; this dialect takes the body as its own."""
    turns = (
        Turn(Role.SYSTEM, (Text("Be brief."),)),
        Turn(
            Role.USER,
            (Text("Look", {"cache_control": 1}), Image("https://x/a.png", detail="high")),
            name="Ann",
        ),
        model(
            Reasoning("hm", "openai_responses:x"),
            Text("ok"),
            ToolUse("c1", "look", '{"a":1}'),
            ToolUse("c2", "look", ""),
        ),
        tool(
            ToolResult("c1", (Text('{"b":2}'),)),
            ToolResult("c2", (Text("[1]"), Image(media_type="image/png", data="AA=="))),
        ),
        Turn(Role.SYSTEM, (Text("Later."),)),
        user(Text("and?")),
    )
    rendered = render(
        *turns,
        tools=(
            Tool("look", "Looks", {"type": "object"}, strict=True, rest={"x": 1}),
            Opaque(Dialect.OPENAI_CHAT, "web", {}),
        ),
        tool_choice=ToolChoice(Choice.NAMED, "look", parallel=False),
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        stop=("a", "b"),
        output=OutputFormat({"type": "object"}, "name", strict=True),
        top_k=3,
        seed=4,
        n=2,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        logprobs=5,
        thinking=Thinking(effort="medium"),
        metadata={"team": "a", "Team": "b"},
        service_tier="default",
        user="u1",
        rest={"logit_bias": {}, "stream_options": {}},
    )
    golden("requests/foreign.rendered.json", {"losses": rendered.losses, "data": rendered.data})
    GEMINI.open(orjson.dumps(rendered.data), PATH)


def test_turns_alternate_and_the_user_begins() -> None:
    """Texts that are blank, and turns with nothing in them, are left out."""
    assert contents(
        model(Text("a")), model(Text(" "), Refusal("b")), user(), user(Text("c")), user(Text("d"))
    ) == [
        ("user", [{"text": "(start)"}]),
        ("model", [{"text": "a"}, {"text": "b"}]),
        ("user", [{"text": "c"}, {"text": "d"}]),
    ]


def test_every_call_is_answered_in_its_order() -> None:
    """Results that are missing are told as such; one whose call nobody knows is told in plain words."""
    rendered = render(
        user(Text("x")),
        model(ToolUse("a", "f", "{}"), ToolUse("b", "g", "{}")),
        user(Text("wait"), ToolResult("zz", (Text("lost"),))),
        tool(ToolResult("b", (Text("B"),), is_error=True)),
        model(ToolUse("c", "f", "{}")),
        to="gemini-2.5-pro",
    )
    missing = {"error": "no result was given"}
    assert [content["parts"] for content in rendered.data["contents"][2::2]] == [
        [
            {"functionResponse": {"id": "a", "name": "f", "response": missing}},
            {"functionResponse": {"id": "b", "name": "g", "response": {"error": "B"}}},
            {"text": "wait"},
            {"text": "lost"},
        ],
        [{"functionResponse": {"id": "c", "name": "f", "response": missing}}],
    ]
    assert rendered.losses == ("tool_call_id",)


@pytest.mark.parametrize(
    ("text", "error", "response"),
    [
        ('{"a": 1}', False, {"a": 1}),
        ("[1]", False, {"output": "[1]"}),
        ("{broken", False, {"output": "{broken"}),
        ("", False, {"output": ""}),
        ('{"a": 1}', True, {"error": '{"a": 1}'}),
        ('{"error": 1}', True, {"error": 1}),
    ],
)
def test_a_result_that_is_an_object_goes_as_one_and_others_inside_one(
    text: str, error: bool, response: Json
) -> None:
    """This dialect has no results that are plain text."""
    result = ToolResult("a", (Text(text),), is_error=error)
    found = contents(user(Text("x")), model(ToolUse("a", "f", "{}")), tool(result))
    assert found[2][1][0]["functionResponse"]["response"] == response


def test_arguments_that_are_no_object_are_kept_in_one() -> None:
    """And named, because the model sees something else then."""
    rendered = render(user(Text("x")), model(ToolUse("a", "f", "[1"), ToolUse("b", "f", " ")))
    calls = [part["functionCall"]["args"] for part in rendered.data["contents"][1]["parts"]]
    assert calls == [{"_raw": "[1"}, {}]
    assert rendered.losses == ("tool_calls.arguments",)


def test_media_goes_by_value_or_by_a_url_of_the_web() -> None:
    """What nobody can fetch is a loss; types are guessed from the name where none is told."""
    rendered = render(
        user(
            Image("https://x/a.JPG?y=1"),
            Image("data:image/gif;base64,AA=="),
            Image(data="AA=="),
            Image("file-1"),
            File(data="AA==", name="a.pdf"),
            File(file_id="file-1"),
            File(data="AA=="),
            File("https://x/unknown"),
            Audio(data="AA=="),
            Audio(id="audio-1"),
            Opaque(Dialect.OPENAI_CHAT, "video", {}),
        )
    )
    assert rendered.data["contents"][0]["parts"] == [
        {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://x/a.JPG?y=1"}},
        {"inlineData": {"mimeType": "image/gif", "data": "AA=="}},
        {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
        {"inlineData": {"mimeType": "application/pdf", "data": "AA=="}},
        {"inlineData": {"mimeType": "application/octet-stream", "data": "AA=="}},
        {"fileData": {"fileUri": "https://x/unknown"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "AA=="}},
    ]
    assert rendered.losses == ("part:image", "file.filename", "part:file", "part:audio", "part:video")


# --- thoughts and signatures -------------------------------------------------------------------------------


def test_only_thoughts_that_were_signed_here_are_given_back() -> None:
    """A client of another dialect brings our own seals; anybody else's thoughts are named as losses."""
    rendered = render(
        user(Text("x")),
        model(
            Reasoning("ours", "gemini:YQ=="),
            Reasoning("theirs", "anthropic_messages:x"),
            Reasoning(redacted="anthropic_messages:y"),
            Reasoning(signature="gemini:Yg=="),
        ),
    )
    assert rendered.data["contents"][1]["parts"] == [
        {"text": "ours", "thought": True, "thoughtSignature": "YQ=="},
        {"text": "", "thoughtSignature": "Yg=="},
    ]
    assert rendered.losses == ("thinking.signature", "part:thinking", "part:redacted_thinking")


@pytest.mark.parametrize(
    ("to", "first"),
    [
        ("gemini-3-pro", UNSIGNED),
        ("models/gemini-3.1-flash", UNSIGNED),
        ("gemini-flash-latest", UNSIGNED),
        ("gemini-2.5-pro", None),
        ("gemini-2.0-flash", None),
        ("gemini-1.5-pro", None),
        ("gemma-3", None),
    ],
)
def test_calls_of_another_model_say_that_they_are_unsigned(to: str, first: str | None) -> None:
    """Only the first of parallel calls needs a signature, and only from Gemini 3 on."""
    (_, parts), *_ = contents(
        user(Text("x")), model(ToolUse("a", "f", "{}"), ToolUse("b", "f", "{}")), to=to
    )[1:]
    assert [part.get("thoughtSignature") for part in parts] == [first, None]


def test_a_signature_of_ours_stands_where_it_was() -> None:
    """It came back sealed through another dialect."""
    (_, parts), *_ = contents(
        user(Text("x")), model(ToolUse("a", "f", "{}", signature="gemini:YQ=="), ToolUse("b", "f", "{}"))
    )[1:]
    assert [part.get("thoughtSignature") for part in parts] == ["YQ==", None]


def test_a_callers_own_conversation_is_signed_only_where_a_foreign_signature_went_out() -> None:
    """Whoever calls in this dialect knows what it sends."""
    foreign = base64.b64encode(b"tokenhub-seal:anthropic_messages:x").decode()
    call: Json = {"functionCall": {"name": "f", "args": {}}}
    plain = {"contents": [{"role": "user", "parts": [{"text": "x"}]}, {"role": "model", "parts": [call]}]}
    assert own(plain).data == plain
    sealed = {
        "contents": [
            *plain["contents"][:1],
            {"role": "model", "parts": [{**call, "thoughtSignature": foreign}]},
        ]
    }
    assert own(sealed).data["contents"][1]["parts"] == [{**call, "thoughtSignature": UNSIGNED}]
    assert own(sealed, "gemini-2.5-pro").data == plain
    thought = {"text": "hm", "thought": True, "thoughtSignature": foreign}
    rendered = own({"contents": [{"role": "model", "parts": [thought]}]})
    assert rendered.data["contents"] == [{"role": "model", "parts": [{"text": "hm", "thought": True}]}]
    assert rendered.losses == ("thinking.signature",)


def test_what_a_client_hears_besides_is_named() -> None:
    """The proof that another dialect put on a call, and the words of a sound."""
    turn = model(ToolUse("a", "look", "{}", signature="openai_responses:gAAAA"))
    assert render(turn).losses == ("thinking.signature",)
    assert render(user(Audio("audio/wav", "AA==", transcript="Hi."))).losses == ("audio.transcript",)


# --- settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "to", "given", "losses"),
    [
        (Thinking(effort="low"), "gemini-3-pro", {"thinkingLevel": "LOW"}, ()),
        (Thinking(effort="minimal"), "gemini-3-pro", {"thinkingLevel": "LOW"}, ()),
        (Thinking(effort="minimal"), "gemini-3-flash", {"thinkingLevel": "MINIMAL"}, ()),
        (Thinking(effort="xhigh"), "gemini-3-pro", {"thinkingLevel": "HIGH"}, ("reasoning_effort",)),
        (Thinking(effort="strange"), "gemini-3-pro", {}, ("reasoning_effort",)),
        (Thinking(effort="medium"), "gemini-2.5-flash", {"thinkingBudget": 8192}, ()),
        (Thinking(effort="max"), "gemini-2.5-flash", {"thinkingBudget": 24576}, ("reasoning_effort",)),
        (Thinking(effort="none"), "gemini-2.5-flash", {"thinkingBudget": 0}, ()),
        (Thinking(enabled=False), "gemini-2.5-pro", {"thinkingBudget": 128}, ("thinking.disabled",)),
        (Thinking(enabled=False), "gemini-3-flash", {"thinkingLevel": "MINIMAL"}, ("thinking.disabled",)),
        (
            Thinking(enabled=True, budget_tokens=2000),
            "gemini-3-pro",
            {"includeThoughts": True, "thinkingBudget": 2000},
            (),
        ),
        (Thinking(enabled=True, show=False), "gemini-3-pro", {"includeThoughts": False}, ()),
        (Thinking(budget_tokens=2000, effort="low"), "gemini-2.5-pro", {"thinkingBudget": 2000}, ()),
        (
            Thinking(budget_tokens=60000),
            "gemini-2.5-pro",
            {"thinkingBudget": 32768},
            ("thinking.budget_tokens",),
        ),
        (
            Thinking(enabled=None, effort="low", budget_tokens=-1),
            "gemini-3-pro",
            {"thinkingLevel": "LOW"},
            (),
        ),
        (Thinking(budget_tokens=-1), "gemini-2.5-flash", {"thinkingBudget": -1}, ()),
        (
            Thinking(budget_tokens=200),
            "gemini-2.5-flash-lite",
            {"thinkingBudget": 512},
            ("thinking.budget_tokens",),
        ),
        (Thinking(effort="high"), "gemini-robotics-er-1.5-preview", {"thinkingBudget": 24576}, ()),
        (Thinking(effort="low"), "gemini-2.5-flash-image", {}, ("thinking",)),
        (Thinking(effort="low"), "gemma-3-27b-it", {}, ("thinking",)),
        (Thinking(enabled=True, show=True), "gemini-3-pro", {"includeThoughts": True}, ()),
        (Thinking(enabled=True), "gemini-2.0-flash", {}, ("thinking",)),
        (Thinking(enabled=False, show=False), "gemini-2.0-flash", {}, ()),
        (Thinking(), "gemini-3-pro", {}, ()),
    ],
)
def test_thinking_is_told_in_the_words_of_the_model(
    wanted: Thinking, to: str, given: Json, losses: tuple[str, ...]
) -> None:
    """Never a level and a budget at once: that is refused."""
    found, lost = config(thinking=wanted, to=to)
    assert found.get("thinkingConfig", {}) == given
    assert lost == losses


@pytest.mark.parametrize(
    "wanted",
    [
        *(Thinking(effort=word) for word in ("none", "minimal", "low", "medium", "high", "xhigh")),
        *(Thinking(budget_tokens=tokens) for tokens in (-1, 0, 1, 1024, 100_000)),
        *(Thinking(enabled=enabled, show=enabled) for enabled in (True, False)),
    ],
)
@pytest.mark.parametrize("to", GEMINIS)
def test_every_model_takes_what_it_is_told_of_thinking(wanted: Thinking, to: str) -> None:
    """Google refuses levels for the models up to 2.5, and any word for those that do not think."""
    rendered = render(thinking=wanted, to=to)
    target = f"/v1beta{GEMINI.operation(model=to, stream=False)}"
    script = play(Dialect.GEMINI, orjson.dumps(rendered.data), target=target)
    assert script.status == 200, script.frames


@pytest.mark.parametrize(
    ("choice", "given"),
    [
        (ToolChoice(), {"mode": "AUTO"}),
        (ToolChoice(Choice.NONE), {"mode": "NONE"}),
        (ToolChoice(Choice.REQUIRED), {"mode": "ANY"}),
        (ToolChoice(Choice.NAMED, "f"), {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
def test_a_tool_choice_is_a_mode(choice: ToolChoice, given: Json) -> None:
    """Without functions there is nothing to choose."""
    assert render(tools=(Tool("f"),), tool_choice=choice).data["toolConfig"] == {
        "functionCallingConfig": given
    }
    rendered = render(tool_choice=choice)
    assert "toolConfig" not in rendered.data
    assert rendered.losses == (("tool_choice",) if given["mode"] == "ANY" else ())


def test_schemas_go_as_json_schema() -> None:
    """A function without one goes without."""
    schema = {"type": "object", "additionalProperties": False}
    data = render(tools=(Tool("f", schema=schema), Tool("g")), output=OutputFormat(schema)).data
    assert data["tools"] == [
        {"functionDeclarations": [{"name": "f", "parametersJsonSchema": schema}, {"name": "g"}]}
    ]
    assert data["generationConfig"] == {"responseMimeType": "application/json", "responseJsonSchema": schema}
    assert config(output=OutputFormat())[0] == {"responseMimeType": "application/json"}


def test_the_cap_of_the_candidate_comes_before_the_callers() -> None:
    """And the other numbers go as they are."""
    assert config(max_output_tokens=9, cap=5)[0] == {"maxOutputTokens": 5}
    assert config(max_output_tokens=9)[0] == {"maxOutputTokens": 9}
    assert config(logprobs=0)[0] == {"responseLogprobs": True}


def test_more_stop_words_than_five_are_a_loss() -> None:
    """The others are refused upstream."""
    found, losses = config(stop=tuple("abcdefg"))
    assert (found["stopSequences"], losses) == (list("abcde"), ("stop",))


@pytest.mark.parametrize(
    ("tier", "given", "losses"),
    [
        ("flex", "flex", ()),
        ("standard_only", "standard", ()),
        ("auto", None, ()),
        ("scale", None, ("service_tier",)),
    ],
)
def test_a_tier_is_told_where_there_is_one_like_it(
    tier: str, given: str | None, losses: tuple[str, ...]
) -> None:
    """Each vendor has its own names for them."""
    rendered = render(service_tier=tier)
    assert (rendered.data.get("serviceTier"), rendered.losses) == (given, losses)


def test_an_output_schema_that_was_replaced_wins_over_the_callers_spelling() -> None:
    """What stands beside the canonical form must not outlive a change of it."""
    body: Json = {
        "contents": [{"parts": [{"text": "x"}]}],
        "generationConfig": {"responseMimeType": "application/json", "responseSchema": {"type": "OBJECT"}},
    }
    call = GEMINI.parse(GEMINI.open(orjson.dumps(body), PATH))
    other = Call(
        **{name: getattr(call, name) for name in call.__slots__} | {"output": OutputFormat({"type": "array"})}
    )
    config = GEMINI.render(other, model="m", max_output_tokens=None).data["generationConfig"]
    assert config == {"responseMimeType": "application/json", "responseJsonSchema": {"type": "array"}}
