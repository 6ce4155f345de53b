"""Marks: one root, many uses, and nothing that is good for two of them."""

from __future__ import annotations

import hmac
import itertools

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import example, given
from hypothesis import strategies as st

from tokenhub_core.access.marks import Marks, Use

ROOT = bytes(range(32))


@given(st.text(st.characters(exclude_categories=())))
@example("half a character \udc80")
def test_no_two_uses_have_the_same_mark(value: str) -> None:
    """For any text, half characters too; and none is what the root itself would make of it."""
    marks = Marks(ROOT)
    found = [marks.of(use, value) for use in Use]
    assert len({*found}) == len(Use)
    assert {len(mark) for mark in found} == {32}
    assert hmac.digest(ROOT, value.encode(errors="surrogatepass"), "sha256") not in found


def test_marks_are_those_of_the_standards() -> None:
    """RFC 5869 for the key, RFC 2104 for the mark: another program can check them."""
    key = HKDF(SHA256(), 32, salt=None, info=b"tokenhub/access/admin token").derive(ROOT)
    assert Marks(ROOT).of(Use.TOKEN, "thadmin_00") == hmac.digest(key, b"thadmin_00", "sha256")


def test_labels_stay_as_they_are() -> None:
    """With another one every token, session and count of wrong passwords that is stored would be unknown."""
    assert {use.name: use.value for use in Use} == {
        "TOKEN": "admin token",
        "BOOTSTRAP": "bootstrap token",
        "SESSION": "admin session",
        "TICKET": "login link",
        "CSRF": "csrf",
        "ATTEMPT": "login attempt",
    }


def test_another_root_makes_other_marks() -> None:
    """Who has the database alone can make none."""
    for one, other in itertools.pairwise(Marks(bytes([number]) * 32) for number in range(3)):
        assert one.of(Use.SESSION, "x") != other.of(Use.SESSION, "x")


def test_marks_do_not_show_their_keys() -> None:
    """Not in a log, not in a traceback."""
    assert repr(Marks(ROOT)) == "Marks(…)"
