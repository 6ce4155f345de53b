"""The vault and an operator's own secrets."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from tokenhub_core.credentials import SECRETS
from tokenhub_core.http import shapes
from tokenhub_core.http.openapi import Area, Operation, items
from tokenhub_core.http.operations.fleet import BASE, Done
from tokenhub_core.vault.vault import MAX_NAME, State

_PATH: Final = f"{BASE}/vault"
_SECRET: Final = _PATH + "/secrets/{name}"
type _Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME - len(SECRETS))]


class Bad(msgspec.Struct):
    """An entry that cannot be trusted."""

    name: str
    why: str


class VaultShown(msgspec.Struct):
    """The vault as it stands; `seals` is how often its key was used."""

    state: State
    entries: int
    seals: int
    bad: list[Bad]


class SecretName(msgspec.Struct):
    """The name of a secret."""

    name: str


class Secret(SecretName):
    """A secret."""

    value: str


def _change(what: str, summary: str, body: type[msgspec.Struct]) -> Operation:
    return Operation(
        method="POST",
        path=f"{_PATH}/{what}",
        summary=summary,
        body=body,
        answers={200: VaultShown},
    )


AREA: Final = Area(
    "vault",
    "Where credentials are sealed, and secrets of an operator's own. While it is locked, what needs it is a 503.",
    (
        Operation(method="GET", path=_PATH, summary="Show the vault's state", answers={200: VaultShown}),
        _change("init", "Give the vault its first password", shapes.PasswordBody),
        _change("unlock", "Unlock the vault", shapes.UnlockBody),
        Operation(method="POST", path=f"{_PATH}/lock", summary="Lock the vault", answers={200: VaultShown}),
        _change("password", "Give the vault another password", shapes.NewPasswordBody),
        _change("rotate", "Give the vault another key", shapes.PasswordBody),
        Operation(
            method="GET",
            path=f"{_PATH}/secrets",
            summary="List the names of secrets",
            answers={200: items(SecretName)},
        ),
        Operation(
            method="GET",
            path=_SECRET,
            summary="Read a secret; the audit log has it first",
            places={"name": _Name},
            answers={200: Secret},
            refuses=(404,),
        ),
        Operation(
            method="PUT",
            path=_SECRET,
            summary="Keep a secret",
            places={"name": _Name},
            text="A name with a line break has no path, and is a 404.",
            body=shapes.SecretBody,
            answers={200: SecretName, 201: SecretName},
            refuses=(404,),
        ),
        Operation(
            method="DELETE",
            path=_SECRET,
            summary="Remove a secret",
            places={"name": _Name},
            answers={200: Done},
            refuses=(404,),
        ),
    ),
)
