"""Credentials that clients bring along for the hosts that they call: what is done with them, and whose they are. Pure.

A rule for a host says whether it gets what the client brings (`use`), whether that is dropped and the provider that is
registered for the host serves in its place (`replace`), or whether only callers with a key of ours may call it at all,
and what else they bring is dropped (`refuse`).

Many vendors' keys tell by how they begin whose they are. One that leaves for somebody else's host has leaked as soon as
it is sent, so that call is refused, and an alarm is raised. An operator whose host does take such keys (a gateway of
the company's) says so by a rule `use` for that very host, and is told all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec

from tokenhub_core.admission.doorkeeper import Entry, matches
from tokenhub_core.admission.identity import credentials, without_credentials
from tokenhub_core.errors import ConfigError, Kind, client_fault
from tokenhub_core.recognise import bare_host
from tokenhub_core.types import ANY

_BOUND: Final = (
    ("sk-ant-", ("*.anthropic.com", "claude.ai")),
    ("sk-or-", ("openrouter.ai", "*.openrouter.ai")),
    ("sk-proj-", ("*.openai.com",)),
    ("sk-svcacct-", ("*.openai.com",)),
    ("sk-admin-", ("*.openai.com",)),
    ("AIza", ("*.googleapis.com",)),
    ("gsk_", ("*.groq.com",)),
    ("xai-", ("*.x.ai",)),
    ("pplx-", ("*.perplexity.ai",)),
    ("nvapi-", ("*.nvidia.com",)),
    ("hf_", ("*.huggingface.co", "huggingface.co")),
    ("csk-", ("*.cerebras.ai",)),
    ("fw_", ("*.fireworks.ai",)),
    ("tgp_v1_", ("*.together.xyz", "*.together.ai")),
)
"""How keys begin, as their vendors document it, and the hosts that these are for. A bare `sk-` is many vendors'."""

_SHORTEST: Final = 20
"""Characters: what is shorter is a placeholder, and nobody's key."""


class Use(StrEnum):
    """What is done with a client's own credential."""

    USE = "use"
    REPLACE = "replace"
    REFUSE = "refuse"


class Leak(msgspec.Struct, frozen=True):
    """A key that was about to leave for a host that it is not for."""

    host: str
    kind: str
    """How it begins."""
    peer: str = ""
    key_id: str = ""
    """Of the key of ours that its caller has shown, empty where that is nobody."""
    refused: bool = True


def unheard(leak: Leak) -> None:
    """Tell nobody."""


class Foreign:
    """The rules for hosts: a name, `*.` and a name, or `*`; the most exact one counts. `tell` raises the alarm."""

    def __init__(
        self,
        rules: Mapping[str, Use] = MappingProxyType({}),
        *,
        tell: Callable[[Leak], None] = unheard,
    ) -> None:
        self._rules = rules
        self._tell = tell

    def renew(self, rules: Mapping[str, Use]) -> None:
        """Go by other rules from now on."""
        self._rules = rules

    def rule(self, host: str) -> Use:
        """Return what is done with the credentials that clients bring for a host (a bare name)."""
        return self._exact(host) or self._rules.get(ANY, Use.USE)

    def settled(self, entry: Entry, host: str, *, peer: str = "") -> Entry:
        """Return the request as the host may get it; raises `TokenHubError` (`FORBIDDEN`).

        `client_credential_refused`: a key of ours is needed. `credential_leak`: it holds somebody else's key.
        """
        rule = self.rule(host)
        if rule is Use.REFUSE and entry.key is None:
            message = f"{host} is for callers with an API key of ours, and takes none that they bring along"
            raise client_fault(message, kind=Kind.FORBIDDEN, cause="client_credential_refused")
        if rule is not Use.USE:
            headers, path = without_credentials(entry.headers, entry.path)
            return msgspec.structs.replace(
                entry, headers=headers, path=path, stripped=True, replaced=rule is Use.REPLACE
            )
        if kind := leaking(entry, host):
            refused = self._exact(host) is None
            self._tell(Leak(host, kind, peer, entry.key.id if entry.key else "", refused))
            if refused:
                message = f"a key that begins with {kind} is none for {host}: it was not sent"
                raise client_fault(message, kind=Kind.FORBIDDEN, cause="credential_leak")
        return entry

    def _exact(self, host: str) -> Use | None:
        return self._rules.get(host) or self._rules.get(f"*.{host.partition('.')[2]}")


def leaking(entry: Entry, host: str) -> str:
    """Return how a key begins that is in a request and not for its host, empty where there is none."""
    for secret in credentials(entry.headers, entry.path):
        for kind, hosts in _BOUND:
            if secret.startswith(kind) and len(secret) >= _SHORTEST and not matches(hosts, host):
                return kind
    return ""


def parsed(items: Iterable[str]) -> dict[str, Use]:
    """Return the rules of `host=rule` items; raises `ConfigError` that names the item."""
    rules = {}
    for item in items:
        host, _, word = item.rpartition("=")
        if not bare_host(host) or word.strip() not in list(Use):
            allowed = ", ".join(Use)
            raise ConfigError(f"client credentials {item!r}: must be host=rule, rule one of {allowed}")
        rules[bare_host(host)] = Use(word.strip())
    return rules


KEPT: Final = Foreign()
"""Every host gets what clients bring for it."""
