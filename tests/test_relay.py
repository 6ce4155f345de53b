"""What one process tells the others: once to each, whichever way it comes, and nobody waits for it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import msgspec
from msgspec import structs

from tests.e2e.serving import until
from tests.fakes.wire import Wire, kept
from tokenhub_core.admission.keyring import Chosen, Keyring, Rest
from tokenhub_core.admission.parking import Change, Parked, Place, Reason
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.health.tracker import HealthTracker
from tokenhub_core.hearsay import Hearsay, Permits
from tokenhub_core.marking import Marking
from tokenhub_core.relay import Relay
from tokenhub_core.routing.affinity import Affinity, Served
from tokenhub_core.siblings import Frame, Siblings, packed, received
from tokenhub_core.types import Credential, Dialect, Left, Provider, ProviderType, Traces

LATER: Final = Fault(Kind.RATE_LIMITED, Blame.PROVIDER, "later", cause="http_429", retry_after=30.0)
CHOSEN: Final = Chosen(
    Provider("p", ProviderType.OPENAI, ("https://p.example",)),
    Credential("default", "vault"),
    Dialect.OPENAI_CHAT,
)
THEIRS: Final = structs.replace(
    CHOSEN,
    provider=Provider("origin:p.example", ProviderType.ORIGIN, ("https://p.example",)),
    credential=Credential("c0ffee", "caller"),
)
DOWN: Final = Fault(Kind.TRANSIENT, Blame.PROVIDER, "boom", cause="http_500")


class Source:
    """Permits everything."""

    async def nonce(self, name: str, value: bytes, seconds: float, *, replace: bool) -> bytes | None:
        del name, seconds, replace
        return value


async def passed_on(one: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
    """Stand in for a supervisor: what one asks the other hears."""
    while (frame := await received(one)) is not None:
        if frame.kind == "ask":
            other.write(packed(Frame("asked", 1, frame.topic, frame.body)))


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Siblings, Siblings]]:
    """Two workers, of which the second hears what the first one says."""
    made = (Siblings(), Siblings())
    ends = [socket.socketpair() for _ in made]
    streams = []
    for siblings, (theirs, ours) in zip(made, ends, strict=True):
        await siblings.join(theirs)
        ours.setblocking(False)
        streams.append(await asyncio.open_unix_connection(sock=ours))
    supervisor = asyncio.create_task(passed_on(streams[0][0], streams[1][1]))
    try:
        yield made
    finally:
        for siblings in made:
            await siblings.leave()
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)
        for _, writer in streams:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)


def listening(relay: Relay) -> list[tuple[str, bytes]]:
    heard: list[tuple[str, bytes]] = []
    relay.hearing("t", lambda process, body: heard.append((process, body)))
    return heard


async def test_all_others_hear_it_once_and_the_one_who_tells_not_at_all() -> None:
    """Others who know nothing of the topic leave it out."""
    wire = Wire()
    one, two, three = (Relay(name, Siblings(), wire) for name in ("one", "two", "three"))
    heard, own = listening(two), listening(one)
    async with kept(one, two, three):
        one.tell("t", b"a")
        one.tell("u", b"b")
        one.tell("t", b"c")
        await until(lambda: len(heard) == 2)
    assert heard == [("one", b"a"), ("one", b"c")]
    assert own == []


async def test_what_comes_both_ways_is_heard_once_and_one_way_is_enough() -> None:
    """Workers who share Redis, too, hear each other also while it is gone."""
    wire = Wire()
    async with pair() as (first, second):
        one, two = Relay("one", first, wire), Relay("two", second, wire)
        heard = listening(two)
        async with kept(one, two):
            one.tell("t", b"both")
            await until(lambda: heard)
            wire.there = False
            one.tell("t", b"one")
            await until(lambda: len(heard) == 2)
    assert [body for _, body in heard] == [b"both", b"one"]


async def test_what_cannot_be_read_or_used_ends_nobody() -> None:
    """Another version may say something else."""
    wire = Wire()
    one, two = Relay("one", Siblings(), wire), Relay("two", Siblings(), wire)

    def broken(process: str, body: bytes) -> None:
        raise ValueError(process, body)

    two.hearing("broken", broken)
    heard = listening(two)
    async with kept(one, two):
        await wire.send(b"\xff\x00")
        one.tell("broken", b"")
        one.tell("t", b"a")
        await until(lambda: heard)
    assert heard == [("one", b"a")]


async def test_while_nobody_takes_it_only_the_newest_waits() -> None:
    """A Redis that hangs costs no memory."""
    wire = Wire()
    one, two = Relay("one", Siblings(), wire), Relay("two", Siblings(), wire)
    heard = listening(two)
    for number in range(1000):
        one.tell("t", str(number).encode())
    async with kept(two, one):
        await until(lambda: heard and heard[-1][1] == b"999")
    assert len(heard) == 256


async def test_a_credential_that_is_parked_at_one_is_parked_at_the_other_until_it_is_not() -> None:
    """What a provider has said of a credential holds wherever it is used; nobody says it twice."""
    wire = Wire()
    told: list[Change] = []
    rings = [Keyring(), Keyring(tell=told.append)]
    relays = [Relay(name, Siblings(), wire) for name in ("one", "two")]
    both = [
        Hearsay(relay, Permits(Source(), relay.process, float), HealthTracker(), ring, now=float)
        for relay, ring in zip(relays, rings, strict=True)
    ]
    one = Parked(Place("p", "default"), Reason.REFUSED, "auth", since=10.0, until=70.0)
    async with kept(*relays):
        both[0].parked(Change(one, parked=True, at=10.0))
        await until(rings[1].parkings)
        assert rings[1].parkings() == [one]
        both[0].parked(Change(one, parked=False, at=20.0))
        await until(lambda: not rings[1].parkings())
    assert told == []


async def test_a_credential_that_is_to_wait_waits_everywhere_until_an_operator_ends_it() -> None:
    """Told once, however many calls meet the same 429; of callers' own keys nothing is told."""
    wire = Wire()
    rings = [Keyring(), Keyring()]
    relays = [Relay(name, Siblings(), wire) for name in ("one", "two")]
    for relay, ring in zip(relays, rings, strict=True):
        Hearsay(relay, Permits(Source(), relay.process, float), HealthTracker(), ring, now=lambda: 100.0)
    told: list[Rest] = []
    third = Relay("three", Siblings(), wire)
    third.hearing("rest", lambda _, body: told.append(msgspec.msgpack.decode(body, type=Rest)))
    async with kept(*relays, third):
        for wait in (30.0, 30.125, 30.25):
            rings[0].ended(CHOSEN, replace(LATER, retry_after=wait), now=100.0, at=0.0)
        rings[0].ended(THEIRS, LATER, now=100.0, at=0.0)
        await until(lambda: told)
        assert [ring.state("p", "default", now=100.0).cooling for ring in rings] == [30.25, 30.0]
        rings[0].unpark("p", "default", at=0.0)
        rings[0].unpark("p", "default", at=0.0)
        await until(lambda: len(told) == 2)
        assert rings[1].state("p", "default", now=100.0).cooling == 0
    assert told == [Rest("p", "default", 30.0), Rest("p", "default", 0.0)]


async def test_a_conversation_goes_on_at_another_process_with_whoever_served_it() -> None:
    """What the first has noted the second knows, and does not save again."""
    wire = Wire()
    tables = [Affinity(b"salt"), Affinity(b"salt")]
    relays = [Relay(name, Siblings(), wire) for name in ("one", "two")]
    markings = [Marking(relay, table) for relay, table in zip(relays, tables, strict=True)]
    tables[1].changes()
    thread = tables[0].follow(lambda: Traces(goes_on=True), 10.0)
    tables[0].note(thread, Served("m", "p", 10.0, 2_000), Left(id="resp_1"))
    async with kept(*relays):
        keeping = asyncio.create_task(markings[0].keep())
        try:
            await until(lambda: len(tables[1]))
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
    bond = tables[1].follow(lambda: Traces(held="resp_1"), 11.0).bond
    assert bond is not None
    assert (bond.model, bond.provider, bond.lock) == ("m", "p", "stored_state")
    assert tables[1].changes() == ([], [])
    assert tables[1].fresh() == []


async def test_what_is_told_again_is_weighed_once() -> None:
    """An ejection that is told every few seconds does not eject again who has found out for itself."""
    wire = Wire()
    now = [100.0]
    trackers = [HealthTracker(), HealthTracker()]
    relays = [Relay(name, Siblings(), wire) for name in ("one", "two")]
    for relay, tracker in zip(relays, trackers, strict=True):
        permits = Permits(Source(), relay.process, lambda: now[0])
        Hearsay(relay, permits, tracker, Keyring(), now=lambda: now[0])
    async with kept(*relays):
        for _ in range(5):
            trackers[0].failed("a", DOWN, now[0])
        await until(lambda: not trackers[1].standing("a", now[0]).available)
        trackers[1].succeeded("a", now[0], 1.0)
        now[0] += 10.0
        relays[0].tell("health", msgspec.msgpack.encode(trackers[0].seen(now[0])))
        heard = listening(relays[1])
        relays[0].tell("t", b"")
        await until(lambda: heard)
    assert trackers[1].standing("a", now[0]).available
