"""The admin API's part about proofs: what providers sent against what callers were given.

GET  /admin/v1/proofs              ?limit=&before=&verdict=
GET  /admin/v1/proofs/verify       ?head=SEQ:HASH   is every entry what was written?
GET  /admin/v1/proofs/{id}         what is proved of one call
POST /admin/v1/proofs/{id}/check   the body of an answer as its client kept it: is it the one that was given?
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from tokenhub_core.audit import chain
from tokenhub_core.audit.chain import Report
from tokenhub_core.audit.entries import Head
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.errors import ConfigError, Kind, client_fault
from tokenhub_core.http import shapes
from tokenhub_core.http.audit import report_json
from tokenhub_core.http.side import answer
from tokenhub_core.proof.canon import hashing
from tokenhub_core.proof.checking import Checked, Story, checked, story
from tokenhub_core.proof.entries import Delivered, Proof, Received, delivered_in
from tokenhub_core.proof.entries import Kind as About
from tokenhub_core.proof.prover import anchored
from tokenhub_core.proof.verdicts import Verdict
from tokenhub_core.store.anchor import beside
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.proofs import ProofLog
from tokenhub_core.types import Dialect, Json
from tokenhub_core.vault.keys import KeyHolder

PATH: Final = "/admin/v1/proofs"
MAX_TRANSCRIPT: Final = 64 << 20
"""Bytes."""


class ProofPages:
    """The handlers. `access.roles` says who may use each; the side server sees to that."""

    def __init__(
        self, log: ProofLog, keys: KeyHolder, requests: RequestLog, secret: Callable[[], bytes]
    ) -> None:
        self._log = log
        self._keys = keys
        self._requests = requests
        self._secret = secret

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(PATH, self._page),
            web.get(PATH + "/verify", self._verify),
            web.get(PATH + "/{id}", self._one),
            web.post(PATH + "/{id}/check", self._check),
        ]

    async def _page(self, request: web.Request) -> web.Response:
        limit, before = shapes.page(request)
        verdict = request.query.get("verdict", "")
        if verdict and verdict not in list(Verdict):
            raise client_fault(f"verdict must be one of {', '.join(Verdict)}", param="verdict")
        page = await asyncio.to_thread(self._log.page, limit=limit, before=before, verdict=verdict)
        head = await asyncio.to_thread(self._log.head)
        items = [shown(proof) for proof in page.items]
        return answer({"proofs": items, "next": page.next, "head": str(head)})

    async def _verify(self, request: web.Request) -> web.Response:
        heads = []
        if (given := request.query.get("head")) is not None:
            try:
                heads.append(chain.head_of(given))
            except ValueError:
                raise client_fault("head must be SEQ:HASH", param="head") from None
        report = await asyncio.to_thread(verified, self._log, self._keys.verifiers(), heads)
        return answer(report_json(report))

    async def _one(self, request: web.Request) -> web.Response:
        found = await asyncio.to_thread(told, self._log, request.match_info["id"])
        return answer(msgspec.to_builtins(found))

    async def _check(self, request: web.Request) -> web.Response:
        transcript = await shapes.raw(request, MAX_TRANSCRIPT)
        name = request.match_info["id"]
        found = await asyncio.to_thread(compared, self._log, self._requests, name, transcript, self._secret())
        return answer(msgspec.to_builtins(found))


def verified(log: ProofLog, keys: dict[str, bytes], heads: list[Head]) -> Report:
    """Look at every entry, and at where the chain is known to have been; raises `TokenHubError`."""
    try:
        known = anchored(beside(log.database.where, "proof"))
    except ConfigError as error:
        raise client_fault(str(error)) from None
    return log.verify(keys, (*heads, *([known] if known else [])))


def told(log: ProofLog, request_id: str) -> Story:
    """Return what is proved of one call; raises `TokenHubError` where nothing is, or its entries were damaged."""
    proofs = log.of(request_id)
    try:
        delivered = next((delivered_in(one) for one in proofs if one.kind == About.DELIVERED), None)
        other = delivered.answers if delivered and delivered.answers != request_id else ""
        earlier = next((one for one in log.of(other) if one.kind == About.RECEIVED), None) if other else None
        found = story(request_id, proofs, earlier)
    except ValueError:
        raise client_fault(
            "what is stored of this call was damaged: run tokenhub verify", kind=Kind.NOT_FOUND
        ) from None
    if found is None:
        raise client_fault("nothing is proved of this call", kind=Kind.NOT_FOUND, param="id")
    return found


def compared(
    log: ProofLog, requests: RequestLog, request_id: str, transcript: bytes, secret: bytes
) -> Checked:
    """Compare what a client kept of its answer with what is proved of the call; raises `TokenHubError`."""
    found = told(log, request_id)
    if found.delivered is not None:
        dialect = Dialect(found.delivered.dialect)
    else:
        # The record is as old as what was received: both are written at once.
        record = requests.get(request_id)
        if record is None:
            raise client_fault("there is no record of this call any more", kind=Kind.NOT_FOUND, param="id")
        dialect = Dialect(record["dialect"])
    return checked(found, transcript, hashing=hashing(secret), dialects=DIALECTS, dialect=dialect)


def shown(proof: Proof) -> Json:
    """Return an entry as the admin API shows it: everything that its hash is made of."""
    return {
        "seq": proof.seq,
        "at": proof.at / 1e6,
        "at_us": proof.at,
        "request_id": proof.request_id,
        "kind": proof.kind,
        "verdict": proof.verdict,
        "said": _said(proof),
        "key_id": proof.key_id,
        "previous": proof.previous.hex(),
        "hash": proof.hash.hex(),
        "mac": proof.mac.hex() if proof.mac else None,
    }


def _said(proof: Proof) -> Any:
    """Return what an entry says, None where it was damaged."""
    try:
        return msgspec.to_builtins(msgspec.json.decode(proof.body, type=Received | Delivered))
    except ValueError:
        return None
