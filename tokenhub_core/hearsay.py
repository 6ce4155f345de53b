"""What processes tell each other of providers: who is down, who is back, which credentials are parked or wait.

It is told at once, and what still holds is told again every few seconds, for whoever was not there. What it is worth
to the one who hears it, `health.tracker` decides. Parkings, and waits after a 429, are what a provider has said
of a credential: they are taken over as they stand.

A provider that comes back is probed by one process at a time. Whoever finds it half-open asks for the permit, which is
a value with an end at Redis or at the supervisor; it is renewed for as long as the probe is under way, and given back
with its verdict. Where nobody answers, each process permits itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from tokenhub_core.admission.keyring import Keyring, Rest
from tokenhub_core.admission.parking import Change
from tokenhub_core.admission.vetting import Nonces
from tokenhub_core.health.tracker import HealthTracker, News
from tokenhub_core.parkings import Parkings
from tokenhub_core.relay import Relay

TICK: Final = 0.25
"""Seconds between two looks at who is half-open."""
AGAIN: Final = 5.0
"""Seconds between two times that what holds is told."""
LEASE: Final = 3.0
"""Seconds that a permit lasts: so long one that was killed while it probed is waited for."""
_MARGIN: Final = 0.2
"""Seconds that a permit is over earlier for its holder than for the others."""
_GONE: Final = 0.001
_HEALTH: Final = "health"
_PARKING: Final = "parking"
_REST: Final = "rest"
_REMEMBERED: Final = 4096

_encode: Final = msgspec.msgpack.Encoder().encode
_news: Final = msgspec.msgpack.Decoder(list[News]).decode
_change: Final = msgspec.msgpack.Decoder(Change).decode
_rest: Final = msgspec.msgpack.Decoder(Rest).decode


class Permits:
    """Who may probe. `now` is monotonic."""

    def __init__(self, source: Nonces, process: str, now: Callable[[], float]) -> None:
        self._source = source
        self._process = process
        self._now = now
        self._count = 0
        self._held: dict[str, tuple[float, bytes]] = {}
        """Until when, and by which value."""
        self._wanted: set[str] = set()
        self._offered: set[str] = set()
        self.wanted = asyncio.Event()

    def permits(self, provider: str) -> bool:
        """Tell whether this process may probe now; where it may not, it asks."""
        held = self._held.get(provider)
        if held is not None and held[0] > self._now():
            return True
        self._wanted.add(provider)
        self.wanted.set()
        return False

    async def look(self, half_open: dict[str, bool]) -> None:
        """Ask, renew and give back, by who is half-open now and whether its probe is under way here."""
        for provider in [*self._held]:
            if provider not in half_open:
                await self._give_back(provider)
        self._wanted &= half_open.keys()
        self._offered &= half_open.keys()
        for provider, probing in half_open.items():
            until, value = self._held.get(provider, (0.0, b""))
            if until > self._now():
                if probing and until - self._now() < LEASE / 2:
                    await self._ask(provider, value, renewed=True)
            # Asked for once before anybody wants it, so that the first call needs not go elsewhere.
            elif provider in self._wanted or provider not in self._offered:
                self._count += 1
                self._offered.add(provider)
                await self._ask(provider, f"{self._process} {self._count}".encode(), renewed=False)

    async def _ask(self, provider: str, value: bytes, *, renewed: bool) -> None:
        asked = self._now()
        told = await self._source.nonce(_name(provider), value, LEASE, replace=renewed)
        if told is None or told == value:
            self._held[provider] = (asked + LEASE - _MARGIN, value)
            self._wanted.discard(provider)

    async def _give_back(self, provider: str) -> None:
        until, _ = self._held.pop(provider)
        if until > self._now():
            await self._source.nonce(_name(provider), b"-", _GONE, replace=True)


class Hearsay:
    """One process's part. Belongs to one event loop."""

    def __init__(
        self,
        relay: Relay,
        permits: Permits,
        health: HealthTracker,
        keyring: Keyring,
        *,
        now: Callable[[], float],
    ) -> None:
        self._relay = relay
        self._permits = permits
        self._health = health
        self._keyring = keyring
        self._now = now
        self._known: dict[tuple[str, str], int] = {}
        """The last episode of each process and provider."""
        relay.hearing(_HEALTH, self._heard)
        relay.hearing(_PARKING, self._parked)
        relay.hearing(_REST, self._rested)
        keyring.share(lambda rest: relay.tell(_REST, _encode(rest)))
        health.share(lambda news: self._tell([news]), permits.permits)

    def parked(self, change: Change) -> None:
        """Tell of a parking, or of its end."""
        self._relay.tell(_PARKING, _encode(change))

    async def keep(self) -> None:
        """Tell again and look after permits for as long as the service runs."""
        due = 0.0
        while True:
            now = self._now()
            if now >= due:
                due = now + AGAIN
                if seen := self._health.seen(now):
                    self._tell(seen)
            self._permits.wanted.clear()
            await self._permits.look(self._health.half_open(now))
            try:
                async with asyncio.timeout(TICK):
                    await self._permits.wanted.wait()
            except TimeoutError:
                continue

    def _tell(self, news: list[News]) -> None:
        self._relay.tell(_HEALTH, _encode(news))

    def _heard(self, process: str, body: bytes) -> None:
        now = self._now()
        for news in _news(body):
            key = (process, news.provider)
            if news.episode <= self._known.pop(key, 0):
                self._known[key] = news.episode
                continue
            self._known[key] = news.episode
            if len(self._known) > _REMEMBERED:
                del self._known[next(iter(self._known))]
            self._health.heard(news, now)

    def _parked(self, process: str, body: bytes) -> None:
        del process
        self._keyring.adopt(_change(body))

    def _rested(self, process: str, body: bytes) -> None:
        del process
        self._keyring.rest(_rest(body), self._now())


def hearsay(
    relay: Relay,
    source: Nonces,
    health: HealthTracker,
    keyring: Keyring,
    parkings: Parkings,
    *,
    now: Callable[[], float],
) -> Hearsay:
    """Return a process's part, connected with what it has seen itself."""
    made = Hearsay(relay, Permits(source, relay.process, now), health, keyring, now=now)
    parkings.follow(made.parked)
    return made


def _name(provider: str) -> str:
    return f"probe {provider}"
