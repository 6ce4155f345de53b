"""How fast streams are read and written, for every dialect of a client and every dialect of a provider.

One transcript says the same hundred events in each dialect. It goes through the gate that a live stream goes
through, in pieces of a few kilobytes: read into deltas and written anew, or passed on byte for byte where both
sides speak the same dialect. No sockets, no routing, no records: this is what the translation alone costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from scripts.benchmark.figures import Spread, rotated, spread
from scripts.benchmark.traffic import CHUNKS
from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.dispatch.gate import Gate
from tokenhub_core.types import (
    Delta,
    Dialect,
    Finished,
    Request,
    Started,
    Stopped,
    StopReason,
    TextDelta,
    Usage,
    UsageSeen,
)

PIECE: Final = 4096
"""Bytes that arrive at once."""

_BODY: Final = b'{"model":"m","max_tokens":512,"stream":true,"messages":[{"role":"user","content":"Hi"}]}'
_ASKED: Final[Mapping[Dialect, tuple[bytes, str]]] = {
    Dialect.OPENAI_CHAT: (_BODY[:-1] + b',"stream_options":{"include_usage":true}}', "/v1/chat/completions"),
    Dialect.ANTHROPIC_MESSAGES: (_BODY, "/v1/messages"),
    Dialect.OPENAI_RESPONSES: (b'{"model":"m","input":"Hi","stream":true}', "/v1/responses"),
    Dialect.OPENAI_COMPLETIONS: (b'{"model":"m","prompt":"Hi","stream":true}', "/v1/completions"),
    Dialect.GEMINI: (
        b'{"contents":[{"role":"user","parts":[{"text":"Hi"}]}]}',
        "/v1beta/models/m:streamGenerateContent?alt=sse",
    ),
    Dialect.OLLAMA_CHAT: (b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}', "/api/chat"),
    Dialect.OLLAMA_GENERATE: (b'{"model":"m","prompt":"Hi"}', "/api/generate"),
}
"""A plain request for a stream, and its path."""


class PairError(Exception):
    """A stream that did not come out as it went in."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Rounds, and the seconds of CPU time that each pair gets in each of them."""

    rounds: int
    seconds: float


QUICK: Final = Pace(3, 0.04)
FULL: Final = Pace(5, 0.1)


@dataclass(frozen=True, slots=True)
class Pair:
    """What one pair did, over the rounds."""

    client: Dialect
    provider: Dialect
    verbatim: bool
    """Both sides speak the same, and every byte is the provider's own."""
    megabytes: Spread
    """Millions of the provider's bytes a second of CPU time."""
    microseconds: Spread
    """CPU time of one event."""


def dialects() -> tuple[Dialect, ...]:
    """Return the dialects that are translated."""
    return tuple(name for name in DIALECTS if name.translates)


def asked(name: Dialect) -> Request:
    """Return a plain request for a stream."""
    return DIALECTS[name].open(*_ASKED[name])


def text() -> str:
    """Return what the transcript says."""
    return "".join(_words())


def transcript(name: Dialect) -> bytes:
    """Return the stream of a provider of this dialect."""
    module = DIALECTS[name]
    writer = module.writer(request=asked(name), created=1_700_000_000, fallback_id="bench")
    deltas: list[Delta] = [Started("bench", "m", 1_700_000_000), *map(TextDelta, _words())]
    deltas += [Stopped(StopReason.END), UsageSeen(Usage(230, 98)), Finished()]
    return b"".join(writer.write(delta) for delta in deltas)


def _words() -> list[str]:
    return [f" word{number:03d}" for number in range(CHUNKS - 2)]


def passed(client: Dialect, provider: Dialect, pieces: list[bytes]) -> bytes:
    """Return what a client reads of a provider's stream; raises `PairError` where it did not end as it should."""
    gate = _gate(DIALECTS[client], DIALECTS[provider], asked(client), pieces[0])
    out = [gate.feed(piece) for piece in pieces]
    gate.flush()
    out.append(gate.tail())
    if gate.cut() is not None or gate.identical != (client is provider):
        raise PairError(f"a stream of {provider} did not reach a client of {client}")
    return b"".join(out)


def _gate(target: DialectModule, source: DialectModule, request: Request, first: bytes) -> Gate:
    kind = "application/x-ndjson" if first.startswith(b"{") else "text/event-stream"
    parser = source.parser(kind)
    if parser is None:
        raise PairError(f"{source.name} has no streams")
    return Gate(
        source=source,
        target=target,
        request=request,
        parser=parser,
        created=1_700_000_000,
        fallback_id="bench",
    )


def run(pace: Pace, tell: Callable[[int, int, str], None]) -> list[Pair]:
    """Measure every pair in every round, each round in another order; raises `PairError` for a wrong stream."""
    names = dialects()
    streams = {name: transcript(name) for name in names}
    cut = {name: _cut(stream) for name, stream in streams.items()}
    pairs = [(client, provider) for client in names for provider in names]
    for client, provider in pairs:
        check(client, passed(client, provider, cut[provider]))
    found: dict[tuple[Dialect, Dialect], list[float]] = {pair: [] for pair in pairs}
    total = pace.rounds * len(pairs)
    for number in range(pace.rounds):
        for place, (client, provider) in enumerate(rotated(pairs, number * len(names))):
            tell(number * len(pairs) + place, total, f"{provider} to {client}")
            found[client, provider].append(_seconds(client, provider, cut[provider], pace.seconds))
    return [
        Pair(
            client,
            provider,
            client is provider,
            spread([len(streams[provider]) / each / 1e6 for each in seconds]),
            spread([1e6 * each / CHUNKS for each in seconds]),
        )
        for (client, provider), seconds in found.items()
    ]


def check(client: Dialect, stream: bytes) -> None:
    """Read what a client got; raises `PairError` where it is not all that the provider said."""
    module = DIALECTS[client]
    parser, reader = module.parser(module.stream_type(asked(client))), module.reader()
    events = [*parser.feed(stream), *parser.flush()] if parser is not None else []
    deltas = [delta for event in events for delta in reader.read(event.name, event.data)]
    if "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) != text():
        raise PairError(f"a client of {client} did not get the text")


def _cut(stream: bytes) -> list[bytes]:
    return [stream[at : at + PIECE] for at in range(0, len(stream), PIECE)]


def _seconds(client: Dialect, provider: Dialect, pieces: list[bytes], enough: float) -> float:
    """Return the CPU time of one transcript, over as many as fill the time."""
    times, spent, began = 0, 0.0, time.process_time()
    while not times or spent < enough:
        passed(client, provider, pieces)
        times += 1
        spent = time.process_time() - began
    return spent / times


def show(found: list[Pair], console: Console) -> None:
    """Print the table: a row for each provider, a column for each client."""
    names = dialects()
    table = Table(
        title="Streams, MB of the provider's bytes a second of CPU time (=: passed byte for byte)",
        title_justify="left",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    table.add_column("provider \\ client", no_wrap=True)
    for name in names:
        table.add_column(name.removeprefix("openai_").replace("_", " "), justify="right")
    by_pair = {(pair.client, pair.provider): pair for pair in found}
    for provider in names:
        cells = (by_pair[client, provider] for client in names)
        figures = [f"{pair.megabytes.middle:.1f}{'=' if pair.verbatim else ''}" for pair in cells]
        table.add_row(provider, *figures)
    console.print(table)


def as_json(found: list[Pair]) -> list[dict[str, Any]]:
    """Return every pair with its spreads."""
    return [asdict(pair) for pair in found]
