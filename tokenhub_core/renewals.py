"""What of a running server can be made anew from other settings, and how that is swapped. Pure.

Whoever makes a part says beside it how the part follows: `make` reads the settings and may refuse them, `put` takes
what was made and can neither fail nor wait. All is made before anything is put, and everything is put in one turn of
the loop: no call sees one half of the old settings and one of the new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import msgspec

from tokenhub_core import config
from tokenhub_core.config import PREFIX, Settings

LIVE: Final = frozenset(
    {
        "log_level",
        "allowed_hosts",
        "metrics_access",
        "client_credentials",
        "extra_hosts",
        "host_modes",
        "credentials_file",
        "ca_file",
        "default_mode",
        "default_max_budget_usd",
        "default_max_latency_ms",
        "fallback",
        "explore",
        "hedge",
        "affinity",
        "lossy",
        "output_format",
        "strip_think",
        "validate_output",
        "buffer_checked",
        "guarded",
        "guard_secs",
        "guard_bytes",
        "resume",
        "directives",
        "directive_roles",
        "directive_hosts",
        "directive_steps",
        "key_requests_per_minute",
        "key_tokens_per_minute",
        "key_concurrency",
        "key_max_output_tokens",
        "address_requests_per_minute",
        "address_tokens_per_minute",
        "address_concurrency",
        "address_max_output_tokens",
        "admin_requests_per_minute",
        "trusted_proxies",
        "max_calls",
        "queue_ms",
        "max_attempts",
        "eject_rate",
        "connect_timeout_secs",
        "ttft_timeout_secs",
        "ttft_floor_secs",
        "stall_timeout_secs",
        "stall_floor_secs",
        "model_timeouts",
        "provider_timeout_secs",
        "total_timeout_secs",
        "stream_gather_ms",
        "keep_alive_secs",
        "drain_secs",
        "drain_bytes",
        "drains",
        "capture",
        "capture_days",
        "capture_max_bytes",
        "log_retention_days",
        "decision_retention_days",
        "spend_retention_days",
        "audit_retention_days",
        "proof_retention_days",
        "webhook_retention_days",
        "parking_retention_days",
    }
)
"""The settings that hold at once; all others hold from the next start on."""


class Fresh(msgspec.Struct, frozen=True):
    """What a server is to go on with."""

    settings: Settings
    environ: Mapping[str, str]


type Put = Callable[[], None]


class Renewals:
    """The parts that follow, in the order in which they were made."""

    def __init__(self) -> None:
        self._parts: list[Callable[[Fresh], Put]] = []

    def add[T](self, make: Callable[[Settings], T], put: Callable[[T], object]) -> None:
        """Let a part follow the settings."""
        self.follow(lambda fresh: make(fresh.settings), put)

    def follow[T](self, make: Callable[[Fresh], T], put: Callable[[T], object]) -> None:
        """Let a part follow the environment, too."""

        def part(fresh: Fresh) -> Put:
            return _put(put, make(fresh))

        self._parts.append(part)

    def made(self, fresh: Fresh) -> Put:
        """Make everything, and return what puts it in its place; raises what a `make` raises."""
        return partial(_each, [part(fresh) for part in self._parts])


def _put[T](put: Callable[[T], object], made: T) -> Put:
    def swap() -> None:
        put(made)

    return swap


def _each(puts: list[Put]) -> None:
    for put in puts:
        put()


class Change(msgspec.Struct, frozen=True):
    """One setting that was changed; secrets are redacted."""

    variable: str
    old: str
    new: str
    applied: bool
    """False: it holds from the next start on."""


def changes(old: Settings, new: Settings) -> tuple[Change, ...]:
    """Return what differs, in the order of the settings."""
    return tuple(
        Change(
            PREFIX + name.upper(),
            config.shown(name, before),
            config.shown(name, after),
            name in LIVE,
        )
        for name in config.names()
        if config.plain(before := getattr(old, name)) != config.plain(after := getattr(new, name))
    )


def effective(old: Settings, new: Settings) -> Settings:
    """Return the settings that hold now: the new ones, where they can without a restart."""
    return replace(old, **{name: getattr(new, name) for name in LIVE})
