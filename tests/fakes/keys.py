"""Clients' keys, in a dict: who has which secret, and what it is good for."""

from __future__ import annotations

from typing import Any, Final

from msgspec import structs

from tokenhub_core.errors import Kind, client_fault
from tokenhub_core.types import ANY, KEY_PREFIX, ApiKey, Scope

SECRET: Final = f"{KEY_PREFIX}{'c0ffee42' * 8}"
"""A secret of ours that must not turn up where it does not belong."""
OTHER: Final = f"{KEY_PREFIX}{'deadbeef' * 8}"
WRONG: Final = f"{KEY_PREFIX}{'0badc0de' * 8}"
"""Of ours by its looks, and nobody's."""
EXPIRED: Final = f"{KEY_PREFIX}{'0ldc0de5' * 8}"

ANN: Final = ApiKey(
    "k-ann",
    name="ann",
    scopes=frozenset(Scope),
    models=(ANY,),
    providers=(ANY,),
    hosts=(ANY,),
    project="apollo",
)
"""Good for everything."""


def limited(**to: Any) -> ApiKey:
    """Return Ann's key with some of what it is good for taken away."""
    return structs.replace(ANN, **to)


class Book:
    """Knows secrets. Whoever is in `broken` finds it out of order."""

    def __init__(self, **keys: ApiKey) -> None:
        self.keys = {SECRET: ANN, OTHER: structs.replace(ANN, id="k-bob", name=""), **keys}
        self.asked: list[str] = []
        self.breaks: BaseException | None = None

    def look_up(self, secret: str, now: float) -> ApiKey:
        """Return the key, as `KeyBook` says."""
        del now
        self.asked.append(secret)
        if self.breaks is not None:
            raise self.breaks
        if secret == EXPIRED:
            raise client_fault("this API key has expired", kind=Kind.AUTH, cause="key_expired")
        if secret not in self.keys:
            raise client_fault("this API key is not known", kind=Kind.AUTH, cause="key_unknown")
        return self.keys[secret]

    def named(self, key_id: str, now: float) -> ApiKey:
        """Return the key, as `KeyBook` says."""
        found = next((secret for secret, key in self.keys.items() if key.id == key_id), WRONG)
        return self.look_up(found, now)
