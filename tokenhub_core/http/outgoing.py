"""Posts to receivers of webhooks: at addresses that providers may have, and without a look at the answer's body."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from yarl import URL

from tokenhub_core import __version__
from tokenhub_core.addresses import Guard
from tokenhub_core.dispatch.backoff import parse_retry_after
from tokenhub_core.http.resolver import GuardedResolver
from tokenhub_core.webhooks.values import Reply

SECONDS: Final = 10.0
"""For one try, from the name to the answer's head."""
_AT_ONCE: Final = 16
_log: Final = logging.getLogger(__name__)


class Outgoing:
    """Implements `webhooks.outbox.Post`, on connections of its own."""

    def __init__(self, session: aiohttp.ClientSession, guard: Guard) -> None:
        self._session = session
        self._guard = guard

    async def __call__(self, url: str, headers: dict[str, str], body: bytes) -> Reply:
        """Send one event and return what came of it."""
        target = URL(url)
        if not self._permits(target):
            return Reply(cause="forbidden_address")
        try:
            async with (
                asyncio.timeout(SECONDS),
                self._session.post(target, data=body, headers=headers, allow_redirects=False) as response,
            ):
                fields = tuple((name.lower(), value) for name, value in response.headers.items())
                response.close()
                return Reply(response.status, retry_after=parse_retry_after(fields, now=time.time()))
        except TimeoutError:
            return Reply(cause="timeout")
        except aiohttp.ClientSSLError:
            return Reply(cause="tls")
        except (aiohttp.ClientError, OSError) as error:
            _log.debug("webhook to %s: %s", target.host, error)
            return Reply(cause="unreachable")

    def _permits(self, target: URL) -> bool:
        """Look at an address that stands in the URL itself: names are looked at when they are resolved."""
        host = target.host or ""
        try:
            address = str(ipaddress.ip_address(host))
        except ValueError:
            return True
        return self._guard.permits(host, address, target.port or 0)


@asynccontextmanager
async def outgoing(guard: Guard, tls: ssl.SSLContext) -> AsyncIterator[Outgoing]:
    """Return the way to receivers for as long as the block lasts."""
    connector = aiohttp.TCPConnector(ssl=tls, limit=_AT_ONCE, resolver=GuardedResolver(guard))
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"user-agent": f"tokenhub/{__version__}"},
        trust_env=False,
    ) as session:
        yield Outgoing(session, guard)
