"""What the supervisor of several workers does when."""

from __future__ import annotations

import msgspec
import pytest

from tokenhub_core.supervision import (
    LOOK,
    Action,
    End,
    Kill,
    Patience,
    Phase,
    Start,
    Stop,
    Supervision,
    Tell,
    Tend,
)

PATIENCE = Patience(start=60, leave=20, stable=10, first=0.5, most=4, failures=3, hung=None)


def doing(actions: list[Action]) -> list[Action]:
    """Return what is done, without what is only told."""
    return [one for one in actions if not isinstance(one, Tell)]


def serving(workers: int = 2, patience: Patience = PATIENCE) -> Supervision:
    """Return a supervision whose workers, 1 to `workers`, all serve since the moment 0."""
    it = Supervision(workers, patience)
    it.begin(0)
    for number in range(1, workers + 1):
        it.ready(number, 0)
    assert set(it.phases.values()) == {Phase.READY}
    return it


def test_the_first_worker_goes_alone_and_the_others_follow() -> None:
    """It makes what a first start makes; until the others serve it accepts for them."""
    it = Supervision(3, PATIENCE)

    assert it.begin(0) == [Start(0, 1, alone=True)]
    assert it.ready(1, 5) == [Tend((1, 2)), Start(1, 2, alone=False), Start(2, 3, alone=False)]
    assert it.ready(3, 6) == [Tend((1,))]
    assert it.ready(2, 6) == [Tend(())]
    assert it.due is None


@pytest.mark.parametrize(("code", "told"), [(2, 2), (1, 1), (-9, 1), (0, 1)])
def test_where_the_first_cannot_start_nobody_can(code: int, told: int) -> None:
    """Its exit code is the supervisor's, and never a good one."""
    it = Supervision(3, PATIENCE)
    it.begin(0)

    assert it.gone(1, code, 1) == [End(told)]


def test_a_worker_that_dies_is_started_again_and_tended_meanwhile() -> None:
    """The others accept what waits in its sockets until it is back."""
    it = serving()

    assert doing(it.gone(1, -9, 100)) == [Tend((0,))]
    assert it.due == 100.5
    assert it.tick(100.4) == []
    assert it.tick(100.5) == [Start(0, 3, alone=False)]
    assert it.ready(3, 102) == [Tend(())]


def test_one_that_dies_again_and_again_waits_longer_each_time_up_to_a_bound() -> None:
    """Who was ready for long has failed for the first time."""
    it = serving()
    it.gone(1, 1, 5)
    waits, now, number = [], 5.0, 3
    for _ in range(5):
        assert it.due is not None
        waits.append(it.due - now)
        now = it.due
        it.tick(now)
        it.gone(number, 1, now)
        number += 1

    assert waits == [0.5, 1, 2, 4, 4]
    assert it.due is not None
    it.tick(it.due)
    it.ready(number, 100)
    it.gone(number, 1, 110)
    assert it.due == 110.5


def test_where_nobody_serves_any_more_it_ends_with_a_failure() -> None:
    """Whoever started the supervisor has to know; one that still serves is a reason to go on."""
    it = serving()
    number, now = 1, 0.0
    for _ in range(6):
        actions = it.gone(number, 1, now)
        assert End(1) not in actions
        now += 10
        number = next(one.number for one in it.tick(now) if isinstance(one, Start))
    it.gone(2, 1, now)

    assert doing(it.gone(number, 1, now)) == [End(1)]


def test_a_reload_renews_one_slot_after_another_and_never_leaves_one_alone() -> None:
    """The older one is asked to leave when its successor serves, not before."""
    it = serving()

    assert doing(it.reload(50)) == [Start(0, 3, alone=False)]
    assert it.ready(3, 55) == [Stop(1), Start(1, 4, alone=False)]
    assert it.gone(1, 0, 56) == []
    assert it.ready(4, 60) == [Stop(2)]
    assert it.gone(2, 0, 61) == []
    assert it.phases == {3: Phase.READY, 4: Phase.READY}
    assert it.due is None


def test_a_reload_that_fails_leaves_the_older_ones_in_service() -> None:
    """What does not start with the new settings must not cost the old service."""
    it = serving()
    it.reload(50)

    assert doing(it.gone(3, 2, 51)) == []
    assert it.phases == {1: Phase.READY, 2: Phase.READY}
    assert doing(it.reload(60)) == [Start(0, 4, alone=False)]


def test_a_reload_during_a_reload_renews_all_once_more() -> None:
    """Who has started already may have read what was before."""
    it = serving()
    it.reload(50)
    it.reload(51)
    started, number = [], 3
    for _ in range(3):
        actions = it.ready(number, 52)
        started += [one.slot for one in actions if isinstance(one, Start)]
        number += 1

    assert started == [0, 1]


def test_stopping_asks_all_then_hurries_them_then_kills_them() -> None:
    """Each further signal is less patient; the end comes when the last one has left."""
    it = serving()

    assert it.stop(10) == [Stop(1), Stop(2)]
    assert it.stop(11) == [Stop(1), Stop(2)]
    assert it.stop(12) == [Kill(1), Kill(2)]
    assert it.gone(1, -9, 12) == []
    assert it.gone(2, 0, 13) == [End(0)]


def test_nobody_is_started_while_all_leave() -> None:
    """A worker that dies during the stop has left, and one that was to be started again is not."""
    it = serving()
    it.gone(1, -9, 5)
    it.stop(5.1)

    assert it.due == 25.1
    assert it.tick(6) == []
    assert it.gone(2, -11, 7) == [End(0)]


def test_who_takes_too_long_is_killed() -> None:
    """A worker that does not become ready in its time, and one that does not leave."""
    it = serving()
    it.gone(1, 1, 5)
    it.tick(5.5)

    assert it.due == 65.5
    assert doing(it.tick(65.5)) == [Kill(3)]
    it.stop(70)
    assert {Kill(2), Kill(3)} == set(doing(it.tick(90)))


WATCHED = msgspec.structs.replace(PATIENCE, quiet=5, hung=20)


def watched(it: Supervision, until: float, *beating: int, since: float = 0.0) -> list[tuple[float, Action]]:
    """Look as often as is due; these workers are heard of each time. Return what is done, and when."""
    done: list[tuple[float, Action]] = []
    now = since
    while now < until:
        now += LOOK
        for number in beating:
            done += [(now, one) for one in doing(it.beat(number, now))]
        assert it.due is not None
        done += [(now, one) for one in doing(it.tick(now))]
    return done


def test_who_is_not_heard_of_is_helped_first_and_killed_in_the_end() -> None:
    """Others accept beside it soon; who is heard of is left alone."""
    it = serving(patience=WATCHED)

    assert watched(it, 30, 2) == [(6, Tend((0,))), (20, Kill(1))]
    assert doing(it.gone(1, -9, 31)) == []
    assert it.tick(31.5)[-1] == Start(0, 3, alone=False)
    assert it.ready(3, 33) == [Tend(())]


def test_who_is_only_busy_is_not_killed() -> None:
    """It comes round before its time is over: nobody is needed beside it any more."""
    it = serving(patience=WATCHED)
    assert watched(it, 18, 2) == [(6, Tend((0,)))]

    assert it.beat(1, 18.5) == [Tend(())]
    assert watched(it, 36, 2, since=18) == [(24, Tend((0,)))]


def test_a_supervisor_that_stood_still_itself_kills_nobody() -> None:
    """What they said meanwhile waits to be read: everybody's time begins anew."""
    it = serving(patience=WATCHED)
    assert watched(it, 10, 1, 2) == []

    assert doing(it.tick(500)) == []
    assert watched(it, 516, 2, since=500)[-1] == (506, Tend((0,)))
    assert it.phases == {1: Phase.READY, 2: Phase.READY}


def test_nobody_is_killed_for_its_silence_who_leaves_or_starts_or_where_nobody_looks() -> None:
    """Their time is another one, and `none` means for ever."""
    it = serving(patience=WATCHED)
    it.stop(10)
    assert doing(it.tick(29)) == []

    assert serving().due is None
