"""What the vault knows of the set of its entries, and what it finds when it opens. Pure.

Each entry has a version that is never used again, and its ciphertext is bound to it. The manifest names every entry
with its version and is authenticated with a counter of all changes. So an entry that was changed, moved, added, removed
or replaced by its own older self is found from the database alone. A whole database that was put back is not: it is as
valid as it was. That is what the anchor is for, a file beside it with the vault's name and the counter.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from tokenhub_core.vault import sealing
from tokenhub_core.vault.keys import Keys
from tokenhub_core.vault.sealing import Header, Place, TamperedError

_COUNTER: Final = re.compile("[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Sealed:
    """One entry: nonce and ciphertext, and the version that it is bound to (0: the vault's first format)."""

    sealed: bytes
    version: int


@dataclass(frozen=True, slots=True)
class SetState:
    """What the vault knows of the set of its entries."""

    counter: int
    """Changes so far."""
    seals: int
    """Nonces that the entries' key was used with."""
    manifest: Mapping[str, int]
    """The version of each entry by its name."""
    removed: tuple[str, ...]
    """Names that went while the vault was locked, and are in the manifest still."""
    anchored: bool
    """Whether a file beside the database knows the counter too."""
    mac: bytes = b""
    """Over everything but `removed` and `anchored`."""


@dataclass(frozen=True, slots=True)
class VaultRows:
    """Everything that is stored of the vault. `header` is JSON text, None where no vault was made."""

    header: str | None
    entries: Mapping[str, Sealed]
    state: SetState | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an open vault says of its rows."""

    grave: str = ""
    """Why nothing of the set can be trusted, empty where it can."""
    bad: Mapping[str, str] = field(default_factory=dict)
    """Names of entries that are not what was stored, and what is wrong with each."""
    gone: tuple[str, ...] = ()
    """Entries that were removed while the vault was locked."""


def judged(keys: Keys, header: Header, rows: VaultRows, anchor: str | None) -> Judgement:
    """Compare the rows with what the vault knows of them. `anchor` is the file's text, None where there is no file."""
    state = rows.state
    if state is None:
        return Judgement("what the vault knew of its entries is gone")
    if not hmac.compare_digest(state.mac, signed(keys, state).mac):
        return Judgement("what the vault knew of its entries was changed")
    if state.anchored and (why := _behind(header, state, anchor)):
        return Judgement(why)
    bad = {}
    for name, entry in rows.entries.items():
        if why := _wrong(keys, header, state, name, entry):
            bad[name] = why
    missing = [name for name in state.manifest if name not in rows.entries]
    bad.update({name: "it was removed" for name in missing if name not in state.removed})
    return Judgement(bad=bad, gone=tuple(name for name in missing if name in state.removed))


def signed(keys: Keys, state: SetState) -> SetState:
    """Return the state with its MAC."""
    mac = sealing.manifest_mac(
        keys.manifest,
        keys.vault_id,
        counter=state.counter,
        seals=state.seals,
        manifest=state.manifest,
    )
    return replace(state, mac=mac)


def opened(
    key: bytes | bytearray, vault_id: bytes, entries: Mapping[str, Sealed]
) -> tuple[dict[str, tuple[int, bytes]], list[str]]:
    """Return (version, plaintext) of every entry that opens in its place, and what is wrong with the others."""
    plain, lost = {}, []
    for name, entry in entries.items():
        try:
            plain[name] = (
                entry.version,
                sealing.unseal(key, Place(vault_id, name, entry.version), entry.sealed),
            )
        except TamperedError as error:
            lost.append(str(error))
    return plain, lost


def anchor_text(vault_id: bytes, counter: int) -> str:
    """Return what the anchor says."""
    return f"{vault_id.hex()}:{counter}\n"


def anchored(anchor: str, vault_id: bytes) -> int | None:
    """Return the counter that the anchor's text knows of this vault, None where it is of another one."""
    name, _, counter = anchor.strip().partition(":")
    known = name == vault_id.hex() and _COUNTER.fullmatch(counter)
    return int(counter) if known else None


def _behind(header: Header, state: SetState, anchor: str | None) -> str:
    """Return why the anchor does not go with the database, empty where it does. The database may be ahead of it."""
    if anchor is None:
        return "the file beside the database that knows how far the vault had come is gone"
    counter = anchored(anchor, header.vault_id)
    if counter is None:
        return "the file beside the database that knows how far the vault had come is of another vault"
    if counter > state.counter:
        return "an older copy of the vault was put back"
    return ""


def _wrong(keys: Keys, header: Header, state: SetState, name: str, entry: Sealed) -> str:
    version = state.manifest.get(name)
    if version is None:
        return "the vault did not put it there"
    if version != entry.version:
        return "an older copy of it was put back"
    try:
        sealing.unseal(keys.entries, Place(header.vault_id, name, version), entry.sealed)
    except TamperedError as error:
        return str(error)
    return ""
