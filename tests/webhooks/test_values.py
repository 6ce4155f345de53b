"""Webhooks as values: signatures that others verify, and how long is waited."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core.telemetry.kinds import KINDS
from tokenhub_core.webhooks import values


def test_a_signature_is_that_of_standard_webhooks() -> None:
    """The vector that the libraries of the standard are tested with."""
    assert (
        values.signature(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            '{"test": 2432232314}',
        )
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@pytest.mark.parametrize("change", ["secret", "id", "stamp", "body"])
def test_whatever_is_changed_has_another_signature(change: str) -> None:
    """The key, the id, the moment and the body are all in it."""
    parts = {"secret": values.secret_of(b"a" * 24), "id": "evt_1", "stamp": "1", "body": "{}"}
    other = {**parts, change: values.secret_of(b"b" * 24) if change == "secret" else parts[change] + "0"}
    assert values.signature(*parts.values()) != values.signature(*other.values())


def test_a_body_says_what_happened_and_when() -> None:
    """The same at each try: the moment is that of the event."""
    told = orjson.loads(values.payload("health_change", {"a": 1}, 1_700_000_000.25))
    assert told == {"type": "health_change", "timestamp": "2023-11-14T22:13:20.250Z", "data": {"a": 1}}


@given(st.integers(1, 30), st.floats(0, 1), st.none() | st.floats(0, 1e9))
def test_a_try_comes_later_and_the_tries_have_an_end(
    attempts: int, chance: float, asked: float | None
) -> None:
    """Within a fifth of the table, not before the receiver wants it, never beyond half a day."""
    pause = values.pause(attempts, chance, asked)
    if attempts >= values.TRIES:
        assert pause is None
        return
    assert pause is not None
    base = values.SCHEDULE[attempts - 1]
    assert 0.8 * base <= pause <= 43_200
    if asked is None:
        assert pause <= 1.2 * base
    else:
        assert pause >= min(asked, 36_000)


def test_nobody_is_told_by_a_webhook_that_webhooks_fail() -> None:
    """Their own failures would make more of them."""
    assert set(KINDS) - set(values.CHOICE) == {"lost", "webhook_dead", "webhook_lost"}
