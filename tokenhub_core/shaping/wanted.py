"""The check that the answer to a call has to pass, made of the call and its policy. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tokenhub_core.admission.outlay import answers
from tokenhub_core.errors import client_fault
from tokenhub_core.shaping import schemas
from tokenhub_core.shaping.schemas import Schema
from tokenhub_core.shaping.shape import STRUCTURED, Check
from tokenhub_core.types import Need, Policy, Request


def check_of(
    request: Request,
    policy: Policy,
    own: Callable[[], Mapping[str, Any] | None],
    compiled: Callable[[bytes, str], Schema] = schemas.compiled,
) -> Check | None:
    """Return what the answer has to be, None where anything will do.

    `own` gives the schema that the call itself brings; `compiled` may remember light schemas. Raises `TokenHubError`
    where the schema is none.
    """
    if not request.dialect.translates:
        return None
    schema, param = policy.output_schema, "output_schema"
    if schema is None and policy.validate and Need.JSON_SCHEMA in request.features.needs:
        schema, param = own(), schemas.OWN[request.dialect]
    if schema is None and policy.output_format not in STRUCTURED:
        return None
    if answers(request.data) > 1:
        message = "of several answers none is checked: ask for one"
        raise client_fault(message, cause="several_answers", param="n")
    if schema is None:
        return Check(policy.output_format)
    raw = schemas.encoded(schema)
    compile_ = compiled if schemas.light(raw) else schemas.compiled
    return Check(policy.output_format, compile_(raw, param))
