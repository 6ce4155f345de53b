"""What stands for an address when wrong passwords are counted."""

from __future__ import annotations

import pytest

from tokenhub_core.access.logins import network


@pytest.mark.parametrize(
    ("source", "counted"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_one_household_is_one_source(source: str, counted: str) -> None:
    """Of IPv6 the first 64 bits; what is no address stands for itself."""
    assert network(source) == counted
