"""Who comes in: only who may, and nobody where that cannot be told."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.fakes.keys import ANN, EXPIRED, OTHER, SECRET, WRONG, Book, limited
from tokenhub_core.admission.doorkeeper import (
    KEYLESS,
    Doorkeeper,
    Entry,
    NoKeys,
    allow,
    called,
    let_pass,
    loopback,
    matches,
    scope_of,
)
from tokenhub_core.admission.identity import Found
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.types import ApiKey, Dialect, Scope

NOBODY = Found((), "/v1")


def fault_of(asked: Any, /, *args: Any, **more: Any) -> Fault:
    with pytest.raises(TokenHubError) as caught:
        asked(*args, **more)
    return caught.value.fault


@pytest.mark.parametrize(
    ("anonymous", "near", "enters"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_without_a_key_only_this_machine_comes_in_and_only_while_it_may(
    anonymous: bool, near: bool, enters: bool
) -> None:
    """Both have to be so; asked of a request, and of a connection that is opened."""
    keeper = Doorkeeper(Book(), anonymous=anonymous)
    assert keeper.asks(near=near) is not enters
    if enters:
        assert keeper.admit(NOBODY, near=near, now=1) == Entry((), "/v1")
        assert keeper.enter("", near=near, now=1) is None
    else:
        assert fault_of(keeper.admit, NOBODY, near=near, now=1).label == "key_required"
        assert fault_of(keeper.enter, "", near=near, now=1).http_status == 401


def test_a_key_lets_in_from_anywhere_and_says_who() -> None:
    """Its owner is known by it, and by the proxy's where that is another one."""
    keeper = Doorkeeper(Book(), anonymous=False)
    assert keeper.enter(SECRET, near=False, now=1) == ANN
    entry = keeper.admit(Found((), "/v1", SECRET), near=False, now=1)
    assert (entry.key, entry.user) == (ANN, "")
    assert keeper.admit(Found((), "/v1", SECRET, SECRET), near=False, now=1).user == "ann"
    entry = keeper.admit(Found((), "/v1", SECRET, OTHER), near=False, now=1)
    assert (entry.key, entry.user) == (ANN, "k-bob")
    assert "k-ann" in repr(entry)
    assert "anonymous" in repr(Entry((), ""))
    assert called(None) == ""


@pytest.mark.parametrize("wrong", [WRONG, EXPIRED])
@pytest.mark.parametrize("near", [True, False])
def test_a_wrong_key_never_makes_its_caller_anonymous(wrong: str, near: bool) -> None:
    """Not even where nobody would need one: who shows a key wants to be known by it."""
    keeper = Doorkeeper(Book())
    for found in (Found((), "/v1", wrong), Found((), "/v1", wrong, wrong), Found((), "/v1", SECRET, wrong)):
        assert fault_of(keeper.admit, found, near=near, now=1).kind is Kind.AUTH
    assert fault_of(keeper.enter, wrong, near=near, now=1).kind is Kind.AUTH
    assert fault_of(KEYLESS.enter, SECRET, near=near, now=1).label == "key_unknown"


def test_where_there_are_no_keys_this_machine_comes_in_without_one() -> None:
    """And nobody else does."""
    assert KEYLESS.admit(NOBODY, near=True, now=1) == Entry((), "/v1")
    assert not KEYLESS.asks(near=True)
    assert fault_of(KEYLESS.admit, NOBODY, near=False, now=1).label == "key_required"


@pytest.mark.parametrize(
    "breaks",
    [
        RuntimeError("boom"),
        KeyError("x"),
        OSError("disk"),
        TimeoutError(),
        MemoryError(),
        TokenHubError(Fault(Kind.INTERNAL, Blame.US, "the store is down")),
        TokenHubError(Fault(Kind.OVERLOADED, Blame.US, "busy", status=200)),
    ],
)
def test_whatever_breaks_while_a_key_is_looked_up_lets_nobody_in(breaks: Exception) -> None:
    """A book that is out of order is a 503, and says nothing of why."""
    book = Book()
    book.breaks = breaks
    keeper = Doorkeeper(book)
    for near in (True, False):
        fault = fault_of(keeper.admit, Found((), "/v1", SECRET), near=near, now=1)
        assert (fault.http_status, fault.label) == (503, "keys_unavailable")
        assert str(breaks) not in fault.message or not str(breaks)
        assert fault_of(keeper.enter, SECRET, near=near, now=1).http_status == 503


@pytest.mark.parametrize("found", [None, True, {}, "k-ann"])
def test_a_book_that_returns_no_key_lets_nobody_in(found: object) -> None:
    """What is no key is nobody, however truthy."""
    keeper = Doorkeeper(Book(**{SECRET: cast("ApiKey", found)}))
    assert fault_of(keeper.admit, Found((), "/v1", SECRET), near=True, now=1).http_status == 503


@pytest.mark.parametrize("scope", Scope)
def test_a_key_is_good_for_its_scopes_only(scope: Scope) -> None:
    """None of them follows from another one; without any, nothing is allowed."""
    allow(limited(scopes=frozenset({scope})), scope)
    allow(None, scope)
    for scopes in (frozenset[Scope](), frozenset(Scope) - {scope}):
        fault = fault_of(allow, limited(scopes=scopes), scope)
        assert (fault.http_status, fault.code, fault.label) == (
            403,
            "insufficient_scope",
            "insufficient_scope",
        )


@pytest.mark.parametrize("dialect", Dialect)
def test_vectors_are_a_scope_of_their_own(dialect: Dialect) -> None:
    """Everything else that is routed is a chat, counts of tokens among it."""
    wanted = Scope.EMBEDDINGS if dialect is Dialect.OPENAI_EMBEDDINGS else Scope.CHAT
    assert scope_of(dialect) is wanted


@pytest.mark.parametrize(
    ("hosts", "good"),
    [
        (("*",), True),
        (("api.openai.com",), True),
        (("*.openai.com",), True),
        ((), False),
        (("*.openai.co",), False),
    ],
)
def test_a_key_is_good_for_its_hosts_only(hosts: tuple[str, ...], good: bool) -> None:
    """Where a call was meant for none, there is nothing to ask."""
    key = limited(hosts=hosts)
    allow(key, Scope.CHAT)
    if good:
        allow(key, Scope.CHAT, host="api.openai.com")
    else:
        fault = fault_of(allow, key, Scope.CHAT, host="api.openai.com")
        assert (fault.http_status, fault.label) == (403, "host_not_allowed")


def test_what_passes_unread_needs_the_host_as_provider_any_model_and_a_credential() -> None:
    """Limits that nobody could hold there refuse; a key of ours opens nothing at somebody else's."""
    own = (("authorization", "Bearer sk-1"),)
    host = "api.openai.com"
    let_pass(Entry((), "/v1/files"), host, call=True)
    let_pass(Entry(own, "/v1/files", ANN), host, call=True)
    let_pass(Entry(own, "/v1/files", limited(models=(), providers=(f"origin:{host}",))), host)
    for entry, call, cause in (
        (Entry(own, "/v1/files", limited(providers=("openai",))), False, "provider_not_allowed"),
        (Entry(own, "/v1/chat", limited(models=("gpt-*",))), True, "model_not_allowed"),
        (Entry((), "/v1/files", ANN), False, "no_credential"),
    ):
        fault = fault_of(let_pass, entry, host, call=call)
        assert (fault.http_status, fault.label) == (403, cause)


def test_patterns_match_whole_names_and_case_counts() -> None:
    """As `fnmatch` has it; of no pattern nothing is one."""
    assert matches(("gpt-4o*", "x"), "gpt-4o-mini")
    assert not matches(("gpt-4o",), "gpt-4o-mini")
    assert not matches(("GPT-*",), "gpt-4o")
    assert not matches((), "gpt-4o")
    assert matches(("*",), "")


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::1%lo", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_loopback_is_this_machines_own_address(address: str, near: bool) -> None:
    """In every form it is written in; of names only `localhost` is one."""
    assert loopback(address) is near


def test_where_there_are_no_keys_none_is_known() -> None:
    """Neither by its secret nor by its id, whatever is shown."""
    for asked in (NoKeys().look_up, NoKeys().named):
        fault = fault_of(asked, "ann", 1.0)
        assert (fault.http_status, fault.label) == (401, "key_unknown")
        assert fault.message == "this API key is not known"


def test_who_has_shown_a_key_before_is_looked_up_by_its_id() -> None:
    """For each request of a connection: a key that has ended meanwhile lets nobody in."""
    book = Book()
    keeper = Doorkeeper(book, anonymous=True)
    assert keeper.again(ANN.id, 1.0) == ANN
    del book.keys[SECRET]
    assert fault_of(keeper.again, ANN.id, 2.0).http_status == 401
