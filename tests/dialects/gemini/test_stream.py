from __future__ import annotations

from typing import Any

import orjson
import pytest

from tokenhub_core.dialects.gemini import GEMINI
from tokenhub_core.types import (
    Delta,
    Failed,
    File,
    Finished,
    Image,
    Json,
    Logprob,
    MediaDelta,
    ReasoningDelta,
    Started,
    Stopped,
    StopReason,
    TextDelta,
    ToolArguments,
    ToolStarted,
    Unread,
    Usage,
    UsageSeen,
)


def chunk(*parts: Json, reason: str = "", usage: Json | None = None, **more: Any) -> Json:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0, **more}
    if reason:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], **({"usageMetadata": usage} if usage else {})}


def read(*chunks: Json) -> list[Delta]:
    reader = GEMINI.reader()
    deltas = [delta for each in chunks for delta in reader.read("", orjson.dumps(each))]
    return [*deltas, *reader.end()]


def test_the_first_response_tells_the_id_and_the_model() -> None:
    """Once, and before anything else."""
    named = chunk({"text": "a"}) | {"responseId": "r1", "modelVersion": "g3"}
    assert read(named, named)[:3] == [Started("r1", "g3"), TextDelta("a"), TextDelta("a")]


def test_the_end_of_the_body_finishes_what_had_stopped() -> None:
    """There is no terminal event; usage may still come after the reason."""
    whole = read(chunk({"text": "a"}, reason="STOP"), {"usageMetadata": {"promptTokenCount": 3}})
    assert whole[1:] == [TextDelta("a"), Stopped(StopReason.END, "STOP"), UsageSeen(Usage(3)), Finished()]
    assert Finished() not in read(chunk({"text": "a"}))
    assert Finished() not in read(chunk({"text": "a"}, reason="FINISH_REASON_UNSPECIFIED"))
    assert read() == []


def test_a_function_call_comes_whole_and_decides_the_reason() -> None:
    """The wire says `STOP` for it, too, and a second reason is not heard."""
    deltas = read(
        chunk(
            {"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}, "thoughtSignature": "YQ=="},
            {"functionCall": {"name": "g"}},
        ),
        chunk(reason="STOP"),
        chunk(reason="MAX_TOKENS"),
    )
    assert deltas[1:] == [
        ToolStarted(0, "a", "f", "gemini:YQ=="),
        ToolArguments(0, '{"x":1}'),
        ToolStarted(1, "", "g"),
        ToolArguments(1, "{}"),
        Stopped(StopReason.TOOL_USE, "STOP"),
        Finished(),
    ]


def test_thoughts_signatures_and_media_are_told() -> None:
    """A signature after the text that it came with; media whole."""
    deltas = read(
        chunk({"text": "hm", "thought": True}, {"text": "", "thought": True, "thoughtSignature": "YQ=="}),
        chunk({"text": "Hi", "thoughtSignature": "Yg=="}, {"text": ""}, {"thought": True}),
        chunk(
            {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
            {"fileData": {"fileUri": "https://x/a"}},
        ),
    )
    assert deltas[1:] == [
        ReasoningDelta("hm"),
        ReasoningDelta(signature="gemini:YQ=="),
        TextDelta("Hi"),
        ReasoningDelta(signature="gemini:Yg=="),
        MediaDelta(Image(media_type="image/png", data="AA==")),
        MediaDelta(File("https://x/a")),
    ]


def test_counts_only_grow() -> None:
    """They come cumulative, and some chunks leave some of them out."""
    deltas = read(
        chunk(usage={"promptTokenCount": 5, "candidatesTokenCount": 1}),
        chunk(usage={"promptTokenCount": 5, "candidatesTokenCount": 1}),
        chunk(usage={"candidatesTokenCount": 4, "thoughtsTokenCount": 2}),
        chunk(usage={"promptTokenCount": 3}),
    )
    assert deltas[1:] == [UsageSeen(Usage(5, 1)), UsageSeen(Usage(5, 6, reasoning_tokens=2))]


def test_a_blocked_prompt_is_an_end() -> None:
    """There is no candidate then."""
    assert read({"promptFeedback": {"blockReason": "SAFETY"}})[1:] == [
        Stopped(StopReason.FILTERED, "SAFETY"),
        Finished(),
    ]
    assert read({"promptFeedback": {"safetyRatings": []}})[1:] == []


def test_what_has_no_canonical_form_is_named_once() -> None:
    """Other candidates, citations, code that ran, arguments in pieces."""
    odd = chunk(
        {"executableCode": {"code": "1"}},
        {"functionResponse": {"name": "f", "response": {"a": 1}}},
        {"functionCall": {"partialArgs": [{"jsonPath": "$.a", "stringValue": "x"}], "willContinue": True}},
        groundingMetadata={"a": 1},
        citationMetadata={},
    )
    odd["candidates"].append({"index": 1, "content": {"parts": [{"text": "other"}]}})
    assert read(odd, odd)[1:] == [
        Unread("part:executableCode"),
        Unread("part:functionResponse"),
        Unread("functionCall.partialArgs"),
        Unread("groundingMetadata"),
        Unread("candidates[n>1]"),
    ]


def test_log_probabilities_come_with_the_one_text_of_a_chunk() -> None:
    """Else they are named as unread."""
    result = {"chosenCandidates": [{"token": "a", "logProbability": -1.5}]}
    assert read(chunk({"text": "a"}, logprobsResult=result))[1] == TextDelta("a", (Logprob("a", -1.5),))
    assert Unread("logprobsResult") in read(chunk({"text": "a"}, {"text": "b"}, logprobsResult=result))


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"not json",
        b"7",
        b'"x"',
        b"[7]",
        b"\xff",
        b'{"error":{"code":503}}',
        b'[{"error":{"code":429}}]',
    ],
)
def test_what_cannot_be_read_fails_once_and_never_raises(data: bytes) -> None:
    """Nothing that comes after it is heard, and the stream is not finished."""
    reader = GEMINI.reader()
    deltas = [
        *reader.read("", data),
        *reader.read("", orjson.dumps(chunk({"text": "a"}, reason="STOP"))),
        *reader.end(),
    ]
    assert [type(delta) for delta in deltas] == [Failed]


@pytest.mark.parametrize("depth", [300, 1000])
def test_what_is_nested_too_deeply_fails_as_well(depth: int) -> None:
    """Arguments that could not be written again, and members that could not be walked through."""
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    call = b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":%b}}]}}]}'
    for data in (call % deep, b'{"candidates":[%b]}' % deep):
        failed = [delta for delta in GEMINI.reader().read("", data) if isinstance(delta, Failed)]
        assert len(failed) == (depth == 1000 or data.startswith(call[:30]))
        if failed and depth < 1000:
            with pytest.raises(ValueError, match="nested"):
                GEMINI.parse_answer(orjson.loads(data))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"candidates": None},
        {"candidates": 7},
        {"candidates": [7]},
        {"candidates": {"content": {"parts": {"text": ""}}}},
        {"candidates": [{"content": 7, "finishReason": 7, "index": "0"}]},
        {"candidates": [{"content": {"parts": [7, {"text": 7}, {}]}}]},
        {"usageMetadata": 7, "promptFeedback": 7, "responseId": 7},
        {
            "candidates": [
                {
                    "content": {
                        "parts": [{"functionCall": 7}, {"inlineData": {}}, {"functionCall": {"name": 7}}]
                    }
                }
            ]
        },
        {
            "candidates": [
                {"logprobsResult": 7},
                {"logprobsResult": {"chosenCandidates": [{}], "topCandidates": 7}},
            ]
        },
    ],
)
def test_a_response_of_an_odd_shape_says_little_and_breaks_nothing(body: Json) -> None:
    """Empty data, too: a keep-alive."""
    assert not any(isinstance(delta, TextDelta | Failed | ToolStarted) for delta in read(body))
    assert GEMINI.reader().read("", b"") == ()
