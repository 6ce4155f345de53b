"""The vault's cryptography, as functions of their arguments. Pure: salt, nonces and the root come from outside.

    password --Argon2id, stored parameters and salt--> key-encryption key
    key-encryption key --AES-256-GCM--> wraps a random 256-bit root, which only the header holds
    root --HKDF-SHA256, one label a use--> subkeys
        entries    seals the secrets, each on its own
        manifest   authenticates which entries there are, and of which version
        audit      signs the audit log
        kept       seals the audit keys of roots before this one
        directives makes the secrets that clients sign their directives with
        captures   seals the text of calls, where somebody asked for it; each with a key of its own under this one
        durable    seals what durable calls need to go on, in the store and on its way through Temporal; as captures

The wrapped root is its own verifier: a wrong password fails its authentication, so there is nothing else to compare
and nothing that a wrong password could write. A new password wraps the same root anew: one row changes, and no entry.

Everything sealed is `nonce ‖ ciphertext ‖ tag`, bound by its associated data to `format|purpose|vault|version|name`:
what was moved to another name, another use, another vault, another format, or put back from before, no longer opens.

Argon2id: RFC 9106, at its second recommended memory size. AES-GCM with random 96-bit nonces: NIST SP 800-38D, section
8.3, allows 2^32 uses of a key. HKDF: RFC 5869.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Literal

import msgspec
from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION: Final = 2
"""Of the header and of everything sealed under it."""
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
SALT_BYTES: Final = 16
ID_BYTES: Final = 16
MAX_SEALS: Final = 2**32
"""The most uses of one key with random nonces (NIST SP 800-38D, section 8.3)."""

ENTRIES: Final = "entries"
MANIFEST: Final = "manifest"
AUDIT: Final = "audit"
AUDIT_ID: Final = "audit id"
KEPT: Final = "kept"
DIRECTIVES: Final = "directives"
CAPTURES: Final = "captures"
DURABLE: Final = "durable"
"""Labels of subkeys."""

_TAG_BYTES: Final = 16
_ROOT: Final = "root"
_ENTRY: Final = "entry"
_WRAPPED: Final = NONCE_BYTES + KEY_BYTES + _TAG_BYTES


class WrongPasswordError(Exception):
    """The password does not open the root, or the header is not the one that it was made with."""


class TamperedError(Exception):
    """What was read is not what was written there. The message names what, and no secret."""


@dataclass(frozen=True, slots=True)
class Sealer:
    """Seals the text of calls: of each with a key that nothing else is sealed with, and bound to its id."""

    key_id: str
    """Which root it belongs to."""
    key: bytes = field(repr=False)
    purpose: str = CAPTURES

    def seal(self, name: str, plaintext: bytes, nonce: bytes) -> bytes:
        """Return the text of the call `name`, sealed."""
        return _sealed(self._own(name), _bound(self.purpose, b"", 0, name), plaintext, nonce)

    def unseal(self, name: str, sealed: bytes) -> bytes:
        """Return what was sealed for this call; raises `TamperedError` for anything else."""
        try:
            return _unsealed(self._own(name), _bound(self.purpose, b"", 0, name), sealed)
        except InvalidTag:
            raise TamperedError(f"the text of {name} is not what was stored for it") from None

    def _own(self, name: str) -> bytes:
        return hmac.digest(self.key, name.encode(), sha256)


@dataclass(frozen=True, slots=True)
class Params:
    """Argon2id's costs. They are stored, so that old vaults open after the default has moved."""

    memory_kib: int = 64 * 1024
    passes: int = 3
    lanes: int = 1


LIMITS: Final = Params(memory_kib=1024 * 1024, passes=16, lanes=16)
"""The most that a header may ask for: whoever edits it must not be able to stop the machine."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is stored to open the vault with a password. Nothing in it is secret without the password."""

    salt: bytes
    wrapped: bytes = field(repr=False)
    """The sealed root."""
    created_at: float
    """Seconds since the epoch."""
    params: Params = Params()
    kdf: Literal["argon2id"] = "argon2id"
    version: Literal[1, 2] = VERSION
    vault_id: bytes = b""
    """Random, the vault's own for as long as it lives."""
    generation: int = 0
    """How often the root was replaced."""
    password_at: float = 0.0
    """When this password was given."""
    kept: dict[str, bytes] = field(default_factory=dict, repr=False)
    """The audit keys of roots before this one, sealed, by their ids."""

    def to_json(self) -> str:
        """Return the text to store; bytes are base64."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Header:
        """Read `to_json`'s text; raises `TamperedError` for anything that this version did not write."""
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise TamperedError(f"the vault's header cannot be used: {error}") from None


@dataclass(frozen=True, slots=True)
class Identity:
    """Which vault it is, and which of its roots. Bound into what wraps the root."""

    vault_id: bytes
    generation: int
    created_at: float


def make_header(
    password: bytes,
    identity: Identity,
    *,
    salt: bytes,
    root: bytes | bytearray,
    nonce: bytes,
    params: Params,
    now: float,
) -> Header:
    """Wrap `root` under `password`. Takes as long as `params` ask for."""
    key = _derived(password, salt, params)
    wrapped = _sealed(key, _root_bound(VERSION, identity.vault_id, identity.generation), root, nonce)
    return Header(
        salt,
        wrapped,
        identity.created_at,
        params,
        vault_id=identity.vault_id,
        generation=identity.generation,
        password_at=now,
    )


def open_root(header: Header, password: bytes) -> bytearray:
    """Return the root in a buffer that its holder can overwrite.

    Raises `WrongPasswordError`, and `TamperedError` before any work for impossible parameters.
    """
    _check(header)
    key = _derived(password, header.salt, header.params)
    root = bytearray(KEY_BYTES)
    try:
        bound = _root_bound(header.version, header.vault_id, header.generation)
        AESGCM(key).decrypt_into(header.wrapped[:NONCE_BYTES], header.wrapped[NONCE_BYTES:], bound, root)
    except InvalidTag:
        raise WrongPasswordError("the password does not open the vault") from None
    return root


def subkey(root: bytes | bytearray, label: str, *, version: int = VERSION) -> bytearray:
    """Return the root's key for one use, in a buffer that its holder can overwrite."""
    info = f"tokenhub|{version}|{label}".encode()
    key = bytearray(KEY_BYTES)
    HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive_into(root, key)
    return key


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry belongs: the vault, its name, and which version of it. A version is never used again."""

    vault_id: bytes
    name: str
    version: int

    @property
    def bound(self) -> bytes:
        """Return the associated data; the name stands last, so no two are spelt alike."""
        if self.version == 0:
            return f"1|{_ENTRY}|{self.name}".encode()  # the vault's first format
        return _bound(_ENTRY, self.vault_id, self.version, self.name)


def seal(key: bytes | bytearray, place: Place, plaintext: bytes, nonce: bytes) -> bytes:
    """Return `plaintext` sealed for its place. A nonce must never be used twice with one key."""
    return _sealed(key, place.bound, plaintext, nonce)


def unseal(key: bytes | bytearray, place: Place, sealed: bytes) -> bytes:
    """Return what was sealed for this place; raises `TamperedError` for anything else."""
    try:
        return _unsealed(key, place.bound, sealed)
    except InvalidTag:
        raise TamperedError(
            f"the vault's entry {place.name!r} is not what was stored under that name"
        ) from None


def keep(
    key: bytes | bytearray, header: Header, key_id: str, audit: bytes | bytearray, nonce: bytes
) -> bytes:
    """Return an audit key sealed for the header."""
    return _sealed(key, _bound(KEPT, header.vault_id, header.generation, key_id), audit, nonce)


def kept(key: bytes | bytearray, header: Header) -> dict[str, bytearray]:
    """Return the audit keys in the header; raises `TamperedError` where one is not what was stored."""
    found = {}
    for key_id, sealed in header.kept.items():
        buffer = bytearray(KEY_BYTES)
        bound = _bound(KEPT, header.vault_id, header.generation, key_id)
        try:
            AESGCM(key).decrypt_into(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound, buffer)
        except (InvalidTag, ValueError):
            raise TamperedError("the vault's header cannot be used: a key in it was changed") from None
        found[key_id] = buffer
    return found


def manifest_mac(
    key: bytes | bytearray, vault_id: bytes, *, counter: int, seals: int, manifest: Mapping[str, int]
) -> bytes:
    """Return what authenticates which entries there are: HMAC-SHA256 over all of it."""
    told = [VERSION, vault_id.hex(), counter, seals, sorted(manifest.items())]
    return hmac.digest(key, msgspec.json.encode(told), sha256)


def _check(header: Header) -> None:
    params = header.params
    # Argon2's own floor is 8 KiB a lane (RFC 9106, section 3.1).
    possible = (
        1 <= params.lanes <= LIMITS.lanes
        and 1 <= params.passes <= LIMITS.passes
        and 8 * params.lanes <= params.memory_kib <= LIMITS.memory_kib
        and len(header.salt) == SALT_BYTES
        and len(header.wrapped) == _WRAPPED
        and len(header.vault_id) == (ID_BYTES if header.version == VERSION else 0)
    )
    if not possible:
        raise TamperedError("the vault's header cannot be used: its parameters are outside their bounds")


def _derived(password: bytes, salt: bytes, params: Params) -> bytes:
    return hash_secret_raw(
        password,
        salt,
        time_cost=params.passes,
        memory_cost=params.memory_kib,
        parallelism=params.lanes,
        hash_len=KEY_BYTES,
        type=Type.ID,
    )


def _sealed(key: bytes | bytearray, bound: bytes, plaintext: bytes | bytearray, nonce: bytes) -> bytes:
    return nonce + AESGCM(key).encrypt(nonce, plaintext, bound)


def _unsealed(key: bytes | bytearray, bound: bytes, sealed: bytes) -> bytes:
    if len(sealed) < NONCE_BYTES + _TAG_BYTES:
        raise InvalidTag
    return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)


def _root_bound(version: int, vault_id: bytes, generation: int) -> bytes:
    return b"1|root|" if version == 1 else _bound(_ROOT, vault_id, generation, "")


def _bound(purpose: str, vault_id: bytes, number: int, name: str) -> bytes:
    """Return the associated data. No part but the last can hold a `|`, so no two are spelt alike."""
    return f"{VERSION}|{purpose}|{vault_id.hex()}|{number}|{name}".encode()
