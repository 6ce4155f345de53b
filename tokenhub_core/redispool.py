"""Redis as what many processes share: the pool of limits, nonces of signed directives, and that something changed.

Everything is one atomic step in Redis, and bounded here: `WAIT` seconds for an answer, no second try. The caller
decides what no answer means. All keys begin with one tag, so that they are in one place of a cluster; nothing in Redis
is needed again after two minutes, or nonces after an hour, and processes tell of theirs again: it need not
be durable.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tokenhub_core.admission.drawing import WAIT
from tokenhub_core.admission.pool import MINUTE, PRESENT, Claim, Grant
from tokenhub_core.errors import ConfigError

_CONNECT: Final = 0.25
"""Seconds to connect; only whoever keeps the pool waits so long, calls wait `WAIT`."""
_AGAIN: Final = 1.0
"""Seconds between two tries to listen."""
_TAG: Final = "{tokenhub}"
_CHANGED: Final = f"{_TAG}:changed"
_PRESENT: Final = f"{_TAG}:present"
_RELAY: Final = f"{_TAG}:relay"

_DRAW: Final = f"""
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - {PRESENT})
redis.call('PEXPIRE', KEYS[1], {PRESENT})
local processes = redis.call('ZCARD', KEYS[1])
if #KEYS == 1 then return {{0, 0, 0, 0, 0, 0, processes}} end
local kept = redis.call('HMGET', KEYS[2], 'rl', 'ra', 'tl', 'ta')
local function draw(level, at, rate, want, more)
  level, at = tonumber(level or 0), tonumber(at or 0)
  level = math.max(level - rate * math.max(now - at, 0), 0)
  level = math.max(level + more * {MINUTE}, 0)
  local over = level + (want - rate) * {MINUTE}
  local left = math.floor(math.max(rate * {MINUTE} - level, 0) / {MINUTE})
  local given = math.min(want, left)
  local wait = math.max(math.ceil(over / math.max(rate, 1)), 0)
  return given, wait, left - given, level + given * {MINUTE}, math.max(at, now)
end
local function whole(n) return string.format('%.0f', n) end
local rr, tr = tonumber(ARGV[2]), tonumber(ARGV[3])
local r, rw, rl, t_, tw, tl = 0, 0, 0, 0, 0, 0
local level, at
if rr >= 0 then
  r, rw, rl, level, at = draw(kept[1], kept[2], rr, tonumber(ARGV[4]), 0)
  redis.call('HSET', KEYS[2], 'rl', whole(level), 'ra', whole(at))
end
if tr >= 0 then
  local want = tonumber(ARGV[5])
  if rw > 0 then want = 0 end
  t_, tw, tl, level, at = draw(kept[3], kept[4], tr, want, tonumber(ARGV[6]))
  redis.call('HSET', KEYS[2], 'tl', whole(level), 'ta', whole(at))
end
redis.call('PEXPIRE', KEYS[2], {2 * MINUTE})
return {{r, t_, rw, tw, rl, tl, processes}}
"""

_NONCE: Final = """
local known = redis.call('GET', KEYS[1])
if known and ARGV[3] == '0' then return known end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
"""

_log: Final = logging.getLogger(__name__)


class RedisPool:
    """One process's way to Redis. Implements `drawing.Pool`, `vetting.Nonces` and `relay.Wire`."""

    def __init__(self, client: Redis, process: str) -> None:
        self._client = client
        self._process = process
        self._draw = client.register_script(_DRAW)
        self._nonce = client.register_script(_NONCE)

    @classmethod
    def at(cls, url: str, process: str) -> Self:
        """Return the way to the Redis of a URL, not connected yet; raises `ConfigError` where it is none."""
        try:
            client = Redis.from_url(
                url,
                socket_timeout=WAIT,
                socket_connect_timeout=_CONNECT,
                retry=Retry(NoBackoff(), 0),
                health_check_interval=0,
                client_name="tokenhub",
            )
        except ValueError as error:
            # The message may quote the URL, and the URL a password.
            raise ConfigError("TOKENHUB_REDIS_URL is no URL of Redis: redis://host:6379/0") from error
        return cls(client, process)

    async def draw(self, claim: Claim) -> Grant | None:
        """Draw in one step; None where there was no answer in time."""
        keys = [_PRESENT]
        if claim.subject:
            keys.append(f"{_TAG}:limit:{claim.subject}")
        told = await self._asked(
            self._draw,
            keys,
            self._process,
            claim.requests,
            claim.tokens,
            claim.want_requests,
            claim.want_tokens,
            claim.more_tokens,
        )
        return None if told is None else Grant(*map(int, told))

    async def nonce(self, name: str, value: bytes, seconds: float, *, replace: bool) -> bytes | None:
        """Put a value where there is none, or with `replace` anyway; return what stands then, None: no answer."""
        hashed = hashlib.sha256(name.encode()).hexdigest()
        told = await self._asked(
            self._nonce, [f"{_TAG}:nonce:{hashed}"], value, max(round(seconds * 1000), 1), int(replace)
        )
        return None if told is None else bytes(told)

    async def announce(self) -> None:
        """Let every process look for changes; one that does not hear of it looks soon all the same."""
        await self._published(_CHANGED, self._process.encode())

    async def send(self, data: bytes) -> bool:
        """Send to all who receive; False where nobody can tell whether it came through."""
        return await self._published(_RELAY, data)

    async def listen(self, changed: Callable[[], Awaitable[object]]) -> None:
        """Call `changed` whenever another process has announced something, for ever."""
        async with aclosing(self._subscribed(_CHANGED)) as told:
            async for data in told:
                if data != self._process.encode():
                    await changed()

    async def receive(self, heard: Callable[[bytes], None]) -> None:
        """Call `heard` with all that is sent, for ever."""
        async with aclosing(self._subscribed(_RELAY)) as told:
            async for data in told:
                heard(data)

    async def _published(self, channel: str, data: bytes) -> bool:
        try:
            async with asyncio.timeout(WAIT):
                await self._client.publish(channel, data)
        except (RedisError, OSError, TimeoutError) as error:
            _log.debug("nothing could be told by Redis: %s", error)
            return False
        return True

    async def _subscribed(self, name: str) -> AsyncGenerator[bytes]:
        """Yield what is published on a channel, for ever; what is published while Redis is away is lost."""
        while True:
            try:
                async with self._client.pubsub() as channel:
                    await channel.subscribe(name)
                    while True:
                        told = await channel.get_message(ignore_subscribe_messages=True, timeout=None)
                        if told is not None:
                            yield told["data"]
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(_AGAIN)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _asked(self, script: Any, keys: list[str], *arguments: object) -> Any:
        try:
            async with asyncio.timeout(WAIT):
                return await script(keys=keys, args=arguments)
        except (RedisError, OSError, TimeoutError):
            return None
