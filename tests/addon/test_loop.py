"""What serving runs on: how the collector of garbage is paced."""

from __future__ import annotations

import gc
from itertools import count

from tokenhub_addon import loop
from tokenhub_addon.loop import Pace


class Collector:
    """A collector in a scene's own time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.set: list[tuple[int, int, int]] = []
        self._pace = Pace(lambda *thresholds: self.set.append(thresholds), lambda: self.now)

    def look(self, generation: int, seconds: float) -> None:
        """Look at the objects of a generation, for so long."""
        self._pace("start", {"generation": generation})
        self.now += seconds
        self._pace("stop", {"generation": generation})

    def waits(self) -> bool:
        """Whether all objects are not to be looked at."""
        return self.set[-1][2] > 1_000_000


def test_a_long_look_at_all_objects_is_not_followed_by_another_one_soon() -> None:
    """A quarter of a second is one in two hundred of fifty: until then the younger ones are looked at alone."""
    collector = Collector()
    collector.look(2, 0.25)
    assert collector.waits()
    collector.now += 49
    collector.look(1, 0.01)
    assert collector.waits()
    collector.now += 1
    collector.look(0, 0.0)
    assert not collector.waits()
    assert collector.set[-1] == loop._THRESHOLDS


def test_a_short_one_may_be_followed_by_the_next_in_a_moment() -> None:
    """Two milliseconds are worth four tenths of a second."""
    collector = Collector()
    collector.look(2, 0.002)
    collector.now += 0.5
    collector.look(0, 0.0)
    assert not collector.waits()


def test_thresholds_are_set_once_a_turn() -> None:
    """Not with each of the thousands of short looks."""
    collector = Collector()
    collector.look(2, 0.1)
    collector.now += 60
    for _ in range(100):
        collector.look(0, 0.0)
    assert len(collector.set) == 2


def test_the_collector_itself_does_as_it_is_told() -> None:
    """What was looked at is not looked at again by itself, however much is made."""
    before, ticks, seen = gc.get_threshold(), count(0, 1), list[int]()
    pace = Pace(gc.set_threshold, lambda: float(next(ticks)) / 10)

    def heard(phase: str, info: dict[str, int]) -> None:
        pace(phase, info)
        if phase == "stop":
            seen.append(info["generation"])

    gc.set_threshold(100, 2, 1)
    gc.callbacks.append(heard)
    try:
        gc.collect()
        assert gc.get_threshold()[2] > 1_000_000
        kept = [[number] for number in range(200_000)]
    finally:
        gc.callbacks.remove(heard)
        gc.set_threshold(*before)
    assert len(kept) == 200_000
    assert seen.count(2) == 1
    assert len(seen) > 1
