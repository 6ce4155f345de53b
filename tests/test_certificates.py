"""X.509 as values: what a root and a leaf say, and what they refuse to say."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core import certificates, recognise

NOW = 1_790_000_000.0
DAY = 86_400.0
HOSTS = ("api.openai.com", "api.anthropic.com")

KEY = ec.derive_private_key(0x1234_5678, ec.SECP256R1())
LEAF_KEY = ec.derive_private_key(0x8765_4321, ec.SECP256R1())


def root(hosts: tuple[str, ...] = HOSTS, now: float = NOW) -> x509.Certificate:
    return certificates.issue_root(KEY, hosts=hosts, serial=7, now=now)


def leaf(host: str = "api.openai.com", now: float = NOW) -> x509.Certificate:
    return certificates.issue_leaf(
        LEAF_KEY.public_key(), host=host, root=root(), root_key=KEY, serial=8, now=now
    )


def test_a_root_may_sign_leaves_for_the_listed_hosts_and_nothing_else() -> None:
    """A root's name constraint is critical and lists exactly the hosts; it may not make further CAs."""
    extensions = root().extensions
    constraints = extensions.get_extension_for_class(x509.NameConstraints)
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)

    assert constraints.critical
    assert constraints.value.permitted_subtrees == [
        x509.DNSName("api.anthropic.com"),
        x509.DNSName("api.openai.com"),
    ]
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 0)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature


def test_a_root_lives_for_ninety_days() -> None:
    """A root is valid from a day ago, for clients whose clock is behind, and for ninety days in all."""
    made = root()

    assert made.not_valid_before_utc.timestamp() == NOW - DAY
    assert made.not_valid_after_utc - made.not_valid_before_utc == timedelta(days=90)


def test_equal_arguments_make_equal_certificates() -> None:
    """Nothing in a certificate comes from anywhere but the arguments."""
    assert root().public_bytes(Encoding.DER) == root().public_bytes(Encoding.DER)
    assert leaf().public_bytes(Encoding.DER) == leaf().public_bytes(Encoding.DER)


def test_a_leaf_is_a_server_certificate_with_a_key_of_its_own() -> None:
    """A leaf names one host, serves TLS only, points at its root, and never shares the root's key."""
    made = leaf()
    extensions = made.extensions
    issuer = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    root_id = root().extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value

    assert made.public_key() == LEAF_KEY.public_key() != KEY.public_key()
    assert extensions.get_extension_for_class(x509.SubjectAlternativeName).value == (
        x509.SubjectAlternativeName([x509.DNSName("api.openai.com")])
    )
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert issuer.key_identifier == root_id.digest
    made.verify_directly_issued_by(root())


@settings(max_examples=30)
@given(st.floats(0, 88 * DAY))
def test_a_leaf_never_outlives_its_root(age: float) -> None:
    """Whenever a leaf is made, it lives for at most thirty days and only while its root does."""
    made = leaf(now=NOW + age)

    assert made.not_valid_after_utc <= root().not_valid_after_utc
    assert made.not_valid_before_utc >= root().not_valid_before_utc
    assert made.not_valid_after_utc - made.not_valid_before_utc <= timedelta(days=30)
    assert made.not_valid_before_utc.timestamp() <= NOW + age < made.not_valid_after_utc.timestamp()


def test_a_long_name_goes_without_a_common_name() -> None:
    """A host that is too long for a common name stands in the critical alternative name alone."""
    host = "a" * 60 + ".api.openai.com"
    made = leaf(host)

    assert list(made.subject) == []
    assert made.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


@pytest.mark.parametrize("host", ["www.mybank.com", "openai.com", "evilapi.openai.com.test", "10.0.0.1"])
def test_no_leaf_is_made_outside_of_the_constraint(host: str) -> None:
    """A leaf that clients would refuse is refused here, with the host's name."""
    with pytest.raises(ValueError, match=host):
        leaf(host)


def test_no_leaf_is_made_by_an_expired_root() -> None:
    """After its root's end there is no leaf."""
    with pytest.raises(ValueError, match="expired"):
        leaf(now=NOW + 90 * DAY)


def test_names_are_compared_without_case_and_final_dot() -> None:
    """`API.OpenAI.com.` is the same host as `api.openai.com`."""
    assert certificates.covers(root(("API.OpenAI.com.",)), "api.openai.com")
    assert certificates.covers(root(), "API.OPENAI.COM.")


def test_a_pattern_covers_the_names_below_it() -> None:
    """`*.openai.azure.com` stands for every name below `openai.azure.com`."""
    made = root(("*.openai.azure.com",))

    assert certificates.covers(made, "mine.openai.azure.com")
    assert not certificates.covers(made, "notopenai.azure.com")


def test_addresses_in_the_list_are_left_out() -> None:
    """We vouch for names: a listed address changes nothing."""
    assert certificates.subtrees_of(root((*HOSTS, "10.0.0.1", "::1"))) == set(HOSTS)


def test_a_root_for_nothing_is_refused() -> None:
    """A root without a constraint would be good for everything, so there is none."""
    with pytest.raises(ValueError, match="at least one host"):
        root(("10.0.0.1",))


def test_an_unconstrained_root_covers_nothing() -> None:
    """A certificate that carries no name constraint is none of ours, whatever it could sign."""
    assert certificates.subtrees_of(leaf()) == frozenset()
    assert not certificates.covers(leaf(), "api.openai.com")


def test_renewal_is_due_when_a_third_is_left() -> None:
    """A root of ninety days is due after sixty."""
    assert certificates.renew_at(root()) == NOW - DAY + 60 * DAY


def test_a_certificate_belongs_to_its_key() -> None:
    """A root that was made for another key is not taken for this one's."""
    assert certificates.belongs(root(), KEY)
    assert not certificates.belongs(root(), LEAF_KEY)


def test_the_root_of_the_public_hosts_vouches_for_each_of_them_and_their_neighbours_are_left_alone() -> None:
    """A pattern becomes the subtree below it; clouds' regions are named one by one, so that nothing beside is open."""
    ours = root(recognise.HOSTS)
    assert all(certificates.covers(ours, host.replace("*", "my-resource")) for host in recognise.HOSTS)
    for host in (
        "azure.com",
        "evil-openai.azure.com",
        "me.openai.azure.com.evil.example",
        "me.blob.core.windows.net",
        "s3.us-east-1.amazonaws.com",
        "amazonaws.com",
        "storage.googleapis.com",
        "googleapis.com",
        "openai.com",
        "chat.openai.com",
    ):
        assert not certificates.covers(ours, host)
