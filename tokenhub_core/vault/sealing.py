"""The vault's cryptography, as functions of their arguments. Pure: salt, nonces and the root come from outside.

    password --Argon2id, stored parameters and salt--> key-encryption key
    key-encryption key --AES-256-GCM--> wraps a random 256-bit root, which only the header holds
    root --HKDF-SHA256, one label a use--> subkeys; `entries` seals the secrets, each on its own

The wrapped root is its own verifier: a wrong password fails its authentication, so there is nothing else to compare
and nothing that a wrong password could write. A new password wraps the same root anew: one row changes, and no entry.

Everything sealed is `nonce ‖ ciphertext ‖ tag`, bound by its associated data to `version|purpose|name`: what was moved
to another name, another use or another format no longer opens. An older copy of the same entry still does; whoever owns
the disk can bring back a secret of the past, but make none.

Argon2id: RFC 9106, at its second recommended memory size. AES-GCM with 96-bit nonces: NIST SP 800-38D; random nonces
are safe for 2^32 uses of a key, far beyond the writes of a vault. HKDF: RFC 5869.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec
from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION: Final = 1
"""Of the header and of everything sealed under it."""
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
SALT_BYTES: Final = 16
ENTRIES: Final = "entries"
"""The label of the subkey that seals entries."""

_TAG_BYTES: Final = 16
_ROOT: Final = "root"
_ENTRY: Final = "entry"


class WrongPasswordError(Exception):
    """The password does not open the root, or the header is not the one that it was made with."""


class TamperedError(Exception):
    """What was read is not what was written there. The message names what, and no secret."""


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
    version: Literal[1] = VERSION

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


def make_header(
    password: bytes, *, salt: bytes, root: bytes, nonce: bytes, params: Params, now: float
) -> Header:
    """Wrap `root` under `password`. Takes as long as `params` ask for."""
    key = _derived(password, salt, params)
    return Header(salt, _sealed(key, _ROOT, "", root, nonce), now, params)


def open_root(header: Header, password: bytes) -> bytes:
    """Return the root. Raises `WrongPasswordError`, and `TamperedError` before any work for impossible parameters."""
    _check(header)
    key = _derived(password, header.salt, header.params)
    try:
        return _unsealed(key, _ROOT, "", header.wrapped)
    except InvalidTag:
        raise WrongPasswordError("the password does not open the vault") from None


def subkey(root: bytes, label: str) -> bytearray:
    """Return the root's key for one use, in a buffer that its holder can overwrite."""
    info = f"tokenhub|{VERSION}|{label}".encode()
    return bytearray(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(root))


def seal(key: bytes | bytearray, name: str, plaintext: bytes, nonce: bytes) -> bytes:
    """Return `plaintext` sealed for the entry `name`. A nonce must never be used twice with one key."""
    return _sealed(key, _ENTRY, name, plaintext, nonce)


def unseal(key: bytes | bytearray, name: str, sealed: bytes) -> bytes:
    """Return what was sealed for the entry `name`; raises `TamperedError` for anything else."""
    try:
        return _unsealed(key, _ENTRY, name, sealed)
    except InvalidTag:
        raise TamperedError(f"the vault's entry {name!r} is not what was stored under that name") from None


def _check(header: Header) -> None:
    params = header.params
    # Argon2's own floor is 8 KiB a lane (RFC 9106, section 3.1).
    possible = (
        1 <= params.lanes <= LIMITS.lanes
        and 1 <= params.passes <= LIMITS.passes
        and 8 * params.lanes <= params.memory_kib <= LIMITS.memory_kib
        and len(header.salt) == SALT_BYTES
        and len(header.wrapped) == NONCE_BYTES + KEY_BYTES + _TAG_BYTES
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


def _sealed(key: bytes | bytearray, purpose: str, name: str, plaintext: bytes, nonce: bytes) -> bytes:
    return nonce + AESGCM(key).encrypt(nonce, plaintext, _bound_to(purpose, name))


def _unsealed(key: bytes | bytearray, purpose: str, name: str, sealed: bytes) -> bytes:
    if len(sealed) < NONCE_BYTES + _TAG_BYTES:
        raise InvalidTag
    return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _bound_to(purpose, name))


def _bound_to(purpose: str, name: str) -> bytes:
    """Return the associated data. Purposes hold no `|` and the name stands last, so no two are spelt alike."""
    return f"{VERSION}|{purpose}|{name}".encode()
