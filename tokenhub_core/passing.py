"""What is made for calls that pass: who watches them, and what asks the hosts that they are for."""

from __future__ import annotations

import ssl

import aiohttp

from tokenhub_core import terms
from tokenhub_core.catalog import Catalog
from tokenhub_core.config import Settings
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.http.resolver import GuardedResolver
from tokenhub_core.lending import Lender
from tokenhub_core.lookout import Watched
from tokenhub_core.modes import checked
from tokenhub_core.opening import Kept
from tokenhub_core.pipeline import Pipeline
from tokenhub_core.providers import catalogue
from tokenhub_core.recognise import Recogniser
from tokenhub_core.watching import Watcher


def session(settings: Settings, tls: ssl.SSLContext) -> aiohttp.ClientSession:
    """Return what asks the hosts of calls that pass through."""
    # Without a limit of its own: what passes through waits for nobody.
    connector = aiohttp.TCPConnector(ssl=tls, limit=0, resolver=GuardedResolver(terms.guard(settings)))
    return aiohttp.ClientSession(
        connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
    )


def watcher(
    kept: Kept, watched: Watched, catalog: Catalog, pipeline: Pipeline, recogniser: Recogniser
) -> Watcher:
    """Return what watches calls that pass; raises `ConfigError` where a setting names a host that is not listed."""
    for rule in catalog.modes.rules:
        if not catalog.is_stored(rule):
            checked(rule, recogniser)
    return Watcher(
        engine=pipeline,
        modes=lambda: catalog.modes,
        prices=kept.prices.price_at,
        price_list=catalogue.SOURCE,
        dialects=DIALECTS,
        estimates=watched.learning.learner,
        clock=kept.clock,
        max_body_bytes=kept.settings.max_body_bytes,
        tunnelled=watched.metrics.tunnelled,
        admit=watched.budgets.ledger.admit,
        lender=Lender(lambda: catalog.fleet, kept.credentials, watched.keyring, kept.clock),
    )
