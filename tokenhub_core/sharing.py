"""What the workers of a server share that is in no database: the keys of an open vault, and credentials in memory.

It goes from process to process over the supervisor's sockets, and comes near no disk. A worker that starts has what the
others have: where they have the vault locked, it stays locked, whatever password the settings hold.
"""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from tokenhub_core.credentials import Credentials, Held
from tokenhub_core.errors import TokenHubError
from tokenhub_core.siblings import Siblings
from tokenhub_core.vault.vault import Vault

_STATE: Final = "state"
_VAULT: Final = "vault"
_IDLE: Final = "vault.idle"
_HELD: Final = "credentials"
_PATIENCE: Final = 5.0
"""Seconds that a worker that starts waits for the others: without them it would not know whether to open the vault."""

_log: Final = logging.getLogger(__name__)


class _State(msgspec.Struct, frozen=True):
    """What one worker has."""

    keys: bytes
    held: Held

    def __repr__(self) -> str:
        return "_State(…)"


class Sharing:
    """Keeps the vault and the held credentials of one worker as those of its siblings are."""

    def __init__(self, siblings: Siblings, vault: Vault, credentials: Credentials) -> None:
        self._siblings = siblings
        self._vault = vault
        self._credentials = credentials
        siblings.answering(_STATE, self._state)
        siblings.answering(_VAULT, self._keys)
        siblings.answering(_IDLE, self._idle)
        siblings.answering(_HELD, self._hold)

    async def join(self) -> bool:
        """Take over what the others have; False where nobody is there."""
        if not self._siblings.joined:
            return False
        states = await self._siblings.ask(_STATE, within=_PATIENCE)
        self._vault.share(lambda keys: self._siblings.post(_VAULT, keys), self._rests)
        self._credentials.share(lambda held: self._siblings.post(_HELD, msgspec.msgpack.encode(held)))
        if not states:
            return False
        state = msgspec.msgpack.decode(states[0], type=_State)
        self._credentials.take(state.held)
        if state.keys:
            await self._keys(state.keys)
        return True

    def leave(self) -> None:
        """Tell the others nothing more: that this worker lets go of its keys is no affair of theirs."""
        self._vault.share(None, None)

    async def _state(self, body: bytes) -> bytes:
        del body
        return msgspec.msgpack.encode(_State(self._vault.exported(), self._credentials.held()))

    async def _keys(self, body: bytes) -> bytes:
        if not body:
            self._vault.lock(told=False)
            return b""
        try:
            await self._vault.adopt(body)
        except TokenHubError as error:
            _log.error("the vault stays locked in this worker: %s", error.fault.message)
        return b""

    async def _rests(self) -> bool:
        """Tell whether no other worker has used the vault lately either."""
        return b"busy" not in await self._siblings.ask(_IDLE)

    async def _idle(self, body: bytes) -> bytes:
        del body
        return b"rests" if self._vault.rests else b"busy"

    async def _hold(self, body: bytes) -> bytes:
        self._credentials.take(msgspec.msgpack.decode(body, type=Held))
        return b""
