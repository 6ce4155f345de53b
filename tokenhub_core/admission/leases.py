"""Shares of a budget: how several processes on one database keep to one limit. Pure; times are arguments.

A process draws a share of what is left of a budget, in a transaction, and decides its calls with that alone. For each
process the database has a row: what its records have added (`spent`), and up to how much it may come in all
(`granted`). So what nobody may use yet is

    limit - spent by processes that are gone - sum over the others of max(spent, granted)

and a share is only ever drawn from that. A row is good until its lease ends. Then `granted` means nothing any more,
and what was never spent of it is there for the others; what was spent stays, because it comes from records.

A process that is alone draws everything. Of several each keeps half of an even part at hand, and leaves the other
half where it is: the nearer the end, the smaller the shares, down to nothing. Then each call asks.

Of two that wait for what the other one has at hand, the one whose name comes first is given it.

Amounts are in the budget's unit; moments are microseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

LEASE: Final = 10.0
"""Seconds for which a share is good after its last renewal."""
MARGIN: Final = 3.0
"""Seconds before its end in which a process does not use it any more: its clock may be as much behind another's."""
RENEW: Final = 2.5
"""Seconds between two renewals of a process that is alone; of several, each looks as often as it polls."""
WAIT: Final = 2.0
"""Seconds that a call waits at most for a larger share."""
PACE: Final = 0.1
"""Seconds between two questions of one call that waits."""

type Key = tuple[str, int]
"""A budget's id, and the beginning of the time that is counted."""


class Share(msgspec.Struct, frozen=True):
    """One process's row."""

    process: str
    spent: int = 0
    granted: int = 0
    idle: int = 0
    """What of the share it held for nobody when it last said so."""
    wanted: int = 0
    """What its calls wait for and it has not."""
    until: int = 0

    def kept(self, now: int) -> int:
        """Return what is not there for others: what was spent, and while the lease is good what may be."""
        return max(self.spent, self.granted) if now < self.until else self.spent


class Pot(msgspec.Struct, frozen=True):
    """What the database has of one budget in one time."""

    limit: int
    past: int
    """What processes have spent that are gone."""
    shares: tuple[Share, ...] = ()
    warned: int = 0
    """The highest threshold that was told of."""


class Claim(msgspec.Struct, frozen=True):
    """What a process says of itself when it draws."""

    used: int
    """What it has counted, whether that is durable or not, and holds."""
    granted: int
    """What it takes its share to be; less than its row says where it gives back."""
    wanted: int = 0
    """What its calls wait for."""


class View(msgspec.Struct, frozen=True):
    """What a process knows after it has drawn."""

    granted: int
    spent: int = 0
    """By others, and by processes that are gone."""
    held: int = 0
    """What others hold for their calls."""
    idle: int = 0
    """What others have at hand."""
    left: int = 0
    """What nobody has drawn; below 0 where more is drawn than there is, as after a limit was lowered."""
    processes: int = 1
    wanted: int = 0
    """What others' calls wait for and they have not."""
    wanter: str = ""
    """The first of those who wait."""
    warned: int = 0


def divide(pot: Pot, process: str, claim: Claim, *, now: int, until: int) -> tuple[Share, View]:
    """Return the new row of a process that draws, and what it knows then."""
    mine = next((one for one in pot.shares if one.process == process), Share(process))
    others = [one for one in pot.shares if one.process != process]
    live = [one for one in others if now < one.until]
    kept = max(mine.spent, min(mine.granted, claim.granted) if now < mine.until else 0)
    left = pot.limit - pot.past - kept - sum(one.kept(now) for one in others)
    wanted = sum(one.wanted for one in live)
    given = max(0, min(left, claim.used + claim.wanted - kept))
    at_hand = max(0, kept + given - claim.used - claim.wanted)
    rest = left - given
    more = target(rest + at_hand, len(live) + 1) - at_hand
    extra = max(0, min(rest - wanted, more) if live else rest)
    granted = kept + given + extra
    # What calls wait for is theirs once it is all there; until then others may have it.
    lacking = max(0, claim.used + claim.wanted - granted) if claim.wanted else 0
    idle = max(0, granted - claim.used - (0 if lacking else claim.wanted))
    share = Share(process, mine.spent, granted, idle, lacking, until)
    drawn = [(one, max(0, one.granted - one.spent)) for one in live]
    idle = sum(min(one.idle, out) for one, out in drawn)
    return share, View(
        granted,
        pot.past + sum(one.spent for one in others),
        sum(out for _, out in drawn) - idle,
        idle,
        rest - extra,
        len(live) + 1,
        wanted,
        min((one.process for one in live if one.wanted), default=""),
        pot.warned,
    )


def target(pool: int, processes: int) -> int:
    """Return what one of several keeps at hand of what they all could have."""
    return max(0, pool) // (2 * processes)


def spare(view: View, idle: int, *, process: str, wanted: int) -> int:
    """Return what of `idle` a process gives back; `wanted` is what its own calls wait for."""
    if view.processes == 1 or idle <= 0:
        return 0
    lacking = wanted > idle
    free = idle if lacking else idle - wanted
    given = 0
    if view.wanted > view.left and not (lacking and process < view.wanter):
        given = min(free, view.wanted - view.left)
    keeps = target(view.left + free, view.processes)
    if not lacking and 2 * free > 3 * keeps:
        given = max(given, free - keeps)
    return max(given, min(idle, -view.left))


def changed(was: Iterable[Share], now: Share, *, alone: bool) -> bool:
    """Tell whether a row must be written: what is at hand interests nobody while there is nobody else."""
    for one in was:
        if one.process == now.process:
            same = (one.granted, one.wanted, one.until) == (now.granted, now.wanted, now.until)
            return not same or (one.idle != now.idle and not alone)
    return True
