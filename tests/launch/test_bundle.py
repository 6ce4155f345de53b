from __future__ import annotations

import os
import shutil
import ssl
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.launch.conftest import Authority
from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.bundle import prepare_trust
from tokenhub_core.launch.environment import TRUST_STORE_PASSWORD


def subjects(bundle: Path) -> list[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(bundle)
    return [str(root["subject"]) for root in context.get_ca_certs()]


def test_the_bundle_trusts_us_and_everybody_who_was_trusted_before(
    tmp_path: Path, authority: Authority
) -> None:
    """Our CA comes on top of the public roots: other hosts still verify."""
    trust = prepare_trust(tmp_path / "run", authority.file, {})
    found = subjects(trust.bundle_file)

    assert sum("Loopback CA" in subject for subject in found) == 1
    assert len(found) > 50


def test_the_files_are_the_owner_s_alone(tmp_path: Path, authority: Authority) -> None:
    """A wgetrc may hold a password; the directory is as private as what is in it."""
    trust = prepare_trust(tmp_path / "run", authority.file, {})

    for path in (trust.bundle_file, trust.trust_store, trust.wgetrc):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


def test_nothing_is_written_while_nothing_changed(tmp_path: Path, authority: Authority) -> None:
    """The second start finds the first one's files."""
    run = tmp_path / "run"
    prepare_trust(run, authority.file, {})
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}

    prepare_trust(run, authority.file, {})

    assert {path: path.stat().st_mtime_ns for path in run.iterdir()} == before
    assert len(before) == 3


def test_a_new_ca_makes_a_new_bundle(tmp_path: Path, authority: Authority) -> None:
    """A CA that was issued again is trusted from the next start on, and the old one no more."""
    ca = tmp_path / "ca.pem"
    shutil.copy(authority.file, ca)
    old = prepare_trust(tmp_path / "run", ca, {}).bundle_file.read_text()
    ca.write_text("-----BEGIN CERTIFICATE-----\nTkVX\n-----END CERTIFICATE-----\n")

    new = prepare_trust(tmp_path / "run", ca, {}).bundle_file.read_text()

    assert "TkVX" in new
    assert len(new) < len(old)


def test_a_bundle_whose_java_store_is_gone_is_made_again(tmp_path: Path, authority: Authority) -> None:
    """The record in the bundle vouches for both files, so both have to be there."""
    trust = prepare_trust(tmp_path / "run", authority.file, {})
    trust.trust_store.unlink()

    assert prepare_trust(tmp_path / "run", authority.file, {}).trust_store.is_file()


def test_a_bundle_that_the_user_brought_is_part_of_ours(tmp_path: Path, authority: Authority) -> None:
    """A company's roots stay trusted, in a file that other environments do not share."""
    corp = tmp_path / "corp.pem"
    corp.write_text("-----BEGIN CERTIFICATE-----\nQ09SUA==\n-----END CERTIFICATE-----\n")
    run = tmp_path / "run"

    plain = prepare_trust(run, authority.file, {})
    theirs = prepare_trust(run, authority.file, {"NODE_EXTRA_CA_CERTS": str(corp)})

    assert "Q09SUA==" in theirs.bundle_file.read_text()
    assert "Q09SUA==" not in plain.bundle_file.read_text()


def test_a_nested_run_finds_the_outer_one_s_files(tmp_path: Path, authority: Authority) -> None:
    """Inside a run the variables name our own bundle; what went into it is known, and the file is reused."""
    corp, run = tmp_path / "corp.pem", tmp_path / "run"
    corp.write_text("-----BEGIN CERTIFICATE-----\nQ09SUA==\n-----END CERTIFICATE-----\n")
    (tmp_path / ".wgetrc").write_text("tries = 3\n")
    outer = prepare_trust(run, authority.file, {"SSL_CERT_FILE": str(corp), "HOME": str(tmp_path)})

    inner = prepare_trust(
        run,
        authority.file,
        {
            "SSL_CERT_FILE": str(outer.bundle_file),
            "NODE_EXTRA_CA_CERTS": str(authority.file),
            "WGETRC": str(outer.wgetrc),
            "HOME": str(tmp_path),
        },
    )

    assert inner == outer


def test_wget_s_own_settings_stay(tmp_path: Path, authority: Authority) -> None:
    """WGETRC hides ~/.wgetrc, so what stood there stands in ours, before our line."""
    (tmp_path / ".wgetrc").write_text("tries = 3\nca_certificate = /old.pem")

    trust = prepare_trust(tmp_path / "run", authority.file, {"HOME": str(tmp_path)})

    lines = trust.wgetrc.read_text().splitlines()
    assert lines[:2] == ["tries = 3", "ca_certificate = /old.pem"]
    assert lines[-1] == f"ca_certificate = {trust.bundle_file}"


def test_a_half_written_bundle_is_made_again(tmp_path: Path, authority: Authority) -> None:
    """A file that is not ours, or damaged, is replaced."""
    trust = prepare_trust(tmp_path / "run", authority.file, {})
    trust.bundle_file.write_text("# TokenHub built this from {")

    prepare_trust(tmp_path / "run", authority.file, {})

    assert len(subjects(trust.bundle_file)) > 50


@pytest.mark.parametrize("content", [None, "no certificate here"])
def test_a_ca_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    """A missing file, and a file without a certificate, are one line each."""
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_text(content)

    with pytest.raises(ConfigError, match=str(ca)):
        prepare_trust(tmp_path / "run", ca, {})


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path, authority: Authority) -> None:
    """Where the data directory is a file, the error says so."""
    (tmp_path / "run").write_text("")

    with pytest.raises(ConfigError, match="cannot write"):
        prepare_trust(tmp_path / "run", authority.file, {})


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # some systems have such a root
def test_the_java_store_holds_the_same_roots(tmp_path: Path, authority: Authority) -> None:
    """Java replaces its roots by this store, so our CA and the public ones are in it."""
    trust = prepare_trust(tmp_path / "run", authority.file, {})

    store = pkcs12.load_pkcs12(trust.trust_store.read_bytes(), TRUST_STORE_PASSWORD.encode())

    assert len(store.additional_certs) > 50
    assert "Loopback CA" in str(store.additional_certs[0].certificate.subject)


def test_java_takes_the_store_for_trusted_certificates(tmp_path: Path, authority: Authority) -> None:
    """Java's own tool lists each entry as trusted, which plain PKCS#12 would not be."""
    keytool = shutil.which("keytool")
    if keytool is None:
        pytest.skip("no `keytool` on this machine: Java's view of the store cannot be asked for")
    trust = prepare_trust(tmp_path / "run", authority.file, {})

    listing = subprocess.run(
        [keytool, "-list", "-keystore", trust.trust_store, "-storepass", TRUST_STORE_PASSWORD],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    ).stdout

    assert listing.count("trustedCertEntry") > 50
