"""Calls from the test's own process, where a scene needs to see bytes and not what an SDK makes of them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from tokenhub_core.launch.serveinfo import ServeInfo
from tokenhub_core.types import Json

PATHS: Final[Mapping[str, tuple[str, str]]] = {
    "openai": ("https://api.openai.com", "/v1/chat/completions"),
    "anthropic": ("https://api.anthropic.com", "/v1/messages"),
}
LAST_WORDS: Final = {"openai": b"data: [DONE]\n\n", "anthropic": b'data: {"type":"message_stop"}\n\n'}
"""How a stream ends that has come to its end."""


@dataclass(frozen=True)
class Door:
    """One way into a `tokenhub serve`."""

    name: str
    side_url: str
    proxy: str | None = None
    trust: ssl.SSLContext | None = None

    def url(self, dialect: str) -> str:
        host, path = PATHS[dialect]
        return (host if self.proxy else self.side_url) + path

    @asynccontextmanager
    async def call(
        self, session: aiohttp.ClientSession, dialect: str, model: str, *, stream: bool
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a call; the response's head has come."""
        more: dict[str, Any] = {"ssl": self.trust} if self.trust else {}
        async with session.post(
            self.url(dialect), json=asked(dialect, model, stream=stream), proxy=self.proxy, **more
        ) as response:
            yield response


def doors(info: ServeInfo) -> tuple[Door, Door]:
    """Return the side server's door and the proxy's."""
    trust = ssl.create_default_context(cafile=info.ca_file)
    return Door("side", info.side_url), Door("proxy", info.side_url, info.proxy_url, trust)


def asked(dialect: str, model: str, *, stream: bool) -> Json:
    """Return a small call."""
    body: Json = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Tell me"}]}
    return body | ({"max_tokens": 500} if dialect == "anthropic" else {})
