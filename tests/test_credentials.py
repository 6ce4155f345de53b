"""Where a credential is read, and when there is one."""

from __future__ import annotations

import pytest

from tokenhub_core.credentials import Credentials, vault_name
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import Secret


class Box:
    """A vault that can be locked."""

    def __init__(self, **held: str) -> None:
        self.held = {vault_name(name): value for name, value in held.items()}
        self.locked = False

    def get(self, name: str) -> Secret | None:
        if self.locked:
            raise TokenHubError(Fault(Kind.INTERNAL, Blame.US, "locked", cause="vault_locked"))
        value = self.held.get(name)
        return None if value is None else Secret(value)

    def has(self, name: str) -> bool:
        return not self.locked and name in self.held


def read(credentials: Credentials, store: str, provider: str = "p") -> str | None:
    """Return the credential; `available` must have said the same."""
    secret = credentials.credential(provider, store)
    if store.partition(":")[0] in {"vault", "env", "memory"}:
        assert credentials.available(provider, store) is (secret is not None)
    return None if secret is None else secret.reveal()


def test_each_store_gives_its_own() -> None:
    """The vault by the provider's name, the environment by the variable's, memory by what was held."""
    credentials = Credentials(Box(p="from-vault"), {"KEY": "from-env", "EMPTY": ""})
    credentials.hold("p", Secret("from-memory"))
    assert [read(credentials, store) for store in ("vault", "env:KEY", "memory")] == [
        "from-vault",
        "from-env",
        "from-memory",
    ]
    assert [read(credentials, store, "q") for store in ("vault", "memory")] == [None, None]
    assert [read(credentials, store) for store in ("env:EMPTY", "env:NONE", "env:", "env")] == [None] * 4


def test_who_needs_none_can_be_called() -> None:
    """No credential, or the caller's own: available, and nothing to give. A store that nobody knows is neither."""
    credentials = Credentials(Box(), {})
    for store, usable in (("none", True), ("caller", True), ("bogus", False), ("", False)):
        assert credentials.available("p", store) is usable
        assert credentials.credential("p", store) is None


def test_nothing_is_kept_of_what_was_read() -> None:
    """A locked vault and a dropped key stop their providers at once."""
    box = Box(p="from-vault")
    credentials = Credentials(box, {})
    assert read(credentials, "vault") == "from-vault"
    box.locked = True
    assert not credentials.available("p", "vault")
    with pytest.raises(TokenHubError, match="locked"):
        credentials.credential("p", "vault")
    credentials.hold("p", Secret("held"))
    credentials.hold("p", Secret("newer"))
    assert read(credentials, "memory") == "newer"
    credentials.drop("p")
    credentials.drop("p")
    assert read(credentials, "memory") is None
