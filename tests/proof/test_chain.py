"""Whoever lays hands on what is stored is found, and where."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from msgspec import structs
from sqlalchemy import select

from tests.patience import PROGRAM_PATIENCE
from tests.proof.shop import SIGNER, record, shop, snapshot
from tokenhub_core.audit import chain
from tokenhub_core.audit.chain import Report
from tokenhub_core.audit.entries import Head
from tokenhub_core.proof.entries import LABEL, Proof, received_in
from tokenhub_core.proof.prover import answering
from tokenhub_core.store.audit import AuditLog
from tokenhub_core.store.database import open_database
from tokenhub_core.store.driver import choose
from tokenhub_core.store.proofs import ProofLog
from tokenhub_core.store.schema import PROOFS, REQUEST_LOGS
from tokenhub_core.types import Attempt

KEYS = {SIGNER.key_id: SIGNER.key}


def edited(path: Path, *statements: str) -> None:
    raw = choose().module.connect(str(path))
    for statement in statements:
        raw.execute(statement)
    raw.commit()
    raw.close()


async def filled(path: Path, calls: int = 3) -> Head:
    """Make calls, two entries each; return the head."""
    async with shop(path) as it:
        for n in range(calls):
            await it.serve(f"req_{n}")
        return it.prover.head


def verified(path: Path, head: Head | None = None) -> Report:
    database = open_database(str(path))
    try:
        return ProofLog(database).verify(KEYS, (head,) if head else ())
    finally:
        database.close()


async def test_what_nobody_touched_is_whole(tmp_path: Path) -> None:
    """Two entries a call, each signed, and the head is the one in the file beside the database."""
    path = tmp_path / "t.sqlite"
    head = await filled(path)
    report = verified(path, head)
    assert (report.ok, report.entries, report.signed, report.covered) == (True, 6, 6, 6)
    assert (tmp_path / "t.sqlite.proof").read_text() == str(head) == str(report.head)


@pytest.mark.parametrize(
    ("statements", "what", "seq"),
    [
        (["UPDATE proofs SET verdict = 'partial' WHERE seq = 4"], "changed", 4),
        (["UPDATE proofs SET body = replace(body, '\"m\"', '\"o\"') WHERE seq = 3"], "changed", 3),
        (["UPDATE proofs SET at = at + 1 WHERE seq = 2"], "changed", 2),
        (["UPDATE proofs SET request_id = 'req_9' WHERE seq = 1"], "changed", 1),
        (["DELETE FROM proofs WHERE seq = 3"], "missing", 3),
        (["DELETE FROM proofs WHERE seq = 1"], "missing", 1),
        (["DELETE FROM proofs WHERE seq > 4"], "head", 6),
        (["DELETE FROM proofs"], "head", 6),
        (
            [
                "UPDATE proofs SET seq = 99 WHERE seq = 3",
                "UPDATE proofs SET seq = 3 WHERE seq = 5",
                "UPDATE proofs SET seq = 5 WHERE seq = 99",
            ],
            "link",
            3,
        ),
        (["UPDATE proofs SET mac = NULL WHERE seq = 2"], "mac", 2),
        (["UPDATE proofs SET mac = zeroblob(32) WHERE seq = 2"], "mac", 2),
    ],
)
async def test_every_change_is_found_where_it_was_made(
    tmp_path: Path, statements: list[str], what: str, seq: int
) -> None:
    """A row edited, deleted, swapped with another, without its signature, or the end cut off."""
    path = tmp_path / "t.sqlite"
    head = await filled(path)
    edited(path, *statements)
    first = verified(path, head).findings[0]
    assert (first.what, first.seq) == (what, seq)


async def test_who_computes_every_hash_anew_cannot_sign(tmp_path: Path) -> None:
    """The chain is whole then, and not signed by us; the head that is known elsewhere is another one, too."""
    path = tmp_path / "t.sqlite"
    head = await filled(path)
    database = open_database(str(path))
    proofs = list(ProofLog(database).entries())
    database.close()
    forged: list[Proof] = []
    thief = chain.Signer(SIGNER.key_id, bytes(32))
    for proof in proofs:
        previous = forged[-1].hash if forged else chain.GENESIS
        body = proof.body.replace('"changed"', '"same"').replace("req_", "rex_")
        row = Proof(
            proof.seq, proof.at, proof.request_id, proof.kind, proof.verdict, body, proof.key_id, previous
        )
        forged.append(chain.closed(row, thief, LABEL))
    raw = choose().module.connect(str(path))
    for one in forged:
        raw.execute(
            "UPDATE proofs SET body = ?, previous = ?, hash = ?, mac = ? WHERE seq = ?",
            (one.body, one.previous, one.hash, one.mac, one.seq),
        )
    raw.commit()
    raw.close()
    assert {finding.what for finding in verified(path, head).findings} == {"mac", "head"}


async def test_an_entry_of_the_audit_log_is_none_of_these(tmp_path: Path) -> None:
    """Both chains may be signed with one key: what they hash begins differently."""
    path = tmp_path / "t.sqlite"
    await filled(path, 1)
    database = open_database(str(path))
    (first, *_) = ProofLog(database).entries()
    database.close()
    assert first.hash == chain.hash_of(first, LABEL) != chain.hash_of(first, chain.AUDIT)


async def test_a_chain_that_was_cut_is_noticed_at_the_next_start(tmp_path: Path) -> None:
    """The audit log keeps what was known; the file beside the database goes on with what is there."""
    path = tmp_path / "t.sqlite"
    head = await filled(path)
    edited(path, "DELETE FROM proofs WHERE seq > 2")
    async with shop(path) as it:
        (entry,) = AuditLog(it.database).page(limit=10).items
        assert (entry.action, entry.before) == ("proof.broken", f'{{"head":"{head}"}}')
        assert it.prover.head.seq == 2
    async with shop(path) as it:
        assert len(AuditLog(it.database).page(limit=10).items) == 1


async def test_a_chain_that_was_cut_is_noticed_while_the_server_runs(tmp_path: Path) -> None:
    """At the next look."""
    path = tmp_path / "t.sqlite"
    async with shop(path) as it:
        await it.serve("req_1")
        edited(path, "DELETE FROM proofs WHERE seq = 2")
        assert await it.prover.remember()
        assert not await it.prover.remember()


# --- with the record ---------------------------------------------------------------------------------------


async def test_what_was_received_is_stored_with_the_record_or_not_at_all(tmp_path: Path) -> None:
    """A record that cannot be stored leaves no entry; one that is there already gets no second."""
    path = tmp_path / "t.sqlite"
    async with shop(path) as it:
        it.prover.begin(snapshot("req_1"))
        await it.received("req_1")
        await it.recorder.commit(record("req_1"))
        assert [proof.request_id for proof in it.log.entries()] == ["req_1"]
        edited(path, "CREATE TRIGGER no BEFORE INSERT ON proofs BEGIN SELECT raise(ABORT, 'no'); END")
        it.prover.begin(snapshot("req_2"))
        with pytest.raises(Exception, match="could not be recorded"):
            await it.received("req_2")
        with it.database.reading() as connection:
            assert [*connection.execute(select(REQUEST_LOGS.c.id)).scalars()] == ["req_1"]


async def test_it_is_stored_before_the_answer_ends(tmp_path: Path) -> None:
    """A call that a crash cut off has the first of its two entries, and what it was given is not known."""
    async with shop(tmp_path / "t.sqlite") as it:
        it.prover.begin(snapshot("req_1"))
        await it.received("req_1")
        (proof,) = it.log.of("req_1")
        assert (proof.kind, proof.verdict) == ("received", "")
        assert received_in(proof).calls[0].name == "f"


async def test_who_leaves_before_there_is_a_record_is_proved_all_the_same(tmp_path: Path) -> None:
    """Whichever end is the later one."""
    async with shop(tmp_path / "t.sqlite") as it:
        delivery = it.prover.begin(snapshot("req_1"))
        delivery.close()
        await it.received("req_1")
        await it.prover.close()
        assert [proof.kind for proof in it.log.of("req_1")] == ["received", "delivered"]
        assert [draft.verdict for draft in it.told] == ["partial"]


def line(n: int, first: float | None, cause: str = "") -> Attempt:
    return Attempt(n, "m", "p", 1.0, 2.0, first_byte_ms=first, cause=cause)


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([line(1, 1.5)], 1),
        ([line(1, None, "upstream_500"), line(2, 1.5)], 2),
        ([line(2, 1.5), line(1, 1.6, "hedge_lost")], 2),
        ([line(1, 1.5, "truncated")], 1),
        ([line(1, None, "upstream_500")], None),
        ([], None),
    ],
)
def test_the_answer_is_that_of_the_attempt_whose_content_came_first(
    lines: list[Attempt], wanted: int | None
) -> None:
    """Not of one that failed before it, nor of one that another came before."""
    assert answering(structs.replace(record("req_1"), attempts=tuple(lines))) == wanted


_PROGRAM = """
import asyncio, itertools, sys
from pathlib import Path
from tests.proof.shop import shop, snapshot

async def main():
    async with shop(Path(sys.argv[1])) as it:
        async def one(n):
            for m in itertools.count():
                name = f"req_{n}_{m}"
                delivery = it.prover.begin(snapshot(name))
                said = await it.received(name)
                print(name, flush=True)
                delivery.begin(200, (("content-type", "application/json"), ("x-request-id", name)))
                delivery.add(said)
                delivery.close()
        await asyncio.gather(*map(one, range(8)))

asyncio.run(main())
"""


async def test_a_killed_server_leaves_a_whole_chain_with_every_record(tmp_path: Path) -> None:
    """Each acknowledged call is in both tables, and each record has what was received for it."""
    path = tmp_path / "t.sqlite"
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROGRAM, str(path), stdout=asyncio.subprocess.PIPE, env={**os.environ}
    )
    assert program.stdout is not None
    async with asyncio.timeout(PROGRAM_PATIENCE):
        acknowledged = {(await program.stdout.readline()).decode().strip() for _ in range(100)}
        program.send_signal(signal.SIGKILL)
        acknowledged |= {line.decode().strip() async for line in program.stdout if line.endswith(b"\n")}
        await program.wait()
    database = open_database(str(path))
    with database.reading() as connection:
        records = set(connection.execute(select(REQUEST_LOGS.c.id)).scalars())
        received = [
            *connection.execute(select(PROOFS.c.request_id).where(PROOFS.c.kind == "received")).scalars()
        ]
    assert verified(path).ok
    database.close()
    assert acknowledged <= records == set(received)
    assert len(received) == len(records)
