"""The vault: sealed credentials in the database, opened one at a time while it is unlocked.

What it promises about memory: the keys that it keeps are subkeys of the root, in buffers that `lock` overwrites, and
it keeps no plaintext and no password. The root is overwritten as soon as its subkeys are made. Python cannot wipe the
`str` of a password or of a credential on its way to the wire, nor the key that Argon2id returns, nor what the
cryptographic library holds while it works; those live as long as someone refers to them, and their memory is reused,
not cleared.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any, Final

from tokenhub_core import signing
from tokenhub_core.audit.entries import Action, Result
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import ConfigError, TokenHubError, client_fault
from tokenhub_core.ports import Clock, Secret
from tokenhub_core.store import vault as rows
from tokenhub_core.store.anchor import Anchor
from tokenhub_core.store.database import Database
from tokenhub_core.store.writer import Work
from tokenhub_core.vault import manifest, sealing, storing
from tokenhub_core.vault.gate import Gate
from tokenhub_core.vault.keys import KeyHolder, Keys, keeping, wipe
from tokenhub_core.vault.manifest import Judgement, Sealed, SetState, VaultRows
from tokenhub_core.vault.passwords import encoded, new_password, password_bytes
from tokenhub_core.vault.sealing import Header, Identity, Params, Place, TamperedError

MAX_NAME: Final = 200
"""Characters of an entry's name."""

_EMPTY: Final = VaultRows(None, {}, None)
_log: Final = logging.getLogger(__name__)


class State(StrEnum):
    """What the vault can do now."""

    UNINITIALISED = "uninitialised"
    LOCKED = "locked"
    UNLOCKED = "unlocked"


@dataclass(frozen=True, slots=True)
class Custody:
    """How the keys are kept."""

    ring: KeyHolder = field(default_factory=KeyHolder)
    anchor: Anchor | None = None
    """The file that sees an older database; None where there is no place for one."""
    idle: float = 0.0
    """Seconds without use after which the vault locks by itself; 0 for never."""


class Vault:
    """Belongs to one event loop. Reads are synchronous and decrypt what they return each time.

    The entries' ciphertexts stand in memory and in the database alike. What another process writes is never written
    over, and seen by `refresh`.
    """

    def __init__(
        self,
        database: Database,
        audit: Audit,
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
        params: Params = Params(),  # noqa: B008 - a frozen value
        custody: Custody | None = None,
    ) -> None:
        custody = custody or Custody()
        self._database = database
        self._audit = audit
        self._clock = clock
        self._entropy = entropy
        self._params = params
        self._ring = custody.ring
        self._anchor = custody.anchor
        self._idle = custody.idle
        self._rows = _EMPTY
        self._bad: Mapping[str, str] = {}
        self._used = 0.0
        self._gate = Gate(audit, clock)
        self._changing = asyncio.Lock()
        self._locks = 0
        self._tell: Callable[[bytes], None] | None = None
        self._rest: Callable[[], Awaitable[bool]] | None = None

    def __repr__(self) -> str:
        return f"Vault({self.state.value}, {len(self._rows.entries)} entries)"

    @property
    def state(self) -> State:
        """Return what the vault can do now."""
        if self._rows.header is None:
            return State.UNINITIALISED
        return State.UNLOCKED if self.open else State.LOCKED

    @property
    def open(self) -> bool:
        """Tell whether the vault is unlocked."""
        return self._ring.keys is not None

    @property
    def initialised(self) -> bool:
        """Tell whether the vault was ever given a password."""
        return self._rows.header is not None

    @property
    def bad(self) -> Mapping[str, str]:
        """Return the entries that are not what was stored, and what is wrong with each; known while it is open."""
        return self._bad

    @property
    def seals(self) -> int:
        """Return how often the entries' key was used; at 2^32 it has to be replaced."""
        return self._rows.state.seals if self._rows.state else 0

    async def load(self) -> None:
        """Read the rows. A damaged header is told when someone tries to unlock it."""
        self._rows = await asyncio.to_thread(self._read)

    # --- passwords and keys

    async def init(self, password: Secret) -> None:
        """Make the vault and leave it unlocked. Refuses (`INVALID`) where one exists or the password is short."""
        given = new_password(password)
        self._refuse_second()
        locks, now = self._locks, self._clock.now()
        identity = Identity(self._entropy(sealing.ID_BYTES), 0, now)
        root = bytearray(self._entropy(sealing.KEY_BYTES))
        header = await self._wrapped(given, identity, root)
        self._refuse_second()
        keys = self._keys(root, header)
        anchored = await self._remember(identity.vault_id, 0)
        state = manifest.signed(keys, SetState(0, 0, {}, (), anchored))
        stored = VaultRows(header.to_json(), {}, state)

        async def make() -> None:
            await self._audit.commit(partial(storing.first, stored=stored, now=now))
            self._rows = stored
            self._take(keys, {}, locks)

        await self._in_turn(make)

    async def unlock(self, password: Secret, *, accept: bool = False, throttled: bool = True) -> None:
        """Open the vault, also where it is open already.

        The password is tried as `Gate.root` says. A `lock` that comes in between wins. Rows that cannot be trusted are
        503 (`vault_tampered`), unless the operator says to `accept` what of them can still be opened; the root is
        replaced then, and what cannot be opened is gone.
        """
        locks = self._locks
        header, root, given = await self._tried(password, throttled=throttled)
        if accept or header.version == 1:
            take = partial(self._take, bad={}, locks=locks)
            await self._replaced(header, root, given, take, accept=accept)
        elif not self.open:
            keys, bad = await self._in_turn(partial(self._trusted, header, root))
            self._take(keys, bad, locks)
        else:
            wipe(root)
        try:
            await self._audit.note(Action.VAULT_UNLOCK)
        except TokenHubError:
            self.lock()
            raise

    def lock(self, *, told: bool = True) -> bool:
        """Forget the keys, at once; tell whether there were any. A vault that is not open stays as it is."""
        self._locks += 1
        self._bad = {}
        if told and self._tell is not None:
            self._tell(b"")
        return self._ring.forget()

    async def change_password(self, old: Secret, new: Secret) -> None:
        """Wrap the same root under another password: one row changes. Works while the vault is locked too."""
        given = new_password(new)
        header, root, _ = await self._tried(old)
        if header.version == 1:
            await self._replaced(header, root, given, Keys.forget)
            return
        identity = Identity(header.vault_id, header.generation, header.created_at)
        fresh = await self._wrapped(given, identity, root)
        wipe(root)
        text = replace(fresh, kept=header.kept).to_json()
        work = partial(storing.new_header, old=header.to_json(), new=text, now=self._clock.now())

        async def change() -> None:
            await self._audit.commit(work)
            self._rows = replace(self._rows, header=text)

        await self._in_turn(change)

    async def rotate(self, password: Secret) -> None:
        """Replace the root, and seal everything anew under it, in one transaction. The password stays the same.

        Refuses (503) where any entry is not what was stored. A vault that is locked stays so.
        """
        header, root, given = await self._tried(password)

        def take(keys: Keys) -> None:
            if self.open:
                self._hold(keys)
            else:
                keys.forget()

        await self._replaced(header, root, given, take)

    # --- secrets

    def get(self, name: str) -> Secret | None:
        """Return the secret, None where there is none.

        Raises `TokenHubError` with status 503: `vault_locked`, or `vault_tampered` where the stored bytes are not
        those that were sealed under this name.
        """
        keys = self._opened()
        if (why := self._bad.get(name)) is not None:
            raise storing.tampered(f"the vault's entry {name!r} cannot be trusted: {why}")
        entry = self._rows.entries.get(name)
        if entry is None:
            return None
        self._used = self._clock.monotonic()
        try:
            place = Place(keys.vault_id, name, entry.version)
            return Secret(sealing.unseal(keys.entries, place, entry.sealed).decode())
        except TamperedError as error:
            raise storing.tampered(error) from None

    def directive_secret(self, key_id: str) -> bytes | None:
        """Return what a client's key signs its directives with, None while the vault is not open."""
        keys = self._ring.keys
        if keys is None:
            return None
        self._used = self._clock.monotonic()
        return signing.secret_of(bytes(keys.directives), key_id)

    def has(self, name: str) -> bool:
        """Tell, without opening it, whether the vault is unlocked and holds an entry of that name."""
        return self.open and name in self._rows.entries and name not in self._bad

    def names(self) -> list[str]:
        """Return the entries' names in order, in every state: names are not secret."""
        return sorted(self._rows.entries)

    async def put(self, name: str, value: Secret) -> None:
        """Seal and store a secret; durable on return. Raises `TokenHubError` while locked (503)."""
        self._opened()
        if not name or not name.isprintable() or len(name) > MAX_NAME:
            raise client_fault(f"a vault entry's name is 1 to {MAX_NAME} visible characters", param="name")
        if not value:
            raise client_fault("a secret must not be empty", param="value")
        plain = encoded(value.reveal(), "the secret")
        now = self._clock.now()

        async def change() -> None:
            keys = self._opened()
            state = self._known()
            if state.seals >= sealing.MAX_SEALS:
                why = "the vault's key was used 2^32 times: replace it with tokenhub vault rotate"
                raise storing.unusable(why, "vault_worn")
            version = state.counter + 1
            place = Place(keys.vault_id, name, version)
            nonce = self._entropy(sealing.NONCE_BYTES)
            entry = Sealed(sealing.seal(keys.entries, place, plain, nonce), version)
            changed = replace(
                state, counter=version, seals=state.seals + 1, manifest={**state.manifest, name: version}
            )
            put = partial(rows.put_entry, name=name, entry=entry, now=now)
            await self._store(keys, changed, put)
            self._rows = replace(self._rows, entries={**self._rows.entries, name: entry})
            self._bad = {one: why for one, why in self._bad.items() if one != name}

        await self._in_turn(change)
        self._used = self._clock.monotonic()

    async def delete(self, name: str) -> bool:
        """Remove an entry for good; False where there was none. Needs no key, so it works while locked."""

        async def change() -> bool:
            state = self._rows.state
            known = name in self._rows.entries
            if not known and not (self.open and state and name in state.manifest):
                return False
            remove = partial(rows.delete_entry, name=name)
            keys = self._ring.keys
            if state is None:
                await self._audit.commit(remove)  # of the first format: there is nothing to keep in step
            elif keys is None:
                waiting = replace(state, removed=(*state.removed, name))
                await self._audit.commit(partial(storing.changed, old=state, new=waiting, work=remove))
                self._rows = replace(self._rows, state=waiting)
            else:
                left = {one: version for one, version in state.manifest.items() if one != name}
                changed = replace(state, counter=state.counter + 1, manifest=left)
                await self._store(keys, changed, remove)
            self._rows = replace(self._rows, entries=_without(self._rows.entries, name))
            self._bad = _without(self._bad, name)
            return known

        return await self._in_turn(change)

    # --- idleness

    async def keep(self) -> None:
        """Lock the vault whenever it was idle for long enough, for as long as the service runs."""
        while self._idle:
            # Where nothing is left it is locked, or others are waited for: there is nothing to be in time for.
            await asyncio.sleep(max(0.05, min(self._idle / 4, self._left() or self._idle)))
            await self.lock_if_idle()

    async def lock_if_idle(self) -> bool:
        """Lock the vault where nobody used it for long enough; tell whether that was so."""
        if not self._idle or not self.open or not self.rests:
            return False
        if self._rest is not None and not await self._rest():
            return False
        self.lock()
        await self._audit.note(Action.VAULT_LOCK, reason="idle")
        return True

    # --- several processes

    @property
    def rests(self) -> bool:
        """Tell whether nobody used the vault here for as long as it may be idle."""
        return self._left() <= 0

    def share(self, tell: Callable[[bytes], None] | None, rest: Callable[[], Awaitable[bool]] | None) -> None:
        """Let `tell` hear of new keys, empty for none; ask `rest` whether all others are idle, too."""
        self._tell, self._rest = tell, rest

    def exported(self) -> bytes:
        """Return the keys for another worker of this server, nothing while the vault is not open."""
        return self._ring.keys.exported() if self._ring.keys else b""

    async def adopt(self, exported: bytes) -> None:
        """Go on with the keys that another worker has; raises `TokenHubError` where they are not those of the rows."""
        locks, keys = self._locks, Keys.adopted(exported)

        async def judge() -> Mapping[str, str]:
            return await self._judged(keys)

        bad = await self._in_turn(judge)
        if locks == self._locks:
            self._ring.take(keys)
            self._bad, self._used = dict(bad), self._clock.monotonic()

    async def refresh(self) -> None:
        """Take over what another process has written; where it has replaced the root, the vault is locked here."""

        async def read() -> None:
            keys = self._ring.keys
            try:
                self._bad = dict(await self._judged(keys)) if keys else {}
            except TokenHubError as error:
                self._ring.forget()
                _log.warning("the vault is locked here: %s", error.fault.message)
            if keys is None:
                await self.load()

        await self._in_turn(read)

    async def _judged(self, keys: Keys) -> Mapping[str, str]:
        """Read the rows and return what is wrong with which entry; raises where these are not their keys."""
        # The anchor first: what another process writes in between is newer than it, and never older.
        anchor = await self._anchor_text()
        await self.load()
        if self._rows.header is None:
            raise storing.conflict()
        found = manifest.judged(keys, Header.from_json(self._rows.header), self._rows, anchor)
        if found.grave:
            raise storing.conflict()
        await self._remember(keys.vault_id, self._known().counter)
        return found.bad

    def _left(self) -> float:
        return max(0.0, self._used + self._idle - self._clock.monotonic())

    # --- inside

    def _read(self) -> VaultRows:
        with self._database.reading() as connection:
            return rows.load(connection)

    def _opened(self) -> Keys:
        """Return the keys; raises while the vault is not open."""
        if self._ring.keys is None:
            first = "make it" if self._rows.header is None else "unlock it"
            raise storing.unusable(f"the vault is {self.state.value}: {first} first", "vault_locked")
        return self._ring.keys

    def _known(self) -> SetState:
        """Return what an open vault knows of its entries."""
        assert self._rows.state is not None
        return self._rows.state

    def _refuse_second(self) -> None:
        if self._rows.header is not None:
            raise storing.second()

    def _take(self, keys: Keys, bad: Mapping[str, str], locks: int) -> None:
        """Become unlocked, unless `lock` was called since `locks` was read."""
        if locks != self._locks:
            keys.forget()
            raise storing.unusable("the vault was locked in the meantime", "vault_locked")
        self._hold(keys)
        self._bad = dict(bad)
        self._used = self._clock.monotonic()

    def _hold(self, keys: Keys) -> None:
        self._ring.take(keys)
        if self._tell is not None:
            self._tell(keys.exported())

    def _keys(self, root: bytearray, header: Header) -> Keys:
        """Return the root's subkeys, and overwrite the root."""
        keys = Keys(root, header.vault_id)
        wipe(root)
        try:
            keys.past = sealing.kept(keys.kept, header)
        except TamperedError as error:
            keys.forget()
            raise storing.tampered(error) from None
        return keys

    async def _wrapped(self, password: bytes, identity: Identity, root: bytearray) -> Header:
        salt, nonce = self._entropy(sealing.SALT_BYTES), self._entropy(sealing.NONCE_BYTES)
        now = self._clock.now()
        return await self._gate.alone(
            lambda: sealing.make_header(
                password, identity, salt=salt, root=root, nonce=nonce, params=self._params, now=now
            )
        )

    async def _tried(self, password: Secret, *, throttled: bool = True) -> tuple[Header, bytearray, bytes]:
        """Return the header, the root that the password opens, and the password's bytes."""
        text = self._rows.header
        if text is None:
            why = "the vault has no password yet: run tokenhub vault init"
            raise client_fault(why, cause="vault_uninitialised")
        given = password_bytes(password)
        try:
            header = Header.from_json(text)
            return header, await self._gate.root(header, given, throttled=throttled), given
        except TamperedError as error:
            raise storing.tampered(error) from None

    async def _trusted(self, header: Header, root: bytearray) -> tuple[Keys, Mapping[str, str]]:
        """Return the keys and what is wrong with which entry; raises where nothing of the set can be trusted."""
        await self._reloaded(header, root)
        keys = self._keys(root, header)
        found = manifest.judged(keys, header, self._rows, await self._anchor_text())
        for name, why in (*([("", found.grave)] if found.grave else []), *found.bad.items()):
            await self._audit.note(Action.VAULT_TAMPERED, name, outcome=Result.FAILED, reason=why)
        if found.grave:
            keys.forget()
            raise storing.tampered(f"the vault cannot be trusted: {found.grave}")
        if found.gone:
            state = self._known()
            left = {name: version for name, version in state.manifest.items() if name not in found.gone}
            await self._store(keys, replace(state, counter=state.counter + 1, manifest=left, removed=()))
        return keys, found.bad

    async def _replaced(
        self,
        header: Header,
        root: bytearray,
        password: bytes,
        take: Callable[[Keys], None],
        *,
        accept: bool = False,
    ) -> None:
        """Seal everything anew under a new root, and give its keys to `take`."""

        async def replaced() -> None:
            # Within the turn: who comes next, `refresh` for one, must not find new rows beside old keys.
            take(await self._resealed(header, root, password, accept=accept))

        await self._in_turn(replaced)

    async def _resealed(self, header: Header, root: bytearray, password: bytes, *, accept: bool) -> Keys:
        await self._reloaded(header, root)
        old = sealing.subkey(root, sealing.ENTRIES, version=header.version)
        keys = self._keys(root, header)
        try:
            if not accept and header.version == sealing.VERSION:
                self._refuse_doubtful(manifest.judged(keys, header, self._rows, await self._anchor_text()))
            plain, lost = manifest.opened(old, header.vault_id, self._rows.entries)
            if lost and not accept:
                raise storing.tampered(lost[0])
            first = header.version == 1
            identity = Identity(
                self._entropy(sealing.ID_BYTES) if first else header.vault_id,
                0 if first else header.generation + 1,
                header.created_at,
            )
            fresh_root = bytearray(self._entropy(sealing.KEY_BYTES))
            fresh = await self._wrapped(password, identity, fresh_root)
            fresh_keys = self._keys(fresh_root, fresh)
            if not first:
                fresh = keeping(fresh, fresh_keys, keys, self._entropy)
            await self._put_anew(header, fresh, fresh_keys, plain)
        finally:
            wipe(old)
            keys.forget()
        return fresh_keys

    async def _reloaded(self, header: Header, root: bytearray) -> None:
        """Read the rows again; raises where `root` is of another header than is there now."""
        await self.load()
        if self._rows.header is None or Header.from_json(self._rows.header) != header:
            wipe(root)
            raise storing.conflict()

    def _refuse_doubtful(self, found: Judgement) -> None:
        if why := found.grave or next(iter(found.bad.values()), ""):
            raise storing.tampered(f"the vault cannot be trusted: {why}")

    async def _put_anew(
        self, old: Header, fresh: Header, keys: Keys, plain: Mapping[str, tuple[int, bytes]]
    ) -> None:
        """Store the header, every entry and what is known of them, in one transaction."""
        first = not old.vault_id
        entries = {}
        for number, (name, (was, text)) in enumerate(sorted(plain.items()), 1):
            version = number if first else was
            nonce = self._entropy(sealing.NONCE_BYTES)
            sealed = sealing.seal(keys.entries, Place(fresh.vault_id, name, version), text, nonce)
            entries[name] = Sealed(sealed, version)
        known = self._rows.state
        counter = 1 + max(
            [known.counter if known else 0, await self._anchored(fresh.vault_id)]
            + [entry.version for entry in entries.values()]
        )
        anchored = (known is not None and known.anchored) or await self._remember(fresh.vault_id, 0)
        state = manifest.signed(
            keys,
            SetState(
                counter, len(entries), {name: one.version for name, one in entries.items()}, (), anchored
            ),
        )
        stored = VaultRows(fresh.to_json(), entries, state)
        now = self._clock.now()
        await self._audit.commit(partial(storing.anew, old=self._rows.header, stored=stored, now=now))
        self._rows, self._bad = stored, {}
        await self._remember(fresh.vault_id, counter)

    async def _store(self, keys: Keys, state: SetState, work: Work[Any] | None = None) -> None:
        """Do `work` and store what is known of the entries then, in one transaction."""
        known = self._known()
        anchored = state.anchored or await self._remember(keys.vault_id, known.counter)
        changed = manifest.signed(keys, replace(state, anchored=anchored))
        await self._audit.commit(partial(storing.changed, old=known, new=changed, work=work))
        self._rows = replace(self._rows, state=changed)
        await self._remember(keys.vault_id, changed.counter)

    async def _anchor_text(self) -> str | None:
        try:
            return await asyncio.to_thread(self._anchor.read) if self._anchor else None
        except ConfigError:
            return ""

    async def _anchored(self, vault_id: bytes) -> int:
        """Return the counter that the anchor knows, 0 where it knows none of this vault."""
        return manifest.anchored(await self._anchor_text() or "", vault_id) or 0

    async def _remember(self, vault_id: bytes, counter: int) -> bool:
        """Bring the anchor up to date; tell whether there is one that knows."""
        if self._anchor is None:
            return False
        try:
            await asyncio.to_thread(self._anchor.write, manifest.anchor_text(vault_id, counter))
        except OSError as error:
            _log.error("%s could not be written: %s", self._anchor, error.strerror)
            return False
        return True

    async def _in_turn[T](self, change: Callable[[], Awaitable[T]]) -> T:
        """Make one change at a time, and to its end also when the caller leaves: memory must follow the rows."""

        async def alone() -> T:
            async with self._changing:
                return await change()

        return await asyncio.shield(asyncio.create_task(alone(), name="vault change"))


def _without[V](values: Mapping[str, V], name: str) -> dict[str, V]:
    return {one: value for one, value in values.items() if one != name}
