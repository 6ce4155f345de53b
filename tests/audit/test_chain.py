"""The chain: what was written is what is read, or it is found."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tokenhub_core.audit import chain
from tokenhub_core.audit.chain import Report, Signer, Verifier
from tokenhub_core.audit.entries import Action, Cause, Draft, Entry, Head, Result

SIGNER = Signer("k1", bytes(range(32)))
KEYS = {"k1": SIGNER.key}
CAUSE = Cause("admin-token", "127.0.0.1", "curl", "req_1")
quick = settings(max_examples=60, deadline=None)
texts = st.text(max_size=30)


def draft(number: int = 0) -> Draft:
    return Draft(Action.MODEL_CHANGE, f"m{number}", {"weight": number}, {"weight": number + 1})


def made(count: int, signer: Signer | None = SIGNER) -> list[Entry]:
    """Return a chain of so many entries."""
    head, entries = chain.START, []
    for number in range(count):
        entries.append(chain.linked(draft(number), CAUSE, at=number, head=head, signer=signer))
        head = Head(entries[-1].seq, entries[-1].hash)
    return entries


def verified(entries: list[Entry], *heads: Head, keys: dict[str, bytes] | None = None) -> Report:
    verifier = Verifier(KEYS if keys is None else keys, heads)
    for entry in entries:
        verifier.feed(entry)
    return verifier.report()


def found(report: Report) -> list[tuple[int, str]]:
    return [(finding.seq, finding.what) for finding in report.findings]


def head_of(entries: list[Entry]) -> Head:
    return Head(entries[-1].seq, entries[-1].hash)


def rebuilt(entries: list[Entry]) -> list[Entry]:
    """Return the entries as someone who knows how, but has no key, would make a chain of them again."""
    head, again = chain.START, []
    for entry in entries:
        bare = structs.replace(entry, seq=head.seq + 1, previous=head.hash)
        again.append(structs.replace(bare, hash=chain.hash_of(bare)))
        head = head_of(again)
    return again


# --- what stands ------------------------------------------------------------------------------------------


def test_the_hash_is_of_everything_and_the_mac_is_of_the_hash() -> None:
    """Written out by hand: a labelled SHA-256 over a JSON array, and an HMAC over that."""
    entry = chain.linked(draft(3), CAUSE, at=7, head=Head(4, b"\x01" * 32), signer=SIGNER)
    content = [
        *(5, 7, "admin-token", "127.0.0.1", "curl", "req_1", "model.change", "m3", "done", "", 1),
        *('{"weight":3}', '{"weight":4}', "k1", "01" * 32),
    ]
    told = json.dumps(content, separators=(",", ":")).encode()

    assert entry.hash == sha256(b"tokenhub audit 1\n" + told).digest()
    assert entry.mac == hmac.digest(SIGNER.key, entry.hash, sha256)
    assert entry.previous == b"\x01" * 32


def test_a_chain_that_nobody_touched_is_whole() -> None:
    """Signed, unsigned, and empty; the report says what was checked."""
    entries = made(5)
    report = verified(entries, head_of(entries), Head(2, entries[1].hash))

    assert report == Report((), 5, 5, 0, 5, head_of(entries))
    assert report.ok
    assert verified(made(3, None)) == Report((), 3, 0, 0, 0, head_of(made(3, None)))
    assert verified([]) == Report((), 0, 0, 0, 0, chain.START)


def test_a_key_that_is_not_at_hand_is_told() -> None:
    """A locked vault checks no MAC, and says how many it did not check."""
    report = verified(made(4), keys={})

    assert (report.ok, report.signed, report.unchecked, report.covered) == (True, 0, 4, 0)


def test_what_is_covered_ends_with_the_last_signed_entry() -> None:
    """Entries behind it are held by the hash alone."""
    entries = made(2)
    entries.append(chain.linked(draft(), CAUSE, at=9, head=head_of(entries), signer=None))
    report = verified(entries)

    assert (report.ok, report.signed, report.covered, report.entries) == (True, 2, 2, 3)


# --- what was done to it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in Entry.__struct_fields__ if name not in {"seq", "mac"}])
def test_a_changed_value_is_found(name: str) -> None:
    """Each of them, at the entry where it stands."""
    entries = made(5)
    old = getattr(entries[2], name)
    entries[2] = structs.replace(
        entries[2], **{name: b"\x07" * 32 if isinstance(old, bytes) else _other(old)}
    )

    assert (3, "changed") in found(verified(entries))


def _other(value: Any) -> Any:
    return value + 1 if isinstance(value, int) else f"{value}!"


def test_a_changed_mac_is_found() -> None:
    """Another one, none where there was one, and one that belongs to no key."""
    entries = made(3)
    for mac in (b"\0" * 32, None):
        assert found(verified([entries[0], structs.replace(entries[1], mac=mac), entries[2]])) == [(2, "mac")]
    bare = made(1, None)
    assert found(verified([structs.replace(bare[0], mac=b"\0" * 32)])) == [(1, "mac")]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda e: [*e[:2], *e[3:]], [(3, "missing")]),
        (lambda e: e[2:], [(1, "missing")]),
        (lambda e: e[:3], [(5, "head")]),
        (lambda e: [], [(5, "head")]),
        (lambda e: [*e[:1], *e[3:]], [(2, "missing")]),
    ],
    ids=["middle", "front", "tail", "everything", "two"],
)
def test_a_removed_entry_is_found(
    change: Callable[[list[Entry]], list[Entry]], wanted: list[tuple[int, str]]
) -> None:
    """In the middle and in front by the numbers, at the end by a head that is known."""
    entries = made(5)

    assert found(verified(change(entries), head_of(entries))) == wanted


def test_how_many_are_gone_is_told() -> None:
    """One entry, or from which to which."""
    entries = made(5)

    assert verified([*entries[:2], *entries[3:]]).findings[0].text == "entry 3 is not there"
    assert verified([entries[0], *entries[3:]]).findings[0].text == "entries 2 to 3 are not there"


def test_a_tail_that_nobody_knows_of_is_not_missed() -> None:
    """Without a head from elsewhere a shorter chain is as good as a whole one: that is what the head is for."""
    assert verified(made(5)[:3]).ok


def test_reordered_entries_are_found() -> None:
    """With their numbers swapped, so that the order of numbers is right."""
    entries = made(5)
    entries[1], entries[2] = structs.replace(entries[2], seq=2), structs.replace(entries[1], seq=3)

    assert {what for _, what in found(verified(entries))} == {"changed", "link"}


def test_an_inserted_entry_is_found() -> None:
    """Well made, and every entry behind it numbered anew."""
    entries = made(4)
    extra = chain.linked(draft(9), CAUSE, at=1, head=head_of(entries[:2]), signer=None)
    later = [structs.replace(entry, seq=entry.seq + 1) for entry in entries[2:]]

    report = verified([*entries[:2], extra, *later])

    assert (4, "link") in found(report)
    assert (4, "changed") in found(report)


def test_a_chain_that_was_made_again_is_found_by_its_macs() -> None:
    """Every hash is right then; only who has the key could sign them."""
    entries = made(5)
    entries[1] = structs.replace(entries[1], actor="somebody else")
    again = rebuilt(entries)

    assert verified(again, keys={}).ok
    assert found(verified(again)) == [(2, "mac"), (3, "mac"), (4, "mac"), (5, "mac")]
    assert found(verified(again, head_of(made(5)), keys={})) == [(5, "head")]


def test_macs_that_were_taken_off_are_found_by_a_later_one() -> None:
    """Whoever makes entries unsigned breaks the MAC of the next signed one; behind the last, the head is what helps."""
    entries = made(5)
    bare = [structs.replace(entry, key_id="", mac=None) for entry in entries[:4]]
    again = rebuilt([*bare, entries[4]])

    assert found(verified(again)) == [(5, "mac")]
    everything = rebuilt([structs.replace(entry, key_id="", mac=None) for entry in entries])
    assert verified(everything).covered == 0
    assert found(verified(everything, head_of(entries))) == [(5, "head")]


@quick
@given(count=st.integers(1, 8), where=st.integers(0, 10_000), how=st.integers(0, 4))
def test_nothing_can_be_done_to_a_chain_whose_head_is_known(count: int, where: int, how: int) -> None:
    """Change, remove, double, swap, cut: found, whatever the place."""
    entries = made(count)
    known, at = head_of(entries), where % count
    match how:
        case 0:
            entries[at] = structs.replace(entries[at], reason="x")
        case 1:
            del entries[at]
        case 2:
            entries.insert(at, entries[at])
        case 3:
            entries[at : at + 2] = reversed(entries[at : at + 2])
        case _:
            del entries[at:]

    assert verified(entries, known).ok == (entries == made(count))


# --- what may stand in an entry ---------------------------------------------------------------------------


@quick
@given(actor=texts, subject=texts, reason=texts, value=texts)
def test_any_text_can_be_written_and_verified(actor: str, subject: str, reason: str, value: str) -> None:
    """Controls, halves of characters and all: what is stored is valid text, and its hash is of that."""
    told = Draft(
        Action.REQUEST, subject, after={"x": value.encode("utf-8", "replace").decode()}, reason=reason
    )
    entry = chain.linked(told, Cause(actor), at=1, head=chain.START, signer=None)

    assert verified([entry]).ok
    for text in (entry.actor, entry.subject, entry.reason):
        assert "\0" not in text.encode().decode()


def test_long_values_are_kept_by_their_digest() -> None:
    """Whoever has the value can prove what it was; nobody fills the disk with it."""
    value = {"x": "y" * 10_000}
    entry = chain.linked(
        Draft(Action.REQUEST, "s" * 1000, after=value), CAUSE, at=1, head=chain.START, signer=None
    )
    raw = json.dumps(value, separators=(",", ":")).encode()

    assert json.loads(entry.after or "") == {"sha256": sha256(raw).hexdigest(), "bytes": len(raw)}
    assert len(entry.subject) == 300
    fits = chain.linked(
        Draft(Action.REQUEST, after={"x": "y" * 3992}), CAUSE, at=1, head=chain.START, signer=None
    )
    assert json.loads(fits.after or "") == {"x": "y" * 3992}
    assert fits.before is None


def test_a_head_is_read_as_it_is_written() -> None:
    """And nothing else is taken for one."""
    head = Head(7, b"\x0a" * 32)
    assert chain.head_of(str(head)) == head
    assert chain.head_of(f"{head}\n") == head
    for text in ("", "7", "x:00", "7:zz", "0:" + "0a" * 32, "7:0a", "-1:" + "0a" * 32):
        with pytest.raises(ValueError, match=r".*"):
            chain.head_of(text)


def test_a_signer_does_not_show_its_key() -> None:
    """Only which one it is."""
    assert repr(SIGNER) == "Signer(k1)"


def test_the_vocabulary_is_closed() -> None:
    """Words of letters and dots; results are four."""
    assert all(action.replace(".", "").isalpha() for action in Action)
    assert set(Result) == {"done", "denied", "refused", "failed"}
