"""Reads the log as it grows: an event says that there is something to read, the log says what.

So nothing is missed where the connection breaks, or where the server is another one: a place in the log outlives both.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from urllib.parse import urlencode

from tokenhub_core.cli.admin import AdminClient
from tokenhub_core.errors import ConfigError
from tokenhub_core.types import Json

PACE: Final = 0.5
"""Seconds between two looks at the log, however much happens."""
BACK: Final = 1.0
"""Seconds before the server is looked for again."""
_OVERLAP: Final = 200
"""Places that are read again. With several processes on one database a lower place may be filled after a higher one."""
_PAGE: Final = 1000


def followed(
    client: AdminClient,
    query: Mapping[str, str],
    *,
    begin: int,
    pace: float = PACE,
    ended: Callable[[], bool] = lambda: False,
) -> Iterator[Json]:
    """Yield the latest `begin` calls, and then those that come, in the order of the log. Ends when `ended` says so."""
    reader = _Reader(client, query)
    yield from reader.latest(begin)
    news = threading.Event()
    threading.Thread(target=_listen, args=(client, news, ended), daemon=True, name="log events").start()
    while not ended():
        if not news.wait(PACE):
            continue
        news.clear()
        try:
            yield from reader.look()
        except ConfigError:
            time.sleep(BACK)
            news.set()
        time.sleep(pace)


class _Reader:
    """Reads what is behind a place in the log, and tells each call once."""

    def __init__(self, client: AdminClient, query: Mapping[str, str]) -> None:
        self._client = client
        self._query = query
        self._first = self._at = 0
        self._told: OrderedDict[int, None] = OrderedDict()

    def latest(self, count: int) -> list[Json]:
        """Return the last calls; what comes later is behind them."""
        page = self._page({"limit": count})
        self._first = self._at = int(page["newer"])
        return self._fresh(page["logs"])

    def look(self) -> Iterator[Json]:
        """Yield what has come."""
        after = max(self._first, self._at - _OVERLAP)
        while True:
            page = self._page({"limit": _PAGE, "after": after})
            yield from self._fresh(page["logs"])
            newer = int(page["newer"])
            self._at = max(self._at, newer)
            if newer <= after:
                return
            after = newer

    def _page(self, more: Mapping[str, int]) -> Json:
        return self._client.get("/admin/v1/logs?" + urlencode({**self._query, **more}))

    def _fresh(self, logs: list[Json]) -> list[Json]:
        """Return those that were not told yet, oldest first."""
        fresh = [item for item in reversed(logs) if item["seq"] not in self._told]
        self._told.update(dict.fromkeys(item["seq"] for item in fresh))
        while len(self._told) > _OVERLAP + _PAGE:
            self._told.popitem(last=False)
        return fresh


def _listen(client: AdminClient, news: threading.Event, ended: Callable[[], bool]) -> None:
    """Say that there may be something to read: at each event and sign of life, and when a connection is made anew."""
    while not ended():
        news.set()
        try:
            for line in client.lines("/admin/v1/events"):
                if line.startswith((b"event: route_", b"event: lost", b":")):
                    news.set()
                if ended():
                    return
        except ConfigError:
            pass
        time.sleep(BACK)
