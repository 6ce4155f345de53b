"""The values of the audit log. Pure.

An entry says what happened to the service, never what went through it. `before` and `after` are columns of what is
configured; a secret has no such column, so none can get here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from tokenhub_core.types import Json


class Action(StrEnum):
    """What was done: a closed vocabulary."""

    PROVIDER_CREATE = "provider.create"
    PROVIDER_CHANGE = "provider.change"
    PROVIDER_DELETE = "provider.delete"
    PROVIDER_HEALTH = "provider.health"
    """The server took a provider out of service, or back into it."""
    CREDENTIAL_CREATE = "credential.create"
    CREDENTIAL_CHANGE = "credential.change"
    CREDENTIAL_DELETE = "credential.delete"
    """Where one of a provider's credentials is kept; what it is, is a secret."""
    CREDENTIAL_PARK = "credential.park"
    CREDENTIAL_UNPARK = "credential.unpark"
    """The server, or an operator, took a credential out of use, or back into it."""
    MODEL_CREATE = "model.create"
    MODEL_CHANGE = "model.change"
    MODEL_DELETE = "model.delete"
    ALIAS_CREATE = "alias.create"
    ALIAS_CHANGE = "alias.change"
    ALIAS_DELETE = "alias.delete"
    MODE_CREATE = "mode.create"
    MODE_CHANGE = "mode.change"
    MODE_DELETE = "mode.delete"
    """What is done with the calls to a host, of a caller or for an alias."""
    ROUTING_CREATE = "routing.create"
    ROUTING_CHANGE = "routing.change"
    BUDGET_CREATE = "budget.create"
    BUDGET_CHANGE = "budget.change"
    BUDGET_DELETE = "budget.delete"
    BUDGET_CROSS = "budget.cross"
    """The server saw that a threshold of a budget was reached, for the first time in its period."""
    WEBHOOK_CREATE = "webhook.create"
    WEBHOOK_CHANGE = "webhook.change"
    WEBHOOK_DELETE = "webhook.delete"
    VAULT_CREATE = "vault.create"
    VAULT_UNLOCK = "vault.unlock"
    VAULT_LOCK = "vault.lock"
    VAULT_CHANGE = "vault.change"
    """A new password, a new root or a new format: `after` says which."""
    VAULT_TAMPERED = "vault.tampered"
    """What the vault's rows hold is not what was stored there."""
    SECRET_CREATE = "secret.create"  # noqa: S105 - no secret, a name for what was done to one
    SECRET_CHANGE = "secret.change"  # noqa: S105 - as above
    SECRET_DELETE = "secret.delete"  # noqa: S105 - as above
    SECRET_READ = "secret.read"  # noqa: S105 - as above
    APIKEY_CREATE = "apikey.create"
    APIKEY_UPDATE = "apikey.update"
    APIKEY_ROTATE = "apikey.rotate"
    APIKEY_REVOKE = "apikey.revoke"
    APIKEY_WARN = "apikey.warn"
    """The server told that a client's key should be rotated, or is about to expire."""
    USER_CREATE = "user.create"
    USER_CHANGE = "user.change"
    USER_DELETE = "user.delete"
    TOKEN_CREATE = "token.create"  # noqa: S105 - as above
    TOKEN_CHANGE = "token.change"  # noqa: S105 - as above
    TOKEN_DELETE = "token.delete"  # noqa: S105 - as above
    """A scoped token of the admin API."""
    WORKFLOW_CANCEL = "workflow.cancel"
    CA_ROTATE = "ca.rotate"
    CA_HOST_ADD = "ca.host.add"
    CA_HOST_REMOVE = "ca.host.remove"
    """What is intercepted, and with which root."""
    SETTINGS_RELOAD = "settings.reload"
    """Settings were read anew while the server runs; `after` says what was changed, secrets redacted."""
    LOGIN_LINK = "login.link"
    LOGIN_LOCK = "login.lock"
    """Too many passwords were wrong: the next one has to wait."""
    LOGIN_UNLOCK = "login.unlock"
    SESSION_OPEN = "session.open"
    SESSION_CLOSE = "session.close"
    ACCESS = "access"
    """Someone asked for what needs a credential and showed none, or came from another site."""
    REQUEST = "admin.request"
    """A request that was to change something and did not."""
    AUDIT_READ = "audit.export"
    LOG_EXPORT = "log.export"
    """The records of many calls left as a file; `after` says which."""
    AUDIT_BROKEN = "audit.broken"
    """The chain does not go on from where it was known to be."""
    AUDIT_TRIM = "audit.trim"
    PROOF_TRIM = "proof.trim"
    """The beginning of the chain was deleted because its time was over; `after` says up to which entry and hash."""
    PROOF_CHANGED = "proof.changed"
    """A caller was given something else than the provider sent."""
    PROOF_BROKEN = "proof.broken"
    """As `audit.broken`, of the chain of proofs."""


class Result(StrEnum):
    """How it ended."""

    DONE = "done"
    DENIED = "denied"
    """Whoever asked may not."""
    REFUSED = "refused"
    """It cannot be done like this."""
    FAILED = "failed"
    """It should have worked."""


class Cause(msgspec.Struct, frozen=True):
    """Who made something happen.

    `actor` is what was proven: `user:NAME`, `token:NAME`, `admin-token`, `session:ID` (one that this token opened),
    `cli:NAME` (on the database itself, the operating system's user), `system`, or `anonymous`. `source` is the address
    it came from, empty where there was none; `program` what the client says that it is.
    """

    actor: str
    source: str = ""
    program: str = ""
    request_id: str = ""


SYSTEM: Final = Cause("system")


class Draft(msgspec.Struct, frozen=True):
    """What happened, before it has a place in the chain."""

    action: Action
    subject: str = ""
    before: Json | None = None
    after: Json | None = None
    outcome: Result = Result.DONE
    reason: str = ""
    count: int = 1
    """How often, where several attempts became one entry."""


class Entry(msgspec.Struct, frozen=True):
    """One row. `at` is in microseconds since the epoch; `before` and `after` are JSON text."""

    seq: int
    at: int
    actor: str
    source: str
    program: str
    request_id: str
    action: str
    subject: str
    outcome: str
    reason: str
    count: int
    before: str | None
    after: str | None
    key_id: str
    """Which key signed it, empty where the vault was not open."""
    previous: bytes
    """The hash of the entry before this one."""
    hash: bytes = b""
    mac: bytes | None = None


class Head(msgspec.Struct, frozen=True):
    """The place and the hash of the last entry."""

    seq: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash.hex()}"
