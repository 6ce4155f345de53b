"""Which of a provider's credentials takes a call, and what became of those that took one.

Three things keep a credential from being used, and they end differently: a *parking* (`admission.parking`), a
*cool-off* (a 429 that names its end), and *windows* with too little left (`admission.limits`). Of the credentials that
can take a call the one with the most room does, relatively to its limits; among equals the first one.

What is learned from an answer belongs to the key and the host and not to the provider it is configured for: calls that
pass through with the same key use up the same windows. Keys are known by a digest under a salt that nobody else has.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import urlsplit

import msgspec

from tokenhub_core.admission import headers as told
from tokenhub_core.admission import parking
from tokenhub_core.admission.limits import COOLING, FREE, Call, Limits, Numbers, Room, Shown
from tokenhub_core.admission.parking import LEASE, By, Change, Parked, Place
from tokenhub_core.dispatch.backoff import LONGEST
from tokenhub_core.errors import Fault, Kind
from tokenhub_core.providers import vendors
from tokenhub_core.types import DEFAULT_CREDENTIAL, Credential, Dialect, Headers, Provider, ProviderType

_UNTOLD: Final = 1.0
"""Seconds that a credential rests after a 429 without a Retry-After, where another one can take over."""
_LONGER: Final = 0.25
"""Seconds that a cool-off must end later than the known one to be worth telling: many calls meet the same one."""
_AGAIN: Final = 1.0
"""Seconds after which to ask again while somebody else's call probes."""
_STRANGERS: Final = 4096
"""Keys that are remembered together."""
_CARRIERS: Final = ("authorization", "x-api-key", "api-key", "x-goog-api-key")

type _Name = tuple[str, str]
"""A provider's id, and the name of one of its credentials; at an origin, the digest of the caller's key."""
type _Subject = tuple[str, bytes]
"""A host, and the digest of a key."""


class Chosen(msgspec.Struct, frozen=True):
    """A credential that was chosen for a call, and what there is to say when the call has ended."""

    provider: Provider
    credential: Credential
    dialect: Dialect
    """What is spoken to the provider, and so the words that its refusals are in."""
    model: str = ""
    numbers: Numbers | None = None
    probe: Place | None = None


class State(msgspec.Struct, frozen=True):
    """What people see of one credential. `cooling` and the windows' resets in seconds from now."""

    cooling: float
    parked: tuple[Parked, ...]
    windows: tuple[Shown, ...]


class Rest(msgspec.Struct, frozen=True, array_like=True):
    """How long a provider's credential is to wait, from now on; 0 where it needs not any more."""

    provider: str
    credential: str
    seconds: float


def _silent(told: object) -> None:
    del told


def _there(provider_id: str, credential: Credential) -> bool:
    del provider_id, credential
    return True


class Keyring:
    """The credentials of all providers of one process. `now` is monotonic, `at` in seconds since the epoch.

    `tell` hears of every parking and unparking; `available` says whether a credential can be read now.
    """

    def __init__(
        self,
        salt: bytes = b"",
        *,
        tell: Callable[[Change], None] = _silent,
        available: Callable[[str, Credential], bool] = _there,
    ) -> None:
        self._salt = salt
        self._tell = tell
        self._rested: Callable[[Rest], None] = _silent
        self._available = available
        self._known: dict[_Subject, Limits] = {}
        self._hosts: dict[str, int] = {}
        """How many of `_known` are at a host."""
        self._subjects: dict[_Name, _Subject] = {}
        self._cooling: dict[tuple[str, str, str], float] = {}
        self._shared: dict[tuple[str, str, str], float] = {}
        """What other processes know of them."""
        self._parked: dict[Place, Parked] = {}
        self._probes: dict[Place, float] = {}

    def restore(self, parkings: list[Parked]) -> None:
        """Go on from what was kept; called once, before the first call."""
        self._parked = {one.place: one for one in parkings}

    def adopt(self, change: Change) -> None:
        """Take over what another process was told of a credential; nobody is told again."""
        place = change.parking.place
        if change.parked:
            known = self._parked.get(place)
            if known is None or known.until < change.parking.until:
                self._parked[place] = change.parking
        else:
            self._parked.pop(place, None)
            self._probes.pop(place, None)

    def share(self, rested: Callable[[Rest], None]) -> None:
        """Let `rested` hear of the cool-offs of our own credentials; it never waits and never fails."""
        self._rested = rested

    def rest(self, told: Rest, now: float) -> None:
        """Take over a cool-off that another process was told of."""
        key = (told.provider, told.credential, "")
        if told.seconds > 0:
            until = now + min(told.seconds, LONGEST)
            self._cooling[key] = self._shared[key] = max(self._cooling.get(key, until), until)
        else:
            self._cooling.pop(key, None)
            self._shared.pop(key, None)

    # --- before a call

    @property
    def quiet(self) -> bool:
        """Tell whether nothing is known that could keep any call back."""
        return not (self._known or self._cooling or self._parked)

    def caller(self, provider: Provider, headers: Headers) -> str:
        """Return the name of the caller's own key at an origin, empty where nothing is known of any key there."""
        host = provider.id.removeprefix("origin:")
        return self.digest(host, headers).hex() if host in self._hosts else ""

    def room(self, provider: Provider, call: Call, *, now: float, at: float, caller: str = "") -> Room:
        """Return how soon the first of the provider's credentials can take a call of this size."""
        if provider.type is ProviderType.ORIGIN:
            return self._held(provider, caller, call, now, at)
        keys = self._usable(provider)
        if not keys:
            return FREE
        return min((self._held(provider, one.name, call, now, at) for one in keys), key=_soonest)

    def spare(self, provider: Provider, call: Call, without: str, *, now: float, at: float) -> bool:
        """Tell whether another credential than `without` can take the call at once."""
        if not provider.credentials:
            return False
        return any(
            one.name != without and self._held(provider, one.name, call, now, at).wait == 0
            for one in self._usable(provider)
        )

    def take(
        self,
        provider: Provider,
        call: Call,
        dialect: Dialect,
        *,
        now: float,
        at: float,
        caller: str = "",
        anyway: bool = False,
    ) -> Chosen | Room:
        """Choose the credential for a call that is sent now, or return how soon there is one.

        `anyway` takes the soonest one where none has room. Whoever was given one reports `answered` and `ended`.
        """
        if provider.type is ProviderType.ORIGIN:
            return self._counted(provider, Credential(caller, "caller"), call, dialect, now)
        own = Credential(DEFAULT_CREDENTIAL, provider.cred_store)
        keys = () if self.quiet and not provider.credentials else self._usable(provider)
        if not keys:
            return Chosen(provider, own, dialect, call.model)
        rooms = [self._held(provider, one.name, call, now, at) for one in keys]
        best = min(range(len(keys)), key=lambda place: (_soonest(rooms[place]), -rooms[place].share, place))
        if rooms[best].wait > 0 and not anyway:
            return rooms[best]
        return self._counted(provider, keys[best], call, dialect, now)

    def _usable(self, provider: Provider) -> list[Credential]:
        """Return the credentials that may be used and can be read; a lone one is its reader's affair."""
        if not provider.credentials:
            return [Credential(DEFAULT_CREDENTIAL, provider.cred_store)]
        return [one for one in provider.keys if one.enabled and self._available(provider.id, one)]

    def _counted(
        self, provider: Provider, credential: Credential, call: Call, dialect: Dialect, now: float
    ) -> Chosen:
        name = credential.name
        # One that is parked is taken as its probe: its time is over, and nobody else probes.
        places = self._places(provider.id, name, call.model)
        probe = next((place for place in places if place in self._parked), None)
        if probe is not None:
            self._probes[probe] = now
        limits = self._limits(provider.id, name)
        numbers = limits.take(call, now) if limits else None
        return Chosen(provider, credential, dialect, call.model, numbers, probe)

    def _held(self, provider: Provider, name: str, call: Call, now: float, at: float) -> Room:
        """Return how soon this credential can take the call; what lasts longest decides."""
        origin = provider.type is ProviderType.ORIGIN
        worst = FREE
        if (limits := self._limits(provider.id, name)) is not None:
            worst = limits.room(call, now)
        key = (provider.id, name, call.model if origin else "")
        if (until := self._cooling.get(key)) is not None:
            if until <= now:
                del self._cooling[key]
            elif until - now > worst.wait:
                worst = Room(until - now, COOLING, share=worst.share)
        if self._parked:
            for place in self._places(provider.id, name, call.model):
                if (one := self._parked.get(place)) is None:
                    continue
                wait = one.until - at
                if wait <= 0 and now - self._probes.get(place, -math.inf) < LEASE:
                    wait = _AGAIN
                if wait > worst.wait:
                    worst = Room(wait, one.reason.value, share=worst.share)
        return worst

    # --- after an answer

    def answered(
        self,
        chosen: Chosen,
        headers: Headers,
        *,
        key: Callable[[], bytes],
        now: float,
        at: float,
        body: bytes = b"",
    ) -> tuple[told.Seen, ...]:
        """Learn from an answer's head, and from the body of a refusal; return the windows that it told.

        `key` makes the digest of the credential; it is asked for only where there is something to learn.
        """
        provider = chosen.provider
        seen: tuple[told.Seen, ...] = ()
        if told.mentioned(headers):
            seen = told.read(told.table(_vendor(provider), chosen.dialect), headers, at=at)
        if body:
            seen += told.read_body(chosen.dialect, body, at=at)
        if seen:
            name = (provider.id, chosen.credential.name)
            subject = self._subjects.get(name) or (host_of(provider), key())
            if provider.type is not ProviderType.ORIGIN:
                self._subjects[name] = subject
            self._learn(subject, seen, chosen.numbers, chosen.model, now)
        self._land(chosen)
        return seen

    def overheard(
        self,
        host: str,
        dialect: Dialect,
        request: Headers,
        answer: Headers,
        *,
        model: Callable[[], str],
        now: float,
        at: float,
    ) -> None:
        """Learn from the head of an answer that only passed through. Implements `ports.Overhearing`."""
        if not told.mentioned(answer):
            return
        vendor = vendors.at(f"https://{host}")
        seen = told.read(told.table(vendor.id if vendor else "", dialect), answer, at=at)
        if seen:
            self._learn((host, self.digest(host, request)), seen, None, model(), now)

    def began(self, chosen: Chosen, *, at: float) -> None:
        """Hear that a call is being answered: that is verdict enough for a probe."""
        if chosen.probe is not None:
            self._probes.pop(chosen.probe, None)
            self._unpark(chosen.probe, at, By.AUTOMATIC, "the probe was answered")

    def ended(
        self, chosen: Chosen, fault: Fault | None, seen: tuple[told.Seen, ...] = (), *, now: float, at: float
    ) -> None:
        """Hear how a call ended, however it did; `seen` are the windows that its answer told."""
        self._land(chosen)
        if fault is None:
            self.began(chosen, at=at)
            return
        if chosen.probe is not None:
            self._probes.pop(chosen.probe, None)
        if fault.kind is Kind.RATE_LIMITED:
            self._cool(chosen, fault.retry_after, now)
        elif chosen.provider.type is not ProviderType.ORIGIN:
            given = parking.sentence(chosen.dialect, fault, seen, at=at)
            # What is said of one model, to a call that named none, is said of nobody that we know.
            if given is not None and (chosen.model or not given.by_model):
                self._park(chosen, given, fault.label, at)

    def _land(self, chosen: Chosen) -> None:
        if chosen.numbers is None:
            return
        limits = self._limits(chosen.provider.id, chosen.credential.name)
        if limits is not None:
            limits.land(chosen.numbers)

    def _cool(self, chosen: Chosen, asked: float | None, now: float) -> None:
        provider, name = chosen.provider, chosen.credential.name
        seconds = asked if asked is not None else _UNTOLD if provider.credentials else 0.0
        if seconds <= 0 or not name:
            return
        # A caller's own limits may be those of one model; what we know of his key must not stand in his way.
        key = (provider.id, name, chosen.model if provider.type is ProviderType.ORIGIN else "")
        until = now + min(seconds, LONGEST)
        self._cooling[key] = max(self._cooling.get(key, now), until)
        if (
            until - max(self._shared.get(key, now), now) > _LONGER
            and provider.type is not ProviderType.ORIGIN
        ):
            self._shared[key] = until
            self._rested(Rest(provider.id, name, until - now))
        if len(self._cooling) > _STRANGERS:
            self._cooling = {one: end for one, end in self._cooling.items() if end > now}
            self._shared = {one: end for one, end in self._shared.items() if one in self._cooling}

    def _park(self, chosen: Chosen, given: parking.Sentence, cause: str, at: float) -> None:
        place = Place(chosen.provider.id, chosen.credential.name, chosen.model if given.by_model else "")
        known = self._parked.get(place)
        if known is not None and chosen.probe != place:
            # Sent before the parking, or meeting what is known: many calls at once are one piece of news.
            return
        one = parking.parked(known, place, given, cause, at=at)
        self._parked[place] = one
        self._tell(Change(one, parked=True, at=at, why=cause))

    # --- what operators and people do

    def unpark(
        self, provider_id: str, credential: str, *, at: float, why: str = "", by: By = By.OPERATOR
    ) -> int:
        """End all parkings and the cool-off of a credential; return how many parkings that were."""
        if self._cooling.pop((provider_id, credential, ""), None) is not None:
            self._shared.pop((provider_id, credential, ""), None)
            self._rested(Rest(provider_id, credential, 0.0))
        places = [
            place for place in self._parked if (place.provider, place.credential) == (provider_id, credential)
        ]
        for place in places:
            self._probes.pop(place, None)
            self._unpark(place, at, by, why)
        return len(places)

    def forget(self, provider_id: str, credential: str | None = None, *, at: float, why: str) -> None:
        """Drop all that is known of a credential, or of all of a provider's: it was changed or removed."""
        for known in [
            one for one in self._subjects if one[0] == provider_id and credential in (None, one[1])
        ]:
            del self._subjects[known]
        for key in [one for one in self._cooling if one[0] == provider_id and credential in (None, one[1])]:
            del self._cooling[key]
        named = {place.credential for place in self._parked if place.provider == provider_id}
        for name in sorted(named if credential is None else named & {credential}):
            self.unpark(provider_id, name, at=at, why=why)

    def state(self, provider_id: str, credential: str, *, now: float) -> State:
        """Return what is known of a credential."""
        limits = self._limits(provider_id, credential)
        until = self._cooling.get((provider_id, credential, ""), now)
        parked = [
            one
            for place, one in self._parked.items()
            if (place.provider, place.credential) == (provider_id, credential)
        ]
        return State(max(until - now, 0.0), tuple(parked), tuple(limits.shown(now)) if limits else ())

    def parkings(self) -> list[Parked]:
        """Return every parking."""
        return list(self._parked.values())

    def digest(self, host: str, headers: Headers) -> bytes:
        """Return the digest of the key that a request carries to a host."""
        for name, value in headers:
            if name in _CARRIERS:
                return self.digest_of(host, value.removeprefix("Bearer "))
        return self.digest_of(host, "")

    def digest_of(self, host: str, key: str) -> bytes:
        """Return the digest of a key under this process's salt."""
        data = f"{host}\0{key.strip()}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(data, key=self._salt, digest_size=16).digest()

    # --- inside

    def _learn(
        self,
        subject: _Subject,
        seen: tuple[told.Seen, ...],
        numbers: Numbers | None,
        model: str,
        now: float,
    ) -> None:
        limits = self._known.pop(subject, None)
        if limits is None:
            limits = Limits()
            self._hosts[subject[0]] = self._hosts.get(subject[0], 0) + 1
            if len(self._known) >= _STRANGERS:
                self._drop(next(iter(self._known)))
        self._known[subject] = limits  # Put last: the first one is the one unheard of for longest.
        limits.tell(seen, numbers, model, now)

    def _drop(self, subject: _Subject) -> None:
        del self._known[subject]
        self._hosts[subject[0]] -= 1
        if not self._hosts[subject[0]]:
            del self._hosts[subject[0]]

    def _limits(self, provider_id: str, name: str) -> Limits | None:
        if not self._known:
            return None
        if provider_id.startswith("origin:"):
            return self._known.get((provider_id.removeprefix("origin:"), bytes.fromhex(name)))
        subject = self._subjects.get((provider_id, name))
        return None if subject is None else self._known.get(subject)

    def _places(self, provider_id: str, name: str, model: str) -> Iterator[Place]:
        yield Place(provider_id, name)
        if model:
            yield Place(provider_id, name, model)

    def _unpark(self, place: Place, at: float, by: By, why: str) -> None:
        if (one := self._parked.pop(place, None)) is not None:
            self._tell(Change(one, parked=False, at=at, by=by, why=why))


def _soonest(room: Room) -> tuple[float, bool]:
    return room.wait, not room.some


def host_of(provider: Provider) -> str:
    """Return the host that a provider's keys are sent to."""
    if provider.type is ProviderType.ORIGIN:
        return provider.id.removeprefix("origin:")
    return urlsplit(provider.endpoints[0]).hostname or "" if provider.endpoints else ""


def _vendor(provider: Provider) -> str:
    """Return whose table holds: the vendor's of the address, else Azure's where it is one behind another name."""
    vendor = vendors.at(provider.endpoints[0]) if provider.endpoints else None
    if vendor is not None:
        return vendor.id
    return "azure" if provider.type is ProviderType.AZURE else ""
