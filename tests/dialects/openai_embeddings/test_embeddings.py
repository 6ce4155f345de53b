from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types import CreateEmbeddingResponse

from tokenhub_core.dialects.openai_embeddings import OPENAI_EMBEDDINGS
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.types import Answer, Call, Dialect, Finished, Json, Request, Stopped, StopReason, Usage

FULL: Json = {
    "model": "text-embedding-3-small",
    "input": ["Grüße", "b"],
    "dimensions": 256,
    "encoding_format": "base64",
    "user": "u-1",
    "x_new": 1,
}
ANSWER: Json = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.1, -0.2]}],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}


def opened(**fields: Any) -> Request:
    return OPENAI_EMBEDDINGS.open(orjson.dumps(FULL | fields), "/v1/embeddings")


@pytest.mark.parametrize(
    ("given", "size", "turns"),
    [("Grüße", 7, 1), (["ab", "c"], 3, 2), ([1, 2, 3], 12, 1), ([[1, 2], [3]], 12, 2)],
)
def test_an_input_is_measured_in_every_form(given: Any, size: int, turns: int) -> None:
    """A token that is only a number stands for four bytes; nothing is ever streamed or capped."""
    request = opened(input=given, stream=True)
    features = request.features
    assert (features.text_bytes, features.turns, features.stream) == (size, turns, False)
    assert (features.model, features.max_output_tokens) == ("text-embedding-3-small", None)
    assert (request.dialect, request.path) == (Dialect.OPENAI_EMBEDDINGS, "/v1/embeddings")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": [[1, 2.5]]}, "input[0][1]"),
        ({"input": [{}]}, "input[0]"),
        ({"model": 1}, "model"),
    ],
)
def test_a_wrong_field_is_named(fields: Json, param: str) -> None:
    """With its place."""
    with pytest.raises(TokenHubError) as caught:
        opened(**fields)
    assert (caught.value.fault.kind, caught.value.fault.param) == (Kind.INVALID, param)


def test_only_the_model_is_ever_changed() -> None:
    """No cap applies, and the same model gives the very same bytes."""
    request = opened()
    assert OPENAI_EMBEDDINGS.patch(request, model=FULL["model"], max_output_tokens=9) is request.body
    patched = OPENAI_EMBEDDINGS.patch(request, model="other", max_output_tokens=9)
    assert patched == request.body.replace(b"text-embedding-3-small", b"other")


def test_what_is_embedded_is_no_place_for_directives() -> None:
    """It is data, and stays as it is."""
    data = opened(input="@@tokenhub model=x").data
    assert list(OPENAI_EMBEDDINGS.text_slots(data)) == []
    assert OPENAI_EMBEDDINGS.replace_texts(data, []) is data


def test_nothing_is_translated() -> None:
    """Neither to nor from another dialect; and the enumeration says so."""
    assert not Dialect.OPENAI_EMBEDDINGS.translates
    call = Call(Dialect.OPENAI_CHAT, "m", ())
    answer = Answer("", "", (), Stopped(StopReason.END), Usage())
    for attempt in (
        lambda: OPENAI_EMBEDDINGS.parse(opened()),
        lambda: OPENAI_EMBEDDINGS.render(call, model="m", max_output_tokens=None),
        lambda: OPENAI_EMBEDDINGS.render_answer(answer, request=opened()),
    ):
        with pytest.raises(TokenHubError, match="not translated") as caught:
            attempt()
        assert (caught.value.fault.kind, caught.value.fault.cause) == (Kind.INVALID, "not_translated")


def test_an_answer_tells_model_and_usage() -> None:
    """Its vectors stay in its bytes, whatever form they have."""
    CreateEmbeddingResponse.model_validate(ANSWER)
    answer = OPENAI_EMBEDDINGS.parse_answer(ANSWER)
    assert (answer.parts, answer.model) == ((), "text-embedding-3-small")
    assert answer.usage == OPENAI_EMBEDDINGS.usage(ANSWER) == Usage(8)
    packed = ANSWER | {"data": [{"embedding": "zczMPc3MTL4="}], "usage": None, "id": "e-1"}
    assert OPENAI_EMBEDDINGS.parse_answer(packed).usage == Usage()
    assert OPENAI_EMBEDDINGS.parse_answer(packed).id == "e-1"


@pytest.mark.parametrize(
    "data", [{}, {"data": 1}, {"data": [1]}, {"data": [{}]}, {"data": [{"id": "model"}]}]
)
def test_what_is_no_list_of_embeddings_is_refused(data: Json) -> None:
    """A list of models is none."""
    with pytest.raises(ValueError, match="data"):
        OPENAI_EMBEDDINGS.parse_answer(data)


def test_there_are_no_streams() -> None:
    """Nothing cuts, reads or writes one."""
    request = opened()
    assert OPENAI_EMBEDDINGS.parser("text/event-stream") is None
    reader = OPENAI_EMBEDDINGS.reader()
    assert (list(reader.read("", b"{}")), list(reader.end())) == ([], [])
    writer = OPENAI_EMBEDDINGS.writer(request=request, created=1, fallback_id="f")
    assert (writer.write(Finished()), writer.losses()) == (b"", ())
    assert OPENAI_EMBEDDINGS.stream_type(request) == "application/json"
    assert OPENAI_EMBEDDINGS.keep_alive(request) == b""
    assert not OPENAI_EMBEDDINGS.hides("", b"{}", request=request)


def test_path_and_errors_are_those_of_the_family() -> None:
    """As the caller's SDK expects them."""
    assert OPENAI_EMBEDDINGS.operation(model="m", stream=False) == "/embeddings"
    fault = Fault(Kind.NOT_FOUND, Blame.CLIENT, "no such model")
    reply = OPENAI_EMBEDDINGS.error(fault, request_id="r")
    assert (reply.status, orjson.loads(reply.body)["error"]["message"]) == (404, "no such model")
    assert b"no such model" in OPENAI_EMBEDDINGS.stream_error(fault, request_id="r")
