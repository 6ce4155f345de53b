"""Whose idempotency key it is, which calls are the same, and what is kept of an answer."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import structs

from tokenhub_core.admission.idempotency import HEADER, LONGEST, Kept, Mark, Shelf, Tape, carried, mark
from tokenhub_core.errors import TokenHubError
from tokenhub_core.types import ApiKey, Caller, Dialect, Origin, Snapshot

PLAIN: Final = Snapshot(
    "req_1", "POST", "/v1/chat/completions", ((HEADER, "k"),), b"{}", 0.0, 0.0, caller=Caller(peer="1.2.3.4")
)


def marked(address: str = "1.2.3.4", **changes: Any) -> Mark:
    return mark(structs.replace(PLAIN, **changes), address)


def keyed(name: str) -> Caller:
    return Caller(peer="1.2.3.4", key=ApiKey(id=name))


# --- the key ------------------------------------------------------------------------------------------------


def test_a_call_carries_a_key_or_none() -> None:
    """By the field's name."""
    assert carried((("content-type", "a"), (HEADER, "k"), ("accept", "b")))
    assert carried(((HEADER, ""),))
    assert not carried(())
    assert not carried((("x-idempotency-key", "k"), ("content-type", "a")))


@pytest.mark.parametrize("key", ["k", "a b", "é", "~" * LONGEST, '"quoted"', "6f1e2f3a-0000"])
def test_a_printable_key_of_bounded_length_is_taken(key: str) -> None:
    """Whatever is in it."""
    assert marked(headers=((HEADER, key),)).id != marked(headers=((HEADER, key[:-1] + "!"),)).id


@pytest.mark.parametrize(
    "key", ["", "~" * (LONGEST + 1), "~" * (1 << 20), "a\x00b", "a\tb", "a\rb", "\x7f", "\udce9", "a\u2028b"]
)
def test_a_bad_key_is_refused(key: str) -> None:
    """Empty, too long, with control characters or bytes that are no text: 400 that says what it must be."""
    with pytest.raises(TokenHubError) as raised:
        marked(headers=((HEADER, key),))
    fault = raised.value.fault
    assert (fault.http_status, fault.cause) == (400, "idempotency_key")
    assert "1 to 255 printable characters" in fault.message


def test_two_keys_are_refused() -> None:
    """Nobody could say which one counts."""
    with pytest.raises(TokenHubError) as raised:
        marked(headers=((HEADER, "a"), (HEADER, "a")))
    assert (raised.value.fault.http_status, raised.value.fault.cause) == (400, "idempotency_key")


# --- the owner ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"caller": keyed("ann")}, {"caller": keyed("bob")}),
        ({"caller": keyed("ann")}, {}),
        ({"caller": keyed("1.2.3.4")}, {}),
        ({}, {"address": "1.2.3.5"}),
        ({}, {"caller": Caller(peer="1.2.3.4", proxy_user="ann")}),
        ({}, {"headers": ((HEADER, "k"), ("authorization", "Bearer sk-1"))}),
        (
            {"headers": ((HEADER, "k"), ("authorization", "Bearer sk-1"))},
            {"headers": ((HEADER, "k"), ("authorization", "Bearer sk-2"))},
        ),
        ({}, {"headers": ((HEADER, "k"), ("x-api-key", "sk-1"))}),
        ({}, {"headers": ((HEADER, "k"), ("api-key", "sk-1"))}),
        ({}, {"headers": ((HEADER, "k"), ("x-goog-api-key", "sk-1"))}),
    ],
)
def test_two_owners_never_meet(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Keys, addresses, users of the proxy and credentials of their own keep callers apart."""
    assert marked(**one).id != marked(**other).id


def test_an_owner_is_known_again() -> None:
    """A key from anywhere and with any other field; what people read is its id, or the address."""
    moved = structs.replace(keyed("ann"), peer="9.9.9.9", program="other")
    assert marked(caller=keyed("ann")) == marked("9.9.9.9", caller=moved)
    assert marked(caller=keyed("ann")).owner == "ann"
    assert marked("10.0.0.9").owner == "10.0.0.9"
    assert marked() == marked(headers=(("user-agent", "x"), (HEADER, "k")), id="req_2", received_at=5.0)


def test_what_is_divided_in_another_way_is_another_mark() -> None:
    """Parts of an owner and a key cannot be shifted into each other."""
    ann = Caller(peer="1.2.3.4", proxy_user="ann")
    annk = Caller(peer="1.2.3.4", proxy_user="annk")
    assert (
        marked(caller=ann, headers=((HEADER, "kk"),)).id != marked(caller=annk, headers=((HEADER, "k"),)).id
    )
    assert marked(caller=ann).id != marked(headers=((HEADER, "k"), ("x-api-key", "ann"))).id


# --- the call -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"body": b"{ }"},
        {"path": "/v1/chat/completions?a=1"},
        {"method": "PUT"},
        {"dialect": Dialect.OPENAI_RESPONSES},
        {"origin": Origin("https", "api.openai.com", 443)},
    ],
)
def test_another_call_is_told_by_its_digest(change: dict[str, Any]) -> None:
    """Body, path, method, dialect and host: the mark is the same, what was asked is not."""
    assert marked(**change).id == marked().id
    assert marked(**change).asked != marked().asked


# --- the tape -----------------------------------------------------------------------------------------------


def test_everybody_reads_from_the_beginning() -> None:
    """What is ready together comes together; nothing comes twice."""
    tape = Tape(100)
    first = tape.join()
    tape.add(b"ab")
    tape.add(b"c")
    assert (tape.read(first), tape.read(first)) == (b"abc", b"")
    second = tape.join()
    tape.add(b"d")
    assert (tape.read(first), tape.read(second)) == (b"d", b"abcd")
    assert (tape.all(), tape.whole, tape.full, tape.readers) == (b"abcd", True, False, 2)


def test_a_long_tape_lets_go_of_what_all_have_read() -> None:
    """From its bound on: the writer waits for the slowest reader, and for nobody once that one leaves."""
    tape = Tape(3)
    quick, slow = tape.join(), tape.join()
    tape.add(b"abc")
    assert (tape.whole, tape.full) == (True, False)
    assert tape.read(quick) == b"abc"
    tape.add(b"d")
    assert (tape.whole, tape.full, tape.read(quick)) == (False, True, b"d")
    assert tape.full
    tape.leave(slow)
    tape.leave(slow)
    assert (tape.full, tape.readers) == (False, 1)
    tape.add(b"efgh")
    assert (tape.full, tape.read(quick), tape.full) == (True, b"efgh", False)
    tape.leave(quick)
    tape.add(b"x" * 100)
    assert not tape.full


class Tapes(RuleBasedStateMachine):
    """Whatever is written, joined, read and left in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.tape = Tape(20)
        self.written = b""
        self.read: dict[int, bytes] = {}
        self.largest = 0

    @precondition(lambda self: not self.tape.full)
    @rule(piece=st.binary(min_size=1, max_size=8))
    def add(self, piece: bytes) -> None:
        self.tape.add(piece)
        self.written += piece

    @precondition(lambda self: self.tape.whole)
    @rule()
    def join(self) -> None:
        self.read[self.tape.join()] = b""

    @precondition(lambda self: self.read)
    @rule(which=st.integers(0, 10))
    def reads(self, which: int) -> None:
        reader = [*self.read][which % len(self.read)]
        self.read[reader] += self.tape.read(reader)
        assert self.read[reader] == self.written

    @precondition(lambda self: self.read)
    @rule(which=st.integers(0, 10))
    def leaves(self, which: int) -> None:
        reader = [*self.read][which % len(self.read)]
        del self.read[reader]
        self.tape.leave(reader)

    @invariant()
    def memory_is_bounded(self) -> None:
        assert self.tape._held == sum(map(len, self.tape._pieces)) <= 20 + 8

    @invariant()
    def who_read_all_holds_nobody_up(self) -> None:
        if all(read == self.written for read in self.read.values()):
            assert not self.tape.full


TestTapes = Tapes.TestCase


# --- the shelf ----------------------------------------------------------------------------------------------


def kept(name: str, size: int = 0) -> Kept:
    return Kept(name, b"", 200, (("a", "b"),), bytes(size))


def test_an_answer_is_kept_until_its_time() -> None:
    """And not a moment longer."""
    shelf = Shelf(1 << 20)
    shelf.put(b"1", kept("one"), until=10.0, now=0.0)
    assert shelf.get(b"1", 9.9) == kept("one")
    assert shelf.get(b"1", 10.0) is None
    assert shelf.get(b"2", 0.0) is None


def test_what_is_over_its_time_goes_with_the_next_answer() -> None:
    """Memory is not held for what nobody can get."""
    shelf = Shelf(1 << 20)
    shelf.put(b"1", kept("one"), until=10.0, now=0.0)
    shelf.put(b"2", kept("two"), until=30.0, now=10.0)
    assert len(shelf) == 1
    assert shelf.get(b"2", 20.0) is not None


def test_the_oldest_answers_make_room() -> None:
    """As many as have to; one that is larger than the shelf is not kept at all."""
    one = kept("one").size
    assert one == 1026
    shelf = Shelf(2 * one)
    for name in (b"1", b"2", b"3"):
        shelf.put(name, kept("x"), until=9.0, now=0.0)
    assert [shelf.get(name, 0.0) is not None for name in (b"1", b"2", b"3")] == [False, True, True]
    shelf.put(b"4", kept("x", one + 1), until=9.0, now=0.0)
    assert [shelf.get(name, 0.0) is not None for name in (b"2", b"3", b"4")] == [True, True, False]
    shelf.put(b"5", kept("x", one), until=9.0, now=0.0)
    assert len(shelf) == 1
    shelf.put(b"5", kept("x"), until=9.0, now=0.0)
    shelf.put(b"6", kept("x"), until=9.0, now=0.0)
    assert len(shelf) == 2


@given(sizes=st.lists(st.integers(0, 5000), max_size=30))
def test_the_shelf_never_holds_more_than_it_may(sizes: list[int]) -> None:
    """Whatever is put on it, under whatever name."""
    shelf = Shelf(8000)
    for number, size in enumerate(sizes):
        shelf.put(bytes([number % 7]), kept("x", size), until=9.0, now=0.0)
        assert shelf._held == sum(one.size for one, _ in shelf._kept.values()) <= 8000
