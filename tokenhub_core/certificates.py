"""X.509 for interception: a root that can vouch for the listed hosts only, and leaves for single hosts.

The root carries a critical name constraint (RFC 5280, 4.2.1.10): clients that trust it refuse what it signs
for any other DNS name, so its key is of no use against a bank or a package index. Addresses are not excluded:
mitmproxy puts the destination's address beside the name where connections are captured by address.

Keys, serial numbers and times are arguments, and signatures are deterministic (RFC 6979): equal arguments give
equal certificates. Times are seconds since the epoch.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROOT_DAYS: Final = 90
"""How long a root is valid."""

LEAF_DAYS: Final = 30
"""How long a leaf is valid, unless its root ends earlier."""

_BACKDATED: Final = timedelta(days=1)
"""Clients whose clock is behind ours must still accept what was made just now."""

_MAX_COMMON_NAME: Final = 64
"""RFC 5280, appendix A.1: ub-common-name."""


def subtrees(hosts: Iterable[str]) -> frozenset[str]:
    """Return the DNS subtrees that a host list stands for: each name, or what its `*.` pattern covers.

    Addresses are left out: we vouch for names only.
    """
    names = (normal(host).removeprefix("*.") for host in hosts)
    return frozenset(name for name in names if not _is_address(name))


def normal(host: str) -> str:
    """Return a host name as it is compared: lower case, without the root's dot."""
    return host.lower().removesuffix(".")


def issue_root(
    key: EllipticCurvePrivateKey, *, hosts: Iterable[str], serial: int, now: float
) -> x509.Certificate:
    """Return a self-signed root of `key` that is constrained to `hosts`.

    Raises ValueError where there is no host to vouch for, and for one that cannot be a DNS name.
    """
    trees = subtrees(hosts)
    if not trees:
        raise ValueError("the CA needs at least one host to vouch for")
    start = _moment(now) - _BACKDATED
    name = _name("TokenHub local CA")
    builder = _builder(name, name, key.public_key(), serial)
    return (
        builder.not_valid_before(start)
        .not_valid_after(start + timedelta(days=ROOT_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.NameConstraints([x509.DNSName(tree) for tree in sorted(trees)], None), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    )


def issue_leaf(
    key: EllipticCurvePublicKey,
    *,
    host: str,
    root: x509.Certificate,
    root_key: EllipticCurvePrivateKey,
    serial: int,
    now: float,
) -> x509.Certificate:
    """Return a server certificate for one host; raises ValueError where clients would not accept it.

    That is the case outside of the root's subtrees, and after the root's end. `key` is the leaf's own.
    """
    host = normal(host)
    if not covers(root, host):
        raise ValueError(f"{host} is outside of what the CA may vouch for")
    if _moment(now) >= root.not_valid_after_utc:
        raise ValueError("the CA has expired")
    issuer_id = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    fits = len(host) <= _MAX_COMMON_NAME
    start = max(_moment(now) - _BACKDATED, root.not_valid_before_utc)
    return (
        _builder(_name(host) if fits else x509.Name([]), root.subject, key, serial)
        .not_valid_before(start)
        .not_valid_after(min(start + timedelta(days=LEAF_DAYS), root.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        # Critical where the subject is empty (RFC 5280, 4.2.1.6).
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=not fits)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), critical=False
        )
        .sign(root_key, hashes.SHA256(), ecdsa_deterministic=True)
    )


def subtrees_of(root: x509.Certificate) -> frozenset[str]:
    """Return the DNS subtrees that a root is constrained to; empty where it is not constrained."""
    try:
        extension = root.extensions.get_extension_for_class(x509.NameConstraints)
    except x509.ExtensionNotFound:
        return frozenset()
    permitted = extension.value.permitted_subtrees or ()
    return frozenset(name.value for name in permitted if isinstance(name, x509.DNSName))


def covers(root: x509.Certificate, host: str) -> bool:
    """Tell whether a root may vouch for this host."""
    host = normal(host)
    return any(host == tree or host.endswith("." + tree) for tree in subtrees_of(root))


def belongs(root: x509.Certificate, key: EllipticCurvePrivateKey) -> bool:
    """Tell whether a certificate is this key's."""
    return root.public_key() == key.public_key()


def renew_at(certificate: x509.Certificate) -> float:
    """Return the time at which less than a third of the validity is left."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return (end - (end - start) / 3).timestamp()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePublicKey, serial: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _moment(now: float) -> datetime:
    """Return `now` as X.509 keeps it: whole seconds, in UTC."""
    return datetime.fromtimestamp(int(now), UTC)
