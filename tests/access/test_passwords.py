"""Passwords as they are stored: what the string says is what it costs."""

from __future__ import annotations

import pytest
from argon2 import extract_parameters
from argon2.low_level import Type

from tests.fakes.access import cheap_passwords
from tokenhub_core.access import passwords

PASSWORD = b"correct horse battery"


def test_a_password_is_stored_as_argon2id_with_64_mib() -> None:
    """Three passes, one lane, a salt of 16 bytes; and a user who does not exist costs just the same."""
    stored = passwords.hashed(PASSWORD, bytes(16))
    costs = extract_parameters(stored)
    assert (costs.type, costs.memory_cost, costs.time_cost, costs.parallelism) == (Type.ID, 65536, 3, 1)
    assert (costs.salt_len, costs.hash_len) == (16, 32)
    assert extract_parameters(passwords.NOBODY) == costs
    assert passwords.matches(stored, PASSWORD)
    assert not passwords.matches(stored, PASSWORD + b"x")
    assert not passwords.matches(passwords.NOBODY, PASSWORD)


@pytest.mark.parametrize(
    "stored", ["", "x", "$argon2id$", "$argon2i$v=19$m=8,t=1,p=1$AAAAAAAAAAA$AAAA", "$2b$12$x"]
)
def test_what_is_no_string_of_ours_matches_nothing(stored: str) -> None:
    """However it came into the row."""
    assert not passwords.matches(stored, PASSWORD)


def test_each_password_has_a_salt_of_its_own() -> None:
    """Two users with the same one cannot be told by it."""
    with cheap_passwords():
        assert passwords.hashed(PASSWORD, bytes(16)) != passwords.hashed(PASSWORD, b"x" * 16)
