"""Runs `tokenhub` and notes, while asked to, what it does with its CPU time.

`python -m scripts.benchmark.sampling FILE serve …` is `tokenhub serve …`. SIGUSR2 starts the notes; a second one
ends them and writes them to FILE: seconds of CPU time by stack, outermost function first, as JSON.

The kernel interrupts the process after every few milliseconds of CPU time that it took, whichever thread took
them, and Python runs the handler in the main thread, at the next call of a Python function or turn of a
loop. So time in a C function may count for its caller or for what its caller called next; sums by module are
better than single lines. What other threads took is told apart by the main thread's own clock.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

from tokenhub_core.cli import main

_INTERVAL: Final = 0.002
ELSEWHERE: Final = "other threads"
"""Stands where a stack would, for what threads other than the main one took."""
GENERATED: Final = "<string>"
"""The file of code that has none: the constructors of dataclasses."""


class Sampler:
    """Notes stacks. Belongs to the main thread."""

    def __init__(self, told: Path) -> None:
        self._told = told
        self._notes: dict[tuple[CodeType, ...], float] = defaultdict(float)
        self._elsewhere = 0.0
        self._main = self._all = 0.0
        self._on = False

    def install(self) -> None:
        """Begin to listen for the signals."""
        signal.signal(signal.SIGPROF, self._note)
        signal.signal(signal.SIGUSR2, self._switch)

    def _switch(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._on = not self._on
        signal.setitimer(signal.ITIMER_PROF, *((_INTERVAL, _INTERVAL) if self._on else (0, 0)))
        self._main, self._all = time.thread_time(), time.process_time()
        if not self._on:
            self._write()

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number
        main_now, all_now = time.thread_time(), time.process_time()
        here = main_now - self._main
        self._elsewhere += max(0.0, all_now - self._all - here)
        self._main, self._all = main_now, all_now
        stack = []
        while frame is not None:
            stack.append(frame.f_code)
            frame = frame.f_back
        self._notes[tuple(reversed(stack))] += here

    def _write(self) -> None:
        told: dict[str, float] = defaultdict(float)
        told[ELSEWHERE] = self._elsewhere
        for stack, seconds in self._notes.items():
            told[";".join(f"{code.co_filename}:{code.co_qualname}" for code in stack)] += seconds
        partial = self._told.with_suffix(".part")
        partial.write_text(json.dumps(told))
        partial.rename(self._told)


if __name__ == "__main__":
    Sampler(Path(sys.argv[1])).install()
    del sys.argv[1]
    main()
