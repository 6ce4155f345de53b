"""Logged calls as the request log gives them, from plans and attempts."""

from __future__ import annotations

from typing import Any

import orjson

from tokenhub_core.routing import decision
from tokenhub_core.store.rows import attempts_json, dumps
from tokenhub_core.types import Attempt, Json, Plan


def entry(plan: Plan | None, *attempts: Attempt, **changes: Any) -> Json:
    """Return a row of `RequestLog.decided`: JSON has been through the store."""
    stored = None if plan is None else decision.unpack(orjson.loads(dumps(decision.pack(plan))))
    return {
        "seq": 1,
        "id": plan.seed if plan else "",
        "at": 0,
        "peer": "127.0.0.1",
        "proxy_user": "",
        "program": "",
        "origin_host": "",
        "alias": "",
        "error_class": "",
        "attempts": orjson.loads(attempts_json(attempts)),
        "decision": stored,
        **changes,
    }
