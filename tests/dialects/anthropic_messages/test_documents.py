"""Documents and files in both directions."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from tokenhub_core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from tokenhub_core.dialects.base import Rendered
from tokenhub_core.types import (
    Audio,
    Call,
    Dialect,
    File,
    Image,
    Json,
    Opaque,
    Part,
    Role,
    Text,
    ToolResult,
    Turn,
)

PDF = File(media_type="application/pdf", data="JVBERi0=", name="a.pdf")


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def part(source: object, **more: Any) -> Part:
    block = {"type": "document", "source": source, **more}
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [block]}]}
    call = ANTHROPIC_MESSAGES.parse(ANTHROPIC_MESSAGES.open(orjson.dumps(body)))
    rendered = ANTHROPIC_MESSAGES.render(call, model="m", max_output_tokens=None)
    assert rendered.data["messages"] == body["messages"]
    return call.turns[0].parts[0]


def foreign(*parts: Part, role: Role = Role.USER) -> Rendered:
    call = Call(Dialect.OPENAI_CHAT, "m", (Turn(role, parts),))
    return ANTHROPIC_MESSAGES.render(call, model="m", max_output_tokens=None)


def blocks(*parts: Part) -> list[Json]:
    found: list[Json] = foreign(*parts).data["messages"][0]["content"]
    return found


@pytest.mark.parametrize(
    ("source", "file"),
    [
        (
            {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
            File(media_type="application/pdf", data="JVBERi0=", name="T"),
        ),
        ({"type": "url", "url": "https://x/y.pdf"}, File("https://x/y.pdf", name="T")),
        ({"type": "file", "file_id": "f"}, File(file_id="f", name="T")),
        (
            {"type": "text", "media_type": "text/plain", "data": "Ä\n"},
            File(media_type="text/plain", data=encoded("Ä\n"), name="T"),
        ),
        (
            {"type": "content", "content": "one"},
            File(media_type="text/plain", data=encoded("one"), name="T"),
        ),
        (
            {"type": "content", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            File(media_type="text/plain", data=encoded("a\n\nb"), name="T"),
        ),
    ],
)
def test_a_document_is_a_file_and_comes_back_as_it_was(source: Json, file: File) -> None:
    """However it was given: text is a file of text, the title its name."""
    assert part(source, title="T") == file


@pytest.mark.parametrize(
    "source",
    [
        {"type": "content", "content": [{"type": "image", "source": {"type": "url", "url": "https://x"}}]},
        {"type": "content", "content": [{"type": "text", "text": "a", "cache_control": {}}]},
        {"type": "url", "url": "https://x", "new": 1},
        {"type": "later"},
    ],
)
def test_a_document_that_no_file_is_stays_whole(source: Json) -> None:
    """Pictures inside, marks inside, and what a later version of the API adds."""
    found = part(source)
    assert isinstance(found, Opaque)
    assert found.kind == "document"


def test_foreign_files_are_documents() -> None:
    """PDF and text by value, an address; a picture that is called a file is an image."""
    assert blocks(
        PDF,
        File(data="JVBERi0="),
        File(media_type="text/markdown; charset=utf-8", data=encoded("# A")),
        File(media_type="application/vnd.x+json", data=encoded("{}"), name="j"),
        File("https://x/y.pdf"),
        File(media_type="image/png", data="AA=="),
    ) == [
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
            "title": "a.pdf",
        },
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "# A"}},
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "{}"},
            "title": "j",
        },
        {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
    ]


@pytest.mark.parametrize(
    "lost",
    [
        File(file_id="file-1"),
        File(media_type="application/msword", data="AA=="),
        File(data="AA=="),
        File(media_type="text/plain", data="/w=="),
        File(media_type="text/plain", data=encoded(" ")),
    ],
)
def test_files_that_have_no_place_are_told(lost: File) -> None:
    """Another provider's id, a kind that is not taken, text that is none."""
    rendered = foreign(Text("q"), lost)
    assert rendered.data["messages"][0]["content"] == "q"
    assert rendered.losses == ("part:file",)


def test_files_stand_in_tool_results() -> None:
    """This dialect takes them there; what was extra is named."""
    odd = File(media_type="application/pdf", data="JVBERi0=", rest={"file.x": 1})
    rendered = foreign(ToolResult("t", (Text("a"), odd, Image("https://x"))), role=Role.TOOL)
    content = rendered.data["messages"][0]["content"][0]["content"]
    assert [block["type"] for block in content] == ["text", "document", "image"]
    assert rendered.losses == ("file.x",)


def test_what_a_model_drew_cannot_be_its_words() -> None:
    """Upstream rejects media in what the assistant said, and its SDK knows none in an answer."""
    image = Image("https://x")
    call = Call(
        Dialect.OPENAI_CHAT, "m", (Turn(Role.USER, (image,)), Turn(Role.ASSISTANT, (Text("a"), image, PDF)))
    )
    rendered = ANTHROPIC_MESSAGES.render(call, model="m", max_output_tokens=None)
    assert rendered.data["messages"][1]["content"] == "a"
    assert rendered.losses == ("part:image", "part:file")


def test_sound_leaves_its_words() -> None:
    """The dialect has none; a transcript is carried as text, and the rest is told."""
    rendered = foreign(Text("q"), Audio("audio/wav", "UklG", transcript="hello"), Audio(id="a"))
    assert [block["text"] for block in rendered.data["messages"][0]["content"]] == ["q", "hello"]
    assert rendered.losses == ("part:audio",)
