"""The chain of proofs in SQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, select

from tokenhub_core.audit import chain
from tokenhub_core.audit.chain import Report, Signer
from tokenhub_core.audit.entries import Action, Head
from tokenhub_core.errors import client_fault
from tokenhub_core.proof.entries import LABEL, Draft, Kind, Proof, linked
from tokenhub_core.store import audit
from tokenhub_core.store.database import Database
from tokenhub_core.store.rows import micros
from tokenhub_core.store.schema import PROOFS

PAGE_MAX: Final = 1000
"""The longest page."""
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, newest first. `next` goes into `before` for the page after this one; None at the end."""

    items: tuple[Proof, ...]
    next: int | None


def head(connection: Connection) -> Head:
    """Return where the chain ends."""
    found = connection.execute(
        select(PROOFS.c.seq, PROOFS.c.hash).order_by(PROOFS.c.seq.desc()).limit(1)
    ).first()
    return Head(found.seq, bytes(found.hash)) if found else chain.START


def holds(connection: Connection, known: Head) -> bool:
    """Tell whether the chain still leads over a place that it was known to lead over."""
    if not known.seq:
        return True
    found = connection.execute(select(PROOFS.c.hash).where(PROOFS.c.seq == known.seq)).scalar()
    if found is None:
        return audit.after_trim(known, audit.trimmed(connection, Action.PROOF_TRIM, PROOFS))
    return bytes(found) == known.hash


def append(connection: Connection, drafts: Sequence[Draft], *, now: float, signer: Signer | None) -> None:
    """Add entries at the end of the chain. The write lock keeps others out meanwhile."""
    at, rows = head(connection), []
    for draft in drafts:
        proof = linked(draft, at=micros(now), head=at, signer=signer)
        rows.append({name: getattr(proof, name) for name in proof.__struct_fields__})
        at = Head(proof.seq, proof.hash)
    if rows:
        connection.execute(insert(PROOFS), rows)


def of_request(connection: Connection, request_id: str) -> list[Proof]:
    """Return what there is of one call, oldest first."""
    query = select(PROOFS).where(PROOFS.c.request_id == request_id).order_by(PROOFS.c.seq)
    return [_proof(row) for row in connection.execute(query)]


def received_of(connection: Connection, request_id: str) -> Proof | None:
    """Return the entry of what was received for a call."""
    found = of_request(connection, request_id)
    return next((proof for proof in found if proof.kind == Kind.RECEIVED), None)


class ProofLog:
    """Reads the chain. Reads take a connection of their own in the calling thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def database(self) -> Database:
        """Return the database that is read."""
        return self._database

    def page(self, *, limit: int = 100, before: int | None = None, verdict: str = "") -> Page:
        """Return at most `limit` (1 to 1,000) entries older than `before`, those of one verdict where it is named."""
        if not 1 <= limit <= PAGE_MAX:
            raise client_fault(f"limit must be between 1 and {PAGE_MAX}", param="limit")
        query = select(PROOFS).order_by(PROOFS.c.seq.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(PROOFS.c.seq < before)
        if verdict:
            query = query.where(PROOFS.c.verdict == verdict)
        with self._database.reading() as connection:
            found = [_proof(row) for row in connection.execute(query)]
        return Page(tuple(found[:limit]), found[limit - 1].seq if len(found) > limit else None)

    def head(self) -> Head:
        """Return where the chain ends."""
        with self._database.reading() as connection:
            return head(connection)

    def of(self, request_id: str) -> list[Proof]:
        """Return what there is of one call, oldest first."""
        with self._database.reading() as connection:
            return of_request(connection, request_id)

    def entries(self) -> Iterator[Proof]:
        """Yield every entry in order, from one consistent view."""
        with self._database.reading() as connection:
            yield from _all(connection)

    def verify(self, keys: Mapping[str, bytes], heads: tuple[Head, ...] = ()) -> Report:
        """Look at every entry; see `chain.Verifier`."""
        with self._database.reading() as connection:
            begins = audit.trimmed(connection, Action.PROOF_TRIM, PROOFS)
            verifier = chain.Verifier(keys, heads, label=LABEL, trimmed=begins)
            for proof in _all(connection):
                verifier.feed(proof)
        return verifier.report()


def _all(connection: Connection) -> Iterator[Proof]:
    query = select(PROOFS).order_by(PROOFS.c.seq).execution_options(yield_per=_BATCH)
    with connection.execute(query) as found:
        for row in found:
            yield _proof(row)


def _proof(row: Row[Any]) -> Proof:
    values = dict(row._mapping)
    mac = values["mac"]
    return Proof(
        **{
            **values,
            "previous": bytes(values["previous"]),
            "hash": bytes(values["hash"]),
            "mac": None if mac is None else bytes(mac),
        }
    )
