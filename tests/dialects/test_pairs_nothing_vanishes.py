"""What goes in comes out or is named: every field of every full request, answer and stream, for every pair."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.message_create_params import MessageCreateParamsStreaming as Messages
from google.genai import types as genai
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming as Chat
from openai.types.completion_create_params import CompletionCreateParamsStreaming as Completions
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming as Responses

from tests.dialects import omissions, pairs, vanished
from tests.dialects.known_fields import absent
from tests.dialects.omissions import Omission
from tests.dialects.pairs import CHATS, HOME, PAIRS
from tests.dialects.vanished import Bodies, Change, Path, dotted, leaves, markers, named
from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.registry import dialect
from tokenhub_core.types import Dialect, Failed, Json

KNOWN: Final[dict[tuple[Dialect, str], Any]] = {
    (Dialect.OPENAI_CHAT, "requests"): Chat,
    (Dialect.OPENAI_CHAT, "answers"): ChatCompletion,
    (Dialect.OPENAI_CHAT, "streams"): ChatCompletionChunk,
    (Dialect.OPENAI_RESPONSES, "requests"): Responses,
    (Dialect.OPENAI_RESPONSES, "answers"): Response,
    (Dialect.OPENAI_RESPONSES, "streams"): ResponseStreamEvent,
    (Dialect.OPENAI_COMPLETIONS, "requests"): Completions,
    (Dialect.OPENAI_COMPLETIONS, "answers"): Completion,
    (Dialect.OPENAI_COMPLETIONS, "streams"): Completion,
    (Dialect.ANTHROPIC_MESSAGES, "requests"): Messages,
    (Dialect.ANTHROPIC_MESSAGES, "answers"): Message,
    (Dialect.ANTHROPIC_MESSAGES, "streams"): RawMessageStreamEvent,
    (Dialect.GEMINI, "answers"): genai.GenerateContentResponse,
    (Dialect.GEMINI, "streams"): genai.GenerateContentResponse,
}
"""The official types of a body or an event. Ollama's are not among what tests install."""

GEMINI: Final = {
    "generationConfig": genai.GenerationConfig,
    "contents": list[genai.Content],
    "systemInstruction": genai.Content,
    "tools": list[genai.Tool],
    "toolConfig": genai.ToolConfig,
    "safetySettings": list[genai.SafetySetting],
}
"""Google's SDK has no type of a whole body."""

LOCAL: Final = {"sdkHttpResponse", "automaticFunctionCallingHistory", "parsed"}
"""What Google's SDK adds to an answer by itself."""

ALONE: Final = {
    *("text", "inlineData", "fileData", "functionCall", "functionResponse"),
    *("executableCode", "codeExecutionResult", "toolCall", "toolResponse"),
}
"""A part of Google's has one of these."""

OF_MEDIA: Final = {"mediaResolution": "inlineData", "videoMetadata": "fileData"}
"""Only parts with media have these."""

both = pytest.mark.parametrize(
    ("client", "provider"), [pytest.param(*pair, id="-to-".join(pair)) for pair in PAIRS]
)
KINDS: Final = ("requests", "answers", "streams")


# --- inputs ------------------------------------------------------------------------------------------------


def full(name: Dialect, kind: str) -> Json:
    data: Json = orjson.loads((HOME / "inputs" / name / kind / "full.json").read_bytes())
    return data


def bodies(name: Dialect, kind: str) -> Bodies:
    """Return the body of the full input, or the events of the full stream."""
    if kind != "streams":
        return [full(name, kind)]
    path = HOME / "inputs" / name / kind / f"full{pairs.ending(name)}"
    return [orjson.loads(frame) for frame in pairs.frames(name, path.read_bytes())]


def framed(name: Dialect, events: Bodies) -> bytes:
    """Return a provider's stream of these events."""
    dumped = [(event.get("type"), orjson.dumps(event)) for event in events]
    if pairs.ending(name) == ".ndjson":
        return b"".join(data + b"\n" for _, data in dumped)
    done = b"data: [DONE]\n\n" if name in {Dialect.OPENAI_CHAT, Dialect.OPENAI_COMPLETIONS} else b""
    lines = (b"event: %s\ndata: %s\n\n" % (str(kind or "").encode(), data) for kind, data in dumped)
    return b"".join(lines) + done


def read(name: Dialect, kind: str, given: Bodies) -> Any:
    """Return what is understood of a body or a stream; raises what the reader does, also for a stream's failure."""
    if kind == "requests":
        return dialect(name).parse(pairs.opened(name, orjson.dumps(given[0])))
    if kind == "answers":
        return dialect(name).parse_answer(given[0])
    deltas = pairs.read(name, [framed(name, given)])
    if any(isinstance(delta, Failed) for delta in deltas):
        raise ValueError("the stream failed")
    return deltas


def write(other: Dialect, kind: str, understood: Any) -> Rendered:
    """Return what arrives on the other side."""
    if kind == "requests":
        return dialect(other).render(understood, model=pairs.MODELS[other], max_output_tokens=None)
    if kind == "answers":
        return dialect(other).render_answer(understood, request=pairs.asked(other))
    written, losses = pairs.written(other, understood)
    return Rendered({"stream": written.decode()}, losses)


def words(name: Dialect, kind: str) -> dict[str, set[str]]:
    """Return the texts that stand at each place of all inputs of a dialect."""
    found: dict[str, set[str]] = {}
    for path in pairs.inputs(name, kind):
        raw = path.read_bytes()
        for data in [raw] if kind != "streams" else pairs.frames(name, raw):
            for place, value in leaves(orjson.loads(data) if data else {}):
                if isinstance(value, str) and not markers({"": value}):
                    found.setdefault(dotted(place), set()).add(value)
    return found


def _is_media(given: Bodies, path: Path) -> bool:
    box: Any = given
    for key in path[:-1]:
        box = box[key]
    return not box.keys().isdisjoint(OF_MEDIA.values())


def unused(name: Dialect, kind: str, given: Bodies) -> Iterator[tuple[Path, tuple[Any, ...]]]:
    """Yield the fields that the SDK's types know and the input lacks; in a stream, that no event of the type has."""
    there: set[str] = set()
    if kind == "streams":
        places = (path[:end] for path, _ in leaves(given) for end in range(1, len(path) + 1))
        there = {vanished.where(given, place) for place in places}
    types = [(place, body, KNOWN.get((name, kind))) for place, body in enumerate(given)]
    found = (each for place, body, known in types for each in absent(known, body, (place,), alone=ALONE))
    if (name, kind) == (Dialect.GEMINI, "requests"):
        members = ((member, each) for member, each in GEMINI.items())
        found = (
            each for key, known in members for each in absent(known, given[0][key], (0, key), alone=ALONE)
        )
    for path, values in found:
        misplaced = path[1] in LOCAL or (path[-1] in OF_MEDIA and not _is_media(given, path))
        if not misplaced and vanished.where(given, path) not in there:
            yield path, values


@functools.cache
def changed(name: Dialect, kind: str) -> tuple[Any, list[Change]]:
    """Return what is understood of the full input, and of each change of it."""
    given = bodies(name, kind)
    found = vanished.changes(
        given, functools.partial(read, name, kind), words(name, kind), unused(name, kind, given)
    )
    return read(name, kind, given), found


@functools.cache
def gone(name: Dialect, other: Dialect, kind: str) -> tuple[str, ...]:
    """Return what of a dialect's full input neither arrives in the other dialect nor is named."""
    whole, found = changed(name, kind)
    return tuple(vanished.vanished(found, whole, functools.partial(write, other, kind)))


def entries(name: Dialect, kind: str) -> tuple[Omission, ...]:
    if kind == "streams":
        return (*omissions.STREAMS[name], *omissions.ANSWERS[name])
    return {"requests": omissions.REQUESTS, "answers": omissions.ANSWERS}[kind][name]


def unexplained(name: Dialect, other: Dialect, kind: str) -> list[str]:
    allowed = [each for each in entries(name, kind) if not each.where or other in each.where]
    return [line for line in gone(name, other, kind) if not any(explains(each, line) for each in allowed)]


def explains(entry: Omission, line: str) -> bool:
    """Tell whether an entry is about a place: by its name, or by that behind the type of its event."""
    place = line.partition(" = ")[0]
    return bool(re.search(entry.names, place) or re.search(entry.names, place.rpartition("/")[2]))


# --- the rule ----------------------------------------------------------------------------------------------


@both
def test_nothing_of_a_request_vanishes(client: Dialect, provider: Dialect) -> None:
    """Each field stands in the provider's body, or under a name in the losses, or in the table of omissions."""
    assert unexplained(client, provider, "requests") == []


@both
def test_nothing_of_an_answer_vanishes(client: Dialect, provider: Dialect) -> None:
    """Each field stands in the client's body, or under a name in the losses, or in the table of omissions."""
    assert unexplained(provider, client, "answers") == []


@both
def test_nothing_of_a_stream_vanishes(client: Dialect, provider: Dialect) -> None:
    """Each field of each event changes what the client reads, or stands in the losses, or in the table of omissions."""
    assert unexplained(provider, client, "streams") == []


@both
def test_what_steers_the_wire_is_no_loss(client: Dialect, provider: Dialect) -> None:
    """How a stream is padded, and that it tells its usage, changes no answer."""
    lost = pairs.rendered(client, provider, orjson.dumps(full(client, "requests"))).losses
    assert not {"stream", "stream_options"} & set(lost)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CHATS)
def test_no_omission_stands_for_nothing(name: Dialect, kind: str) -> None:
    """Each entry of the table is needed by at least one pair: what is carried by now leaves it."""
    table = {"requests": omissions.REQUESTS, "answers": omissions.ANSWERS, "streams": omissions.STREAMS}[kind]
    others = [other for other in CHATS if other is not name]
    for entry in table[name]:
        lines = (line for other in entry.where or others for line in gone(name, other, kind))
        assert any(explains(entry, line) for line in lines), entry


@pytest.mark.parametrize("kind", ["requests", "answers"])
@pytest.mark.parametrize("name", CHATS)
def test_a_marker_marks_one_text(name: Dialect, kind: str) -> None:
    """Only ids and names, which stand for one another, and texts that the wire repeats share one."""
    data = full(name, kind)
    shared = {marker for marker, times in Counter(markers(data)).items() if times > 1}
    repeated = re.compile(
        r"(^|\.|_)(id|name|tool_name|token|text|summary|reasoning|content|allowedFunctionNames)$"
    )
    for path, value in leaves(data):
        if isinstance(value, str) and any(marker in value for marker in shared):
            assert repeated.search(dotted(path)) or dotted(path).endswith(("tokens", "response")), path


def test_the_check_sees_what_vanishes() -> None:
    """A text, a number or a word of which nothing is left; not what is renamed, packed in base64, or named."""

    def translate(data: Json) -> Rendered:
        kept: dict[str, Any] = {
            "said": data["text"],
            "list": [data["packed"]],
            "kind": bool(data.get("kind")),
        }
        return Rendered(kept, ("user", "part:video"))

    def understood(given: Bodies) -> Json:
        if given[0].get("word") not in {"one", "two"}:
            raise ValueError("no such word")
        return given[0]

    data = {
        "text": "Hello m001x",
        "packed": "bTAwMng=",
        "note": "Psst m003x",
        "cap": 7,
        "kind": "high",
        "word": "one",
        "user": "me m004x",
        "parts": [{"type": "video", "url": "m005x"}, {"type": "sound", "url": "m006x"}],
        "empty": [],
    }
    more = [((0, "more"), ("m998x",)), ((0, "parts", 0, "size"), (7,)), ((0, "text"), ("other m001x",))]
    found = vanished.changes([data], understood, {"word": {"two"}}, more)
    assert list(vanished.vanished(found, data, translate)) == [
        "note = 'Psst m003x'",
        "cap = 7",
        # That there is one says something; which one it is does not.
        "kind = 'high'",
        "word = 'one'",
        "parts.type = 'sound'",
        "parts.url = 'm006x'",
        "more = 'm998x'",
    ]
    assert not named([data], (0, "note"), ("not", "notes", "other.note"))


def test_what_a_stream_repeats_is_changed_in_all_its_events() -> None:
    """A reader may take it from any of them; what says something else is another matter."""
    events: Bodies = [{"type": "a", "id": "x m001x", "n": 1}, {"type": "a", "id": "x m001x", "n": 2}]
    found = vanished.changes(events, lambda given: given, {}, [])
    last = found[0]
    assert [change.path for change in found] == [(1, "type"), (1, "id"), (0, "n"), (1, "n")]
    assert [event["type"] for event in last.others[0]] == ["a_other", "a_other"]
    nothing = [*vanished.vanished(found, events, lambda given: Rendered({"id": given[0]["id"]}))]
    assert nothing == ["a/type = 'a'", "a/n = 1", "a/n = 2"]


@pytest.mark.parametrize("client", [name for name in CHATS if name is not Dialect.ANTHROPIC_MESSAGES])
def test_what_anthropic_counts_besides_is_named_where_it_says_something(client: Dialect) -> None:
    """Whole and streamed; what is zero or usual says nothing."""
    usual: Json = {"service_tier": "standard", "inference_geo": "not_available", "speed": "standard"}
    usual |= {"cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 0}}
    usual |= {"server_tool_use": {"web_search_requests": 0}}
    other: Json = {"service_tier": "batch", "inference_geo": "us", "speed": "fast"}
    other |= {
        "cache_creation": {"ephemeral_1h_input_tokens": 2},
        "server_tool_use": {"web_search_requests": 1},
    }
    for extras, wanted in ((usual, set[str]()), (other, {f"usage.{name}" for name in other})):
        found = bodies(Dialect.ANTHROPIC_MESSAGES, "answers")[0]
        found["usage"] = {"input_tokens": 5, "output_tokens": 7, **extras}
        whole = pairs.answered(client, Dialect.ANTHROPIC_MESSAGES, orjson.dumps(found)).losses
        events = bodies(Dialect.ANTHROPIC_MESSAGES, "streams")
        events[0]["message"]["usage"] = found["usage"]
        events[-2]["usage"] = {"output_tokens": 7}
        streamed = pairs.streamed(
            client, Dialect.ANTHROPIC_MESSAGES, framed(Dialect.ANTHROPIC_MESSAGES, events)
        )[1]
        for losses in (whole, streamed):
            assert {loss for loss in losses if loss.startswith("usage.")} == wanted


@pytest.mark.parametrize("tier", ["default", "auto", "flex"])
def test_the_usual_tier_of_a_chat_is_no_loss(tier: str) -> None:
    """Whole and streamed; any other is one, once."""
    chat = Dialect.OPENAI_CHAT
    whole = pairs.answered(
        Dialect.GEMINI, chat, orjson.dumps(full(chat, "answers") | {"service_tier": tier})
    ).losses
    events = [event | {"service_tier": tier} for event in bodies(chat, "streams")]
    streamed = pairs.streamed(Dialect.GEMINI, chat, framed(chat, events))[1]
    for losses in (whole, streamed):
        assert losses.count("service_tier") == (tier == "flex")
    own = dialect(chat).parse_answer(full(chat, "answers") | {"service_tier": tier})
    assert dialect(chat).render_answer(own, request=pairs.asked(chat)).data["service_tier"] == tier
