"""Clients' API keys: what a secret is, how it is known again, and what may be said of a key. Pure.

    secret   `tokenhub_` and 64 hex digits of 32 random bytes; shown once, kept nowhere
    pepper   BLAKE2b under the installation's salt, with a label of its own; never in the database
    digest   BLAKE2b of the secret under the pepper; what the database holds in the secret's place

A secret has 256 random bits, so nobody can try what it might be: one keyed hash does, and nothing slow stands in the
way of a call. Whoever has the database without the pepper cannot even tell whether a secret that they found is in it.
BLAKE2 with a key and a personalisation: RFC 7693.

Times are whole microseconds since the epoch, 0 for never, but where a name says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Set
from enum import StrEnum
from functools import partial
from hashlib import blake2b
from hmac import compare_digest
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType, structs

from tokenhub_core.errors import Kind, TokenHubError, client_fault
from tokenhub_core.leave import NAMES
from tokenhub_core.types import ANY, KEY_PREFIX, ApiKey, Capture, Json, Scope

SECRET_BYTES: Final = 32
ID_BYTES: Final = 10
DAY: Final = 86_400
"""Seconds."""
OVERLAP: Final = DAY
"""Seconds that a rotated secret goes on for, where nothing else is said."""
LONGEST_OVERLAP: Final = 90 * DAY
SCOPES: Final = frozenset({Scope.CHAT, Scope.PLAN})
"""Of a key whose scopes nobody has said."""

_SECOND: Final = 1_000_000
_SHOWN: Final = 8
"""Hex digits of a secret that its key is known by."""
_READ: Final = len(KEY_PREFIX) + 2 * SECRET_BYTES + 1
"""Characters of a secret that are hashed: one more than any of ours has."""
_SOON: Final = 7 * DAY
_LATEST: Final = 100_000_000_000
"""Seconds since the epoch; a moment beyond it was meant in another unit."""
_LONGEST: Final = 36_500 * DAY
_ROLES: Final = frozenset({"user", "assistant", "system", "developer"})
_UNITS: Final[Mapping[str, int]] = {"s": 1, "m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}
_DURATION: Final = re.compile(r"(?:[0-9]{1,9}[smhdw])+")

type _Count = Annotated[int, Meta(ge=1, le=1_000_000_000_000)]


class Pepper(msgspec.Struct, frozen=True):
    """What secrets are hashed with. The id tells one from another and says nothing of the key."""

    key: bytes
    id: str

    def __repr__(self) -> str:
        return f"Pepper({self.id})"

    def digest(self, secret: str) -> bytes:
        """Return the digest of whatever somebody showed; that costs the same for all of it."""
        return blake2b(
            secret[:_READ].encode("utf-8", "surrogatepass"), digest_size=32, key=self.key, person=b"apikey"
        ).digest()


class Known(msgspec.Struct, frozen=True):
    """What is kept of one secret."""

    digest: bytes
    prefix: str
    created_at: int
    expires_at: int = 0
    """When it ends because a newer one took its place."""
    pepper: str = ""
    """The id of the pepper that its digest was made with."""

    def __repr__(self) -> str:
        return f"Known({self.prefix})"


class Kept(msgspec.Struct, frozen=True):
    """One key with all that is stored of it."""

    key: ApiKey
    secrets: tuple[Known, ...]
    """The newest first; the others go on until they end."""
    rotation_days: int = 0
    updated_at: int = 0
    last_used_at: int = 0
    rotation_told: int = 0
    """The `rotate_at` that somebody was warned of."""
    expiry_told: int = 0
    """The `expires_at` that somebody was warned of."""


class Notice(StrEnum):
    """What is told of a key in time. Nothing is disabled by it."""

    ROTATION = "rotation_due"
    EXPIRY = "expiring"


# --- secrets -------------------------------------------------------------------------------------------------


def pepper(salt: bytes) -> Pepper:
    """Return the pepper of an installation; `salt` has 1 to 64 bytes and serves other uses under other labels."""

    def under(label: bytes, size: int) -> bytes:
        return blake2b(digest_size=size, key=salt, person=label).digest()

    return Pepper(under(b"apikeys pepper", 32), under(b"apikeys id", 4).hex())


def minted(entropy: bytes) -> str:
    """Return a new secret of `SECRET_BYTES` random bytes."""
    if len(entropy) != SECRET_BYTES:
        raise ValueError(f"a secret is made of {SECRET_BYTES} bytes")
    return KEY_PREFIX + entropy.hex()


def new_id(entropy: bytes) -> str:
    """Return an id for a key, of random bytes that no secret is made of."""
    return f"key_{entropy.hex()}"


def known(secret: str, pepper: Pepper, *, now: int) -> Known:
    """Return what is kept of a new secret."""
    prefix = secret[: len(KEY_PREFIX) + _SHOWN]
    return Known(pepper.digest(secret), prefix, now, pepper=pepper.id)


class _Entry(msgspec.Struct, frozen=True):
    digest: bytes
    key: ApiKey
    ends: int


_NOBODY: Final = _Entry(bytes(32), ApiKey(id="", enabled=False), 0)


class Book:
    """All keys, found by their secrets: one keyed hash and one look-up each. Implements `ports.KeyBook`."""

    def __init__(self, pepper: Pepper) -> None:
        self._pepper = pepper
        self._entries: dict[bytes, _Entry] = {}
        self.kept: dict[str, Kept] = {}
        """Every key by its id; to be read only."""

    def follow(self, changed: Iterable[Kept], ids: Set[str]) -> None:
        """Take over keys that were changed, and drop those that are not among `ids`."""
        for kept in changed:
            self.put(kept)
        for key_id in self.kept.keys() - ids:
            self.drop(key_id)

    def put(self, kept: Kept) -> None:
        """Hold a key, new or in place of what it was."""
        self.drop(kept.key.id)
        self.kept[kept.key.id] = kept
        self._entries.update((entry.digest, entry) for entry in _entries(kept))

    def drop(self, key_id: str) -> None:
        """Know a key no more; nothing where it was not known."""
        if (kept := self.kept.pop(key_id, None)) is not None:
            for one in kept.secrets:
                self._entries.pop(one.digest, None)

    def look_up(self, secret: str, now: float) -> ApiKey:
        """Return the key with this secret, as `ports.KeyBook` says.

        Which digests there are does not show in the time: whoever shows secrets does not choose their digests.
        """
        digest = self._pepper.digest(secret)
        entry = self._entries.get(digest, _NOBODY)
        if not compare_digest(entry.digest, digest):
            raise _refused("this API key is not known", "key_unknown")
        return _good(entry.key, entry.ends, now)

    def named(self, key_id: str, now: float) -> ApiKey:
        """Return the key with this id, as `ports.KeyBook` says."""
        if (kept := self.kept.get(key_id)) is None:
            raise _refused("this API key is not known", "key_unknown")
        return _good(kept.key, kept.key.expires_at, now)

    def strangers(self) -> int:
        """Return how many keys have no secret under this pepper: they were made with another salt."""
        return sum(all(s.pepper != self._pepper.id for s in one.secrets) for one in self.kept.values())


def _entries(kept: Kept) -> Iterable[_Entry]:
    for one in kept.secrets:
        ends = [moment for moment in (kept.key.expires_at, one.expires_at) if moment]
        yield _Entry(one.digest, kept.key, min(ends, default=0))


def _good(key: ApiKey, ends: int, now: float) -> ApiKey:
    """Return a key that may be used at `now`, in seconds; `ends` is in microseconds, 0 for never."""
    if not key.enabled:
        raise _refused("this API key is disabled", "key_disabled")
    if ends and now * _SECOND >= ends:
        raise _refused("this API key has expired", "key_expired")
    return key


def _refused(message: str, cause: str) -> TokenHubError:
    return client_fault(message, kind=Kind.AUTH, cause=cause)


# --- what an operator says of a key --------------------------------------------------------------------------


class LimitsBody(msgspec.Struct, forbid_unknown_fields=True):
    """Limits; null: as the operator's default says. What is absent stays."""

    requests_per_minute: _Count | UnsetType | None = UNSET
    tokens_per_minute: _Count | UnsetType | None = UNSET
    concurrency: _Count | UnsetType | None = UNSET
    max_output_tokens: _Count | UnsetType | None = UNSET


class TrustBody(msgspec.Struct, forbid_unknown_fields=True):
    """What directives may do; null: as the operator's default says. What is absent stays."""

    roles: list[str] | UnsetType | None = UNSET
    names: list[str] | UnsetType | None = UNSET
    signed: bool | UnsetType = UNSET
    max_budget_usd: Annotated[float, Meta(ge=0, le=100)] | UnsetType | None = UNSET
    max_latency_ms: Annotated[int, Meta(ge=1, le=3_600_000)] | UnsetType | None = UNSET
    max_steps: Annotated[int, Meta(ge=1, le=1000)] | UnsetType | None = UNSET


class PrivacyBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is kept of a key's calls; null: as the operator's default says. What is absent stays."""

    capture: Capture | UnsetType | None = UNSET
    retention_days: Annotated[int, Meta(ge=1, le=3650)] | UnsetType | None = UNSET


class KeyBody(msgspec.Struct, forbid_unknown_fields=True):
    """What an operator may say of a key; there is no field for what is the server's to say."""

    name: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    scopes: list[str] | str | UnsetType = UNSET
    """A list, or the JSON text of one."""
    models: list[str] | UnsetType = UNSET
    providers: list[str] | UnsetType = UNSET
    hosts: list[str] | UnsetType = UNSET
    project: str | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET
    limits: LimitsBody | UnsetType = UNSET
    trust: TrustBody | UnsetType = UNSET
    privacy: PrivacyBody | UnsetType = UNSET
    expires_in: str | UnsetType = UNSET
    """As `duration` reads it."""
    expires_at: float | UnsetType | None = UNSET
    """Seconds since the epoch; null: never."""
    rotation_days: Annotated[int, Meta(ge=0, le=3650)] | UnsetType = UNSET
    """0: never."""


def created(body: KeyBody, key_id: str, secret: Known, *, now: int) -> Kept:
    """Return the key that a body describes; raises `TokenHubError` (`INVALID`) that names the field."""
    if body.name is UNSET:
        raise client_fault("name is required", param="name")
    blank = ApiKey(
        id=key_id,
        prefix=secret.prefix,
        scopes=SCOPES,
        models=(ANY,),
        providers=(ANY,),
        hosts=(ANY,),
        created_at=now,
    )
    return changed(Kept(blank, (secret,), updated_at=now), body, now=now)


def changed(kept: Kept, body: KeyBody, *, now: int) -> Kept:
    """Return the key with what the body says; `kept` itself where that is nothing new. Fails as `created` does."""
    given = _given(body)
    values = {name: read(given[name]) for name, read in _READERS.items() if name in given}
    if "limits" in given:
        values["limits"] = structs.replace(kept.key.limits, **_given(given["limits"]))
    if "trust" in given:
        values["trust"] = structs.replace(kept.key.trust, **_trusted(_given(given["trust"])))
    if "privacy" in given:
        values["privacy"] = structs.replace(kept.key.privacy, **_given(given["privacy"]))
    if "expires_in" in given or "expires_at" in given:
        values["expires_at"] = _expiry(given, now)
    days = given.get("rotation_days", kept.rotation_days)
    values["rotate_at"] = _rotation(kept.secrets[0].created_at, days)
    found = structs.replace(kept, key=structs.replace(kept.key, **values), rotation_days=days)
    return kept if found == kept else structs.replace(found, updated_at=now)


def rotated(kept: Kept, secret: Known, *, now: int, overlap: int) -> Kept:
    """Return the key with a new secret; the older ones go on for `overlap` seconds, and not longer than they would."""
    end = now + overlap * _SECOND
    older = tuple(
        structs.replace(one, expires_at=min(one.expires_at or end, end))
        for one in kept.secrets
        if not one.expires_at or one.expires_at > now
    )
    key = structs.replace(kept.key, prefix=secret.prefix, rotate_at=_rotation(now, kept.rotation_days))
    return structs.replace(kept, key=key, secrets=(secret, *older), updated_at=now)


def duration(text: str) -> int:
    """Return the seconds of `90m`, `12h`, `30d` or `1h30m`; raises `ValueError` for anything else."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration: give one as in 90m, 12h, 30d")
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9]+)([smhdw])", text))


def _rotation(since: int, days: int) -> int:
    return since + days * DAY * _SECOND if days else 0


def _expiry(given: Mapping[str, Any], now: int) -> int:
    if "expires_in" in given and "expires_at" in given:
        raise client_fault("give expires_in or expires_at, not both", param="expires_at")
    if "expires_in" in given:
        try:
            seconds = duration(given["expires_in"])
        except ValueError as error:
            raise client_fault(f"expires_in: {error}", param="expires_in") from None
        if not 0 < seconds <= _LONGEST:
            raise client_fault("expires_in must be above 0 and at most 100 years", param="expires_in")
        return now + seconds * _SECOND
    moment: float | None = given["expires_at"]
    if moment is None:
        return 0
    if not now < moment * _SECOND < _LATEST * _SECOND:
        raise client_fault(
            "expires_at must be a moment to come, in seconds since the epoch", param="expires_at"
        )
    return round(moment * _SECOND)


def _given(body: msgspec.Struct) -> dict[str, Any]:
    values = ((name, getattr(body, name)) for name in body.__struct_fields__)
    return {name: value for name, value in values if value is not UNSET}


def _trusted(given: dict[str, Any]) -> dict[str, Any]:
    for name, choice in (("roles", _ROLES), ("names", frozenset(NAMES.values()))):
        if given.get(name) is not None:
            given[name] = _some_of(given[name], choice, f"trust.{name}")
    return given


def _some_of(values: Iterable[str], choice: Iterable[str], param: str) -> frozenset[str]:
    for value in values:
        if value not in choice:
            raise client_fault(f"{param}: {value!r} is none of {', '.join(sorted(choice))}", param=param)
    return frozenset(values)


def _scopes(value: list[str] | str) -> frozenset[Scope]:
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value, type=list[str])
        except (msgspec.MsgspecError, UnicodeEncodeError):
            raise client_fault("scopes must be a list", param="scopes") from None
    return frozenset(map(Scope, _some_of(value, list(Scope), "scopes")))


def _visible(text: str, *, param: str, most: int, least: int = 1) -> str:
    if not least <= len(text) <= most or not text.isprintable() or text != text.strip():
        raise client_fault(f"{param} must be {least} to {most} visible characters", param=param)
    return text


def _several(values: list[str], *, param: str, most: int, each: int) -> tuple[str, ...]:
    """Return a list in its order, without what is in it twice."""
    if len(values) > most:
        raise client_fault(f"{param}: at most {most}", param=param)
    return tuple(dict.fromkeys(_visible(value, param=param, most=each) for value in values))


def _hosts(values: list[str]) -> tuple[str, ...]:
    return _several([value.lower() for value in values], param="hosts", most=256, each=255)


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "name": partial(_visible, param="name", most=100),
    "enabled": bool,
    "scopes": _scopes,
    "models": partial(_several, param="models", most=256, each=200),
    "providers": partial(_several, param="providers", most=256, each=300),
    "hosts": _hosts,
    "project": partial(_visible, param="project", most=64, least=0),
    "tags": partial(_several, param="tags", most=32, each=64),
}


# --- what is told of a key -----------------------------------------------------------------------------------


def rotation_due(kept: Kept, *, now: int) -> bool:
    """Tell whether the key should have a new secret."""
    return 0 < kept.key.rotate_at <= now


def due(kept: Kept, *, now: int) -> tuple[Notice, ...]:
    """Return what is to be told of a key and was not yet.

    That it expires is told a week before, or when nine tenths of a shorter life are over.
    """
    key, found = kept.key, []
    if not key.enabled:
        return ()
    if rotation_due(kept, now=now) and kept.rotation_told != key.rotate_at:
        found.append(Notice.ROTATION)
    before = min(_SOON * _SECOND, (key.expires_at - key.created_at) // 10)
    if key.expires_at and now >= key.expires_at - before and kept.expiry_told != key.expires_at:
        found.append(Notice.EXPIRY)
    return tuple(found)


def told(kept: Kept, notices: Iterable[Notice]) -> Kept:
    """Return the key, with these noted as told."""
    values = {
        Notice.ROTATION: {"rotation_told": kept.key.rotate_at},
        Notice.EXPIRY: {"expiry_told": kept.key.expires_at},
    }
    for notice in notices:
        kept = structs.replace(kept, **values[notice])
    return kept


def described(kept: Kept) -> Json:
    """Return what may be shown of a key, moments in seconds since the epoch: never a secret, nor its digest."""
    key = kept.key
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "enabled": key.enabled,
        "scopes": sorted(key.scopes),
        "models": list(key.models),
        "providers": list(key.providers),
        "hosts": list(key.hosts),
        "project": key.project,
        "tags": list(key.tags),
        "limits": structs.asdict(key.limits),
        "trust": {
            "roles": None if key.trust.roles is None else sorted(key.trust.roles),
            "names": None if key.trust.names is None else sorted(key.trust.names),
            "signed": key.trust.signed,
            "max_budget_usd": key.trust.max_budget_usd,
            "max_latency_ms": key.trust.max_latency_ms,
            "max_steps": key.trust.max_steps,
        },
        "privacy": structs.asdict(key.privacy),
        "expires_at": seconds(key.expires_at),
        "rotation_days": kept.rotation_days,
        "rotate_at": seconds(key.rotate_at),
        "previous": [
            {"prefix": one.prefix, "expires_at": seconds(one.expires_at)} for one in kept.secrets[1:]
        ],
    }


def differences(was: Kept, now: Kept) -> tuple[Json, Json]:
    """Return what is told of both where it is not the same."""
    old, new = described(was), described(now)
    names = [name for name in new if old[name] != new[name]]
    return {name: old[name] for name in names}, {name: new[name] for name in names}


def seconds(moment: int) -> float | None:
    """Return a moment in seconds since the epoch, None for never."""
    return moment / _SECOND if moment else None
