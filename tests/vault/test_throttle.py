"""Wrong passwords make the next one wait; nobody is kept out for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vault.conftest import Hands, Start
from tokenhub_core.errors import Kind, TokenHubError
from tokenhub_core.ports import Secret
from tokenhub_core.vault import throttle
from tokenhub_core.vault.vault import Vault

PASSWORD, WRONG = Secret("correct horse battery"), Secret("incorrect horse battery")


async def cause(vault: Vault, password: Secret = WRONG) -> str:
    """Try a password and return what it was refused with, empty where it opened."""
    try:
        await vault.unlock(password)
    except TokenHubError as error:
        return error.fault.label
    return ""


def test_the_wait_doubles_up_to_a_quarter_of_an_hour() -> None:
    """Five are free."""
    assert [throttle.delay(failures) for failures in range(5)] == [0.0] * 5
    assert [throttle.delay(failures) for failures in range(5, 16)] == [
        1,
        2,
        4,
        8,
        16,
        32,
        64,
        128,
        256,
        512,
        900,
    ]
    assert throttle.delay(10**9) == 900.0


@given(failures=st.integers(0, 10**6), failed_at=st.floats(0, 2e9), now=st.floats(0, 2e9))
def test_nobody_waits_longer_than_that(failures: int, failed_at: float, now: float) -> None:
    """Whatever the clocks say; a wait that is over is 0."""
    wait = throttle.remaining(failures, failed_at, now)
    assert 0.0 <= wait <= throttle.LONGEST
    if now >= failed_at + throttle.delay(failures) or now < failed_at:
        assert wait == 0.0


@pytest.mark.parametrize(
    ("failures", "now", "wait"),
    [(4, 100.0, 0.0), (6, 100.0, 2.0), (6, 101.5, 0.5), (6, 102.0, 0.0), (6, 99.9, 0.0)],
)
def test_the_wait_ends_by_the_clock(failures: int, now: float, wait: float) -> None:
    """From the last failure on; a clock that was set back keeps nobody out."""
    assert throttle.remaining(failures, 100.0, now) == wait


async def test_the_sixth_wrong_password_has_to_wait(vault: Vault, clock: Hands) -> None:
    """It is not even tried, and the answer says when it can be; then each wait is twice the one before."""
    vault.lock()
    assert [await cause(vault) for _ in range(5)] == ["wrong_password"] * 5
    with pytest.raises(TokenHubError, match="1 s") as caught:
        await vault.unlock(WRONG)
    fault = caught.value.fault
    assert (fault.kind, fault.cause, fault.retry_after) == (Kind.RATE_LIMITED, "vault_throttled", 1.0)
    for wait in (1.0, 2.0, 4.0):
        clock.at += wait - 0.01
        assert await cause(vault) == "vault_throttled"
        clock.at += 0.02
        assert await cause(vault) == "wrong_password"


async def test_the_right_password_waits_too_and_ends_it(vault: Vault, clock: Hands) -> None:
    """An answer before the wait is over would tell which one is right."""
    for _ in range(5):
        await cause(vault)
    assert await cause(vault, PASSWORD) == "vault_throttled"
    clock.at += 1.0
    assert await cause(vault, PASSWORD) == ""
    assert [await cause(vault) for _ in range(5)] == ["wrong_password"] * 5


async def test_a_restart_forgives_nobody(vault: Vault, start: Start, clock: Hands) -> None:
    """The count is in the database, and was there before the password was tried."""
    for _ in range(5):
        await cause(vault)
    later = await start()
    assert await cause(later, PASSWORD) == "vault_throttled"
    clock.at += throttle.LONGEST
    assert await cause(later, PASSWORD) == ""


async def test_all_that_ask_for_the_password_share_the_count(vault: Vault) -> None:
    """Nobody guesses by way of changing it."""
    for _ in range(3):
        with pytest.raises(TokenHubError):
            await vault.change_password(WRONG, Secret("another password"))
    for _ in range(2):
        with pytest.raises(TokenHubError):
            await vault.rotate(WRONG)
    assert await cause(vault) == "vault_throttled"


async def test_who_starts_the_server_is_not_slowed(vault: Vault, start: Start) -> None:
    """They have the database, and could try as fast as they like."""
    for _ in range(5):
        await cause(vault)
    later = await start()
    await later.unlock(PASSWORD, throttled=False)
    assert later.open
    with pytest.raises(TokenHubError):
        await later.unlock(WRONG, throttled=False)
