"""The admin API's part about how this server stands: its settings, and what exploring has learned.

GET /admin/v1/settings     each setting: what it is, what it would be, and where it comes from
GET /admin/v1/posteriors   ?context=   the posterior of each model at its provider, in one kind of call

All of it is of the one process that answers, and says which that is.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from aiohttp import web

from tokenhub_core.config import Settings, standing
from tokenhub_core.http.side import answer
from tokenhub_core.numeric import np
from tokenhub_core.ports import Clock
from tokenhub_core.renewals import Fresh
from tokenhub_core.routing.bandit import EVERYWHERE, Bandit, propensities
from tokenhub_core.types import Json

SETTINGS: Final = "/admin/v1/settings"
POSTERIORS: Final = "/admin/v1/posteriors"
_MOST: Final = 200
"""Arms that are shown."""


class Posterior(msgspec.Struct, frozen=True):
    """What is believed of the mean reward of one model at one provider: Beta(alpha, beta)."""

    model_id: str
    provider_id: str
    alpha: float
    beta: float
    first: float
    """The probability that it would be put first among all that are shown, at equal penalties."""
    at: float
    """When it had its last reward, in seconds since the epoch."""


class Standing:
    """The handlers. `learned` gives the bandit as it is: it is swapped when the server loads what was saved."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        learned: Callable[[], Bandit],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._learned = learned
        self._clock = clock

    def renew(self, fresh: Fresh) -> None:
        """Show other settings from now on."""
        self._settings, self._environ = fresh.settings, fresh.environ

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(SETTINGS, self._show_settings),
            web.get(POSTERIORS, self._show_posteriors),
        ]

    async def _show_settings(self, request: web.Request) -> web.Response:
        del request
        items = [row._asdict() for row in standing(self._settings, self._environ)]
        return answer({"items": items, "total": len(items), "process": self._process()})

    async def _show_posteriors(self, request: web.Request) -> web.Response:
        context = request.query.get("context", EVERYWHERE)
        bandit = self._learned()
        contexts = sorted({one.context for one in bandit.kept()} - {EVERYWHERE})
        return answer(
            {
                "contexts": contexts,
                "context": context,
                "items": msgspec.to_builtins(posteriors(bandit, context, self._clock.now())),
                "process": self._process(),
            }
        )

    def _process(self) -> Json:
        return {"host": platform.node(), "pid": os.getpid(), "workers": self._settings.workers}


def posteriors(bandit: Bandit, context: str, now: float) -> Sequence[Posterior]:
    """Return what is believed of every arm in a context, the best mean first; `now` is in seconds since the epoch."""
    last = {(one.model, one.provider): one.at for one in bandit.kept() if one.context == EVERYWHERE}
    arms = sorted(last, key=last.__getitem__, reverse=True)[:_MOST]
    if not arms:
        return ()
    alpha, beta = bandit.posteriors(arms, context, now)
    first = propensities(alpha, beta, np.zeros(len(arms)))
    rows = zip(arms, alpha.tolist(), beta.tolist(), first.tolist(), strict=True)
    found = [Posterior(arm[0], arm[1], won, lost, share, last[arm] / 1e6) for arm, won, lost, share in rows]
    return sorted(found, key=lambda one: -one.alpha / (one.alpha + one.beta))
