"""The benchmark: its figures, what it reads from /proc, and one very small run of the real thing."""

from __future__ import annotations

import asyncio
import io
import os
import ssl
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from scripts.benchmark import (
    certificates,
    figures,
    http2,
    idle,
    kept,
    load,
    memory,
    pairs,
    profiles,
    report,
    rounds,
    subjects,
    traffic,
    workers,
)
from scripts.benchmark.figures import Bar, Spread
from scripts.benchmark.load import LoadError, Pace, Route
from scripts.benchmark.processes import cpu_seconds, times
from scripts.benchmark.rounds import Measured, Outcome
from scripts.benchmark.subjects import Place, Subject
from scripts.benchmark.traffic import Traffic
from scripts.benchmark.workers import Found
from tokenhub_core.types import Dialect

ANYWHERE: frozenset[int] = frozenset()

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CPU time is read from /proc")


# --- figures


def test_a_ratio_compares_what_was_measured_in_the_same_round() -> None:
    """A machine that is slow in one round changes no ratio: each round is divided by its own reference."""
    reference = [1.0, 10.0, 2.0]
    subject = [0.5, 5.0, 1.0]

    assert figures.spread(figures.ratios(subject, reference)) == Spread(0.5, 0.5, 0.5)


def test_rounds_without_a_partner_are_an_error() -> None:
    """A subject that missed a round is not compared with another round's reference."""
    with pytest.raises(ValueError, match="longer"):
        figures.ratios([1.0], [1.0, 2.0])


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_quantile_is_a_value_that_enough_others_do_not_exceed(values: list[float], share: float) -> None:
    """The quantile is one of the values, at least that share lies at or below it, and no smaller value will do."""
    found = figures.quantile(values, share)

    def kept(limit: float) -> float:
        return sum(value <= limit for value in values)

    assert found in values
    assert kept(found) >= share * len(values)
    assert all(kept(value) < share * len(values) for value in values if value < found)


def test_everyone_is_first_once() -> None:
    """Over as many rounds as there are subjects, each stands once in each place."""
    orders = [figures.rotated("abcd", number) for number in range(4)]

    assert [sorted(place) for place in zip(*orders, strict=True)] == [list("abcd")] * 4


@pytest.mark.parametrize(("middle", "met"), [(0.49, True), (0.5, True), (0.51, False)])
def test_a_bar_is_about_the_middle_of_the_rounds(middle: float, met: bool) -> None:
    """One bad round does not miss a bar, and one good round does not meet it."""
    bar = Bar("hand-off", 0.5)

    assert bar.met({"hand-off": Spread(0.1, middle, 9.0)}) is met
    assert bar.met({"inspect": Spread(0.1, 0.1, 0.1)}) is None


def _measured(cpu: float, first: float) -> Measured:
    return Measured(answers=10, per_second=1.0, cpu=cpu, first=first, whole=first, late=first, latest=first)


def test_latency_is_what_is_added_to_the_floor_of_the_same_round() -> None:
    """The upstream's own latency is taken off round by round, before anything is compared."""
    name = rounds.ONE_WHOLE.name
    outcome = Outcome(
        {
            name: {
                subjects.DIRECT: [_measured(0, 1.0), _measured(0, 5.0)],
                subjects.BUFFERING: [_measured(1, 3.0), _measured(1, 9.0)],
                subjects.HANDOFF: [_measured(1, 2.0), _measured(1, 7.0)],
            }
        }
    )

    assert report.added(outcome, rounds.ONE_WHOLE, "first")[subjects.HANDOFF] == Spread(1.0, 1.5, 2.0)
    assert report.added_share(outcome, rounds.ONE_WHOLE, "first")[subjects.HANDOFF] == Spread(0.5, 0.5, 0.5)


# --- the run that is kept


def _shares(**by_subject: float) -> Outcome:
    """Return a run of one workload with one round; mitmdump's answer takes a millisecond."""
    found = {subjects.BUFFERING: [_measured(1.0, 1.0)]}
    found |= {name.replace("_", "-"): [_measured(cpu, 1.0)] for name, cpu in by_subject.items()}
    results: rounds.Results = {
        workload.name: {} for workload in (*rounds.LOADED, *rounds.SINGLE, *rounds.RATED)
    }
    return Outcome({**results, rounds.WHOLE.name: found})


def test_what_has_become_dearer_than_its_rounds_explain_is_told() -> None:
    """By the middle share; a run that lies within what was seen before is no news."""
    before = {"whole": {"hand-off": [0.30, 0.33, 0.40], "inspect": [0.6, 0.7, 0.8]}}

    assert kept.grown(before, kept.shares(_shares(hand_off=0.39, inspect=0.81))) == [
        ("whole", "inspect", 0.7, 0.81)
    ]


def test_a_run_is_kept_and_compared(tmp_path: Path) -> None:
    """Beside its picture; the bars stand in it with what was measured."""
    assert kept.stored(tmp_path) is None
    outcome = _shares(hand_off=0.25, inspect=0.9)
    kept.store(outcome, tmp_path)
    run = kept.stored(tmp_path)

    assert run is not None
    assert run["cpu_ratios"]["whole"]["hand-off"] == [0.25, 0.25, 0.25]
    bars = {(one["workload"], one["subject"], one["of"]): one["met"] for one in run["bars"]}
    assert bars["whole", "hand-off", "mitmdump"] is True
    assert bars["whole", "inspect", "mitmdump"] is False
    assert bars["whole", "side server", "LiteLLM"] is None
    drawn = ET.parse(tmp_path / kept.PICTURE)
    assert "0.25  hand-off" in [one.text for one in drawn.iter("{http://www.w3.org/2000/svg}text")]
    told = io.StringIO()
    kept.show(run, _shares(hand_off=0.5, inspect=0.9), Console(file=told, width=100))
    assert "dearer" in told.getvalue()


# --- /proc


def test_the_times_of_a_process_are_read_whatever_it_is_called() -> None:
    """A program's name may hold spaces and parentheses; user and system time are its own, then its children's."""
    tick = 1 / os.sysconf("SC_CLK_TCK")
    line = "42 (a) S (b) R 1 42 42 0 -1 4194304 100 200 0 0 30 12 7 3 20 0 1 0 5000 1000 50"

    found = times(line)

    assert found.own == pytest.approx(42 * tick)
    assert found.reaped == pytest.approx(10 * tick)


def test_cpu_time_is_that_of_the_whole_process() -> None:
    """What the kernel tells of a process from outside is what the process sees as its own time."""
    burn = (
        "import sys, time\nwhile time.process_time() < 0.2: pass\nprint(time.process_time(), flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        spent = float(child.stdout.readline())
        told = cpu_seconds(child.pid)

    assert told == pytest.approx(spent, abs=0.05)


def test_children_count_for_their_parent() -> None:
    """Work that a subject leaves to another process, running or ended, is work of the subject."""
    burn = (
        "import time\nwhile time.process_time() < 0.1: pass\nprint(flush=True)\nimport sys; sys.stdin.read()"
    )
    before = cpu_seconds(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        running = cpu_seconds(os.getpid()) - before
    ended = cpu_seconds(os.getpid()) - before

    assert running >= 0.1
    assert ended >= running - 0.02  # ended children are told in ticks of 10 ms


# --- profiles


def test_time_in_the_standard_library_is_its_callers() -> None:
    """A profile names modules of ours and libraries; only the loop and TLS stand for themselves."""
    notes = {
        "/x/tokenhub_core/pipeline.py:Pipeline.exchange;/lib/python3/json/decoder.py:decode": 1.0,
        "/x/tokenhub_core/pipeline.py:Pipeline.exchange;/v/site-packages/aiohttp/client.py:request": 2.0,
        "/lib/python3/asyncio/sslproto.py:SSLProtocol._do_read": 4.0,
        "other threads": 8.0,
    }

    assert profiles.parts(notes) == {
        "other threads": 8.0,
        "event loop and TLS": 4.0,
        "aiohttp/client": 2.0,
        "tokenhub_core/pipeline": 1.0,
    }
    assert profiles.functions(notes) == {"tokenhub_core/pipeline: Pipeline.exchange": 3.0}


# --- pairs


def test_every_pair_is_measured_on_a_stream_that_arrives_whole() -> None:
    """Each client gets all of the text from each provider, byte for byte where both speak the same."""
    told: list[str] = []

    found = pairs.run(pairs.Pace(1, 0.0), lambda _done, _total, what: told.append(what))

    count = len(pairs.dialects())
    assert len(found) == len(told) == count**2
    assert sum(pair.verbatim for pair in found) == count
    assert all(0 < pair.megabytes.low <= pair.megabytes.high for pair in found)


def test_a_pair_that_loses_text_is_no_result() -> None:
    """What is fast because a part of it was left out is an error."""
    stream = pairs.transcript(Dialect.OPENAI_CHAT)
    pairs.check(Dialect.OPENAI_CHAT, stream)

    with pytest.raises(pairs.PairError, match="did not get the text"):
        pairs.check(Dialect.OPENAI_CHAT, stream.replace(b"word042", b"", 1))
    with pytest.raises(pairs.PairError, match="did not reach"):
        pairs.passed(Dialect.ANTHROPIC_MESSAGES, Dialect.OPENAI_CHAT, [stream[:5000]])


# --- the load, and a run


@pytest.mark.parametrize("chosen", [Traffic(), Traffic(100), Traffic(25, 1)])
def test_the_upstream_answers_what_the_request_asks_for(chosen: Traffic, tmp_path: Path) -> None:
    """Every answer is compared byte by byte, and counted."""
    with subjects.upstream(certificates.make(tmp_path), ANYWHERE) as up:
        tally = asyncio.run(load.measure(subjects.direct(up).route, chosen, Pace(2, 0.05)))

    assert tally.warmed == 4
    assert tally.answers
    assert all(0 < answer.first <= answer.whole for answer in tally.answers)


@pytest.mark.parametrize(
    ("pace", "least"),
    [
        (Pace(2, 0.05, fresh=True), 2),
        (Pace(3, 0.2, rate=50), 10),
        (Pace(4, 0.1, multiplexed=True), 4),
    ],
    ids=["fresh", "rate", "multiplexed"],
)
def test_calls_can_have_a_connection_each_or_one_for_all_or_a_rate(
    pace: Pace, least: int, tmp_path: Path
) -> None:
    """At a rate there are as many as were due, however long each took."""
    with subjects.upstream(certificates.make(tmp_path), ANYWHERE) as up:
        tally = asyncio.run(load.measure(subjects.direct(up).route, Traffic(), pace))

    assert len(tally.answers) == least if pace.rate else len(tally.answers) >= least


def test_a_wrong_answer_by_http_2_ends_the_run(tmp_path: Path) -> None:
    """There, too, every byte is compared."""
    body, made = b"x" * 20_000, certificates.make(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.leaf, made.key)
    context.set_alpn_protocols([http2.ALPN])

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: http2.Answerer(lambda _: ([(":status", "200")], body)), "127.0.0.1", 0, ssl=context
        )
        async with server:
            route = Route(server.sockets[0].getsockname()[1], trust=str(made.authority))
            await load.measure(route, Traffic(), Pace(1, 0.05, multiplexed=True))

    with pytest.raises(LoadError, match="20000 bytes of answer are not the 685"):
        asyncio.run(scene())


def test_pieces_of_many_streams_say_how_long_they_took(tmp_path: Path) -> None:
    """Each piece of each stream is there, once."""
    with subjects.upstream(certificates.make(tmp_path), ANYWHERE) as up:
        held = asyncio.run(idle.hold(subjects.direct(up), 20, 1, spread=0.0))

    assert (held.streams, held.pieces) == (20, 20)
    assert 0 < held.middle <= held.late


@pytest.mark.parametrize(
    ("body", "streamed", "why"),
    [
        (b"{}", False, "not an answer"),
        (b'{"choices":[]}', False, "not an answer"),
        (b"", True, r"does not end with \[DONE\]"),
        (b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', True, r"does not end with \[DONE\]"),
    ],
)
def test_what_is_no_answer_says_nothing(body: bytes, streamed: bool, why: str) -> None:
    """A translated answer that is cut short, or none, is an error and not an empty text."""
    with pytest.raises(ValueError, match=why):
        traffic.said(body, streamed=streamed)


def test_a_wrong_answer_ends_the_run() -> None:
    """An answer that differs in a byte is no answer, however fast it came."""

    async def wrong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = traffic.whole_answer().replace(b"happy", b"hippy", 1)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await reader.read()
        writer.close()

    async def scene() -> None:
        async with await asyncio.start_server(wrong, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await load.measure(Route(port), Traffic(), Pace(1, 0.05))

    with pytest.raises(LoadError, match="not the 685 that were sent"):
        asyncio.run(scene())


@pytest.mark.parametrize("name", [subjects.HANDOFF, subjects.SPLICE])
def test_a_lane_is_measured_and_leaves_one_record_an_answer(tmp_path: Path, name: str) -> None:
    """The real thing, for a moment: whole and streamed, translated and not; it costs time, and records all."""
    place = Place(tmp_path / "subject", ANYWHERE)

    async def scene(subject: Subject) -> int:
        answered = 0
        for chosen in (Traffic(), Traffic(100), Traffic(foreign=True), Traffic(100, foreign=True)):
            tally = await load.measure(
                subject.route, chosen, Pace(2, 0.1), clock=lambda: cpu_seconds(subject.pid)
            )
            assert tally.cpu > 0
            answered += tally.warmed + len(tally.answers)
        return answered

    with (
        subjects.upstream(certificates.make(tmp_path), ANYWHERE) as up,
        subjects.tokenhub(name, up, place) as subject,
    ):
        answered = asyncio.run(scene(subject))
        assert subject.data is not None

    assert subjects.recorded(subject.data) == answered > 8


def test_more_workers_are_measured_beside_one(tmp_path: Path) -> None:
    """The real thing, for a moment: every answer of both is on record, and each took CPU time of its own."""
    found = asyncio.run(workers.run(tmp_path, rounds=1, seconds=0.2, tell=lambda *_: None))
    assert [one.workers for one in found] == [1, 2]
    assert all(one.answers > 0 and one.own > 0 and one.callers > 0 for one in found)

    console = Console(record=True, width=130)
    workers.show(found, console)
    assert f"{found[1].cpu:.2f}" in console.export_text()


def test_what_workers_would_give_alone_follows_from_the_time_of_an_answer() -> None:
    """Two workers at 4 ms an answer fill two cores with 500 a second, whatever the callers left them."""
    one = Found(2, answers=600, seconds=2.0, own=2.4, callers=1.0, all=3.8)
    assert [one.rate, one.cpu, one.cores, one.others, one.alone] == pytest.approx([300, 4, 1.2, 0.2, 500])


def test_memory_is_looked_at_over_mixed_calls(tmp_path: Path) -> None:
    """The real thing, for a moment: calls of every kind, each on record, and a look before, between and after."""
    found = asyncio.run(memory.run(tmp_path, subjects.SIDE, 100, tell=lambda *_: None, seconds=0.1))
    assert found[0].calls == 0
    assert found[-1].calls >= 100
    assert all(one.memory > 50 for one in found)

    console = Console(record=True, width=80)
    memory.show(subjects.SIDE, found, console)
    assert f"{found[-1].calls:,}" in console.export_text()
