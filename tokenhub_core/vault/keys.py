"""The keys of an open vault: the one place that holds any, and that can forget them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from tokenhub_core.audit.chain import Signer
from tokenhub_core.vault import sealing
from tokenhub_core.vault.sealing import Header, Sealer


class Keys:
    """Subkeys of one root, each in a buffer of its own that `forget` overwrites.

    `past` are the audit keys of roots before this one: they check what those signed, and sign nothing.
    """

    def __init__(self, root: bytearray, vault_id: bytes) -> None:
        self.vault_id = vault_id
        self.entries = sealing.subkey(root, sealing.ENTRIES)
        self.manifest = sealing.subkey(root, sealing.MANIFEST)
        self.kept = sealing.subkey(root, sealing.KEPT)
        self.audit = sealing.subkey(root, sealing.AUDIT)
        self.directives = sealing.subkey(root, sealing.DIRECTIVES)
        self.captures = sealing.subkey(root, sealing.CAPTURES)
        self.durable = sealing.subkey(root, sealing.DURABLE)
        self.audit_id = bytes(sealing.subkey(root, sealing.AUDIT_ID)[:8]).hex()
        self.past: dict[str, bytearray] = {}

    @classmethod
    def adopted(cls, exported: bytes) -> Keys:
        """Return the keys that another process has `exported`; raises `msgspec.MsgspecError` where they are none."""
        keys = cls.__new__(cls)
        for name, value in msgspec.msgpack.decode(exported, type=dict[str, Any]).items():
            setattr(
                keys, name, bytearray(value) if isinstance(value, bytes) and name != "vault_id" else value
            )
        keys.past = {name: bytearray(key) for name, key in keys.past.items()}
        return keys

    def exported(self) -> bytes:
        """Return every key, for another worker of this server. Nobody can overwrite what is returned."""
        return msgspec.msgpack.encode(vars(self))

    def __repr__(self) -> str:
        return "Keys(…)"

    def forget(self) -> None:
        """Overwrite every key."""
        for buffer in (
            self.entries,
            self.manifest,
            self.kept,
            self.audit,
            self.directives,
            self.captures,
            self.durable,
            *self.past.values(),
        ):
            wipe(buffer)


class KeyHolder:
    """Where the vault puts its keys while it is open, and where the audit log finds its own."""

    def __init__(self) -> None:
        self.keys: Keys | None = None

    def signer(self) -> Signer | None:
        """Return a copy of the audit key, for one transaction: it must hold still even if the vault locks meanwhile."""
        return Signer(self.keys.audit_id, bytes(self.keys.audit)) if self.keys else None

    def sealer(self) -> Sealer | None:
        """Return what seals the text of calls, a copy for one of them; None while the vault is not open."""
        return Sealer(self.keys.audit_id, bytes(self.keys.captures)) if self.keys else None

    def durable(self) -> Sealer | None:
        """Return what seals durable calls, as `sealer` does."""
        keys = self.keys
        return Sealer(keys.audit_id, bytes(keys.durable), sealing.DURABLE) if keys else None

    def verifiers(self) -> dict[str, bytes]:
        """Return copies of every audit key by its id; none while the vault is not open."""
        if self.keys is None:
            return {}
        return {
            **{key_id: bytes(key) for key_id, key in self.keys.past.items()},
            self.keys.audit_id: bytes(self.keys.audit),
        }

    def take(self, keys: Keys) -> None:
        """Hold these keys, in place of any others."""
        self.forget()
        self.keys = keys

    def forget(self) -> bool:
        """Overwrite and let go of every key; tell whether there were any."""
        keys, self.keys = self.keys, None
        if keys is not None:
            keys.forget()
        return keys is not None


def wipe(buffer: bytearray) -> None:
    """Overwrite a key."""
    buffer[:] = bytes(len(buffer))


def keeping(header: Header, keys: Keys, old: Keys, entropy: Callable[[int], bytes]) -> Header:
    """Return the header with the audit keys of all roots before, and give them to `keys` too."""
    keys.past = {key_id: bytearray(key) for key_id, key in {**old.past, old.audit_id: old.audit}.items()}
    sealed = {
        key_id: sealing.keep(keys.kept, header, key_id, key, entropy(sealing.NONCE_BYTES))
        for key_id, key in keys.past.items()
    }
    return replace(header, kept=sealed)
