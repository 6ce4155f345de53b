"""Webhooks as values: who is told of what, how it is signed, when it is tried again. Pure.

Signatures and payloads are those of Standard Webhooks (https://www.standardwebhooks.com, specification 1.0): the header
`webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over `{id}.{timestamp}.{body}`, keyed by what the secret says
in base64 behind `whsec_`. A receiver checks it, refuses timestamps that are minutes old, and leaves out ids that it
has had.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import orjson

from tokenhub_core.errors import client_fault
from tokenhub_core.telemetry.kinds import KINDS, UNTOLD

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 24
MOST_HOOKS: Final = 50
MOST_WAITING: Final = 10_000
"""Events that wait for one webhook; those behind them are left out, and counted."""
SCHEDULE: Final = (5.0, 30.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)
"""Seconds before each further try: about thirty hours in all."""
TRIES: Final = len(SCHEDULE) + 1
JITTER: Final = 0.2
LONGEST: Final = 36_000.0
CHOICE: Final = tuple(kind for kind in KINDS if kind not in UNTOLD)
"""Kinds that can be chosen."""


class Webhook(msgspec.Struct, frozen=True):
    """Who is told. Moments in seconds since the epoch."""

    id: str
    url: str
    kinds: tuple[str, ...]
    enabled: bool
    created_at: float
    updated_at: float


class Delivery(msgspec.Struct, frozen=True):
    """One event that is still to be told to one webhook, or was given up."""

    seq: int
    webhook_id: str
    event_id: str
    kind: str
    body: str
    made_at: float
    due_at: float | None
    """None where it was given up."""
    attempts: int
    cause: str


class Reply(msgspec.Struct, frozen=True):
    """What came of one try."""

    status: int = 0
    cause: str = ""
    """Where nothing was answered: a label."""
    retry_after: float | None = None

    @property
    def told(self) -> bool:
        """Tell whether the receiver has it."""
        return 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Tell whether the receiver wants no more."""
        return self.status == 410


def chosen(kinds: Sequence[str]) -> tuple[str, ...]:
    """Return these kinds, each once; raises `TokenHubError` (`INVALID`) where they cannot be chosen."""
    for kind in kinds:
        if kind not in CHOICE:
            raise client_fault(f"kinds: there is no kind {kind!r}", param="kinds")
    if not kinds:
        raise client_fault("kinds: give one at least", param="kinds")
    return tuple(dict.fromkeys(kinds))


def vault_name(hook_id: str) -> str:
    """Return the vault's name for a webhook's secret."""
    return f"webhook:{hook_id}"


def secret_of(drawn: bytes) -> str:
    """Return a secret as receivers are given it."""
    return PREFIX + base64.b64encode(drawn).decode()


def payload(kind: str, data: dict[str, Any], at: float) -> str:
    """Return the body that is sent, the same at each try."""
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return orjson.dumps({"type": kind, "timestamp": moment, "data": data}).decode()


def headers(secret: str, event_id: str, body: str, at: float) -> dict[str, str]:
    """Return the signed headers of one try at this moment."""
    stamp = str(int(at))
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": stamp,
        "webhook-signature": signature(secret, event_id, stamp, body),
    }


def signature(secret: str, event_id: str, stamp: str, body: str) -> str:
    """Return the value of `webhook-signature`."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    mac = hmac.new(key, f"{event_id}.{stamp}.{body}".encode(), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(mac).decode()}"


def pause(attempts: int, chance: float, retry_after: float | None = None) -> float | None:
    """Return the seconds before the next try after so many that failed, None where there is none.

    `chance` within 0 and 1 spreads it by a fifth in both directions; a receiver may ask for longer, up to ten hours.
    """
    if attempts >= TRIES:
        return None
    spread = SCHEDULE[attempts - 1] * (1 + JITTER * (2 * chance - 1))
    return min(max(spread, retry_after or 0.0), LONGEST * (1 + JITTER))
