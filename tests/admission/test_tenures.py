"""What is open by a key: ended when the key is good no more, and not a moment earlier."""

from __future__ import annotations

import pytest

from tests.fakes.keys import ANN, EXPIRED, OTHER, SECRET, Book
from tokenhub_core.admission.tenures import KEY_ENDED, Tenures
from tokenhub_core.errors import Blame, Kind, client_fault
from tokenhub_core.ports import Secret


def test_what_is_open_ends_with_its_key() -> None:
    """All of it, once; what another key opened stays."""
    book, ended = Book(), list[str]()
    it = Tenures(book)
    for name, secret in (("a", SECRET), ("b", SECRET), ("c", OTHER)):
        it.hold(lambda name=name: ended.append(name), Secret(secret))  # type: ignore[misc] # a default
    it.look(1)
    assert ended == []
    del book.keys[SECRET]
    it.look(2)
    it.look(3)
    assert (ended, len(it)) == (["a", "b"], 1)


@pytest.mark.parametrize("gone", [SECRET, OTHER])
def test_what_two_keys_have_opened_ends_with_the_first_that_goes(gone: str) -> None:
    """The one of the connection, and the one of the request on it."""
    book, ended = Book(), list[int]()
    it = Tenures(book)
    it.hold(lambda: ended.append(1), Secret(SECRET), Secret(OTHER), Secret(""))
    del book.keys[gone]
    it.look(1)
    assert ended == [1]


def test_what_has_ended_by_itself_is_not_ended_again() -> None:
    """Whoever lets go is forgotten, and nothing is kept of its key; to let go twice does no harm."""
    book, ended = Book(), list[int]()
    it = Tenures(book)
    release = it.hold(lambda: ended.append(1), Secret(SECRET))
    it.hold(lambda: ended.append(2), Secret(SECRET))()
    assert len(it) == 1
    release()
    assert len(it) == 0
    release()
    assert len(it) == 0
    book.keys.clear()
    it.look(1)
    assert ended == []


def test_nobody_is_asked_for_where_there_is_no_key() -> None:
    """Who is anonymous has none that could end."""
    it = Tenures(Book())
    it.hold(lambda: None, Secret(""))()
    assert len(it) == 0


@pytest.mark.parametrize("breaks", [RuntimeError("boom"), client_fault("no", kind=Kind.INTERNAL)])
def test_while_nobody_can_tell_what_is_open_stays_open(breaks: Exception) -> None:
    """A store that fails does not cut everybody off; when it is well again, the look is made up for."""
    book, ended = Book(**{EXPIRED: ANN}), list[int]()
    it = Tenures(book)
    it.hold(lambda: ended.append(1), Secret(EXPIRED))
    book.breaks = breaks
    it.look(1)
    assert ended == []
    book.breaks = None
    it.look(2)
    assert ended == [1]


def test_one_that_cannot_be_ended_keeps_no_other_one_open() -> None:
    """Each is ended for itself."""

    def boom() -> None:
        raise RuntimeError("boom")

    book, ended = Book(), list[int]()
    it = Tenures(book)
    it.hold(boom, Secret(SECRET))
    it.hold(lambda: ended.append(1), Secret(SECRET))
    book.keys.clear()
    it.look(1)
    assert ended == [1]


def test_the_record_says_that_the_key_has_ended() -> None:
    """It is the caller's affair, and no failure of a provider."""
    assert (KEY_ENDED.kind, KEY_ENDED.blame, KEY_ENDED.cause) == (Kind.AUTH, Blame.CLIENT, "key_ended")
    assert KEY_ENDED.message == "the API key that it was opened with is good no more"
