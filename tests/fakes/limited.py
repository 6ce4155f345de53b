"""A provider on a loopback socket that knows its callers by their keys and tells them their limits.

    async with Metered(limit=10) as provider:
        provider.say("sk-a", "insufficient_quota")      # what this key meets from now on
        ... send to provider.url ...
        assert provider.served == {"sk-b": 1}

Windows are fixed: `limit` requests of each key until `provider.resets` seconds have passed, told in OpenAI's fields.
What is over the limit is answered 429, as it would be.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Self

from aiohttp import web

from tests.fakes.transport import completion

_REFUSALS: dict[str, tuple[int, dict[str, Any]]] = {
    "insufficient_quota": (429, {"code": "insufficient_quota", "type": "insufficient_quota"}),
    "invalid_api_key": (401, {"code": "invalid_api_key", "type": "invalid_request_error"}),
    "forbidden": (403, {"code": None, "type": "permission_error"}),
    "slow_down": (429, {"code": "rate_limit_exceeded", "type": "requests"}),
    "broken": (500, {"code": None, "type": "server_error"}),
}


class Metered:
    """See the module. `limit` None: it tells nothing."""

    def __init__(self, limit: int | None = None, *, resets: float = 60.0) -> None:
        self.limit = limit
        self.resets = resets
        self.asked: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.over = 0
        """How many calls were over a limit."""
        self._says: dict[str, tuple[str, dict[str, str]]] = {}
        self._runner: web.AppRunner | None = None
        self.url = ""

    def say(self, key: str, what: str, **headers: str) -> None:
        """Refuse a key's calls in this way from now on; `ok` ends that."""
        self._says[key] = (what, headers)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        asked = await request.json()
        what, headers = self._says.get(key, ("ok", {}))
        self.asked[key] += 1
        left = None if self.limit is None else self.limit - self.served[key]
        if what == "ok" and left is not None and left <= 0:
            self.over += 1
            what = "slow_down"
        if what != "ok":
            status, error = _REFUSALS[what]
            return web.json_response(
                {"error": {"message": what, "param": None, **error}},
                status=status,
                headers=self._told(key, headers),
            )
        self.served[key] += 1
        body = completion(
            model=asked["model"], usage={"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
        )
        return web.json_response(body, headers=self._told(key, headers))

    def _told(self, key: str, more: dict[str, str]) -> dict[str, str]:
        told = {name.replace("_", "-"): value for name, value in more.items()}
        if self.limit is None:
            return told
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(max(self.limit - self.served[key], 0)),
            "x-ratelimit-reset-requests": f"{self.resets:g}s",
            **told,
        }
