"""One vault in several processes of a server: what they tell each other, and what each does by itself."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import delete

from tests.vault.conftest import Hands, Start
from tokenhub_core.audit.chain import Signer
from tokenhub_core.errors import TokenHubError
from tokenhub_core.ports import Secret
from tokenhub_core.signing import SECRET_BYTES
from tokenhub_core.store.schema import VAULT_HEADER
from tokenhub_core.store.writer import Writer
from tokenhub_core.vault import sealing
from tokenhub_core.vault.keys import KeyHolder, Keys
from tokenhub_core.vault.sealing import Sealer, TamperedError
from tokenhub_core.vault.vault import Vault

PASSWORD = Secret("correct horse battery")
NAME = "provider:openai:api_key"
NONCE = b"n" * sealing.NONCE_BYTES


def given(vault: Vault, name: str) -> str:
    """Return the text of a secret."""
    secret = vault.get(name)
    return secret.reveal() if secret else ""


async def test_a_worker_goes_on_with_the_keys_of_another_one(vault: Vault, start: Start) -> None:
    """Without the password; what it writes then the first one takes over."""
    other = await start()
    assert other.exported() == b""
    await other.adopt(vault.exported())
    assert other.open
    assert given(other, NAME) == "sk-the-key"
    assert other.exported() == vault.exported()
    await other.put("theirs", Secret("sk-theirs"))
    await vault.refresh()
    assert given(vault, "theirs") == "sk-theirs"
    await vault.put("ours", Secret("sk-ours"))


async def test_keys_of_another_root_are_not_adopted(vault: Vault, start: Start) -> None:
    """What was rotated away opens nothing, nor does what is no export; and nobody is locked by the attempt."""
    old, other = vault.exported(), await start()
    await vault.rotate(PASSWORD)
    with pytest.raises(TokenHubError, match="another process"):
        await other.adopt(old)
    with pytest.raises(msgspec.MsgspecError):
        await other.adopt(b"\x93")
    assert not other.open
    assert vault.open


async def test_keys_are_not_adopted_before_there_is_a_vault(vault: Vault, writer: Writer) -> None:
    """Whoever took its rows away meanwhile has taken the vault."""
    keys = vault.exported()
    await writer.commit(lambda connection: connection.execute(delete(VAULT_HEADER)))
    with pytest.raises(TokenHubError, match="another process"):
        await vault.adopt(keys)


async def test_a_lock_that_comes_while_keys_are_judged_holds(vault: Vault, start: Start) -> None:
    """The vault was locked after the keys were sent: they are not taken."""
    other = await start()
    judged = other._judged

    async def locked(keys: Keys) -> object:
        other.lock()
        return await judged(keys)

    other._judged = locked  # type: ignore[assignment, method-assign] # a moment that no caller can choose
    await other.adopt(vault.exported())
    assert not other.open


async def test_who_meets_another_root_is_locked(
    vault: Vault, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that had the keys of the old one shows the vault as locked, and says so; it knows the new names."""
    other = await start()
    await other.unlock(PASSWORD)
    await other.put("theirs", Secret("sk-theirs"))
    await other.rotate(PASSWORD)
    await vault.refresh()
    assert not vault.open
    assert caplog.messages[-1:] == [
        "the vault is locked here: another process has changed the vault: lock it and unlock it again"
    ]
    await other.put("later", Secret("sk-later"))
    await vault.refresh()
    assert vault.names() == ["later", NAME, "theirs"]
    await vault.unlock(PASSWORD)
    assert given(vault, "theirs") == "sk-theirs"


async def test_new_keys_and_their_end_are_told(vault: Vault) -> None:
    """Empty for none; where others said it first, nobody is told again."""
    told: list[bytes] = []
    vault.share(told.append, None)
    vault.lock(told=False)
    assert told == []
    await vault.unlock(PASSWORD)
    await vault.rotate(PASSWORD)
    assert told[-1] == vault.exported()
    vault.lock()
    assert told[-1] == b""


@pytest.mark.parametrize("others", [True, False, None])
async def test_an_idle_vault_is_locked_when_all_are_idle(
    vault: Vault, clock: Hands, others: bool | None
) -> None:
    """A worker that nobody asks anything does not lock those that are busy."""

    async def rest() -> bool:
        return bool(others)

    vault.share(None, None if others is None else rest)
    vault._idle = 60.0
    clock.at = 59.9
    assert not await vault.lock_if_idle()
    clock.at = 60.0
    assert await vault.lock_if_idle() is (others is not False)
    assert vault.open is (others is False)


async def test_what_directives_are_signed_with_is_there_while_the_vault_is_open(
    vault: Vault, clock: Hands
) -> None:
    """Each key has a secret of its own; to ask for it is to use the vault."""
    vault._idle = 60.0
    clock.at = 59.0
    one, other = vault.directive_secret("k1"), vault.directive_secret("k2")
    assert one is not None
    assert other is not None
    assert (len(one), one == other) == (SECRET_BYTES, False)
    clock.at = 61.0
    assert not vault.rests
    vault.lock()
    assert vault.directive_secret("k1") is None


# --- what is sealed besides secrets --------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", [sealing.CAPTURES, sealing.DURABLE])
def test_a_text_is_bound_to_its_call_its_purpose_and_its_root(purpose: str) -> None:
    """In any other place it is not opened; the message names the call and nothing of the text."""
    sealer = Sealer("r", b"k" * 32, purpose)
    sealed = sealer.seal("req_1", b"the text", NONCE)
    assert b"the text" not in sealed
    assert sealer.unseal("req_1", sealed) == b"the text"
    others = {sealing.CAPTURES, sealing.DURABLE} - {purpose}
    for one, name in (
        (sealer, "req_2"),
        (Sealer("r", b"K" * 32, purpose), "req_1"),
        (Sealer("r", b"k" * 32, others.pop()), "req_1"),
    ):
        with pytest.raises(TamperedError) as caught:
            one.unseal(name, sealed)
        assert str(caught.value) == f"the text of {name} is not what was stored for it"
    assert "kkk" not in repr(sealer)


def test_a_texts_seal_is_the_same_in_every_version() -> None:
    """What was stored once can be opened for as long as its root is there."""
    sealed = Sealer("r", b"k" * 32).seal("req_1", b"the text", NONCE)
    assert sealed.hex() == "6e6e6e6e6e6e6e6e6e6e6e6ef0e8454e1c091b6fa147082e2084c3c9c47f5dc2c737d7b0"


def test_a_holder_gives_copies_while_there_are_keys() -> None:
    """Of keys that have their own uses; after that nobody has any, and what was there is overwritten."""
    holder = KeyHolder()
    assert (holder.signer(), holder.sealer(), holder.durable(), holder.verifiers()) == (None, None, None, {})
    assert not holder.forget()
    keys = Keys(bytearray(b"r" * 32), b"v" * 16)
    keys.past = {"old": bytearray(b"p" * 32)}
    holder.take(keys)
    signer, sealer, durable = holder.signer(), holder.sealer(), holder.durable()
    assert signer == Signer(keys.audit_id, bytes(keys.audit))
    assert sealer == Sealer(keys.audit_id, bytes(keys.captures), sealing.CAPTURES)
    assert durable == Sealer(keys.audit_id, bytes(keys.durable), sealing.DURABLE)
    assert holder.verifiers() == {"old": b"p" * 32, keys.audit_id: bytes(keys.audit)}
    again = Keys.adopted(keys.exported())
    assert vars(again) == vars(keys)
    assert {type(value) for value in vars(again).values()} == {bytes, bytearray, str, dict}
    assert (len(keys.audit_id), type(again.vault_id)) == (16, bytes)
    assert "rrr" not in repr(keys)
    assert repr(keys) == "Keys(…)"
    assert holder.forget()
    assert {bytes(value) for value in vars(keys).values() if isinstance(value, bytearray)} == {bytes(32)}
    assert keys.past == {"old": bytearray(32)}
    assert vars(again) != vars(keys)


def test_a_holder_overwrites_the_keys_whose_place_others_take() -> None:
    """Those of a root that was replaced are in no memory any more."""
    holder, old, new = (
        KeyHolder(),
        Keys(bytearray(b"r" * 32), b"v" * 16),
        Keys(bytearray(b"s" * 32), b"v" * 16),
    )
    holder.take(old)
    holder.take(new)
    assert (old.entries, old.audit) == (bytearray(32), bytearray(32))
    assert (holder.keys, any(new.entries)) == (new, True)
