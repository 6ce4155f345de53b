"""Whose address counts: nobody can choose it who is not trusted to."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core.admission.addresses import Addresses, networks
from tokenhub_core.types import Headers

BEHIND: Final = Addresses(networks(["10.0.0.0/8", "fd00::/8", "192.0.2.1"]))
DIRECT: Final = Addresses()
HOPS: Final = "x-forwarded-for"


@pytest.mark.parametrize(
    ("peer", "subject"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix:/run/tokenhub.sock", "unix:/run/tokenhub.sock"),
        ("x" * 500, "x" * 100),
    ],
)
def test_a_peer_counts_by_its_address(peer: str, subject: str) -> None:
    """IPv6 by the network of one subscriber; what is no address by its own name, of bounded length."""
    assert DIRECT.subject(peer, ()) == subject
    assert BEHIND.subject(peer, ()) == subject


@pytest.mark.parametrize("finder", [DIRECT, BEHIND])
def test_a_stranger_says_nothing_about_his_address(finder: Addresses) -> None:
    """Both fields are ignored where the peer is no trusted proxy."""
    headers = ((HOPS, "198.51.100.1"), ("forwarded", "for=198.51.100.1"), ("x-real-ip", "198.51.100.1"))
    assert finder.subject("203.0.113.9", headers) == "203.0.113.9"


@pytest.mark.parametrize(
    ("headers", "subject"),
    [
        (((HOPS, "198.51.100.1"),), "198.51.100.1"),
        (((HOPS, "1.1.1.1, 198.51.100.1"),), "198.51.100.1"),
        (((HOPS, "1.1.1.1, 198.51.100.1, 10.1.1.1,192.0.2.1"),), "198.51.100.1"),
        (((HOPS, "1.1.1.1"), (HOPS, "198.51.100.1")), "198.51.100.1"),
        (((HOPS, "198.51.100.1:4711"),), "198.51.100.1"),
        (((HOPS, "[2001:db8::9]:443"),), "2001:db8::/64"),
        (((HOPS, "2001:db8::9"),), "2001:db8::/64"),
        (((HOPS, "10.1.1.1, 10.2.2.2"),), "10.1.1.1"),
        (((HOPS, "198.51.100.1, unknown"),), "10.0.0.1"),
        (((HOPS, "198.51.100.1, junk, 10.2.2.2"),), "10.2.2.2"),
        (((HOPS, ""),), "10.0.0.1"),
        (((HOPS, "198.51.100.1" + ", 10.9.9.9" * 31),), "198.51.100.1"),
        (((HOPS, "198.51.100.1" + ", 10.9.9.9" * 32),), "10.9.9.9"),
        ((("forwarded", "for=198.51.100.1~"),), "10.0.0.1"),
        ((("forwarded", "for=198.51.100.1;proto=https;by=10.0.0.1"),), "198.51.100.1"),
        ((("forwarded", 'proto=https;For="[2001:db8::9]:4711"'),), "2001:db8::/64"),
        ((("forwarded", "for=1.1.1.1, for=198.51.100.1, for=10.3.3.3"),), "198.51.100.1"),
        ((("forwarded", "for=1.1.1.1, proto=http"),), "10.0.0.1"),
        ((("forwarded", "for=_hidden"),), "10.0.0.1"),
        ((), "10.0.0.1"),
        ((("x-real-ip", "198.51.100.1"), ("true-client-ip", "198.51.100.1")), "10.0.0.1"),
    ],
)
def test_behind_a_trusted_proxy_the_hop_that_it_saw_counts(headers: Headers, subject: str) -> None:
    """The first one from the right that is no proxy of ours; where a hop cannot be read, nothing left of it counts."""
    assert BEHIND.subject("10.0.0.1", headers) == subject


def test_two_fields_that_differ_count_for_the_proxy() -> None:
    """A proxy appends to one of them and passes the other on: one is the sender's own word, and nobody knows which."""
    both = ((HOPS, "198.51.100.1"), ("forwarded", "for=203.0.113.5"))
    assert BEHIND.subject("10.0.0.1", both) == "10.0.0.1"
    same = ((HOPS, "198.51.100.1"), ("forwarded", "for=198.51.100.1"))
    assert BEHIND.subject("10.0.0.1", same) == "198.51.100.1"


@given(
    written=st.text(alphabet='0123456789.:,[]% a;="', max_size=60), field=st.sampled_from([HOPS, "forwarded"])
)
def test_what_a_sender_writes_never_changes_what_the_proxy_saw(written: str, field: str) -> None:
    """Any text to the left of the proxy's own entry leaves the address as it is."""
    seen = "198.51.100.1" if field == HOPS else "for=198.51.100.1"
    assert BEHIND.subject("10.0.0.1", ((field, f"{written},{seen}"),)) == "198.51.100.1"


def test_a_network_that_is_none_is_refused() -> None:
    """And one with bits of a host set is taken for its network."""
    assert [str(one) for one in networks(["10.1.2.3/8"])] == ["10.0.0.0/8"]
    with pytest.raises(ValueError, match="nonsense"):
        networks(["nonsense"])
