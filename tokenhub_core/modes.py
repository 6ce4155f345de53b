"""What is done with the calls to a host: routed, decided in shadow, observed, or not opened at all.

A rule says it for a host, for one caller, or for one alias; each of the three narrows the rule, and what it does not
name it holds for. Of the rules that match a call the most specific one decides: one that names the alias before
one that does not, then one that names the caller, then the one whose host is told most exactly (a name, then `*.` and
a name, then `*`). Where none matches, calls are routed.

What narrows a rule is a field of `Match`: a new one is a member there, and a place in `_rank` and `Match.meets`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

from tokenhub_core.errors import ConfigError
from tokenhub_core.recognise import Recogniser, bare_host

ANY_HOST: Final = "*"


class HostMode(StrEnum):
    """What is done with a call."""

    ROUTE = "route"
    """The engine answers it."""
    SHADOW = "shadow"
    """It passes untouched; what the engine would have done is decided and recorded."""
    OBSERVE = "observe"
    """It passes untouched, metered and recorded."""
    OFF = "off"
    """The connection is not opened: a raw tunnel."""


class Match(msgspec.Struct, frozen=True):
    """Which calls a rule is for; an empty field narrows nothing."""

    host: str = ANY_HOST
    """A name, `*.` and a name for exactly one label before it, or `*`."""
    user: str = ""
    """Who authenticated to the proxy."""
    alias: str = ""

    def meets(self, host: str, user: str, alias: str) -> bool:
        """Tell whether a call is one of these; `host` is a bare one."""
        return (
            (not self.alias or self.alias == alias)
            and (not self.user or self.user == user)
            and (self.host in (ANY_HOST, host) or self.host == f"*.{host.partition('.')[2]}")
        )


class Rule(msgspec.Struct, frozen=True):
    """A mode for some calls."""

    match: Match
    mode: HostMode


class Modes:
    """All rules. Immutable: a change makes a new one. Of two rules for the same calls the later one counts."""

    __slots__ = ("_hosts", "by_alias", "rules")

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        known = {rule.match: rule for rule in rules}
        self.rules = tuple(sorted(known.values(), key=lambda rule: _rank(rule.match), reverse=True))
        """The most specific one first."""
        self._hosts = tuple(rule for rule in self.rules if not (rule.match.user or rule.match.alias))
        self.by_alias = any(rule.match.alias for rule in self.rules)
        """Whether it takes the name that a call asks for to know its mode."""

    def rule(self, host: str, user: str = "", alias: str = "") -> Rule | None:
        """Return the rule that decides a call, None where none matches."""
        if not self.rules:
            return None
        name = bare_host(host)
        return next((rule for rule in self.rules if rule.match.meets(name, user, alias)), None)

    def of(self, host: str, user: str = "", alias: str = "") -> HostMode:
        """Return what is done with a call."""
        found = self.rule(host, user, alias)
        return HostMode.ROUTE if found is None else found.mode

    def closed(self, host: str) -> str:
        """Return the host of the rule that keeps connections to `host` unopened, empty where they are opened."""
        if not self._hosts:
            return ""
        name = bare_host(host)
        found = next((rule for rule in self._hosts if rule.match.meets(name, "", "")), None)
        return found.match.host if found is not None and found.mode is HostMode.OFF else ""

    def rests(self, host: str, user: str, alias: str) -> bool:
        """Tell whether an alias is left out of a call that is routed all the same, because a rule for it says so."""
        if not self.by_alias:
            return False
        found = self.rule(host, user, alias)
        return found is not None and bool(found.match.alias) and found.mode is not HostMode.ROUTE


ROUTED: Final = Modes()
"""Every call is routed."""


def checked(rule: Rule, recogniser: Recogniser | None = None) -> Rule:
    """Return the rule with its host in plain form; raises `ConfigError` where it can never hold.

    With a `recogniser` its host must be one that is listed there.
    """
    match = msgspec.structs.replace(rule.match, host=bare_host(rule.match.host) or ANY_HOST)
    if recogniser is not None and not _listed(match.host, recogniser):
        raise ConfigError(f"{match.host} is no host that is intercepted")
    if rule.mode is HostMode.OFF and (match.user or match.alias):
        raise ConfigError("off is for a host: nobody knows caller or model of what is not opened")
    if match.alias == ANY_HOST:
        raise ConfigError(
            "the alias * has no mode of its own: nobody else can serve a call that names no model"
        )
    return msgspec.structs.replace(rule, match=match)


def parsed(items: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules of `host=mode` items; raises `ConfigError` that names the item."""
    rules = []
    for item in items:
        host, _, word = item.rpartition("=")
        if not host.strip() or word.strip() not in list(HostMode):
            raise ConfigError(f"mode {item!r}: must be host=mode, mode one of {', '.join(HostMode)}")
        rules.append(checked(Rule(Match(host.strip()), HostMode(word.strip()))))
    return tuple(rules)


def _listed(host: str, recogniser: Recogniser) -> bool:
    return host == ANY_HOST or host in recogniser.hosts or recogniser.is_llm_host(host)


def _rank(match: Match) -> tuple[bool, bool, int, str]:
    exactness = 0 if match.host == ANY_HOST else 1 if match.host.startswith("*.") else 2
    return bool(match.alias), bool(match.user), exactness, match.host
