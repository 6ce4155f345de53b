"""Where providers' credentials are read, at the moment of use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from tokenhub_core.ports import Secret
from tokenhub_core.types import DEFAULT_CREDENTIAL


class SecretSource(Protocol):
    """What the vault offers to those who use credentials."""

    def get(self, name: str) -> Secret | None:
        """Return the secret, None where there is none; raises `TokenHubError` while locked."""
        ...

    def has(self, name: str) -> bool:
        """Tell whether `get` would return one now."""
        ...


type Held = list[tuple[str, str, str]]
"""Provider, name and value of credentials in memory, as one worker hands them to another."""


def _unheard(held: Held) -> None:
    del held


class Credentials:
    """Fills the `Secrets` port from the vault, the environment, and what is held in memory.

    Nothing is cached: a locked vault stops its providers at once.
    """

    def __init__(self, vault: SecretSource, environ: Mapping[str, str]) -> None:
        self._vault = vault
        self._environ = environ
        self._held: dict[tuple[str, str], Secret] = {}
        self._tell: Callable[[Held], None] = _unheard

    def share(self, tell: Callable[[Held], None]) -> None:
        """Let `tell` hear of every change of what is held."""
        self._tell = tell

    def renew(self, environ: Mapping[str, str]) -> None:
        """Read another environment from now on."""
        self._environ = environ

    def held(self) -> Held:
        """Return everything that is held."""
        return [(provider, name, secret.reveal()) for (provider, name), secret in self._held.items()]

    def take(self, held: Held) -> None:
        """Hold these, as another worker does; what has no value is dropped."""
        for provider, name, value in held:
            if value:
                self._held[provider, name] = Secret(value)
            else:
                self._held.pop((provider, name), None)

    def hold(self, provider_id: str, secret: Secret, name: str = DEFAULT_CREDENTIAL) -> None:
        """Keep a credential for as long as the process lives."""
        self._held[provider_id, name] = secret
        self._tell([(provider_id, name, secret.reveal())])

    def drop(self, provider_id: str, name: str = DEFAULT_CREDENTIAL) -> None:
        """Forget what is held for a provider under this name."""
        if self._held.pop((provider_id, name), None) is not None:
            self._tell([(provider_id, name, "")])

    def drop_all(self, provider_id: str) -> None:
        """Forget everything that is held for a provider."""
        for _, name in [key for key in self._held if key[0] == provider_id]:
            self.drop(provider_id, name)

    def available(self, provider_id: str, cred_store: str, name: str = DEFAULT_CREDENTIAL) -> bool:
        """Tell whether a call can be made now: with its credential, or where none is needed from here."""
        kind, _, variable = cred_store.partition(":")
        match kind:
            case "vault":
                return self._vault.has(vault_name(provider_id, name))
            case "env":
                return bool(self._environ.get(variable))
            case "memory":
                return (provider_id, name) in self._held
        return kind in {"none", "caller"}

    def credential(self, provider_id: str, cred_store: str, name: str = DEFAULT_CREDENTIAL) -> Secret | None:
        """Return the credential, None where there is none; raises `TokenHubError` while the vault is locked."""
        kind, _, variable = cred_store.partition(":")
        match kind:
            case "vault":
                return self._vault.get(vault_name(provider_id, name))
            case "env":
                value = self._environ.get(variable)
                return Secret(value) if value else None
            case "memory":
                return self._held.get((provider_id, name))
        return None


def vault_name(provider_id: str, name: str = DEFAULT_CREDENTIAL) -> str:
    """Return the vault's name for a provider's credential. Neither part of it holds a colon."""
    own = f"provider:{provider_id}:api_key"
    return own if name == DEFAULT_CREDENTIAL else f"{own}:{name}"


SECRETS: Final = "secret:"
"""What the vault's names of an operator's own secrets begin with; no provider's credential is under one."""
