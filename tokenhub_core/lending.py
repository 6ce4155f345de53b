"""A provider's credential on what only passes: lent to one request, for the host that it is registered for. Pure.

Where the rule of a host says `replace`, whatever credential the client brought is gone by now, and the credential of
the provider that is registered there takes its place. It goes to the endpoint of that provider and nowhere else: same
host, same port, TLS. What belongs to the account behind the client's own key stays behind with it.

Nobody reads what passes, so a key of ours that is good for some models only, or not for that provider, is lent nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import urlsplit

from tokenhub_core.admission.doorkeeper import Entry, matches
from tokenhub_core.admission.keyring import Keyring
from tokenhub_core.dispatch import classify
from tokenhub_core.dispatch.holding import Holding
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError, client_fault
from tokenhub_core.ports import Clock, Secret, Secrets
from tokenhub_core.providers import adapters
from tokenhub_core.types import (
    ANY,
    ApiKey,
    Candidate,
    Dialect,
    Fleet,
    Headers,
    Model,
    Origin,
    Provider,
    Terms,
)

_PLAIN: Final = ("accept-encoding", "identity")
"""An answer that is compressed could quote the credential unseen."""
_WORDS: Final = 64 << 10
"""Bytes of a refusal that are read."""
_UNHEARD: Final = Fault(Kind.TRANSIENT, Blame.US, "the host has not answered", cause="passed")


class Loan:
    """One provider's credential, on one request.

    Its answer is heard in this order: `began`, `veil` for each piece, `ended`, which always comes. What a refusal says
    of the credential holds for every call that would go with it, as if the call had been routed.
    """

    def __init__(
        self,
        candidate: Candidate,
        key: Headers,
        secret: Secret | None,
        holding: Holding,
        clock: Clock,
    ) -> None:
        self.provider = candidate.provider.id
        self._dialect = candidate.dialect
        self._clock = clock
        self._key = key
        self._instead = adapters.ACCOUNT | {_PLAIN[0], *(name for name, _ in key)}
        self._holding = holding
        self._secret = secret.reveal().strip().encode() if secret else b""
        self._held = b""
        self._status = 0
        self._headers: Headers = ()
        self._words = bytearray()
        self._over = False

    def __repr__(self) -> str:
        return f"Loan({self.provider})"

    def on(self, headers: Headers) -> Headers:
        """Return a request's fields with the credential in them: for the wire and nobody else."""
        return (*(field for field in headers if field[0] not in self._instead), *self._key, _PLAIN)

    def veiled(self, fields: Headers) -> Headers:
        """Return the fields of the answer without the credential, where the host has quoted it."""
        secret = self._secret.decode()
        mask = "*" * len(secret)
        return tuple((name, value.replace(secret, mask)) for name, value in fields) if secret else fields

    def began(self, status: int, headers: Headers) -> None:
        """Hear the head of the answer; the names of `headers` in lower case."""
        self._status, self._headers = status, headers
        if status < 400:
            self._settle(None)

    def veil(self, piece: bytes) -> bytes:
        """Return the next bytes of the answer without the credential, as many in all; an empty piece is the end.

        What could be its beginning waits for the piece after it.
        """
        if self._status >= 400:
            self._words += piece[: _WORDS - len(self._words)]
        secret = self._secret
        if not secret:
            return piece
        data = (self._held + piece).replace(secret, b"*" * len(secret))
        kept = _begun(data, secret) if piece else 0
        self._held = data[len(data) - kept :]
        return data[: len(data) - kept]

    def ended(self) -> None:
        """Hear that it is over, however it ended."""
        if self._status < 400:
            self._settle(_UNHEARD)
            return
        words = bytes(self._words)
        self._holding.answered(self._headers, words)
        now = self._clock.now()
        self._settle(classify.classify(self._dialect, self._status, self._headers, words, now=now))

    def _settle(self, fault: Fault | None) -> None:
        if not self._over:
            self._over = True
            self._holding.ended(fault)


class Lender:
    """Lends the credentials of registered providers."""

    def __init__(self, fleet: Callable[[], Fleet], secrets: Secrets, keyring: Keyring, clock: Clock) -> None:
        self._fleet = fleet
        self._secrets = secrets
        self._keyring = keyring
        self._clock = clock

    def lend(self, entry: Entry, origin: Origin, dialect: Dialect) -> Loan:
        """Return the credential for a request whose own one was dropped; raises `TokenHubError`.

        `no_credential`: no provider is registered for this host and port, or what it had is gone (503). The key of its
        caller may be good for too little, the vault may be locked, and the provider's limits may be reached.
        """
        provider, base = self._chosen(entry.key, origin)
        model = Model("", provider.id)
        candidate = Candidate(model, provider, 0.0, Terms(), 0, dialect=dialect)
        holding = Holding(self._keyring, self._secrets, self._clock, candidate, entry.headers)
        holding.choose(self._clock.monotonic(), anyway=False)
        try:
            secret = holding.secret()
            key = adapters.key_at(provider, secret, base=base, dialect=dialect, path=entry.path)
        except TokenHubError as error:
            holding.ended(_UNHEARD)
            raise _ours(error.fault) from None
        return Loan(candidate, key, secret, holding, self._clock)

    def _chosen(self, key: ApiKey | None, origin: Origin) -> tuple[Provider, str]:
        """Return the first provider that is registered there and that the key is good for, and its endpoint there."""
        found = list(registered(self._fleet(), origin))
        if not found:
            message = (
                f"{origin.host} gets no credentials of clients here, and no provider is registered for it"
            )
            raise client_fault(message, kind=Kind.FORBIDDEN, cause="no_credential")
        allowed = [one for one in found if key is None or matches(key.providers, one[0].id)]
        if not allowed:
            message = f"this API key is not good for {found[0][0].id}"
            raise client_fault(message, kind=Kind.FORBIDDEN, cause="provider_not_allowed")
        if key is not None and ANY not in key.models:
            message = (
                "this API key is good for some models only, and what passes with our credential is not read"
            )
            raise client_fault(message, kind=Kind.FORBIDDEN, cause="model_not_allowed")
        return allowed[0]


def registered(fleet: Fleet, origin: Origin) -> Iterator[tuple[Provider, str]]:
    """Yield the providers that may be used and have an endpoint at just this place, over TLS, with that endpoint."""
    for provider in fleet.providers.values():
        for base in provider.endpoints if provider.enabled else ():
            place = urlsplit(base)
            if place.scheme == "https" and (place.hostname, place.port or 443) == (origin.host, origin.port):
                yield provider, base
                break


def _begun(data: bytes, secret: bytes) -> int:
    """Return how many bytes at the end of `data` could be the beginning of `secret`."""
    longest = min(len(data), len(secret) - 1)
    return next((size for size in range(longest, 0, -1) if data.endswith(secret[:size])), 0)


def _ours(fault: Fault) -> TokenHubError:
    """Return the fault of a credential that cannot be read as the operator's, whom the client cannot help."""
    if fault.kind is not Kind.AUTH:
        return TokenHubError(fault)
    return TokenHubError(Fault(Kind.OVERLOADED, Blame.US, fault.message, cause=fault.label))
