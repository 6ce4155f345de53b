from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from openai.types import Completion

from tokenhub_core.dialects.openai_completions import OPENAI_COMPLETIONS
from tokenhub_core.dialects.sse import Parser
from tokenhub_core.types import Delta

type Golden = Callable[[str, object], None]

HOME = Path(__file__).parents[2] / "golden" / "openai_completions"
REQUESTS = sorted(path.name[:-5] for path in (HOME / "requests").glob("*.json") if path.name.count(".") == 1)
STREAMS = sorted(path.name[:-4] for path in (HOME / "streams").glob("*.sse") if path.name.count(".") == 1)


def deltas_of(*chunks: bytes) -> list[Delta]:
    parser, reader = Parser(), OPENAI_COMPLETIONS.reader()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return [delta for event in events for delta in reader.read(event.name, event.data)]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_becomes_this_call_and_this_body_again(name: str, golden: Golden) -> None:
    """What is read from a body, and what a provider of the same dialect gets of it, is written down."""
    body = (HOME / "requests" / f"{name}.json").read_bytes()
    call = OPENAI_COMPLETIONS.parse(OPENAI_COMPLETIONS.open(body))
    rendered = OPENAI_COMPLETIONS.render(call, model=call.model, max_output_tokens=None)

    golden(f"requests/{name}.call.json", call)
    golden(f"requests/{name}.rendered.json", rendered.data)
    assert rendered.losses == ()
    # The plainer spellings of the same: a lone prompt and a lone stop word, and what says nothing.
    said = {k: v for k, v in orjson.loads(body).items() if k not in {"prompt", "stop", "suffix", "best_of"}}
    assert said.items() <= rendered.data.items()


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_becomes_these_deltas_and_this_stream_again(name: str, golden: Golden) -> None:
    """What is read from a provider's stream, and what a caller of the same dialect would get, is written down."""
    deltas = deltas_of((HOME / "streams" / f"{name}.sse").read_bytes())
    body = b'{"prompt":"a","stream":true,"stream_options":{"include_usage":true}}'
    writer = OPENAI_COMPLETIONS.writer(request=OPENAI_COMPLETIONS.open(body), created=1, fallback_id="f")
    written = b"".join(writer.write(delta) for delta in deltas)

    golden(f"streams/{name}.deltas.json", deltas)
    golden(f"streams/{name}.written.sse", written)
    for event in Parser().feed(written):
        if event.data != b"[DONE]":
            Completion.model_validate(orjson.loads(event.data) | {"choices": []})


@pytest.mark.parametrize("name", STREAMS)
def test_the_way_a_stream_is_cut_changes_nothing(name: str) -> None:
    """Any split of the bytes gives the same deltas."""
    stream = (HOME / "streams" / f"{name}.sse").read_bytes()
    whole = deltas_of(stream)
    assert whole
    for size in (1, 7, 64):
        assert deltas_of(*(stream[i : i + size] for i in range(0, len(stream), size))) == whole
    for cut in range(0, len(stream), 13):
        assert deltas_of(stream[:cut], stream[cut:]) == whole
