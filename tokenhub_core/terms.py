"""What the settings come to: the values that the parts are made with. What can change later is asked for each time."""

from __future__ import annotations

from pathlib import Path

from tokenhub_core import hostlist, sources
from tokenhub_core.addresses import Guard
from tokenhub_core.admission.foreign import Foreign, parsed
from tokenhub_core.admission.throttle import Throttle
from tokenhub_core.catalog import Catalog
from tokenhub_core.chronicle import DAYS
from tokenhub_core.config import Settings
from tokenhub_core.dispatch.job import Drain, Patience
from tokenhub_core.dispatch.job import Guard as Held
from tokenhub_core.health.tracker import Rules as Ejecting
from tokenhub_core.idempotency import Keeping
from tokenhub_core.learning import Learning
from tokenhub_core.leave import Leave, Leaves, by_host
from tokenhub_core.modes import Rule, checked
from tokenhub_core.modes import parsed as parsed_modes
from tokenhub_core.opening import Kept
from tokenhub_core.preparing import Insight, Rules
from tokenhub_core.recognise import Recogniser, extra_hosts
from tokenhub_core.renewals import Fresh
from tokenhub_core.routing.affinity import LOOSE
from tokenhub_core.routing.bandit import STILL
from tokenhub_core.routing.deadlines import parsed as parsed_own
from tokenhub_core.signing import Signatures
from tokenhub_core.store.catalog import Stock
from tokenhub_core.store.idempotency import Marks as CallMarks
from tokenhub_core.store.writer import Writer
from tokenhub_core.sweeper import Retention
from tokenhub_core.vault.vault import Vault


def origin(settings: Settings) -> bool:
    """Tell whether calls may reach the host they were meant for: never while answers are simulated."""
    return settings.origin and not settings.simulate


def patience(settings: Settings) -> Patience:
    """Return how long attempts may take; raises `ConfigError` where what is said of single models makes no sense."""
    return Patience(
        connect=settings.connect_timeout_secs,
        ttft=settings.ttft_timeout_secs,
        stall=settings.stall_timeout_secs,
        whole=settings.provider_timeout_secs,
        gather=settings.stream_gather_ms / 1000,
        tick=settings.keep_alive_secs,
        guard=Held(settings.guard_secs, settings.guard_bytes),
        drain=Drain(settings.drain_secs, settings.drain_bytes, settings.drains),
        floor=settings.ttft_floor_secs,
        stall_floor=settings.stall_floor_secs,
        own=parsed_own(settings.model_timeouts),
    )


def connections(settings: Settings) -> int:
    """Return how many connections to providers there may be: calls of several steps and hedges have more than one."""
    return 2 * settings.max_calls if settings.max_calls is not None else 1 << 20


def health(settings: Settings) -> Ejecting:
    """Return when providers are left alone."""
    return Ejecting(eject_rate=settings.eject_rate)


def insight(learning: Learning, catalog: Catalog) -> Insight:
    """Return what was learned, as far as routing may use it now."""
    bandit, affinity = learning.bandit, learning.affinity
    return Insight(
        estimates=learning.learner,
        explorer=lambda: bandit if catalog.explore == "thompson" else STILL,
        bonds=lambda: affinity if catalog.affinity == "on" else LOOSE,
    )


def catalogued(kept: Kept, fresh: Fresh) -> tuple[Settings, Stock, tuple[Rule, ...]]:
    """Return what the catalogue goes on with; raises `ConfigError` where a mode is for a host that is not listed."""
    settings = fresh.settings
    items = (*hostlist.read(settings.data_dir), *settings.extra_hosts)
    rules = tuple(checked(rule, Recogniser(extra_hosts(items))) for rule in parsed_modes(settings.host_modes))
    return settings, sources.transient(settings, fresh.environ, kept.prices).stock, rules


def rules(
    settings: Settings,
    catalog: Catalog,
    vault: Vault,
    writer: Writer,
    *,
    limits: Throttle,
    signatures: Signatures,
) -> Rules:
    """Return what the operator decided for every exchange."""
    return Rules(
        recordable=lambda: writer.able,
        origin=origin(settings),
        directives=lambda: catalog.on_malformed_directive,
        leaves=Leaves(
            Leave(frozenset(settings.directive_roles), max_steps=settings.directive_steps),
            by_host(settings.directive_hosts),
        ),
        signatures=signatures,
        max_body_bytes=settings.max_body_bytes,
        max_attempts=settings.max_attempts,
        modes=lambda: catalog.modes,
        foreign=Foreign(parsed(settings.client_credentials)),
        total_seconds=settings.total_timeout_secs,
        throttle=limits,
        locked=lambda: not vault.open,
    )


def keeping(settings: Settings, writer: Writer) -> Keeping:
    """Return how answers are kept for calls with an idempotency key."""
    marks = CallMarks(writer, answers=settings.idempotency_store)
    return Keeping(marks, settings.idempotency_ttl_secs, settings.idempotency_cache_bytes)


def retention(settings: Settings) -> Retention:
    """Return for how long what is kept."""
    return Retention(
        records=settings.log_retention_days,
        decisions=settings.decision_retention_days,
        parkings=settings.parking_retention_days,
        health=DAYS,
        spends=settings.spend_retention_days,
        deliveries=settings.webhook_retention_days,
        audit=settings.audit_retention_days,
        proofs=settings.proof_retention_days,
    )


def guard(settings: Settings) -> Guard:
    """Return what says which addresses may be reached."""
    return Guard(settings.allow_private, own_ports={settings.port, settings.admin_port} - {0})


def path(text: str) -> Path | None:
    """Return the file that a setting names, None where it names none."""
    return Path(text).expanduser() if text else None
