from __future__ import annotations

from tokenhub_core.launch.certificates import certificates, merged

ONE = "-----BEGIN CERTIFICATE-----\nQUJD\nREVG\n-----END CERTIFICATE-----\n"
TWO = "-----BEGIN CERTIFICATE-----\nR0hJ\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"


def test_a_certificate_in_two_sources_stands_once() -> None:
    """However a source breaks its lines, the same certificate is the same."""
    rewrapped = ONE.replace("QUJD\nREVG", "QUJDREVG")

    assert merged([ONE, "# comment\n" + TWO + rewrapped]) == rewrapped + TWO


def test_a_private_key_in_a_source_stays_there() -> None:
    """A file that holds key and certificate gives its certificate only."""
    assert "c2VjcmV0" not in merged([KEY + ONE])
    assert list(certificates(KEY + ONE)) == ["QUJDREVG"]


def test_long_bodies_are_wrapped_at_64() -> None:
    """PEM readers may refuse longer lines."""
    long = TWO.replace("R0hJ", "A" * 200)

    assert max(map(len, merged([long]).splitlines())) == 64
