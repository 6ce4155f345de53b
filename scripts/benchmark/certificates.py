"""A certificate for the upstream, and the authority behind it."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from scripts.benchmark.traffic import HOST

# fmt: off
_SIGNS: Final = x509.KeyUsage(
    digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
    key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files."""

    authority: Path
    leaf: Path
    key: Path


def make(folder: Path) -> Certificates:
    """Write an authority and a leaf for the intercepted host and 127.0.0.1, good for a day."""
    names = x509.SubjectAlternativeName(
        [x509.DNSName(HOST), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _begun("bench authority", "bench authority", ca_key).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    signed = authority.add_extension(_SIGNS, critical=True).sign(ca_key, hashes.SHA256())
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    leaf = _begun(HOST, "bench authority", key).add_extension(names, critical=False)
    leaf = leaf.add_extension(identifier, critical=False)
    made = Certificates(folder / "authority.pem", folder / "upstream.pem", folder / "upstream.key")
    made.authority.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    made.leaf.write_bytes(leaf.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return made


def _begun(name: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(subject_key, critical=False)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
