"""Golden files: `UPDATE_GOLDEN=1 pytest tests/dialects/gemini` writes them anew; read the diff."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.dialects.gemini import GEMINI
from tokenhub_core.dialects.gemini.names import plain
from tokenhub_core.types import Delta, Failed, Finished, Request

type Golden = Callable[[str, object], None]

HOME = Path(__file__).parents[2] / "golden" / "gemini"
PATH = "/v1beta/models/gemini-3-pro:generateContent"
TYPES = {".sse": "text/event-stream", ".array": "application/json; charset=UTF-8"}
OWN = ["full", "plain", "settings"]
STREAMS = sorted(
    path.name for path in (HOME / "streams").iterdir() if path.suffix in TYPES and path.name.count(".") == 1
)


def request(*, array: bool = False) -> Request:
    """Return the plainest request for a stream."""
    path = "/v1beta/models/asked-for:streamGenerateContent" + ("" if array else "?alt=sse")
    return GEMINI.open(b'{"contents":[{"parts":[{"text":"x"}]}]}', path)


def read(kind: str, chunks: Iterable[bytes]) -> list[Delta]:
    """Return what a provider's stream of this type says."""
    parser, reader = GEMINI.parser(kind), GEMINI.reader()
    assert parser is not None
    events = [event for chunk in chunks for event in parser.feed(chunk)] + parser.flush()
    deltas = [delta for event in events for delta in reader.read(event.name, event.data)]
    return [*deltas, *reader.end()]


def written(deltas: Iterable[Delta], *, array: bool = False) -> bytes:
    """Return what a client of this dialect reads for these deltas."""
    writer = GEMINI.writer(request=request(array=array), created=0, fallback_id="f")
    return b"".join(writer.write(delta) for delta in deltas)


@pytest.mark.parametrize("name", [*OWN, "spellings"])
def test_a_request_becomes_this_call_and_the_same_request_again(name: str, golden: Golden) -> None:
    """What is read from a body is written down; a provider of this dialect gets what the caller wrote."""
    asked = GEMINI.open((HOME / "requests" / f"{name}.json").read_bytes(), PATH)
    call = GEMINI.parse(asked)
    golden(f"requests/{name}.call.json", call)
    rendered = GEMINI.render(call, model="gemini-3-pro", max_output_tokens=None)
    assert rendered.losses == ()
    if name in OWN:
        assert rendered.data == asked.data
    else:
        golden(f"requests/{name}.rendered.json", rendered.data)
    again = GEMINI.open(orjson.dumps(rendered.data), PATH)
    assert GEMINI.parse(again) == call


@pytest.mark.parametrize("name", ["full", "blocked"])
def test_an_answer_becomes_this_one_and_the_same_again(name: str, golden: Golden) -> None:
    """What is read from a response is written down; a caller of this dialect gets what the provider wrote."""
    data = orjson.loads((HOME / "answers" / f"{name}.json").read_bytes())
    answer = GEMINI.parse_answer(data)
    golden(f"answers/{name}.answer.json", answer)
    rendered = GEMINI.render_answer(answer, request=request())
    assert rendered.data == plain(data)
    assert rendered.losses == ()


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_becomes_these_deltas_and_this_stream_again(name: str, golden: Golden) -> None:
    """What is read from a provider's stream, and what a caller of the same dialect would get, is written down."""
    raw = (HOME / "streams" / name).read_bytes()
    array = name.endswith(".array")
    deltas = read(TYPES[Path(name).suffix], [raw])
    golden(f"streams/{name}.deltas.json", deltas)
    again = written(deltas, array=array)
    golden(f"streams/{name}.written", again)
    if deltas[-1:] == [Finished()]:
        assert read(TYPES[Path(name).suffix], [again])[-1] == Finished()
        assert not array or orjson.loads(again)


@pytest.mark.parametrize("name", sorted({Path(name).stem for name in STREAMS} - {"refused"}))
def test_both_framings_say_the_same(name: str) -> None:
    """Server-sent events and the elements of an array carry the same responses."""
    one, other = (read(kind, [(HOME / "streams" / (name + end)).read_bytes()]) for end, kind in TYPES.items())
    assert one == other


@pytest.mark.parametrize("name", STREAMS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_the_way_a_stream_is_cut_changes_nothing(name: str, data: st.DataObject) -> None:
    """Any split of the provider's bytes gives the same deltas."""
    raw = (HOME / "streams" / name).read_bytes()
    kind = TYPES[Path(name).suffix]
    places = sorted({0, len(raw), *data.draw(st.lists(st.integers(0, len(raw)), max_size=8))})
    chunks = [raw[begin:end] for begin, end in itertools.pairwise(places)]
    assert read(kind, chunks) == read(kind, [raw])


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_is_cut_anywhere_is_never_finished(name: str) -> None:
    """Whatever is missing at its end before the finish reason, it is not taken for a whole answer."""
    raw = (HOME / "streams" / name).read_bytes()
    for end in range(0, max(raw.rfind(b"finishReason"), raw.rfind(b"blockReason")), 7):
        deltas = read(TYPES[Path(name).suffix], [raw[:end]])
        assert Finished() not in deltas
        assert sum(isinstance(delta, Failed) for delta in deltas) <= 1
