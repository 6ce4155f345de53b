"""Golden files: `UPDATE_GOLDEN=1 pytest tests/dialects/anthropic_messages` writes them anew; read the diff."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter

from tokenhub_core.dialects import sse
from tokenhub_core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from tokenhub_core.types import Delta

type Golden = Callable[[str, object], None]

GOLDEN = Path(__file__).parents[2] / "golden"
HOME = GOLDEN / "anthropic_messages"
PROVIDED = GOLDEN / "inputs" / "anthropic_messages" / "streams"
REQUESTS = sorted(path.name[:-5] for path in (HOME / "requests").glob("*.json") if path.name.count(".") == 1)
STREAMS = sorted(path.name[:-4] for path in PROVIDED.glob("*.sse") if path.name.count(".") == 1)
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def deltas_of(raw: bytes) -> list[Delta]:
    reader = ANTHROPIC_MESSAGES.reader()
    events = sse.Parser().feed(raw)
    return [delta for event in events for delta in reader.read(event.name, event.data)]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_becomes_this_call_and_the_same_request_again(name: str, golden: Golden) -> None:
    """What is read from a body is written down; a provider of this dialect gets what the caller wrote."""
    request = ANTHROPIC_MESSAGES.open((HOME / "requests" / f"{name}.json").read_bytes())
    call = ANTHROPIC_MESSAGES.parse(request)
    golden(f"requests/{name}.call.json", call)
    rendered = ANTHROPIC_MESSAGES.render(call, model="claude-x", max_output_tokens=None)
    assert rendered.data == request.data
    assert rendered.losses == ()


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_becomes_these_deltas_and_this_stream_again(name: str, golden: Golden) -> None:
    """What is read from a provider's stream, and what a caller of the same dialect would get, is written down."""
    deltas = deltas_of((PROVIDED / f"{name}.sse").read_bytes())
    request = ANTHROPIC_MESSAGES.open(
        b'{"max_tokens":9,"stream":true,"messages":[{"role":"user","content":"x"}]}'
    )
    writer = ANTHROPIC_MESSAGES.writer(request=request, created=0, fallback_id="f")
    written = b"".join(writer.write(delta) for delta in deltas)

    golden(f"streams/{name}.deltas.json", deltas)
    golden(f"streams/{name}.written.sse", written)
    for event in sse.Parser().feed(written):
        EVENT.validate_json(event.data)
