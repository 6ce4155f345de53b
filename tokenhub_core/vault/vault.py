"""The vault: sealed credentials in the database, opened one at a time while it is unlocked.

What it promises about memory: the only key it keeps is the subkey of the entries, in a buffer that `lock` overwrites,
and it keeps no plaintext. Python cannot wipe the `str` of a password or of a credential on its way to the wire; those
live as long as someone refers to them, and their memory is reused, not cleared.
"""

from __future__ import annotations

import asyncio
import os
import stat
import unicodedata
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from tokenhub_core.errors import Blame, ConfigError, Fault, Kind, TokenHubError, client_fault
from tokenhub_core.ports import Clock, Secret
from tokenhub_core.store import catalog
from tokenhub_core.store.database import Database
from tokenhub_core.store.writer import Work, Writer
from tokenhub_core.vault import sealing
from tokenhub_core.vault.sealing import Header, Params, TamperedError, WrongPasswordError

MIN_PASSWORD: Final = 12
"""Characters of a new password."""
MAX_PASSWORD: Final = 1024
"""Characters of any password."""
MAX_NAME: Final = 200
"""Characters of an entry's name."""
QUEUE: Final = 4
"""How many may wait while one password is being tried; each try takes 64 MiB and a good part of a second."""

_MAX_FILE: Final = 8192


class State(StrEnum):
    """What the vault can do now."""

    UNINITIALISED = "uninitialised"
    LOCKED = "locked"
    UNLOCKED = "unlocked"


class Vault:
    """Belongs to one event loop. Reads are synchronous and decrypt what they return each time.

    The entries' ciphertexts stand in memory and in the database alike; another process that writes to the vault of a
    running server is not seen before its next start.
    """

    def __init__(
        self,
        database: Database,
        writer: Writer,
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
        params: Params = Params(),  # noqa: B008 - a frozen value
    ) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._entropy = entropy
        self._params = params
        self._header: str | None = None
        self._entries: dict[str, bytes] = {}
        self._key: bytearray | None = None
        self._turn = asyncio.Lock()
        self._queued = 0
        self._locks = 0

    def __repr__(self) -> str:
        return f"Vault({self.state.value}, {len(self._entries)} entries)"

    @property
    def state(self) -> State:
        """Return what the vault can do now."""
        if self._header is None:
            return State.UNINITIALISED
        return State.LOCKED if self._key is None else State.UNLOCKED

    @property
    def open(self) -> bool:
        """Tell whether the vault is unlocked."""
        return self._key is not None

    @property
    def initialised(self) -> bool:
        """Tell whether the vault was ever given a password."""
        return self._header is not None

    async def load(self) -> None:
        """Read the header and the sealed entries. A damaged header is told when someone tries to unlock it."""
        self._header, self._entries = await asyncio.to_thread(self._read)

    async def init(self, password: Secret) -> None:
        """Make the vault and leave it unlocked. Refuses (`INVALID`) where one exists or the password is short."""
        given = _new_password(password)
        self._refuse_second()
        root = self._entropy(sealing.KEY_BYTES)
        salt, nonce = self._entropy(sealing.SALT_BYTES), self._entropy(sealing.NONCE_BYTES)
        now = self._clock.now()
        locks = self._locks
        header = await self._alone(
            lambda: sealing.make_header(
                given, salt=salt, root=root, nonce=nonce, params=self._params, now=now
            )
        )
        self._refuse_second()
        text = header.to_json()

        def made(_: None) -> None:
            self._header = text
            self._take(root, locks)

        await self._commit(partial(_first_header, header=text, now=now), made)

    async def unlock(self, password: Secret) -> None:
        """Open the vault, also where it is open already.

        A wrong password is `AUTH` (`wrong_password`) and changes nothing. Passwords are tried one after the other;
        where too many wait, this is `RATE_LIMITED` (`vault_busy`). A `lock` that comes in between wins.
        """
        text = self._header
        if text is None:
            raise client_fault(
                "the vault has no password yet: run tokenhub vault init", cause="vault_uninitialised"
            )
        given = _password(password)
        locks = self._locks
        try:
            header = Header.from_json(text)
            root = await self._alone(lambda: sealing.open_root(header, given))
        except WrongPasswordError:
            raise client_fault(
                "this is not the vault's password", kind=Kind.AUTH, cause="wrong_password"
            ) from None
        except TamperedError as error:
            raise _tampered(error) from None
        self._take(root, locks)

    def lock(self) -> None:
        """Forget the key, at once. A vault that is not open stays as it is."""
        self._locks += 1
        key, self._key = self._key, None
        if key is not None:
            key[:] = bytes(len(key))

    def get(self, name: str) -> Secret | None:
        """Return the secret, None where there is none.

        Raises `TokenHubError` with status 503: `vault_locked`, or `vault_tampered` where the stored bytes are not
        those that were sealed under this name.
        """
        key = self._opened()
        sealed = self._entries.get(name)
        if sealed is None:
            return None
        try:
            return Secret(sealing.unseal(key, name, sealed).decode())
        except TamperedError as error:
            raise _tampered(error) from None

    def has(self, name: str) -> bool:
        """Tell, without opening it, whether the vault is unlocked and holds an entry of that name."""
        return self._key is not None and name in self._entries

    def names(self) -> list[str]:
        """Return the entries' names in order, in every state: names are not secret."""
        return sorted(self._entries)

    async def put(self, name: str, value: Secret) -> None:
        """Seal and store a secret; durable on return. Raises `TokenHubError` while locked (503)."""
        key = self._opened()
        if not name or not name.isprintable() or len(name) > MAX_NAME:
            raise client_fault(f"a vault entry's name is 1 to {MAX_NAME} visible characters", param="name")
        if not value:
            raise client_fault("a secret must not be empty", param="value")
        plain = _encoded(value.reveal(), "the secret")
        sealed = sealing.seal(key, name, plain, self._entropy(sealing.NONCE_BYTES))
        now = self._clock.now()

        def stored(_: None) -> None:
            self._entries[name] = sealed

        await self._commit(partial(catalog.put_vault_entry, name=name, sealed=sealed, now=now), stored)

    async def delete(self, name: str) -> bool:
        """Remove an entry for good; False where there was none. Needs no key, so it works while locked."""

        def removed(_: bool) -> None:
            self._entries.pop(name, None)

        return await self._commit(partial(catalog.delete_vault_entry, name=name), removed)

    def _read(self) -> tuple[str | None, dict[str, bytes]]:
        with self._database.reading() as connection:
            return catalog.vault_header(connection), catalog.vault_entries(connection)

    def _opened(self) -> bytearray:
        if self._key is None:
            first = "make it" if self._header is None else "unlock it"
            raise _unusable(f"the vault is {self.state.value}: {first} first", "vault_locked")
        return self._key

    def _refuse_second(self) -> None:
        if self._header is not None:
            raise _second()

    def _take(self, root: bytes, locks: int) -> None:
        """Become unlocked, unless `lock` was called since `locks` was read."""
        if locks != self._locks:
            raise _unusable("the vault was locked in the meantime", "vault_locked")
        if self._key is None:
            self._key = sealing.subkey(root, sealing.ENTRIES)

    async def _commit[T](self, work: Work[T], then: Callable[[T], None]) -> T:
        """Do `then` once `work` is durable, also when the caller leaves before that: memory must follow the rows."""

        async def both() -> T:
            result = await self._writer.commit(work)
            then(result)
            return result

        return await asyncio.shield(asyncio.create_task(both(), name="vault commit"))

    async def _alone[T](self, work: Callable[[], T]) -> T:
        """Run `work` in a thread when its turn has come."""
        if self._queued > QUEUE:
            raise TokenHubError(
                Fault(
                    Kind.RATE_LIMITED,
                    Blame.CLIENT,
                    "too many passwords are being tried at once",
                    cause="vault_busy",
                    retry_after=1.0,
                )
            )
        self._queued += 1
        try:
            async with self._turn:
                running = asyncio.ensure_future(asyncio.to_thread(work))
                try:
                    return await asyncio.shield(running)
                except asyncio.CancelledError:
                    # A thread cannot be stopped: whoever leaves keeps the turn until it has ended.
                    await asyncio.gather(running, return_exceptions=True)
                    raise
        finally:
            self._queued -= 1


def password_from(given: Secret, file: str) -> Secret | None:
    """Return the password that was given, else the one in `file`, None where neither is set.

    The file must be a regular one that only its owner can read; one newline at its end is not part of the password.
    Raises `ConfigError` where it cannot be used.
    """
    if given:
        return given
    return _password_in(Path(file).expanduser()) if file else None


def _password_in(path: Path) -> Secret:
    try:
        text = _private(path).decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ConfigError(f"password file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"password file {path}: not UTF-8 text") from None
    if not text:
        raise ConfigError(f"password file {path}: empty")
    return Secret(text)


def _private(path: Path) -> bytes:
    # Without O_NONBLOCK, opening a pipe would wait for someone to write to it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ConfigError(f"password file {path}: not a regular file")
        if os.name == "posix" and mode & 0o077:
            raise ConfigError(f"password file {path}: other users can reach it; run: chmod 600 {path}")
        data = os.read(descriptor, _MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise ConfigError(f"password file {path}: too long for a password")
        return data
    finally:
        os.close(descriptor)


def _first_header(connection: Connection, *, header: str, now: float) -> None:
    """Store the first header; refuses where another process was faster, or where entries would be orphaned."""
    if catalog.vault_header(connection) is not None:
        raise _second()
    if catalog.vault_entries(connection):
        raise _tampered("the vault has entries but no header: restore the database from a backup")
    catalog.put_vault_header(connection, header, now=now)


def _new_password(password: Secret) -> bytes:
    if len(password.reveal()) < MIN_PASSWORD:
        raise client_fault(
            f"a vault password has at least {MIN_PASSWORD} characters", cause="password_too_short"
        )
    return _password(password)


def _password(password: Secret) -> bytes:
    """Return the password's bytes: NFC, so that it is the same from every keyboard (RFC 8265, section 4.2)."""
    text = password.reveal()
    if len(text) > MAX_PASSWORD:
        raise client_fault(
            f"a vault password has at most {MAX_PASSWORD} characters", cause="password_too_long"
        )
    return _encoded(unicodedata.normalize("NFC", text), "the password")


def _encoded(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise client_fault(f"{what} is not valid Unicode text") from None


def _second() -> TokenHubError:
    return client_fault("the vault has a password already: unlock it instead", cause="vault_initialised")


def _tampered(why: object) -> TokenHubError:
    return _unusable(str(why), "vault_tampered")


def _unusable(message: str, cause: str) -> TokenHubError:
    return TokenHubError(Fault(Kind.INTERNAL, Blame.US, message, cause=cause, status=503))
