from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tokenhub_core.dialects.openai_responses import OPENAI_RESPONSES
from tokenhub_core.dialects.sse import Parser
from tokenhub_core.types import Delta

type Golden = Callable[[str, object], None]

HOME = Path(__file__).parents[2] / "golden" / "openai_responses"
REQUESTS = sorted(path.name[:-5] for path in (HOME / "requests").glob("*.json") if path.name.count(".") == 1)
STREAMS = sorted(path.name[:-4] for path in (HOME / "streams").glob("*.sse") if path.name.count(".") == 1)
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def deltas_of(*chunks: bytes) -> list[Delta]:
    parser, reader = Parser(), OPENAI_RESPONSES.reader()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return [delta for event in events for delta in reader.read(event.name, event.data)]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_becomes_this_call_and_this_body_again(name: str, golden: Golden) -> None:
    """What is read from a body, and what a provider of the same dialect gets of it, is written down."""
    request = OPENAI_RESPONSES.open((HOME / "requests" / f"{name}.json").read_bytes())

    call = OPENAI_RESPONSES.parse(request)
    rendered = OPENAI_RESPONSES.render(call, model="served-model", max_output_tokens=None)

    golden(f"requests/{name}.call.json", call)
    golden(f"requests/{name}.rendered.json", rendered.data)
    assert rendered.losses == ()


def test_an_answer_becomes_this_one_and_this_body_again(golden: Golden) -> None:
    """What is read from a response, and what a caller of the same dialect would get, is written down."""
    data = orjson.loads((HOME / "answers" / "full.json").read_bytes())

    answer = OPENAI_RESPONSES.parse_answer(data)
    request = OPENAI_RESPONSES.open(b'{"input":"Hello"}')
    rendered = OPENAI_RESPONSES.render_answer(answer, request=request)

    golden("answers/full.answer.json", answer)
    golden("answers/full.rendered.json", rendered.data)
    assert rendered.losses == ()
    Response.model_validate(rendered.data)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_becomes_these_deltas_and_this_stream_again(name: str, golden: Golden) -> None:
    """What is read from a provider's stream, and what a caller of the same dialect would get, is written down."""
    stream = (HOME / "streams" / f"{name}.sse").read_bytes()
    request = OPENAI_RESPONSES.open(b'{"input":"Hello","stream":true}')

    deltas = deltas_of(stream)
    writer = OPENAI_RESPONSES.writer(request=request, created=1, fallback_id="f")
    written = b"".join(writer.write(delta) for delta in deltas)

    golden(f"streams/{name}.deltas.json", deltas)
    golden(f"streams/{name}.written.sse", written)
    for event in Parser().feed(written):
        EVENT.validate_json(event.data)


@pytest.mark.parametrize("name", STREAMS)
def test_the_way_a_stream_is_cut_changes_nothing(name: str) -> None:
    """Any split of the bytes gives the same deltas."""
    stream = (HOME / "streams" / f"{name}.sse").read_bytes()
    whole = deltas_of(stream)
    assert whole
    for size in (1, 7, 64):
        assert deltas_of(*(stream[i : i + size] for i in range(0, len(stream), size))) == whole
    for cut in range(0, len(stream), 211):
        assert deltas_of(stream[:cut], stream[cut:]) == whole
