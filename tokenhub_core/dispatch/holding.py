"""The credential of one attempt: chosen before it is sent, told of every answer, let go of at the end."""

from __future__ import annotations

from dataclasses import replace

from tokenhub_core.admission.headers import Seen
from tokenhub_core.admission.keyring import Chosen, Keyring, host_of
from tokenhub_core.admission.limits import Call, Room, limited
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import Clock, Secret, Secrets
from tokenhub_core.redaction import credentials, without
from tokenhub_core.types import DEFAULT_CREDENTIAL, Candidate, Headers, ProviderType


class Holding:
    """Which credential an attempt holds, and what is to be said of it."""

    def __init__(
        self, keyring: Keyring, secrets: Secrets, clock: Clock, candidate: Candidate, caller: Headers
    ) -> None:
        self._keyring = keyring
        self._secrets = secrets
        self._clock = clock
        self._candidate = candidate
        self._caller = caller
        self._chosen: Chosen | None = None
        self._secret: Secret | None = None
        self._seen: tuple[Seen, ...] = ()
        """What the answer told of rate limits."""

    @property
    def _size(self) -> Call:
        expected = self._candidate.expected
        return Call(self._candidate.model.name, expected.input_tokens, expected.output_tokens)

    def choose(self, started: float, *, anyway: bool) -> None:
        """Take the credential with the most room; raises `TokenHubError` where none has any, unless `anyway`."""
        keyring, provider = self._keyring, self._candidate.provider
        origin = provider.type is ProviderType.ORIGIN
        chosen = keyring.take(
            provider,
            self._size,
            self._candidate.dialect,
            now=started,
            at=self._clock.now(),
            caller=keyring.caller(provider, self._caller) if origin else "",
            anyway=anyway,
        )
        if isinstance(chosen, Room):
            raise TokenHubError(limited([(provider.id, chosen)]))
        self._chosen = chosen

    def secret(self) -> Secret | None:
        """Return the credential itself, None where none is needed; raises `TokenHubError` where it is gone."""
        provider, chosen = self._candidate.provider, self._chosen
        store, name = provider.cred_store, DEFAULT_CREDENTIAL
        if chosen is not None and provider.credentials:
            name = chosen.credential.name
            store = store if name == DEFAULT_CREDENTIAL else chosen.credential.store
        if store in {"none", "caller"}:
            return None
        self._secret = self._secrets.credential(provider.id, store, name)
        if self._secret is None:
            message = f"the credential of {provider.id} is gone"
            raise TokenHubError(Fault(Kind.AUTH, Blame.CREDENTIAL, message, cause="no_credential"))
        return self._secret

    def answered(self, headers: Headers, body: bytes = b"") -> None:
        """Hear the head of an answer, and what the body of a refusal begins with."""
        if self._chosen is not None:
            self._seen = self._keyring.answered(
                self._chosen,
                headers,
                key=self._digest,
                now=self._clock.monotonic(),
                at=self._clock.now(),
                body=body,
            )

    def _digest(self) -> bytes:
        provider = self._candidate.provider
        if provider.type is ProviderType.ORIGIN:
            return self._keyring.digest(host_of(provider), self._caller)
        return self._keyring.digest_of(host_of(provider), self._secret.reveal() if self._secret else "")

    def unquoted(self, fault: Fault) -> Fault:
        """Return the fault without the credential, ours or the caller's own, where the provider has quoted it."""
        ours = self._secret.reveal() if self._secret else ""
        return replace(fault, message=without(fault.message, (ours, *credentials(self._caller))))

    def began(self) -> None:
        """Hear that the answer has begun, which is all that a probe is to find out."""
        if self._chosen is not None:
            self._keyring.began(self._chosen, at=self._clock.now())

    def ended(self, fault: Fault | None) -> bool:
        """Hear how the attempt ended; tell whether another credential could take the call where this one failed."""
        chosen, provider = self._chosen, self._candidate.provider
        if chosen is None:
            return False
        now, at = self._clock.monotonic(), self._clock.now()
        self._keyring.ended(chosen, fault, self._seen, now=now, at=at)
        if fault is None or fault.blame is not Blame.CREDENTIAL:
            return False
        return self._keyring.spare(provider, self._size, chosen.credential.name, now=now, at=at)
