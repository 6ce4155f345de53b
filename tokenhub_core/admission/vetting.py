"""Nonces of signed directives over many processes: what stood in one text stands in no other, at any of them.

    claim     before a call that has a signature, its nonce is claimed for this process, for a moment
    digest    once the signature is found good, the digest of its text takes the place of the claim, until the expiry
    learned   whoever finds a digest there holds the nonce to it, as if it had met the text itself

Where there is no answer in time the directive is not honoured (`signature-unsure`): a replay must not pass because
something is down. Nonces that this process has met itself go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from tokenhub_core.signing import Signatures, signed

CLAIM: Final = 5.0
"""Seconds for which a claim holds; so long a call may take from its arrival to the reading of its directives."""
_TRIES: Final = 3
_PAUSE: Final = 0.01
_CLAIMED: Final = b"c"
_DIGEST: Final = b"d"


class Nonces(Protocol):
    """What all processes know of nonces."""

    async def nonce(self, name: str, value: bytes, seconds: float, *, replace: bool) -> bytes | None:
        """Put a value where there is none, or with `replace` anyway; return what stands then, None: no answer."""
        ...


class Vetting:
    """One process's way to the nonces of all."""

    def __init__(
        self, source: Nonces, signatures: Signatures, process: str, *, now: Callable[[], float]
    ) -> None:
        self._source = source
        self._signatures = signatures
        self._claim = _CLAIMED + process.encode()
        self._now = now
        self._posts: set[asyncio.Task[None]] = set()
        signatures.share(self._met)

    async def vet(self, key_id: str, body: bytes) -> None:
        """Learn what is known of the nonces in a call of this key, and claim those of which nothing is."""
        for nonce, expires in signed(body, key_id):
            if not self._signatures.knows(key_id, nonce):
                await self._vet(key_id, nonce, expires)

    def publish(self) -> None:
        """Tell of every nonce that this process has met: what all knew may be gone."""
        for key_id, nonce, text, expires in self._signatures.met(self._now()):
            self._met(key_id, nonce, text, expires)

    async def close(self) -> None:
        """Wait for what was to be told."""
        await asyncio.gather(*self._posts, return_exceptions=True)

    async def _vet(self, key_id: str, nonce: str, expires: int) -> None:
        for _ in range(_TRIES):
            told = await self._source.nonce(f"{key_id}:{nonce}", self._claim, CLAIM, replace=False)
            if told is None:
                return
            if told == self._claim:
                self._signatures.vetted(key_id, nonce, self._now() + CLAIM)
                return
            if told.startswith(_DIGEST):
                self._signatures.learn(key_id, nonce, told[1:], expires, self._now())
                return
            await asyncio.sleep(_PAUSE)

    def _met(self, key_id: str, nonce: str, text: bytes, expires: int) -> None:
        seconds = max(expires - self._now(), 1.0)
        task = asyncio.get_running_loop().create_task(self._put(f"{key_id}:{nonce}", text, seconds))
        self._posts.add(task)
        task.add_done_callback(self._posts.discard)

    async def _put(self, name: str, text: bytes, seconds: float) -> None:
        await self._source.nonce(name, _DIGEST + text, seconds, replace=True)
