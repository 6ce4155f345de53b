from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dialects.ndjson import Parser
from tokenhub_core.dialects.ollama import OLLAMA_CHAT, OLLAMA_GENERATE
from tokenhub_core.types import Delta

type Golden = Callable[[str, object], None]

HOME = Path(__file__).parents[2] / "golden" / "ollama"
REQUESTS = sorted(path.name[:-5] for path in (HOME / "requests").glob("*.json") if path.name.count(".") == 1)
STREAMS = sorted(path.name[:-7] for path in (HOME / "streams").glob("*.ndjson") if path.name.count(".") == 1)


def module(name: str) -> DialectModule:
    return OLLAMA_CHAT if name.startswith("chat") else OLLAMA_GENERATE


def deltas_of(dialect: DialectModule, *chunks: bytes) -> list[Delta]:
    parser, reader = Parser(), dialect.reader()
    events = [event for chunk in chunks for event in parser.feed(chunk)] + parser.flush()
    return [delta for event in events for delta in reader.read(event.name, event.data)]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_becomes_this_call_and_the_same_body_again(name: str, golden: Golden) -> None:
    """What is read from a body is written down; a server of the same dialect gets every field of it back."""
    dialect = module(name)
    body = (HOME / "requests" / f"{name}.json").read_bytes()

    call = dialect.parse(dialect.open(body))
    rendered = dialect.render(call, model=call.model, max_output_tokens=None)

    golden(f"requests/{name}.call.json", call)
    assert rendered.data == orjson.loads(body)
    assert rendered.losses == ()


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_becomes_these_deltas_and_this_stream_again(name: str, golden: Golden) -> None:
    """What is read from a server's stream, and what a caller of the same dialect would get, is written down."""
    dialect = module(name)
    deltas = deltas_of(dialect, (HOME / "streams" / f"{name}.ndjson").read_bytes())
    writer = dialect.writer(request=dialect.open(b'{"model":"asked"}'), created=1, fallback_id="f")
    written = b"".join(writer.write(delta) for delta in deltas)

    golden(f"streams/{name}.deltas.json", deltas)
    golden(f"streams/{name}.written.ndjson", written)
    # What was written says the same, but for what each piece came in.
    again = deltas_of(dialect, written)
    assert [type(delta) for delta in again] == [type(delta) for delta in deltas][: len(again)]


@pytest.mark.parametrize("name", STREAMS)
def test_the_way_a_stream_is_cut_changes_nothing(name: str) -> None:
    """Any split of the bytes gives the same deltas."""
    dialect, stream = module(name), (HOME / "streams" / f"{name}.ndjson").read_bytes()
    whole = deltas_of(dialect, stream)
    assert whole
    for size in (1, 7, 64):
        assert deltas_of(dialect, *(stream[i : i + size] for i in range(0, len(stream), size))) == whole
    for cut in range(0, len(stream), 13):
        assert deltas_of(dialect, stream[:cut], stream[cut:]) == whole
