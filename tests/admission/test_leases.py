"""Several ledgers on one budget: whatever comes in between, together they keep to it, and nothing of it is lost."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from tokenhub_core.admission import leases
from tokenhub_core.admission.budgets import Budget, Period, Unit
from tokenhub_core.admission.leases import LEASE, MARGIN, Claim, Key, Pot, Share, View
from tokenhub_core.admission.ledger import Ledger
from tokenhub_core.errors import TokenHubError
from tokenhub_core.ports import Outlay, Reservation, Short
from tokenhub_core.types import Attempt, Caller, Outcome, Record, Snapshot, Usage

BUDGET = Budget("b", "all", Period.TOTAL, Unit.TOKENS, 100)
KEY: Key = ("b", 0)
AT = 1_000_000
"""Microseconds: when all calls arrive."""


class Table:
    """The rows of one budget, as the database would have them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.past = 0
        self.shares: dict[str, Share] = {}

    @property
    def pot(self) -> Pot:
        return Pot(self.limit, self.past, tuple(self.shares.values()))

    @property
    def spent(self) -> int:
        return self.past + sum(one.spent for one in self.shares.values())

    def draw(self, process: str, claim: Claim, now: float) -> View:
        at = round(now * 1e6)
        share, view = leases.divide(self.pot, process, claim, now=at, until=at + round(LEASE * 1e6))
        self.shares[process] = share
        return view

    def charge(self, process: str, amount: int) -> None:
        row = self.shares.get(process, Share(process))
        self.shares[process] = structs.replace(row, spent=row.spent + amount)


@dataclass
class Process:
    """One process: its ledger, its clock, its calls, and records that are not stored yet."""

    name: str
    ledger: Ledger
    skew: float
    open: dict[str, tuple[Reservation, int]] = field(default_factory=dict)
    unstored: list[int] = field(default_factory=list)
    ends: float = 0.0
    adrift: int = 0
    """The most that it held or had not stored while its lease was over."""

    @property
    def under_way(self) -> int:
        return sum(most for _, most in self.open.values()) + sum(self.unstored)


def outlay(most: int, *, least: int | None = None) -> Outlay:
    likely = most if least is None else least
    return Outlay(0, 0, likely, most, capped=least is None)


def snapshot(name: str) -> Snapshot:
    return Snapshot(name, "POST", "/", (), b"", AT / 1e6, 0.0)


_WHICH = st.integers(0, 11)
"""Which of those that there are, counted round."""


class Machine(RuleBasedStateMachine):
    """Processes come, draw, spend, forget to renew, die and leave, in any order, with clocks of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.all: list[Process] = []
        self.started = 0
        self.gone = 0
        self.count = 0

    @initialize(limit=st.integers(0, 120))
    def opened(self, limit: int) -> None:
        self.table = Table(limit)
        for skew in (0.0, MARGIN / 2.1, -MARGIN / 2.1):
            self.begun(skew)

    def begun(self, skew: float = 0.0) -> Process:
        name = f"p{self.started}"
        self.started += 1
        one = Process(name, Ledger(process=name, monotonic=lambda: self.now), skew)
        one.ledger.install(structs.replace(BUDGET, limit=self.table.limit), UTC, at=AT)
        self.all.append(one)
        return one

    def draw(self, one: Process, *, heard: bool = True, waiting: bool = False) -> None:
        claims = one.ledger.waiting() if waiting else one.ledger.claims(AT, every=True)
        views = {key: self.table.draw(one.name, claim, self.now + one.skew) for key, claim in claims.items()}
        if heard:
            one.ends = self.now + LEASE - MARGIN
            one.ledger.drawn(views, ends=one.ends)

    @precondition(lambda self: len(self.all) < 4)
    @rule(skew=st.floats(-MARGIN / 2.1, MARGIN / 2.1))
    def start(self, skew: float) -> None:
        self.begun(skew)

    @precondition(lambda self: self.all)
    @rule(which=_WHICH, heard=st.sampled_from([True, True, True, False]))
    def look(self, which: int, heard: bool) -> None:
        """Renew; where the answer is not heard the row has changed and the ledger has not."""
        one = self.all[which % len(self.all)]
        self.draw(one, heard=heard)
        if one.ledger.give_back():
            self.draw(one)

    @precondition(lambda self: self.all)
    @rule(which=_WHICH, most=st.integers(1, 60), times=st.integers(0, 2))
    def call(self, which: int, most: int, times: int) -> None:
        """Ask for a call, and where it is short draw for it so many times."""
        one = self.all[which % len(self.all)]
        self.count += 1
        name = f"c{self.count}"
        for turn in range(times + 1):
            try:
                one.open[name] = one.ledger.reserve(snapshot(name), 0, lambda: outlay(most)), most
                return
            except Short as short:
                if turn < times:
                    one.ledger.want(short, 1)
                    self.draw(one, waiting=True)
                    one.ledger.want(short, -1)
            except TokenHubError:
                return

    @precondition(lambda self: any(one.open for one in self.all))
    @rule(which=_WHICH, share=st.floats(0, 1), store=st.booleans())
    def end(self, which: int, share: float, store: bool) -> None:
        """Let a call end with a part of what it may use; its record is stored, or under way."""
        open_ = [(one, name) for one in self.all for name in one.open]
        one, name = open_[which % len(open_)]
        reservation, most = one.open.pop(name)
        used = int(most * share)
        one.ledger.settle(reservation, 0, Usage(used))
        attempts = (Attempt(1, "m", "p", 0, 1, usage=Usage(used)),)
        record = Record(name, AT / 1e6, Outcome.OK, 200, Caller(), "POST", "/", attempts=attempts)
        one.unstored += [charge.amount for charge in one.ledger.book(record)]
        if store:
            self.stored(one)

    @precondition(lambda self: any(one.unstored for one in self.all))
    @rule()
    def store(self) -> None:
        for one in self.all:
            self.stored(one)

    def stored(self, one: Process) -> None:
        for amount in one.unstored:
            self.table.charge(one.name, amount)
        one.unstored.clear()

    @precondition(lambda self: self.all)
    @rule(which=_WHICH, kill=st.booleans())
    def die(self, which: int, kill: bool) -> None:
        """Die where it stands, or leave: then what is under way is over and its share is there at once."""
        one = self.all.pop(which % len(self.all))
        if not kill and not one.open:
            self.stored(one)
            if one.name in self.table.shares:
                self.table.shares[one.name] = structs.replace(self.table.shares[one.name], until=0, wanted=0)
        self.gone += one.adrift

    @rule(seconds=st.sampled_from([0.5, MARGIN, LEASE - MARGIN, LEASE + MARGIN]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for one in self.all:
            if self.now >= one.ends:
                one.adrift = max(one.adrift, one.under_way)

    @rule()
    def forget(self) -> None:
        """Count those as past that are gone and whose leases are over."""
        alive = {one.name for one in self.all}
        for name in [name for name in self.table.shares if name not in alive]:
            if self.table.shares[name].until < round(self.now * 1e6):
                self.table.past += self.table.shares.pop(name).spent

    @invariant()
    def nobody_spends_more(self) -> None:
        """But for what was under way when its process had lost its lease: nobody could call that back."""
        if not hasattr(self, "table"):
            return
        under_way = sum(one.under_way for one in self.all)
        allowed = self.gone + sum(one.adrift for one in self.all)
        assert self.table.spent + under_way <= self.table.limit + allowed

    @invariant()
    def ledgers_count_like_the_table(self) -> None:
        for one in self.all:
            standing = one.ledger.standings(AT)["b"]
            assert standing.spent <= self.table.spent + one.under_way + sum(p.under_way for p in self.all)

    def teardown(self) -> None:
        """When all are gone and their leases over, the next one has all that was not spent."""
        if not hasattr(self, "table"):
            return
        self.all.clear()
        self.now += LEASE + MARGIN
        self.all.append(last := Process("last", Ledger(process="last", monotonic=lambda: self.now), 0.0))
        last.ledger.install(structs.replace(BUDGET, limit=self.table.limit), UTC, at=AT)
        self.draw(last)
        left = max(0, self.table.limit - self.table.spent)
        with suppress(TokenHubError):
            last.ledger.reserve(snapshot("more"), 0, lambda: outlay(left + 1))
            raise AssertionError(left)
        last.ledger.reserve(snapshot("last"), 0, lambda: outlay(left))


TestMachine = pytest.mark.timeout(300)(Machine.TestCase)
TestMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def two(limit: int = 100) -> tuple[Table, Process, Process]:
    """Return two processes, of which the first has drawn already."""
    machine = Machine()
    machine.table = Table(limit)
    first, second = machine.begun(), machine.begun()
    machine.draw(first)
    return machine.table, first, second


def short(one: Process, most: int) -> Short:
    with pytest.raises(Short) as refused:
        one.ledger.reserve(snapshot(f"s{most}"), 0, lambda: outlay(most))
    return refused.value


def drawing(table: Table, one: Process, now: float = 1_000.0) -> View:
    ((_, claim),) = one.ledger.claims(AT, every=True).items()
    view = table.draw(one.name, claim, now)
    one.ledger.drawn({KEY: view}, ends=now + LEASE - MARGIN)
    return view


def test_one_alone_has_everything() -> None:
    """And what it has not is not there: nobody is asked."""
    table, first, _ = two()
    assert table.shares["p0"].granted == 100
    first.ledger.reserve(snapshot("c"), 0, lambda: outlay(100))
    with pytest.raises(TokenHubError) as refused:
        first.ledger.reserve(snapshot("d"), 0, lambda: outlay(1))
    assert not isinstance(refused.value, Short)


def test_one_that_comes_later_gets_its_part_when_it_waits() -> None:
    """The first gives back what the second waits for, and keeps half of an even part of the rest at hand."""
    table, first, second = two()
    waiting = short(second, 10)
    second.ledger.want(waiting, 1)
    assert drawing(table, second).left == 0
    assert table.shares["p1"].wanted == 10
    assert drawing(table, first).wanted == 10
    assert first.ledger.give_back() == {KEY}
    drawing(table, first)
    second.ledger.want(waiting, -1)
    view = drawing(table, second)
    second.ledger.reserve(snapshot("c"), 0, lambda: outlay(10))
    assert (table.shares["p0"].granted, view.processes) == (25, 2)


def test_shares_shrink_towards_the_end() -> None:
    """Of little each keeps less at hand, of next to nothing nothing: then each call asks."""
    at_hand = []
    for limit in (1_000_000, 1_000, 10, 3):
        table, first, second = two(limit)
        for _ in range(3):
            for one in (second, first):
                drawing(table, one)
                if one.ledger.give_back():
                    drawing(table, one)
        at_hand.append([table.shares[name].granted for name in ("p0", "p1")])
    assert at_hand == [[250_000, 187_500], [250, 187], [2, 2], [0, 0]]


def test_of_two_that_wait_for_each_other_one_gets_it() -> None:
    """The one whose name comes first: else both would wait until both are refused."""
    view = View(0, left=0, processes=2, wanted=30, wanter="p1")

    def given(process: str, wanted: int) -> int:
        return leases.spare(view, 40, process=process, wanted=wanted)

    assert (given("p0", 50), given("p2", 50)) == (0, 30)
    # What nobody has drawn is there for it besides.
    less = structs.replace(view, left=10)
    assert [leases.spare(less, 40, process="p2", wanted=50)] == [20]
    # Whoever has what its calls wait for keeps that, and gives of the rest.
    assert (given("p0", 35), given("p2", 35), given("p2", 0)) == (5, 5, 30)


def test_a_share_is_not_used_when_its_lease_is_over() -> None:
    """Nor is it after the next draw, where others have taken it; what is free costs no share."""
    machine = Machine()
    machine.table = Table(100)
    first, second = machine.begun(), machine.begun()
    machine.draw(first)
    machine.now += LEASE - MARGIN
    assert short(first, 100).wants[0].amount == 100
    first.ledger.reserve(snapshot("free"), 0, lambda: outlay(0))
    machine.now += MARGIN
    machine.draw(second)
    second.ledger.reserve(snapshot("c"), 0, lambda: outlay(100))
    machine.draw(first)
    assert machine.table.shares["p0"].granted == 0


def test_without_a_cap_everything_is_asked_for_first() -> None:
    """Only what nobody has at hand any more may be too little, so budgets end at most one answer too late."""
    table, first, second = two()
    drawing(table, second)
    drawing(table, first)
    first.ledger.give_back()
    drawing(table, first)
    with pytest.raises(Short) as refused:
        first.ledger.reserve(snapshot("c"), 0, lambda: outlay(500, least=20))
    assert refused.value.wants[0].amount == 100
    first.ledger.want(refused.value, 1)
    drawing(table, first)
    first.ledger.reserve(snapshot("c"), 0, lambda: outlay(500, least=20))
    assert first.ledger.standings(AT)["b"].held == 100


def test_a_lower_limit_takes_what_is_at_hand() -> None:
    """Whoever has more at hand than there is gives it back with the next look."""
    table, first, second = two()
    drawing(table, second)
    drawing(table, first)
    first.ledger.give_back()
    drawing(table, first)
    drawing(table, second)
    table.limit = 20
    for one in (first, second):
        one.ledger.install(structs.replace(BUDGET, limit=20), UTC, at=AT)
        drawing(table, one)
        one.ledger.give_back()
        drawing(table, one)
    assert sum(one.granted for one in table.shares.values()) <= 20


@pytest.mark.parametrize(("wanted", "at_hand"), [(0, 25), (75, 25), (90, 10), (100, 0), (1_000, 0)])
def test_what_others_wait_for_is_left_to_them(wanted: int, at_hand: int) -> None:
    """Who draws keeps a part at hand of what nobody waits for, and hears of who does."""
    pot = Pot(100, 0, (Share("b", wanted=wanted, until=10), Share("c", wanted=7, until=5)))

    share, view = leases.divide(pot, "a", Claim(used=0, granted=0), now=5, until=15)

    assert (share, view.left) == (Share("a", granted=at_hand, idle=at_hand, until=15), 100 - at_hand)
    assert (view.processes, view.wanted, view.wanter) == (2, wanted, "b" if wanted else "")


@pytest.mark.parametrize(
    ("limit", "share"),
    [
        (100, Share("a", granted=100, idle=85, until=15)),
        (15, Share("a", granted=15, until=15)),
        (12, Share("a", granted=12, idle=2, wanted=3, until=15)),
        (4, Share("a", granted=4, wanted=11, until=15)),
    ],
)
def test_what_a_draw_brings_is_not_waited_for_any_more(limit: int, share: Share) -> None:
    """And what is lacking is; until it is all there, others may have what is at hand of it."""
    found, view = leases.divide(Pot(limit, 0), "a", Claim(used=10, granted=0, wanted=5), now=0, until=15)

    assert (found, view.granted, view.left, view.warned) == (share, share.granted, 0, 0)


def test_what_a_process_holds_is_its_own_while_its_lease_lasts() -> None:
    """Of a row whose lease is over only what was spent is; others' shares are told as held and as at hand."""
    mine = Share("a", spent=10, granted=40, idle=30, until=10)
    other = Share("b", spent=5, granted=20, idle=12, until=20)
    claim = Claim(used=10, granted=30)

    kept, view = leases.divide(Pot(100, 3, (mine, other)), "a", claim, now=9, until=19)
    assert (kept.spent, kept.granted, kept.idle, view.left) == (10, 30, 20, 47)
    assert (view.spent, view.held, view.idle, view.processes) == (8, 3, 12, 2)
    lost, seen = leases.divide(Pot(100, 3, (mine, other)), "a", claim, now=10, until=19)
    assert (lost.granted, lost.idle, seen.left) == (26, 16, 51)


def test_the_times_are_those_that_operators_are_told() -> None:
    """What was never spent is there ten seconds later; a process that hears nothing stops three before that."""
    assert (leases.LEASE, leases.LEASE - leases.MARGIN, leases.WAIT) == (10.0, 7.0, 2.0)
    assert leases.RENEW < (leases.LEASE - leases.MARGIN) / 2
    assert leases.PACE < leases.WAIT / 10


def test_a_budget_takes_part_in_draws_while_it_is_used_and_a_while_longer() -> None:
    """So that what nobody uses costs no statement; whoever is told of a change draws for that, too."""
    ledger, alone = Ledger(process="p", monotonic=lambda: 0.0), Ledger()
    for one in (ledger, alone):
        one.install(BUDGET, UTC, at=AT)
    assert [len(ledger.claims(AT)) for _ in range(22)] == [1] * 20 + [0] * 2
    assert ledger.claims(AT, also={KEY}) == ledger.claims(AT, every=True) == {KEY: Claim(0, 0)}
    assert ledger.claims(AT, also={("other", 0)}) == {}
    ledger.drawn({KEY: View(100)}, ends=1.0)
    ledger.reserve(snapshot("c"), 0, lambda: outlay(10))
    assert [len(ledger.claims(AT)) for _ in range(22)] == [1] * 22
    ledger.book(Record("c", AT / 1e6, Outcome.OK, 200, Caller(), "POST", "/", usage=Usage(4, 0)))
    assert [len(ledger.claims(AT)) for _ in range(22)] == [1] * 20 + [0] * 2
    assert alone.claims(AT, also={KEY}, every=True) == {}


def test_a_row_is_written_where_it_says_something_new() -> None:
    """What is spent comes from records, and what is at hand interests nobody where there is nobody else."""
    row = Share("a", spent=1, granted=10, idle=4, wanted=0, until=20)
    others = [Share("b", granted=7), row]
    assert leases.changed([], row, alone=True)
    assert leases.changed([Share("b")], row, alone=False)
    assert not leases.changed(others, row, alone=False)
    assert not leases.changed(others, structs.replace(row, spent=5), alone=False)
    for new in ({"granted": 11}, {"wanted": 1}, {"until": 21}):
        assert leases.changed(others, structs.replace(row, **new), alone=True)
    less = structs.replace(row, idle=3)
    assert leases.changed(others, less, alone=False)
    assert not leases.changed(others, less, alone=True)


def test_nothing_is_given_back_of_a_share_whose_lease_is_over() -> None:
    """In that moment others may have it already."""
    now = 0.5
    ledger = Ledger(process="p", monotonic=lambda: now)
    ledger.install(BUDGET, UTC, at=AT)
    ledger.drawn({KEY: View(100, left=-50, processes=2)}, ends=1.0)
    now = 1.0
    assert ledger.give_back() == set()
    now = 0.9
    assert ledger.give_back() == {KEY}


def test_a_call_that_is_short_makes_its_budget_take_part_again() -> None:
    """Whoever asks for more than is at hand is using it."""
    ledger = Ledger(process="p", monotonic=lambda: 0.0)
    ledger.install(BUDGET, UTC, at=AT)
    ledger.drawn({KEY: View(0, left=100)}, ends=1.0)
    while ledger.claims(AT):
        pass
    with pytest.raises(Short):
        ledger.reserve(snapshot("c"), 0, lambda: outlay(10))
    assert ledger.claims(AT).keys() == {KEY}
