"""Files, sound and pictures in both directions, and the log probabilities of tokens."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.openai_chat import OPENAI_CHAT
from tokenhub_core.dialects.sse import Parser
from tokenhub_core.types import (
    Answer,
    Audio,
    Call,
    Delta,
    Dialect,
    File,
    Image,
    Json,
    Logprob,
    MediaDelta,
    Part,
    Role,
    Stopped,
    StopReason,
    Text,
    TextDelta,
    Thinking,
    ToolResult,
    Turn,
    Unread,
    Usage,
)

REQUEST = OPENAI_CHAT.open(b'{"model":"m","messages":[{"role":"user"}]}')
PDF = File(media_type="application/pdf", data="JVBERi0=")


def foreign(*parts: Part, model: str = "m", role: Role = Role.USER, **fields: Any) -> Rendered:
    call = Call(Dialect.ANTHROPIC_MESSAGES, "m", (Turn(role, parts),), **fields)
    return OPENAI_CHAT.render(call, model=model, max_output_tokens=None)


def content(rendered: Rendered) -> object:
    return rendered.data["messages"][-1]["content"]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_a_foreign_pdf_is_a_file_with_a_name() -> None:
    """OpenAI wants one with every file by value."""
    assert content(foreign(PDF, Text("q"))) == [
        {
            "type": "file",
            "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "document.pdf"},
        },
        {"type": "text", "text": "q"},
    ]


def test_a_foreign_text_file_is_carried_as_text_and_that_is_told() -> None:
    """No server of this dialect takes text files; the words are what counts."""
    rendered = foreign(File(media_type="text/plain", data=encoded("A cät."), name="Cat"))
    assert content(rendered) == "[Cat]\nA cät."
    assert rendered.losses == ("file.media_type",)
    broken = foreign(File(media_type="text/plain", data="/w=="), Text("q"))
    assert (content(broken), broken.losses) == ("q", ("part:file",))


@pytest.mark.parametrize("file", [File("https://example.com/a.pdf"), File(file_id="file_1")])
def test_a_foreign_file_that_is_elsewhere_is_a_loss(file: File) -> None:
    """An address has no place here, and an id means nothing to another provider."""
    rendered = foreign(file, Text("q"))
    assert (content(rendered), rendered.losses) == ("q", ("part:file",))


def test_a_file_that_is_a_picture_is_one() -> None:
    """Whatever its caller called it."""
    rendered = foreign(File(media_type="image/png", data="AA=="))
    assert content(rendered) == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]


def test_files_of_a_tool_result_follow_it() -> None:
    """Text inline, everything else in the user's next message."""
    note = File(media_type="text/markdown", data=encoded("# N"))
    sent = foreign(ToolResult("1", (note, PDF)), role=Role.TOOL).data["messages"]
    assert sent[0]["content"] == "# N"
    assert [part["type"] for part in sent[1]["content"]] == ["file"]
    alone = foreign(ToolResult("1", (PDF,)), role=Role.TOOL).data["messages"]
    assert alone[0]["content"] == "(file below)"


def test_foreign_sound_is_input_audio() -> None:
    """In the wire's own words for its kind; without data there is only what was said."""
    rendered = foreign(Audio("audio/mpeg", "SUQz"))
    assert content(rendered) == [{"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}}]
    said = foreign(Audio(id="a", transcript="hello"))
    assert (content(said), said.losses) == ("hello", ("part:audio",))


def test_settings_of_another_dialect_have_their_words_here() -> None:
    """Tiers, caps and numbers; what OpenAI rejects is a loss."""
    rendered = foreign(
        Text("x"),
        model="openai/o3-mini",
        max_output_tokens=9,
        service_tier="standard_only",
        seed=3,
        n=2,
        logprobs=0,
        top_k=4,
        frequency_penalty=0.5,
        metadata={"a": "b"},
        user="u",
    )
    assert rendered.losses == ("top_k",)
    assert {**rendered.data, "messages": 0} == {
        "model": "openai/o3-mini",
        "messages": 0,
        "max_completion_tokens": 9,
        "service_tier": "default",
        "seed": 3,
        "n": 2,
        "logprobs": True,
        "frequency_penalty": 0.5,
        "metadata": {"a": "b"},
        "user": "u",
    }
    assert foreign(Text("x"), service_tier="odd", metadata={"a": 1}).losses == ("service_tier", "metadata")


@pytest.mark.parametrize(
    ("thinking", "effort", "losses"),
    [
        (Thinking(), None, ()),
        (Thinking(enabled=False), "none", ()),
        (Thinking(budget_tokens=0), "none", ()),
        (Thinking(enabled=True, budget_tokens=-1), None, ()),
        (Thinking(effort="max"), "max", ()),
        (Thinking(enabled=True, budget_tokens=2048), "low", ()),
        (Thinking(enabled=True, budget_tokens=2049), "medium", ("thinking.budget_tokens",)),
        (Thinking(enabled=True, budget_tokens=90000), "max", ("thinking.budget_tokens",)),
        (
            Thinking(effort="low", budget_tokens=5, show=False),
            "low",
            ("thinking.show", "thinking.budget_tokens"),
        ),
    ],
)
def test_thinking_is_an_effort(thinking: Thinking, effort: str | None, losses: tuple[str, ...]) -> None:
    """A budget becomes the least effort that covers it, which is told where it is not that effort's own."""
    rendered = foreign(Text("x"), thinking=thinking)
    assert (rendered.data.get("reasoning_effort"), rendered.losses) == (effort, losses)


def test_the_safety_identifier_is_the_user_where_there_is_no_other() -> None:
    """It comes back under its own name; of two, the older is the user."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "safety_identifier": "s"}
    for more, user, rest in (({}, "s", {}), ({"user": "u"}, "u", {"safety_identifier": "s"})):
        call = OPENAI_CHAT.parse(OPENAI_CHAT.open(orjson.dumps(body | more)))
        assert (call.user, dict(call.rest)) == (user, rest)
        assert OPENAI_CHAT.render(call, model="m", max_output_tokens=None).data == body | more


# --- answers -----------------------------------------------------------------------------------------------

TOKENS = (Logprob("Ü", -0.5, (Logprob("U", -1.5),)), Logprob("bytes:\\xc3", -2))
WIRE: Json = {
    "content": [
        {
            "token": "Ü",
            "bytes": [195, 156],
            "logprob": -0.5,
            "top_logprobs": [{"token": "U", "bytes": [85], "logprob": -1.5}],
        },
        {"token": "bytes:\\xc3", "bytes": [195], "logprob": -2, "top_logprobs": []},
    ],
    "refusal": None,
}


def read(*choices: Json) -> list[Delta]:
    reader = OPENAI_CHAT.reader()
    chunks = [{"id": "c", "choices": [{"index": 0, "delta": {}} | choice]} for choice in choices]
    return [delta for chunk in chunks for delta in reader.read("", orjson.dumps(chunk))][1:]


def written(*deltas: Delta) -> list[ChatCompletionChunk]:
    writer = OPENAI_CHAT.writer(request=REQUEST, created=1, fallback_id="f")
    raw = b"".join(map(writer.write, deltas))
    return [ChatCompletionChunk.model_validate_json(event.data, strict=True) for event in Parser().feed(raw)][
        1:
    ]


def test_streamed_tokens_keep_their_log_probabilities() -> None:
    """Read beside the text, written beside it; without text they come all the same."""
    delta = TextDelta("Ü", TOKENS)
    assert read({"delta": {"content": "Ü"}, "logprobs": WIRE}) == [delta]
    assert read({"logprobs": WIRE}) == [TextDelta("", TOKENS)]
    assert read({"delta": {"content": "a"}, "logprobs": {"content": None}}) == [TextDelta("a")]
    (chunk,) = written(delta)
    assert chunk.choices[0].logprobs is not None
    assert chunk.choices[0].logprobs.model_dump() == WIRE
    assert read({"logprobs": {"refusal": [1]}}, {"logprobs": {"content": ["?", {}]}}) == [
        Unread("logprobs.refusal")
    ]


def test_sound_comes_in_pieces_and_is_told_whole() -> None:
    """Before the stop; each piece is base64 by itself. What is not leaves the words. That it flowed is told at
    once: within the dialect it passes as it comes, and is content."""
    pieces: list[Json] = [
        {"id": "a", "transcript": "Hel"},
        {"data": encoded("one"), "transcript": "lo"},
        {"data": encoded("four"), "expires_at": 5},
    ]
    whole = MediaDelta(Audio(data=encoded("onefour"), id="a", transcript="Hello"))
    stop = Stopped(StopReason.END, "stop")
    assert read(*({"delta": {"audio": piece}} for piece in pieces), {"finish_reason": "stop"}) == [
        Unread("delta.audio"),
        whole,
        stop,
    ]
    broken = read({"delta": {"audio": {"id": "a", "data": "A"}}}, {"finish_reason": "stop"})
    assert broken == [Unread("delta.audio"), Unread("part:audio"), MediaDelta(Audio(id="a")), stop]
    (chunk,) = written(whole)
    assert chunk.choices[0].delta.audio is not None
    assert chunk.choices[0].delta.audio.transcript == "Hello"


def test_pictures_that_a_model_made_are_shown() -> None:
    """As OpenRouter sends them."""
    image = Image(media_type="image/png", data="AA==")
    listed = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    assert read({"delta": {"images": listed}}) == [MediaDelta(image)]
    (chunk,) = written(MediaDelta(image))
    assert chunk.choices[0].delta.model_extra == {"images": listed}
    writer = OPENAI_CHAT.writer(request=REQUEST, created=1, fallback_id="f")
    assert writer.write(MediaDelta(PDF)) == b""
    assert writer.losses() == ("part:file",)


def test_an_answer_of_another_dialect_shows_its_media() -> None:
    """The SDK wants an id and a time for sound; a file has no place."""
    parts = (Text("a", logprobs=TOKENS), Image("https://x/y"), Audio("audio/wav", "UklG"), PDF)
    answer = Answer("x", "m", parts, Stopped(StopReason.END), Usage())
    rendered = OPENAI_CHAT.render_answer(answer, request=REQUEST)
    choice = ChatCompletion.model_validate(rendered.data, strict=True).choices[0]
    assert choice.message.audio is not None
    assert (choice.message.audio.id, choice.message.audio.expires_at) == ("audio_x", 0)
    assert choice.logprobs is not None
    assert choice.logprobs.model_dump() == WIRE
    assert rendered.losses == ("part:file",)
