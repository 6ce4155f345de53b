"""Login links as values: once, for ten minutes, and sixteen of them at most."""

from __future__ import annotations

from tokenhub_core.access.marks import Marks
from tokenhub_core.access.tickets import LIFETIME, Tickets
from tokenhub_core.access.values import Kind, Owner

ADA, BOB = Owner(Kind.USER, "ada"), Owner(Kind.TOKEN, "bob")


def issued(tickets: Tickets, number: int, now: float = 0.0, owner: Owner = ADA) -> str:
    return tickets.issue(owner, number.to_bytes(32), now)


def test_a_ticket_is_good_once_and_for_its_owner() -> None:
    """Whoever comes second has none, nor has who guesses; a line of a terminal has room for it."""
    tickets = Tickets(Marks(bytes(32)))
    one, other = issued(tickets, 1), issued(tickets, 2, owner=BOB)
    assert one == "thlogin_" + "A" * 42 + "E"
    assert (tickets.redeem(other, 1.0), tickets.redeem(one, 1.0)) == (BOB, ADA)
    assert tickets.redeem(one, 1.0) is None
    assert tickets.redeem("thlogin_", 1.0) is None


def test_a_ticket_is_good_for_ten_minutes() -> None:
    """To the moment; one that was shown too late is spent as well."""
    tickets = Tickets(Marks(bytes(32)))
    one, other = issued(tickets, 1, 5.0), issued(tickets, 2, 5.0)
    assert tickets.redeem(one, 604.9) == ADA
    assert tickets.redeem(other, 605.0) is None
    assert tickets.redeem(other, 5.0) is None
    assert LIFETIME == 600.0


def test_the_oldest_makes_room() -> None:
    """Whoever asks for many has the last sixteen."""
    tickets = Tickets(Marks(bytes(32)))
    several = [issued(tickets, number) for number in range(18)]
    assert [tickets.redeem(one, 1.0) is not None for one in several] == [False] * 2 + [True] * 16
