from __future__ import annotations

import base64
from typing import Any

import pytest

from tokenhub_core.dialects.gemini import GEMINI
from tokenhub_core.types import (
    Answer,
    Audio,
    Dialect,
    File,
    Image,
    Json,
    Logprob,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Stopped,
    StopReason,
    Text,
    ToolUse,
    Usage,
)

REQUEST = GEMINI.open(b'{"contents":[{"parts":[{"text":"x"}]}]}', "/v1beta/models/asked-for:generateContent")
UNSIGNED = "skip_thought_signature_validator"


def candidate(*parts: Json, reason: str = "STOP", **more: Any) -> Json:
    return {"candidates": [{"content": {"parts": list(parts)}, "finishReason": reason, **more}]}


def shown(*parts: Part, stop: Stopped | None = None, usage: Usage | None = None) -> Json:
    answer = Answer("r1", "m", parts, stop or Stopped(StopReason.END), usage or Usage())
    return GEMINI.render_answer(answer, request=REQUEST).data


CALL: Json = {"functionCall": {"name": "f", "args": {}}}


@pytest.mark.parametrize(
    ("word", "parts", "reason"),
    [
        ("STOP", (), StopReason.END),
        ("STOP", (CALL,), StopReason.TOOL_USE),
        ("MAX_TOKENS", (CALL,), StopReason.LENGTH),
        ("SAFETY", (), StopReason.FILTERED),
        ("RECITATION", (), StopReason.FILTERED),
        ("PROHIBITED_CONTENT", (), StopReason.FILTERED),
        ("CONTINUATION", (), StopReason.PAUSED),
        ("MALFORMED_FUNCTION_CALL", (), StopReason.OTHER),
        ("SOMETHING_NEW", (), StopReason.OTHER),
    ],
)
def test_a_finish_reason_is_read_and_said_again(
    word: str, parts: tuple[Json, ...], reason: StopReason
) -> None:
    """`STOP` ends answers with function calls, too; a word of this dialect survives."""
    answer = GEMINI.parse_answer(candidate(*parts, reason=word))
    assert answer.stop == Stopped(reason, word)
    again = GEMINI.render_answer(answer, request=REQUEST)
    assert again.data["candidates"][0]["finishReason"] == ("OTHER" if word == "SOMETHING_NEW" else word)


@pytest.mark.parametrize(
    ("stop", "word", "losses"),
    [
        (Stopped(StopReason.TOOL_USE, "tool_use"), "STOP", ()),
        (Stopped(StopReason.LENGTH, "length"), "MAX_TOKENS", ()),
        (Stopped(StopReason.REFUSED, "refusal"), "SAFETY", ()),
        (Stopped(StopReason.FILTERED, "content_filter"), "SAFETY", ()),
        (Stopped(StopReason.STOP_SEQUENCE, "stop_sequence", "END"), "STOP", ()),
        (Stopped(StopReason.PAUSED, "pause_turn"), "STOP", ("stop_reason:pause_turn",)),
        (Stopped(StopReason.OTHER, "odd"), "OTHER", ("stop_reason:odd",)),
    ],
)
def test_every_reason_has_a_word(stop: Stopped, word: str, losses: tuple[str, ...]) -> None:
    """What has none of its own is named as lost."""
    rendered = GEMINI.render_answer(Answer("", "", (), stop, Usage()), request=REQUEST)
    assert rendered.data["candidates"][0]["finishReason"] == word
    assert rendered.data["modelVersion"] == "asked-for"
    assert rendered.losses == losses


def test_tokens_count_the_cache_in_the_prompt_and_the_thoughts_in_the_output() -> None:
    """And what tools put into the prompt is input. Absurd numbers count as none."""
    counts = {
        "promptTokenCount": 100,
        "toolUsePromptTokenCount": 5,
        "cachedContentTokenCount": 40,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 30,
    }
    assert GEMINI.usage({"usageMetadata": counts}) == Usage(105, 50, 40, 0, 30)
    assert GEMINI.usage({"usage_metadata": {"prompt_token_count": "7"}}) == Usage(7)
    assert GEMINI.usage({"usageMetadata": {"promptTokenCount": -1, "candidatesTokenCount": True}}) == Usage()
    assert GEMINI.usage({"usageMetadata": 7}) == GEMINI.usage({}) == Usage()
    assert shown(usage=Usage(105, 50, 40, 9, 30))["usageMetadata"] == {
        "promptTokenCount": 105,
        "cachedContentTokenCount": 40,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 30,
        "totalTokenCount": 155,
    }


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"error": {"code": 500}},
        {"candidates": []},
        {"candidates": ["x"]},
        {"promptFeedback": {"safetyRatings": []}},
        {"promptFeedback": {"blockReason": "BLOCKED_REASON_UNSPECIFIED"}},
        {"choices": []},
    ],
)
def test_what_holds_no_candidate_is_no_answer(data: Json) -> None:
    """Another candidate may do better."""
    with pytest.raises(ValueError, match="candidates"):
        GEMINI.parse_answer(data)


def test_an_answer_of_another_dialect_is_shown_with_all_its_parts() -> None:
    """Thoughts too, whoever had them; their seals in the base64 that this dialect's SDKs want."""
    parts = shown(
        Reasoning("hm", "anthropic_messages:EqM"),
        Reasoning(redacted="anthropic_messages:xyz"),
        Reasoning(),
        Text("Hi"),
        Refusal("No."),
        Image(media_type="image/png", data="AA=="),
        ToolUse("c1", "f", '{"a":1}'),
        ToolUse("", "g", "", signature="openai_responses:s"),
    )["candidates"][0]["content"]["parts"]
    seal = base64.b64encode(b"tokenhub-seal:anthropic_messages:EqM").decode()
    redacted = base64.b64encode(b"tokenhub-seal:redacted:anthropic_messages:xyz").decode()
    sealed = base64.b64encode(b"tokenhub-seal:openai_responses:s").decode()
    assert parts == [
        {"text": "hm", "thought": True, "thoughtSignature": seal},
        {"text": "", "thought": True, "thoughtSignature": redacted},
        {"text": "Hi"},
        {"text": "No."},
        {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
        {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}},
        {"functionCall": {"name": "g", "args": {}}, "thoughtSignature": sealed},
    ]


def test_a_call_that_nobody_signed_says_so() -> None:
    """The client gives it back with its next call, and Gemini 3 takes no call without a signature."""
    found = shown(ToolUse("a", "f", "{}"), ToolUse("b", "f", "[", {"x": 1}))["candidates"][0]["content"][
        "parts"
    ]
    assert [part.get("thoughtSignature") for part in found] == [UNSIGNED, None]


def test_what_an_answer_cannot_carry_is_named() -> None:
    """By the word of whoever made it."""
    answer = Answer(
        "",
        "",
        (
            Text("x", {"citations": []}),
            File(file_id="f1"),
            Audio(id="a1"),
            Opaque(Dialect.OPENAI_CHAT, "odd", {}),
            ToolUse("", "f", "[", {"y": 1}),
        ),
        Stopped(StopReason.END),
        Usage(),
        rest={"system_fingerprint": "x"},
    )
    assert GEMINI.render_answer(answer, request=REQUEST).losses == (
        "citations",
        "part:file",
        "part:audio",
        "part:odd",
        "tool_calls.arguments",
        "y",
        "system_fingerprint",
    )


def test_log_probabilities_belong_to_the_one_text() -> None:
    """Where there are several texts nobody can tell which tokens are whose."""
    result = {
        "chosenCandidates": [{"token": "Hi", "logProbability": -1}],
        "topCandidates": [{"candidates": [{"token": "Hi", "logProbability": -1.0}, {"token": "Yo"}]}],
    }
    told = (Logprob("Hi", -1.0, (Logprob("Hi", -1.0),)),)
    one = GEMINI.parse_answer(candidate({"text": "Hi"}, logprobsResult=result))
    assert one.parts == (Text("Hi", logprobs=told),)
    assert one.rest == {}
    for parts in ([{"text": "Hi"}, {"text": "!"}], []):
        assert GEMINI.parse_answer(candidate(*parts, logprobsResult=result)).rest == {
            "logprobsResult": result
        }
    odd = GEMINI.parse_answer(candidate({"text": "Hi"}, logprobsResult={"chosenCandidates": [{"token": 7}]}))
    assert "logprobsResult" in odd.rest
    assert shown(Text("Hi", logprobs=told))["candidates"][0]["logprobsResult"] == {
        "chosenCandidates": [{"token": "Hi", "logProbability": -1.0}],
        "topCandidates": [{"candidates": [{"token": "Hi", "logProbability": -1.0}]}],
    }


def test_ratings_and_averages_are_no_loss_elsewhere() -> None:
    """They say nothing of the answer; citations and further candidates do."""
    data = candidate({"text": "x"}, safetyRatings=[1], avgLogprobs=-1, citationMetadata={"a": 1})
    data["candidates"] += data["candidates"][:1]
    answer = GEMINI.parse_answer(data | {"createTime": "no time", "modelStatus": {}})
    assert sorted(answer.rest) == ["candidates[n>1]", "citationMetadata"]
    assert answer.created == 0


@pytest.mark.parametrize("before", [(), ({"text": "Hi"},), ({"text": "Hm", "thought": True},)])
def test_a_part_that_holds_nothing_is_left_out(before: tuple[Json, ...]) -> None:
    """Wherever it stands, and the part before it stays as it is."""
    answer = GEMINI.parse_answer(candidate(*before, {}))

    rendered = GEMINI.render_answer(answer, request=REQUEST).data

    assert rendered["candidates"][0]["content"]["parts"] == list(before)
