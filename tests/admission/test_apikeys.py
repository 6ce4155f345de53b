"""What a client's key is, how its secret is known again, and what may be said of a key."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core.admission import apikeys
from tokenhub_core.admission.apikeys import (
    DAY,
    Book,
    Kept,
    KeyBody,
    Known,
    Notice,
    changed,
    created,
    described,
    differences,
    due,
    known,
    minted,
    new_id,
    rotated,
    rotation_due,
    told,
)
from tokenhub_core.errors import Blame, Kind, TokenHubError
from tokenhub_core.types import ApiKey

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND
MOMENT = "expires_at must be a moment to come, in seconds since the epoch"
PEPPER = apikeys.pepper(b"salt")
SECRETS = [minted(bytes([n]) * 32) for n in range(4)]
ONE, TWO, THREE, NEVER = SECRETS


def body(**fields: Any) -> KeyBody:
    """Return what the admin API makes of these fields."""
    return msgspec.json.decode(msgspec.json.encode(fields), type=KeyBody)


def kept(secret: str = ONE, key_id: str = "key_1", **fields: Any) -> Kept:
    made = known(secret, PEPPER, now=NOW)
    return created(body(**{"name": "nightly", **fields}), key_id, made, now=NOW)


def refusal(**fields: Any) -> tuple[str, str]:
    """Return the field that a creation is refused for, and the words."""
    with pytest.raises(TokenHubError) as refused:
        kept(**fields)
    fault = refused.value.fault
    assert (fault.kind, fault.blame) == (Kind.INVALID, Blame.CLIENT)
    return fault.param, fault.message


def cause(book: Book, secret: str, now: float = NOW / SECOND) -> str:
    """Return why a secret is refused."""
    return why(book.look_up, secret, now)


def why(look: Callable[[str, float], ApiKey], what: str, now: float = NOW / SECOND) -> str:
    """Return why nobody is found, by a secret or by an id."""
    with pytest.raises(TokenHubError) as refused:
        look(what, now)
    fault = refused.value.fault
    words = {"unknown": "is not known", "disabled": "is disabled", "expired": "has expired"}
    assert (fault.kind, fault.http_status) == (Kind.AUTH, 401)
    assert fault.message == f"this API key {words[fault.cause.removeprefix('key_')]}"
    return fault.cause


def holding(*several: Kept) -> Book:
    book = Book(PEPPER)
    book.follow(several, {one.key.id for one in several})
    return book


# --- secrets -------------------------------------------------------------------------------------------------


def test_a_secret_is_the_prefix_and_64_hex_digits() -> None:
    """Of exactly 32 bytes; fewer would be fewer to try."""
    assert minted(bytes(range(32))) == f"tokenhub_{bytes(range(32)).hex()}"
    assert re.fullmatch("tokenhub_[0-9a-f]{64}", ONE)
    for size in (0, 31, 33):
        with pytest.raises(ValueError, match=r"^a secret is made of 32 bytes$"):
            minted(bytes(size))


def test_an_id_is_of_bytes_of_its_own() -> None:
    """Nothing of a secret is in it."""
    assert new_id(b"\x01\xab") == "key_01ab"
    assert apikeys.ID_BYTES == 10


def test_what_is_kept_of_a_secret_is_its_digest_and_how_it_begins() -> None:
    """The digest is BLAKE2b under the pepper: without the pepper nobody makes it."""
    one = known(TWO, PEPPER, now=NOW)
    wanted = hashlib.blake2b(TWO.encode(), digest_size=32, key=PEPPER.key, person=b"apikey").digest()
    assert one == Known(wanted, "tokenhub_01010101", NOW, 0, PEPPER.id)
    assert apikeys.pepper(b"another").digest(TWO) != wanted
    assert (repr(one), repr(PEPPER)) == ("Known(tokenhub_01010101)", f"Pepper({PEPPER.id})")


def test_what_is_kept_cannot_be_changed_under_anybodys_hands() -> None:
    """What a look-up returns is shared by all calls."""
    for value in (PEPPER, kept(), kept().secrets[0], next(iter(holding(kept())._entries.values()))):
        with pytest.raises(AttributeError):
            setattr(value, value.__struct_fields__[0], b"")
    bare = Kept(ApiKey(id="x"), ())
    assert (bare.rotation_days, bare.updated_at, bare.last_used_at, bare.rotation_told, bare.expiry_told) == (
        0,
    ) * 5


def test_the_pepper_is_not_the_salt_and_serves_nothing_else() -> None:
    """One secret has one use: what the salt makes under another label is not what it makes here."""
    salt = bytes(range(32))
    pepper = apikeys.pepper(salt)
    assert pepper.key == hashlib.blake2b(digest_size=32, key=salt, person=b"apikeys pepper").digest()
    marks = [hashlib.blake2b(digest_size=32, key=salt, person=p).digest() for p in (b"", b"turns", b"apikey")]
    assert pepper.key not in [salt, *marks]
    assert pepper == apikeys.pepper(salt)
    assert len(bytes.fromhex(pepper.id)) == 4
    assert pepper.id not in pepper.key.hex()
    assert pepper.id != apikeys.pepper(b"another").id


# --- the book ------------------------------------------------------------------------------------------------


def test_a_key_is_found_by_its_secret_and_by_nothing_else() -> None:
    """Not by another's, not by a part of it, not by more than it, not by its digest or its id."""
    one, two = kept(ONE, "key_1"), kept(TWO, "key_2")
    book = holding(one, two)
    assert book.look_up(ONE, 0.0) == one.key
    assert book.look_up(TWO, 0.0) == two.key
    for wrong in (
        *("", " ", NEVER, ONE[:-1], ONE + "0", ONE + " ", " " + ONE, ONE.upper(), ONE[9:], ONE + "\0"),
        *(
            "tokenhub_",
            one.key.id,
            one.key.prefix,
            one.secrets[0].digest.hex(),
            "sk-ant-api03-x",
            "\udcff" * 80,
        ),
    ):
        assert cause(book, wrong) == "key_unknown"


@given(
    st.text(max_size=200) | st.text("0123456789abcdef", min_size=64, max_size=64).map("tokenhub_{}".format)
)
def test_no_text_breaks_the_look_up(text: str) -> None:
    """Whatever a client sends in a header is a key that is not known."""
    assert cause(holding(kept(NEVER)), text if text != NEVER else "") == "key_unknown"


@pytest.mark.parametrize(
    "shown", [ONE, NEVER, "", "x", "x" * 73, "tokenhub_" + "z" * 64, "\udcff", "y" * 1_000_000]
)
def test_every_look_up_is_one_hash_of_bounded_length_and_one_comparison(shown: str) -> None:
    """Known, unknown or no key at all: nobody finds out by time, and nobody buys work with length."""
    book = holding(kept(ONE))
    with (
        mock.patch.object(apikeys, "blake2b", side_effect=hashlib.blake2b) as hashed,
        mock.patch.object(apikeys, "compare_digest", side_effect=hmac.compare_digest) as compared,
    ):
        if shown == ONE:
            book.look_up(shown, 0.0)
        else:
            assert cause(book, shown) == "key_unknown"
    assert hashed.call_count == compared.call_count == 1
    assert len(hashed.call_args.args[0]) == min(len(shown), 74) * (3 if shown == "\udcff" else 1)
    assert [len(one) for one in compared.call_args.args] == [32, 32]


def test_what_lies_under_a_digest_must_have_it() -> None:
    """The table of entries alone lets nobody in: the digests are compared whole."""
    book = holding(kept(ONE))
    (entry,) = book._entries.values()
    book._entries = {PEPPER.digest(TWO): entry}
    assert cause(book, TWO) == "key_unknown"


def test_a_disabled_key_is_refused_and_says_so() -> None:
    """Also when it has expired besides."""
    book = holding(kept(enabled=False, expires_in="1s"))
    assert cause(book, ONE) == "key_disabled"
    assert cause(book, ONE, NOW / SECOND + 10) == "key_disabled"


def test_a_key_ends_in_the_moment_that_was_said() -> None:
    """Looked at with each call, so nothing has to run for it."""
    book = holding(kept(expires_in="60s"))
    assert book.look_up(ONE, NOW / SECOND + 59.999).id == "key_1"
    for late in (60.0, 60.001, 1e9):
        assert cause(book, ONE, NOW / SECOND + late) == "key_expired"
    assert holding(kept()).look_up(ONE, 1e12).id == "key_1"


def test_a_rotated_key_has_both_secrets_until_the_overlap_is_over() -> None:
    """They are one key: same id, same limits, whichever is shown."""
    later = NOW + 5 * SECOND
    found = rotated(kept(), known(TWO, PEPPER, now=later), now=later, overlap=100)
    book = holding(found)
    assert book.look_up(ONE, NOW / SECOND + 104.9) == book.look_up(TWO, NOW / SECOND) == found.key
    assert found.key.prefix == TWO[:17]
    assert cause(book, ONE, NOW / SECOND + 105) == "key_expired"
    assert book.look_up(TWO, NOW / SECOND + 1e9) == found.key


def test_the_earlier_end_counts() -> None:
    """A key's own end ends its secrets, and an overlap that is longer does not outlive it."""
    short = rotated(kept(expires_in="50s"), known(TWO, PEPPER, now=NOW), now=NOW, overlap=100)
    assert cause(holding(short), ONE, NOW / SECOND + 50) == "key_expired"
    assert cause(holding(short), TWO, NOW / SECOND + 50) == "key_expired"
    long = rotated(kept(expires_in="200s"), known(TWO, PEPPER, now=NOW), now=NOW, overlap=100)
    assert cause(holding(long), ONE, NOW / SECOND + 100) == "key_expired"
    assert holding(long).look_up(TWO, NOW / SECOND + 150).id == "key_1"


def test_a_key_is_found_by_its_id_as_it_is_now() -> None:
    """For whoever has shown it before: its rotation does not end that; its own end, and its removal, do."""
    book = holding(
        kept(ONE, "key_1", expires_in="60s"), kept(TWO, "key_2"), kept(THREE, "key_3", enabled=False)
    )
    assert (book.named("key_1", NOW / SECOND + 59.999), book.named("key_2", 1e12)) == (
        book.look_up(ONE, 0.0),
        book.look_up(TWO, 0.0),
    )
    assert why(book.named, "key_1", NOW / SECOND + 60) == "key_expired"
    assert why(book.named, "key_3") == "key_disabled"
    for nobody in ("", "key_4", ONE, "key_", "nightly"):
        assert why(book.named, nobody) == "key_unknown"
    turned = rotated(book.kept["key_2"], known(NEVER, PEPPER, now=NOW), now=NOW, overlap=0)
    book.put(turned)
    assert book.named("key_2", NOW / SECOND + 1e9) == turned.key
    book.drop("key_2")
    assert why(book.named, "key_2") == "key_unknown"


def test_the_book_follows_what_is_put_and_dropped() -> None:
    """A key that is put again is what it is now, with the secrets that it has now."""
    book = holding(kept(ONE, "key_1"), kept(THREE, "key_3"))
    book.put(kept(TWO, "key_1", name="renamed"))
    assert cause(book, ONE) == "key_unknown"
    assert (book.look_up(TWO, 0.0).name, set(book.kept)) == ("renamed", {"key_1", "key_3"})
    book.drop("key_1")
    book.drop("key_1")
    assert cause(book, TWO) == "key_unknown"
    assert book.look_up(THREE, 0.0).id == "key_3"
    assert set(book.kept) == {"key_3"}
    book.follow([kept(ONE, "key_9"), kept(TWO, "key_8")], {"key_3", "key_8", "key_9"})
    assert [book.look_up(one, 0.0).id for one in (THREE, ONE, TWO)] == ["key_3", "key_9", "key_8"]
    book.follow([kept(NEVER, "key_8")], {"key_8", "key_9"})
    assert [cause(book, one) for one in (THREE, TWO)] == ["key_unknown"] * 2
    assert [book.look_up(one, 0.0).id for one in (ONE, NEVER)] == ["key_9", "key_8"]


def test_keys_of_another_salt_are_counted() -> None:
    """One with a single secret of ours is good again."""
    other = apikeys.pepper(b"other")
    theirs = created(body(name="x"), "key_2", known(TWO, other, now=NOW), now=NOW)
    assert holding(kept(), theirs).strangers() == 1
    again = rotated(theirs, known(THREE, PEPPER, now=NOW), now=NOW, overlap=9)
    assert holding(kept(), again).strangers() == 0
    assert holding().strangers() == 0


# --- rotation and expiry -------------------------------------------------------------------------------------


def test_the_words_and_times_that_others_build_on() -> None:
    """Events and entries are named by these, and documented with these."""
    assert list(Notice) == ["rotation_due", "expiring"]
    assert (apikeys.OVERLAP, apikeys.LONGEST_OVERLAP) == (86_400, 90 * 86_400)


def test_no_overlap_ends_the_old_secret_at_once() -> None:
    """In the same moment."""
    found = rotated(kept(), known(TWO, PEPPER, now=NOW), now=NOW, overlap=0)
    assert cause(holding(found), ONE) == "key_expired"
    assert holding(found).look_up(TWO, NOW / SECOND).id == "key_1"


def test_rotating_again_lengthens_nothing_and_forgets_what_is_dead() -> None:
    """The end that an older secret has already stays, unless the new one is earlier."""
    first = rotated(kept(), known(TWO, PEPPER, now=NOW), now=NOW, overlap=100)
    again = NOW + 10 * SECOND
    second = rotated(first, known(THREE, PEPPER, now=again), now=again, overlap=500)
    assert [one.prefix for one in second.secrets] == [THREE[:17], TWO[:17], ONE[:17]]
    assert [one.expires_at for one in second.secrets] == [0, NOW + 510 * SECOND, NOW + 100 * SECOND]
    sooner = rotated(first, known(THREE, PEPPER, now=again), now=again, overlap=1)
    assert [one.expires_at for one in sooner.secrets] == [0, NOW + 11 * SECOND, NOW + 11 * SECOND]
    dead = NOW + 100 * SECOND
    third = rotated(second, known(NEVER, PEPPER, now=dead), now=dead, overlap=1)
    assert [one.prefix for one in third.secrets] == [NEVER[:17], THREE[:17], TWO[:17]]
    assert third.updated_at == dead


def test_rotation_moves_the_day_of_the_next_one() -> None:
    """A key that was rotated in time is never due; one without days never has one."""
    was = kept(rotation_days=30)
    day = NOW + 29 * DAY * SECOND
    now = rotated(was, known(TWO, PEPPER, now=day), now=day, overlap=DAY)
    assert now.key.rotate_at == day + 30 * DAY * SECOND
    assert rotated(kept(), known(TWO, PEPPER, now=day), now=day, overlap=1).key.rotate_at == 0
    # Counted from the newest secret, whenever the days are said.
    assert changed(now, body(rotation_days=1), now=day + 5).key.rotate_at == day + DAY * SECOND
    assert changed(now, body(rotation_days=0), now=day).key.rotate_at == 0
    assert changed(now, body(rotation_days=0), now=day).rotation_days == 0


def test_a_key_is_due_from_its_day_on_until_it_is_rotated() -> None:
    """It is told once; rotated, it will be told again in its time."""
    was = kept(rotation_days=10)
    day = was.key.rotate_at
    assert (rotation_due(was, now=day - 1), rotation_due(was, now=day), rotation_due(kept(), now=day)) == (
        False,
        True,
        False,
    )
    assert due(was, now=day - 1) == ()
    assert due(was, now=day) == (Notice.ROTATION,)
    noted = told(was, due(was, now=day))
    assert (noted.rotation_told, noted.expiry_told) == (day, 0)
    assert due(noted, now=day + DAY * SECOND) == ()
    assert rotation_due(noted, now=day)
    again = rotated(noted, known(TWO, PEPPER, now=day), now=day, overlap=0)
    assert due(again, now=day) == ()
    assert due(again, now=again.key.rotate_at) == (Notice.ROTATION,)


def test_an_end_is_told_of_a_week_before_or_after_nine_tenths_of_a_shorter_life() -> None:
    """Once, and again where it was moved."""
    long = kept(expires_in="365d")
    week = long.key.expires_at - 7 * DAY * SECOND
    assert (due(long, now=week - 1), due(long, now=week)) == ((), (Notice.EXPIRY,))
    short = kept(expires_in="10h")
    assert (due(short, now=NOW + 9 * 3600 * SECOND - 1), due(short, now=NOW + 9 * 3600 * SECOND)) == (
        (),
        (Notice.EXPIRY,),
    )
    noted = told(long, [Notice.EXPIRY])
    assert (noted.rotation_told, noted.expiry_told) == (0, long.key.expires_at)
    assert due(noted, now=week) == ()
    moved = changed(noted, body(expires_in="1d"), now=week)
    assert due(moved, now=week + 1) == (Notice.EXPIRY,)
    assert due(kept(), now=10 * week) == ()


def test_nothing_is_told_of_a_key_that_nobody_can_use() -> None:
    """Both at once are told of one that can be."""
    both = kept(rotation_days=1, expires_in="1d")
    assert due(both, now=NOW + DAY * SECOND) == (Notice.ROTATION, Notice.EXPIRY)
    off = changed(both, body(enabled=False), now=NOW)
    assert due(off, now=NOW + DAY * SECOND) == ()
    assert told(both, ()) is both


# --- what is told --------------------------------------------------------------------------------------------


def test_a_description_holds_no_secret_and_no_digest() -> None:
    """Older secrets are told by how they begin and when they end."""
    found = rotated(
        kept(
            limits={"concurrency": 2},
            trust={"roles": ["user", "system"], "names": ["tags", "mode"]},
            expires_in="9d",
        ),
        known(TWO, PEPPER, now=NOW),
        now=NOW,
        overlap=60,
    )
    assert described(found) == {
        "id": "key_1",
        "name": "nightly",
        "prefix": TWO[:17],
        "enabled": True,
        "scopes": ["chat", "plan"],
        "models": ["*"],
        "providers": ["*"],
        "hosts": ["*"],
        "project": "",
        "tags": [],
        "limits": {
            "requests_per_minute": None,
            "tokens_per_minute": None,
            "concurrency": 2,
            "max_output_tokens": None,
        },
        "trust": {
            "roles": ["system", "user"],
            "names": ["mode", "tags"],
            "signed": False,
            "max_budget_usd": None,
            "max_latency_ms": None,
            "max_steps": None,
        },
        "privacy": {"capture": None, "retention_days": None},
        "expires_at": NOW / SECOND + 9 * DAY,
        "rotation_days": 0,
        "rotate_at": None,
        "previous": [{"prefix": ONE[:17], "expires_at": NOW / SECOND + 60}],
    }
    text = repr(described(found)) + repr(found)
    for one in found.secrets:
        assert one.digest.hex() not in text
        assert repr(one.digest) not in text
    assert ONE not in text
    assert described(kept())["trust"] == {
        "roles": None,
        "names": None,
        "signed": False,
        "max_budget_usd": None,
        "max_latency_ms": None,
        "max_steps": None,
    }


def test_a_difference_is_what_is_different() -> None:
    """On both sides, and nothing besides."""
    was = kept()
    assert differences(was, changed(was, body(name="other", tags=["x"]), now=NOW)) == (
        {"name": "nightly", "tags": []},
        {"name": "other", "tags": ["x"]},
    )
    assert differences(was, was) == ({}, {})
