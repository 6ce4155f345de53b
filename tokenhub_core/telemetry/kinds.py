"""Every kind of event, and what it says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

KINDS: Final[Mapping[str, str]] = {
    "route_success": "A call was answered.",
    "route_error": "A call failed; `error_class` and `error_msg` say how.",
    "failover": "An attempt of a call failed and another one was made; told beside the call's own event.",
    "escalation": "A call that was too long for a model went to one with more room; told beside its own event.",
    "health_change": "A provider is healthy, degraded or down, and was not before.",
    "credential_parked": "A provider's credential is out of use until a time that is named.",
    "credential_unparked": "It is in use again.",
    "credential_leak": "A client's key was sent, or would have been, to a host that it is not for.",
    "budget_threshold": "A budget has reached one of its thresholds, for the first time in its period.",
    "apikey_expiring": "A client's key is about to expire.",
    "apikey_rotation_due": "A client's key should be rotated.",
    "apikey_change": "A client's key was made, changed, rotated or revoked.",
    "access_change": "Who may use the admin API was changed, or a login was locked.",
    "config_change": "What is configured was changed: providers, models, aliases, modes, routing, budgets, hosts.",
    "vault_change": "The vault, or a secret in it, was changed, opened, locked, or found to be damaged.",
    "audit": "The audit log has a new entry: this is it.",
    "proof_changed": "A caller was given something else than the provider sent.",
    "ca_expiring": "The root of the CA ends soon.",
    "limits_shared": "Limits on callers are counted together with other processes again, or not any more.",
    "circuit_change": "The database or Temporal (`name`) has failed and is only looked for, or is there again.",
    "loop_blocked": "The event loop stood still: all calls waited for so long.",
    "reloaded": "Settings were read anew; `changes` says which, and which of them hold from the next start on.",
    "reload_refused": "Settings were to be read anew and cannot be used: everything is as it was.",
    "rows_deleted": "Rows whose time was over were deleted: how many of which table.",
    "webhook_dead": "A webhook was not told of an event, and is not going to be.",
    "webhook_lost": "More events wait for a webhook than are kept: so many were left out.",
    "lost": "Events are missing here: `count` of them, or nobody knows how many after a restart.",
}
"""Kind → what has happened."""

UNTOLD: Final = frozenset({"lost", "webhook_dead", "webhook_lost"})
"""Of these no webhook is told: they are about those who listen."""

_NOUNS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("provider", "credential", "model", "alias", "mode", "routing", "budget", "webhook", "ca"),
        "config_change",
    ),
    **dict.fromkeys(("vault", "secret"), "vault_change"),
    **dict.fromkeys(("user", "token", "login"), "access_change"),
    "apikey": "apikey_change",
}
"""What an action of the audit log begins with → kind."""
_SEEN: Final = frozenset(
    {
        "provider.health",
        "credential.park",
        "credential.unpark",
        "budget.cross",
        "secret.read",
        "apikey.warn",
        "settings.reload",
    }
)
"""Entries that are no change, or have a kind of their own."""


def of_entry(action: str) -> str:
    """Return the kind beside `audit` that an entry of the audit log is of, empty where there is none."""
    return "" if action in _SEEN else _NOUNS.get(action.partition(".")[0], "")
