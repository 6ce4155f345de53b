"""The usage of an answer that passes by is read from copies of its bytes, whoever made it."""

from __future__ import annotations

import base64
import gzip
import itertools
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator

import brotli
import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.growth import spent
from tokenhub_core.metering import KEPT, Meter, Reading
from tokenhub_core.types import Headers, Json, Usage

JSON: Headers = (("content-type", "application/json; charset=utf-8"),)
SSE: Headers = (("content-type", "text/event-stream"),)
EVENTS: Headers = (("content-type", "application/vnd.amazon.eventstream"),)


def read(
    body: bytes | Iterable[bytes],
    headers: Headers = JSON,
    *,
    path: str = "/v1/embeddings",
    method: str = "POST",
    status: int = 200,
    asked: bytes = b"",
) -> Reading:
    """Let one exchange go by a meter."""
    meter = Meter(method, path, ())
    meter.ask(asked)
    meter.begin(status, headers)
    for piece in [body] if isinstance(body, bytes) else body:
        meter.feed(piece)
    return meter.read()


def events(*data: Json) -> bytes:
    return b"".join(b"data: " + orjson.dumps(item) + b"\n\n" for item in data)


EMBEDDINGS = {"object": "list", "data": [], "model": "text-embedding-3-small",
              "usage": {"prompt_tokens": 8, "total_tokens": 8}}  # fmt: skip
IMAGES = {"created": 1, "data": [{"b64_json": "AAAA"}],
          "usage": {"input_tokens": 50, "output_tokens": 4160, "total_tokens": 4210,
                    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40}}}  # fmt: skip
SPOKEN = {
    "text": "hi",
    "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59},
}
TIMED = {"text": "hi", "usage": {"type": "duration", "seconds": 3}}
CHAT = {"model": "gpt-4o", "usage": {"prompt_tokens": 20, "completion_tokens": 9,
                                     "prompt_tokens_details": {"cached_tokens": 16},
                                     "completion_tokens_details": {"reasoning_tokens": 4}}}  # fmt: skip
CLAUDE = {"model": "claude-sonnet-4-5", "usage": {"input_tokens": 3, "cache_creation_input_tokens": 100,
                                                  "cache_read_input_tokens": 1000, "output_tokens": 7}}  # fmt: skip
CONVERSE = {"output": {}, "usage": {"inputTokens": 12, "outputTokens": 34, "totalTokens": 52,
                                    "cacheReadInputTokens": 5, "cacheWriteInputTokens": 1}}  # fmt: skip
VERTEX = {"candidates": [], "modelVersion": "gemini-2.5-pro",
          "usageMetadata": {"promptTokenCount": 30, "candidatesTokenCount": 5, "thoughtsTokenCount": 11,
                            "cachedContentTokenCount": 8, "totalTokenCount": 46}}  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "usage", "model"),
    [
        (EMBEDDINGS, Usage(8), "text-embedding-3-small"),
        (IMAGES, Usage(50, 4160), ""),
        (SPOKEN, Usage(14, 45), ""),
        (TIMED, Usage(), ""),
        (CHAT, Usage(20, 9, 16, 0, 4), "gpt-4o"),
        (CLAUDE, Usage(1103, 7, 1000, 100), "claude-sonnet-4-5"),
        (CONVERSE, Usage(18, 34, 5, 1), ""),
        (VERTEX, Usage(30, 16, 8, 0, 11), "gemini-2.5-pro"),
        ({"id": "file-1", "object": "file"}, Usage(), ""),
    ],
)
def test_the_usage_of_a_whole_answer_is_read_in_every_shape(answer: Json, usage: Usage, model: str) -> None:
    """OpenAI's, Anthropic's, Amazon's and Google's; what was cached counts as input."""
    told = read(orjson.dumps(answer))
    assert (told.usage, told.model, told.stream) == (usage, model, False)


def test_a_large_answer_is_read_at_its_end() -> None:
    """Vectors and images come before the counts; a text that looks like counts is none."""
    data = {
        "data": ['"usage": {"prompt_tokens": 999}', "x" * (3 * KEPT)],
        "text": '"usage": {"prompt_tokens": 999}',
        "model": "m-1",
        "usage": {"prompt_tokens": 8},
    }
    told = read(orjson.dumps(data))
    assert (told.usage, told.model) == (Usage(8), "m-1")


def test_only_the_answers_own_usage_counts() -> None:
    """Where an answer fits, what merely stands in it is not taken for its usage."""
    body = orjson.dumps({"output": {"usage": {"prompt_tokens": 999}}, "usage": {"prompt_tokens": 8}})
    assert read(body).usage == Usage(8)
    assert read(orjson.dumps({"output": {"usage": {"prompt_tokens": 999}}})).usage == Usage()


@pytest.mark.parametrize("filler", [0, 3000])
def test_a_stream_is_read_at_both_ends(filler: int) -> None:
    """Anthropic tells the input first and the output last, however much comes between."""
    start = {"type": "message_start", "message": {"model": "claude-x", "usage": {"input_tokens": 25,
             "cache_read_input_tokens": 10, "output_tokens": 1}}}  # fmt: skip
    text = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x" * 50}}
    stop = {"type": "message_delta", "usage": {"output_tokens": 15}}
    told = read(events(start, *[text] * filler, stop), SSE)
    assert (told.usage, told.model, told.stream) == (Usage(35, 15, 10), "claude-x", True)


def test_counts_that_a_stream_repeats_are_not_added_up() -> None:
    """Google tells them with every piece; the last are the largest."""
    pieces = [
        {"usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": n}, "modelVersion": "g"}
        for n in range(1, 40)
    ]
    assert read(events(*pieces), SSE).usage == Usage(4, 39)


def test_bedrock_tells_in_its_head_and_in_its_events() -> None:
    """InvokeModel has headers and, streamed, events in base64; Converse has a metadata event."""
    counts = (
        ("x-amzn-bedrock-input-token-count", "11"),
        ("x-amzn-bedrock-output-token-count", "5"),
        ("x-amzn-bedrock-cache-read-input-token-count", "2"),
        ("x-amzn-bedrock-request-id", "77"),
    )
    path = "/model/anthropic.claude-3-5-sonnet-20241022-v2%3A0/invoke"
    told = read(b"\x00 image", (("content-type", "image/png"), *counts), path=path)
    assert (told.usage, told.model) == (Usage(13, 5, 2), "anthropic.claude-3-5-sonnet-20241022-v2:0")

    last = {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 9,
            "outputTokenCount": 8, "invocationLatency": 1, "firstByteLatency": 1}}  # fmt: skip
    blob = base64.b64encode(orjson.dumps(last)).decode()
    frame = (
        b"\x00\x00\x01\x0b:event-type\x07\x00\x05chunk" + orjson.dumps({"bytes": blob, "p": "abc"}) + b"\xab"
    )
    assert read(frame, EVENTS).usage == Usage(9, 8)

    frame = b"\x00\x00:event-type\x07\x00\x08metadata" + orjson.dumps({"usage": CONVERSE["usage"]}) + b"\x1f"
    assert read(frame, EVENTS).usage == Usage(18, 34, 5, 1)


@pytest.mark.parametrize(
    ("path", "asked", "name"),
    [
        ("/v1/audio/speech", b'{"input":"hi","model":"tts-1"}', "tts-1"),
        ("/v1/images/edits", b'--b\r\nA: form-data; name="model"\r\n\r\ngpt-image-1\r\n--b', "gpt-image-1"),
        ("/openai/deployments/my-dep/images/generations?api-version=1", b"", "my-dep"),
        ("/v1/projects/p/locations/l/publishers/google/models/text-embedding-005:predict", b"", "text-embedding-005"),
        ("/v1/files", b"\xff\xfe nothing", ""),
    ],
)  # fmt: skip
def test_the_model_that_was_asked_for_is_read(path: str, asked: bytes, name: str) -> None:
    """From the address, else from the beginning of the body, JSON or form."""
    assert read(b"{}", path=path, asked=asked).asked == name


@pytest.mark.parametrize("path", ["/v1/messages/batches", "/v1/batches"])
def test_what_is_only_looked_at_is_not_counted(path: str) -> None:
    """A batch, a stored response and a failure have counted elsewhere or not at all."""
    body = orjson.dumps(CHAT)
    assert read(body, path=path).usage == Usage()
    assert read(body, method="GET").usage == Usage()
    assert read(body, status=500).usage == Usage()
    assert read(body, (("content-type", "application/octet-stream"),)).usage == Usage()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity"])
def test_a_compressed_answer_is_read_as_well(encoding: str) -> None:
    """What goes by stays compressed; its copy is unpacked."""
    body = orjson.dumps({**CHAT, "filler": ["x"] * 40_000})
    pack: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "br": brotli.compress,
        "zstd": zstandard.compress,
        "identity": bytes,
    }
    packed = pack[encoding](body)
    pieces = [packed[at : at + 1000] for at in range(0, len(packed), 1000)]
    assert read(pieces, (*JSON, ("content-encoding", encoding))).usage == Usage(20, 9, 16, 0, 4)


@pytest.mark.parametrize("encoding", ["br", "gzip", "deflate", "zstd", "gzip, br", "compress"])
def test_what_cannot_be_unpacked_is_not_counted(encoding: str) -> None:
    """An encoding that is unknown, or a body that is not what it says."""
    assert read(orjson.dumps(CHAT), (*JSON, ("content-encoding", encoding))).usage == Usage()


@pytest.mark.load
def test_a_body_that_unpacks_without_end_costs_little() -> None:
    """A bomb is given up."""
    bomb = gzip.compress(b" " * (200 << 20), 9)
    assert read(bomb, (*JSON, ("content-encoding", "gzip"))).usage == Usage()
    assert spent(lambda: read(bomb, (*JSON, ("content-encoding", "gzip")))) < 2


def test_memory_is_bounded() -> None:
    """Of a hundred megabytes in small pieces no more than a few hundred kilobytes are held."""
    piece = b'"usage":{"a":{"model":"' + b"x" * 1000

    def much() -> Iterator[bytes]:
        for _ in range(100_000):
            yield piece

    tracemalloc.start()
    read(much(), SSE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20


@pytest.mark.parametrize("number", ["-1", "1.5", "true", '"7"', "1e400", "9" * 30, "null"])
def test_a_count_that_is_none_is_zero(number: str) -> None:
    """Nothing that a host says becomes a number that cannot be stored."""
    for body in (f'{{"usage":{{"prompt_tokens":{number}}}}}', f'[{{"usage":{{"prompt_tokens":{number}}}}}]'):
        assert read(body.encode()).usage == Usage()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4000)), st.sampled_from([JSON, SSE]))
def test_any_split_of_the_bytes_gives_the_same_reading(cuts: list[int], headers: Headers) -> None:
    """Pieces have no meaning."""
    body = orjson.dumps({"a": "é" * 1500, **CHAT}) if headers is JSON else events({"a": "é" * 1500}, CHAT)
    places = [0, *sorted(cuts), len(body)]
    pieces = [body[start:end] for start, end in itertools.pairwise(places)]
    assert read(pieces, headers) == read(body, headers)
    assert read(body, headers).usage == Usage(20, 9, 16, 0, 4)


_TOKENS = [
    b'"usage":',
    b'"usageMetadata" : ',
    b"{",
    b"[",
    b'"',
    b"\\",
    b":",
    b"1",
    b'"bytes":"AAA="',
    b'"model":"m"',
    b"\xff",
]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from(_TOKENS), st.binary(max_size=20)), max_size=60),
    st.sampled_from(
        [
            *(JSON, SSE, EVENTS, (*JSON, ("content-encoding", "gzip"))),
            *((*SSE, ("content-encoding", "zstd")), (*JSON, ("content-encoding", "br"))),
        ]
    ),
)  # fmt: skip
def test_nothing_that_goes_by_raises(pieces: list[bytes], headers: Headers) -> None:
    """Whatever a host sends, its answer is passed on; the meter finds something or nothing."""
    read(pieces, headers, asked=b"".join(pieces))


def test_an_answer_that_is_nested_without_end_is_read_by() -> None:
    """The parser's own limits are no failure of ours."""
    for text in (b'{"usage":' * 50_000, b'"usage":' + b'{"a":' * 100_000, b"[" * 60_000):
        assert read(text).usage == Usage()
