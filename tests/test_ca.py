"""The authority on disk: who may read it, when it is made anew, and what real TLS clients think of it."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from mitmproxy.certs import CertStore

from tests.patience import PROGRAM_PATIENCE
from tokenhub_core import ca, certificates
from tokenhub_core.ca import CertificateAuthority, facts
from tokenhub_core.errors import ConfigError

DAY = 86_400.0
HOSTS = ("api.openai.com", "api.anthropic.com")


class Calendar:
    """The time of day, moved by hand. It starts at the real one: OpenSSL looks at the real clock."""

    def __init__(self, start: float) -> None:
        self.time = start

    def now(self) -> float:
        return self.time


@pytest.fixture
def calendar() -> Calendar:
    probe = subprocess.run(["date", "+%s"], capture_output=True, text=True, check=True)
    return Calendar(float(probe.stdout))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ca"


def open_ca(place: Path, calendar: Calendar, hosts: tuple[str, ...] = HOSTS) -> CertificateAuthority:
    return CertificateAuthority.open(place, hosts, now=calendar.now)


def client_of(pem: bytes) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=pem.decode())


def shake(
    server: ssl.SSLContext, client: ssl.SSLContext, host: str, session: ssl.SSLSession | None = None
) -> ssl.SSLObject:
    """Let both sides talk in memory until the client has what it needs; return the client's side."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    far = server.wrap_bio(to_server, to_client, server_side=True)
    near = client.wrap_bio(to_client, to_server, server_hostname=host, session=session)
    for _ in range(4):
        for side in (near, far):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    far.write(b"x")  # session tickets travel with the first bytes
    assert near.read(1) == b"x"
    return near


def modes(place: Path) -> dict[str, int]:
    return {str(path.relative_to(place)): path.stat().st_mode & 0o777 for path in place.rglob("*")}


# --- files -------------------------------------------------------------------------------------------------


def test_keys_are_the_owners_alone(place: Path, calendar: Calendar) -> None:
    """Directories are 0700, files 0600, certificates too; nothing else is left."""
    open_ca(place, calendar)

    assert place.stat().st_mode & 0o777 == 0o700
    assert modes(place) == {
        "ca.pem": 0o600,
        "ca-key.pem": 0o600,
        "lock": 0o600,
        "mitmproxy": 0o700,
        "mitmproxy/mitmproxy-ca.pem": 0o600,
        "mitmproxy/mitmproxy-ca-cert.pem": 0o600,
    }


@pytest.mark.parametrize(
    ("path", "mode"),
    [(".", 0o755), ("ca-key.pem", 0o640), ("mitmproxy", 0o750), ("mitmproxy/mitmproxy-ca.pem", 0o604)],
)
def test_looser_modes_are_refused(place: Path, calendar: Calendar, path: str, mode: int) -> None:
    """Where others may have read a key, the authority does not start; one line says what to do."""
    open_ca(place, calendar)
    (place / path).chmod(mode)

    with pytest.raises(ConfigError, match=r"open to other users; run: chmod") as caught:
        open_ca(place, calendar)
    assert "\n" not in str(caught.value)


def test_an_authority_is_found_again(place: Path, calendar: Calendar) -> None:
    """Opening twice gives the same certificate, whatever the order of the hosts."""
    first = open_ca(place, calendar).certificate_file.read_bytes()

    assert open_ca(place, calendar, HOSTS[::-1]).certificate_file.read_bytes() == first


def test_the_certificate_file_holds_no_key(place: Path, calendar: Calendar) -> None:
    """What clients are given is one certificate and nothing else."""
    authority = open_ca(place, calendar)

    assert authority.certificate_file.read_text().count("-----BEGIN") == 1
    assert "PRIVATE" not in (authority.mitmproxy_dir / "mitmproxy-ca-cert.pem").read_text()


def test_a_broken_key_is_not_replaced_silently(place: Path, calendar: Calendar) -> None:
    """A key that cannot be read stops the start: clients may trust what it signed."""
    open_ca(place, calendar)
    (place / "ca-key.pem").write_text("scrap")

    with pytest.raises(ConfigError, match="not a private key"):
        open_ca(place, calendar)


def test_a_broken_certificate_is_made_anew(place: Path, calendar: Calendar) -> None:
    """The certificate follows from the key, so a damaged one is repaired."""
    authority = open_ca(place, calendar)
    authority.certificate_file.write_text("scrap")

    repaired = open_ca(place, calendar).certificate_file.read_bytes()
    assert certificates.subtrees_of(x509.load_pem_x509_certificate(repaired)) == set(HOSTS)


def test_a_path_that_cannot_be_used_is_one_line(tmp_path: Path, calendar: Calendar) -> None:
    """A file in the directory's place is a configuration error, not a traceback."""
    (tmp_path / "taken").write_text("")

    with pytest.raises(ConfigError, match="cannot be used"):
        open_ca(tmp_path / "taken", calendar)


def test_a_host_that_is_no_name_is_one_line(place: Path, calendar: Calendar) -> None:
    """A host that no certificate can name is a configuration error."""
    with pytest.raises(ConfigError, match="DNSName"):
        open_ca(place, calendar, ("bücher.test",))


def test_four_first_starts_at_once_make_one_authority(place: Path, calendar: Calendar) -> None:
    """Processes that start together on an empty directory all use the same key and certificate."""
    script = (
        "import sys, pathlib, hashlib\n"
        "from tokenhub_core.ca import CertificateAuthority\n"
        "sys.stdin.readline()\n"
        "place = pathlib.Path(sys.argv[1])\n"
        "CertificateAuthority.open(place, ['api.openai.com'], now=lambda: float(sys.argv[2]))\n"
        "files = sorted(p for p in place.rglob('*.pem'))\n"
        "print(hashlib.sha256(b''.join(p.read_bytes() for p in files)).hexdigest(), len(files))\n"
    )
    command = [sys.executable, "-c", script, str(place), str(calendar.now())]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = {process.communicate(timeout=PROGRAM_PATIENCE)[0] for process in processes}

    assert len(answers) == 1
    assert answers.pop().split()[1] == "4"


# --- renewal -----------------------------------------------------------------------------------------------


def test_another_host_list_re_issues_the_root_with_the_same_key(place: Path, calendar: Calendar) -> None:
    """A client that read the previous root still accepts what the new one signs, for the hosts it knows."""
    before = open_ca(place, calendar).certificate_file.read_bytes()
    authority = open_ca(place, calendar, (*HOSTS, "api.mistral.ai"))

    assert authority.certificate_file.read_bytes() != before
    shake(authority.server_context("api.openai.com"), client_of(before), "api.openai.com")
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        shake(authority.server_context("api.mistral.ai"), client_of(before), "api.mistral.ai")


def test_an_ageing_root_is_re_issued(place: Path, calendar: Calendar) -> None:
    """With less than a third of its life left a root is replaced at the next start."""
    first = open_ca(place, calendar)
    calendar.time += 58 * DAY
    assert open_ca(place, calendar).expires_at == first.expires_at
    calendar.time += 2 * DAY

    assert open_ca(place, calendar).expires_at == first.expires_at + 60 * DAY


def test_a_process_that_runs_for_months_renews_by_itself(place: Path, calendar: Calendar) -> None:
    """The root of a running process is renewed when a leaf is made in the last third of its life."""
    authority = open_ca(place, calendar)
    end = authority.expires_at
    calendar.time += 70 * DAY
    authority.server_context("api.openai.com")

    assert authority.expires_at == end + 70 * DAY


def test_a_context_is_kept_until_its_leaf_ages(place: Path, calendar: Calendar) -> None:
    """The same host gets the same context for two thirds of its leaf's thirty days, then a new one."""
    authority = open_ca(place, calendar)
    first = authority.server_context("api.openai.com")
    calendar.time += 18 * DAY
    assert authority.server_context("API.openai.com.") is first
    calendar.time += 2 * DAY

    assert authority.server_context("api.openai.com") is not first


def test_contexts_are_bounded(place: Path, calendar: Calendar, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit the least recently used host's context goes."""
    monkeypatch.setattr(ca, "MAX_CONTEXTS", 2)
    authority = open_ca(place, calendar)
    first = authority.server_context("a.api.openai.com")
    second = authority.server_context("b.api.openai.com")
    assert authority.server_context("a.api.openai.com") is first
    authority.server_context("c.api.openai.com")

    assert authority.server_context("a.api.openai.com") is first
    assert authority.server_context("b.api.openai.com") is not second


def test_a_leafs_key_does_not_stay_on_disk(place: Path, calendar: Calendar) -> None:
    """Making contexts leaves no file behind."""
    authority = open_ca(place, calendar)
    before = modes(place)
    authority.server_context("api.openai.com")

    assert modes(place) == before


def test_what_a_killed_process_left_is_swept(place: Path, calendar: Calendar) -> None:
    """A temporary file older than a minute goes at the next start; a younger one may be in use."""
    open_ca(place, calendar)
    (place / ".leaf-old").touch()
    calendar.time += 3600
    (place / ".ca-key.pem-old").touch()
    open_ca(place, calendar)

    assert not list(place.glob(".*"))
    (place / ".leaf-new").touch()
    calendar.time -= 3600
    open_ca(place, calendar)
    assert [path.name for path in place.glob(".*")] == [".leaf-new"]


# --- what clients think ------------------------------------------------------------------------------------


def test_clients_accept_listed_hosts_and_get_http_1(place: Path, calendar: Calendar) -> None:
    """Python's strict default context accepts a listed host; of h2 and http/1.1 it is given http/1.1."""
    authority = open_ca(place, calendar)
    client = client_of(authority.certificate_file.read_bytes())
    client.set_alpn_protocols(["h2", "http/1.1"])

    near = shake(authority.server_context("api.openai.com"), client, "api.openai.com")
    assert near.selected_alpn_protocol() == "http/1.1"
    assert near.version() == "TLSv1.3"


def test_sessions_are_resumed(place: Path, calendar: Calendar) -> None:
    """A returning client skips the certificate: its ticket is accepted."""
    authority = open_ca(place, calendar)
    client = client_of(authority.certificate_file.read_bytes())
    server = authority.server_context("api.openai.com")
    first = shake(server, client, "api.openai.com")

    assert not first.session_reused
    assert shake(server, client, "api.openai.com", first.session).session_reused


def test_old_tls_is_refused(place: Path, calendar: Calendar) -> None:
    """Nothing below TLS 1.2 is spoken."""
    assert open_ca(place, calendar).server_context("api.openai.com").minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_host_off_the_list_has_no_context(place: Path, calendar: Calendar) -> None:
    """There is no way to serve a host that the root is not constrained to."""
    with pytest.raises(ValueError, match=r"www\.mybank\.com"):
        open_ca(place, calendar).server_context("www.mybank.com")


@pytest.mark.parametrize(
    ("host", "verdict"), [("api.openai.com", "OK"), ("www.mybank.com", "permitted subtree violation")]
)
def test_the_constraint_holds_against_openssl(
    place: Path, calendar: Calendar, tmp_path: Path, host: str, verdict: str
) -> None:
    """Whoever steals the key and signs for another host is refused by the openssl command."""
    authority = open_ca(place, calendar)
    stolen = CertStore.from_store(authority.mitmproxy_dir, "mitmproxy", 2048)
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(stolen.get_cert(host, [x509.DNSName(host)]).cert.to_pem())

    checked = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", authority.certificate_file, leaf],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verdict in checked.stdout + checked.stderr


@pytest.mark.parametrize("host", ["api.openai.com", "www.mybank.com"])
def test_mitmproxys_own_store_works_with_our_authority(
    place: Path, calendar: Calendar, tmp_path: Path, host: str
) -> None:
    """mitmproxy signs leaves with the elliptic curve key; clients accept them where the constraint allows."""
    authority = open_ca(place, calendar)
    store = CertStore.from_store(authority.mitmproxy_dir, "mitmproxy", 2048)
    entry = store.get_cert(host, [x509.DNSName(host)])
    chain = tmp_path / "chain.pem"
    chain.write_bytes(
        entry.privatekey.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + entry.cert.to_pem()
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain)
    client = client_of(authority.certificate_file.read_bytes())

    if host in HOSTS:
        shake(server, client, host)
    else:
        with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
            shake(server, client, host)


# --- a new root --------------------------------------------------------------------------------------------


def test_a_new_root_has_a_new_key_and_signs_from_the_next_connection_on(
    place: Path, calendar: Calendar
) -> None:
    """A process that runs follows another one's rotation; who trusts the old root refuses what comes then."""
    running = open_ca(place, calendar)
    old = running.certificate_file.read_bytes()
    shake(running.server_context(HOSTS[0]), client_of(old), HOSTS[0])
    before = facts(place)

    CertificateAuthority.rotate(place, HOSTS, now=calendar.now)

    new, after = running.certificate_file.read_bytes(), facts(place)
    assert before.sha256 != after.sha256
    assert before.permitted == after.permitted == tuple(sorted(HOSTS))
    shake(running.server_context(HOSTS[0]), client_of(new), HOSTS[0])
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(running.server_context(HOSTS[0]), client_of(old), HOSTS[0])
    assert modes(place)["ca-key.pem"] == 0o600
    assert modes(place)["mitmproxy/mitmproxy-ca.pem"] == 0o600
    assert new in (place / "mitmproxy" / "mitmproxy-ca.pem").read_bytes()


def test_a_rotation_that_was_cut_short_is_mended(place: Path, calendar: Calendar) -> None:
    """A key without its certificate gets one at the next start."""
    open_ca(place, calendar)
    other = place.parent / "other"
    open_ca(other, calendar)
    (place / "ca-key.pem").write_bytes((other / "ca-key.pem").read_bytes())
    authority = open_ca(place, calendar)
    pem = authority.certificate_file.read_bytes()
    shake(authority.server_context(HOSTS[0]), client_of(pem), HOSTS[0])
    assert pem != (other / "ca.pem").read_bytes()


def test_a_directory_that_others_can_enter_is_not_rotated(place: Path, calendar: Calendar) -> None:
    """As it is not opened."""
    open_ca(place, calendar)
    place.chmod(0o750)
    with pytest.raises(ConfigError, match="chmod 700"):
        CertificateAuthority.rotate(place, HOSTS, now=calendar.now)
    place.chmod(0o700)


def test_what_there_is_to_know_is_told_without_a_key(place: Path, calendar: Calendar) -> None:
    """Name, fingerprint, end, hosts and modes; what is loose is named, and nothing is made."""
    with pytest.raises(ConfigError, match="there is no CA"):
        facts(place)
    authority = open_ca(place, calendar)
    found = facts(place)
    assert found.subject == "CN=TokenHub local CA"
    assert found.expires_at == authority.expires_at
    assert dict(found.modes)[str(place)] == "0700"
    assert dict(found.modes)[str(place / "ca-key.pem")] == "0600"
    assert found.loose == ()
    assert "PRIVATE" not in repr(found)
    (place / "ca-key.pem").chmod(0o640)
    assert facts(place).loose == (f"{place / 'ca-key.pem'} is open to other users",)
    (place / "ca.pem").write_bytes(b"x")
    with pytest.raises(ConfigError, match="cannot be read"):
        facts(place)
