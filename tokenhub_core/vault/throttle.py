"""How long a wrong password makes the next one wait. Pure.

Five may be wrong, then each makes the next one wait twice as long, up to a quarter of an hour and never longer: whoever
guesses gets about a hundred tries a day, and whoever only wants to keep the owner out can do so for fifteen minutes.
"""

from __future__ import annotations

from typing import Final

FREE: Final = 5
"""Wrong passwords that make nobody wait."""
LONGEST: Final = 900.0
"""Seconds."""


def delay(failures: int) -> float:
    """Return the seconds that this many wrong passwords in a row cost."""
    over = failures - FREE
    # 2^10 is beyond the longest wait already; the exponent is bounded before it is used.
    return 0.0 if over < 0 else min(LONGEST, 2.0 ** min(over, 10))


def remaining(failures: int, failed_at: float, now: float) -> float:
    """Return the seconds that are left of the wait, 0 where a password may be tried.

    Both times are the calendar's, because the wait outlives the process. A clock that was set back to before the last
    failure keeps nobody out.
    """
    if now < failed_at:
        return 0.0
    return max(0.0, failed_at + delay(failures) - now)
