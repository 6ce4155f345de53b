"""What the generated inputs begin with: the golden files, and a few lines for parsers that have none."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Final

import orjson
import zstandard

from tokenhub_core.types import Dialect

HOME: Final = Path(__file__).parents[1] / "golden"

PATHS: Final = {
    Dialect.OPENAI_CHAT: "/v1/chat/completions",
    Dialect.ANTHROPIC_MESSAGES: "/v1/messages",
    Dialect.OPENAI_RESPONSES: "/v1/responses",
    Dialect.OPENAI_COMPLETIONS: "/v1/completions",
    Dialect.OPENAI_EMBEDDINGS: "/v1/embeddings",
    Dialect.ANTHROPIC_COUNT_TOKENS: "/v1/messages/count_tokens",
    Dialect.GEMINI: "/v1beta/models/gemini-3-pro:streamGenerateContent?alt=sse",
    Dialect.OLLAMA_CHAT: "/api/chat",
    Dialect.OLLAMA_GENERATE: "/api/generate",
}
"""A request target of each dialect."""

_FOLDERS: Final = {
    Dialect.OLLAMA_CHAT: ("ollama", "chat"),
    Dialect.OLLAMA_GENERATE: ("ollama", "generate"),
    Dialect.ANTHROPIC_COUNT_TOKENS: ("anthropic_messages", ""),
}
"""Where a dialect's golden files do not stand under its own name: the folder, and how their names begin."""

_EMBEDDED: Final = (b'{"model":"m","input":["a","b"],"dimensions":8}', b'{"model":"m","input":[[1,2],[3]]}')
_VECTORS: Final = b'{"object":"list","data":[{"index":0,"embedding":[0.1,2]}],"usage":{"prompt_tokens":3}}'
_COUNTED: Final = b'{"input_tokens":12}'
_ENDINGS: Final = frozenset({".sse", ".ndjson", ".array"})


def requests(dialect: Dialect) -> tuple[bytes, ...]:
    """Return request bodies of a dialect; those that others are rendered to are among them."""
    if dialect is Dialect.OPENAI_EMBEDDINGS:
        return _EMBEDDED
    bodies = []
    for path in _files(dialect, "requests"):
        if path.name.count(".") == 1:
            bodies.append(path.read_bytes())
        elif path.name.endswith(".rendered.json"):
            kept = orjson.loads(path.read_bytes())
            bodies.append(orjson.dumps(kept.get("data", kept)))
    return tuple(bodies)


def answers(dialect: Dialect) -> tuple[bytes, ...]:
    """Return whole answers; where no file holds one, the last events of streams are close to it."""
    if dialect is Dialect.OPENAI_EMBEDDINGS:
        return (_VECTORS,)
    if dialect is Dialect.ANTHROPIC_COUNT_TOKENS:
        return (_COUNTED,)
    found = tuple(path.read_bytes() for path in _files(dialect, "answers") if path.name.count(".") == 1)
    lines = (line.removeprefix(b"data: ") for stream in streams(dialect) for line in stream.splitlines())
    return found or tuple(line for line in lines if line.startswith(b"{"))


def streams(dialect: Dialect) -> tuple[bytes, ...]:
    """Return streams as providers of a dialect send them, in every framing, and as we write them."""
    paths = [
        *(
            path
            for path in _files(dialect, "streams")
            if path.name.count(".") == 1 or ".written." in path.name
        ),
        *sorted(HOME.glob(f"inputs/{dialect}/streams/*")),
    ]
    return tuple(path.read_bytes() for path in paths if path.suffix in _ENDINGS)


def framed(suffix: str) -> tuple[bytes, ...]:
    """Return the streams of every dialect whose files end so."""
    return tuple(path.read_bytes() for path in sorted(HOME.glob(f"*/streams/*{suffix}")))


def directives() -> tuple[bytes, ...]:
    """Return prompts with directives, good and bad ones."""
    return (
        b"@@tokenhub mode=cheap budget=0.02 tags=nightly,eval\nhello",
        b'before\n  @@tokenhub\nmode=high_confidence\noutput_schema={"type": "object"}\n@@end\nafter',
        b'@@tokenhub model=gpt-5 provider="a" latency=3000 min_weight=4\r\n@@tokenhub budget=none',
        b"@@tokenhub\nmodel=*\n@@tokenhub x",
        b'@@tokenhub output_schema={"a":1,"b":"c","d":[{"e":0.5}]} mode=cheap',
    )


def responses() -> tuple[bytes, ...]:
    """Return HTTP/1.1 responses in every framing."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    return (
        head + b"Content-Length: 5\r\n\r\nhello",
        head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;a=b\r\nyou\r\n0\r\nX-T: 1\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" + head + b"Connection: close\r\n\r\nuntil the end",
        b"HTTP/1.0 204 \r\n\r\n",
    )


def packed() -> tuple[bytes, ...]:
    """Return bodies in every content encoding."""
    plain = b'{"model":"m","messages":[]}' * 40
    bare = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return (
        gzip.compress(plain, mtime=0),
        gzip.compress(plain, mtime=0) * 2,
        zlib.compress(plain),
        bare.compress(plain) + bare.flush(),
        zstandard.compress(plain),
        plain,
    )


def addresses() -> tuple[bytes, ...]:
    """Return a host, a method and a request target each, one a line."""
    hosts = (
        "api.openai.com",
        "generativelanguage.googleapis.com:443",
        "x.openai.azure.com",
        "localhost:11434",
    )
    paths = (*PATHS.values(), "/openai/deployments/gpt/chat/completions?api-version=1", "/v1/%2e%2e//models/")
    return tuple(f"{host}\nPOST\n{path}".encode() for host in hosts for path in paths)


def waits() -> tuple[bytes, ...]:
    """Return what stands in `retry-after`."""
    return (b"5", b"1.5e2", b"Wed, 21 Oct 2015 07:28:00 GMT", b"-1", b"Wed, 21 Oct 2015 07:28:00 +0330")


def _files(dialect: Dialect, kind: str) -> list[Path]:
    folder, begin = _FOLDERS.get(dialect, (dialect.value, ""))
    return sorted((HOME / folder / kind).glob(f"{begin}*"))
