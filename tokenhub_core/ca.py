"""Our certificate authority on disk, and the TLS contexts that it makes for intercepted hosts.

The directory holds `ca.pem` (what clients trust), `ca-key.pem`, and `mitmproxy/`, a confdir with the same CA
for mitmproxy's own TLS. Directory 0700, keys 0600; looser modes are refused. Several processes may open it at
once: whoever holds the lock file makes what is missing, the others find it.

A root is re-issued when the host list changes or when less than a third of its validity is left, always with
the same key and name. So a client that still holds the previous root accepts leaves made after the change, and
of several processes that were started at different times each is trusted by every client.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tokenhub_core import certificates
from tokenhub_core.errors import ConfigError

MAX_CONTEXTS: Final = 256
"""How many hosts' contexts are kept; the least recently used goes first."""

_OTHERS: Final = 0o077
_STALE_SECONDS: Final = 60.0
_LEAF_PREFIX: Final = ".leaf-"


@dataclass(frozen=True, slots=True)
class _Root:
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


class CertificateAuthority:
    """Vouches for the listed hosts. Make one with `open`; it belongs to one thread.

    Where another process makes a new root, this one goes on with it from the next connection on.
    """

    def __init__(
        self, directory: Path, hosts: Sequence[str], root: _Root, *, now: Callable[[], float]
    ) -> None:
        self._directory = directory
        self._hosts = tuple(hosts)
        self._root = root
        self._now = now
        self._contexts: OrderedDict[str, tuple[float, ssl.SSLContext]] = OrderedDict()
        self._written = _written(directory)

    @classmethod
    def open(cls, directory: Path, hosts: Sequence[str], *, now: Callable[[], float]) -> Self:
        """Load the authority of `directory`, made or re-issued where needed. `now` tells the time of day.

        Raises `ConfigError` where the directory cannot be used: not writable, open to other users, a key that
        cannot be read, a host that cannot be a DNS name.
        """
        try:
            return cls(directory, hosts, _settle(directory, hosts, now()), now=now)
        except OSError as error:
            raise ConfigError(f"the CA directory {directory} cannot be used: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @classmethod
    def rotate(cls, directory: Path, hosts: Sequence[str], *, now: Callable[[], float]) -> Self:
        """Make a new root with a new key; raises as `open` does.

        Killed on the way, it leaves a key and a certificate that do not belong together: `open` mends that with the
        key that is there.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_others(directory, "chmod 700")
            with _locked(directory / "lock"):
                key = ec.generate_private_key(ec.SECP256R1())
                _write(_key_file(directory), _private_pem(key), mode=0o600)
        except OSError as error:
            raise ConfigError(f"the CA directory {directory} cannot be used: {error.strerror}") from error
        return cls.open(directory, hosts, now=now)

    def follow(self, hosts: Sequence[str]) -> None:
        """Vouch for these hosts with the root that is on disk now, renewed where it should be; no leaf is kept.

        Raises `ConfigError`, `OSError` and `ValueError` like those who make one, and then stays as it was.
        """
        root, written = _settle(self._directory, hosts, self._now()), _written(self._directory)
        self._hosts, self._root, self._written = tuple(hosts), root, written
        self._contexts.clear()

    @property
    def certificate_file(self) -> Path:
        """Return the file that clients trust (PEM)."""
        return _certificate_file(self._directory)

    @property
    def mitmproxy_dir(self) -> Path:
        """Return the directory to name as mitmproxy's `confdir`."""
        return _confdir(self._directory)

    @property
    def expires_at(self) -> float:
        """Return when the root ends, in seconds since the epoch."""
        return self._root.certificate.not_valid_after_utc.timestamp()

    def server_context(self, host: str) -> ssl.SSLContext:
        """Return the TLS context to serve `host` with: HTTP/1.1 by ALPN, TLS 1.2 or later.

        The leaf is made at first use and again when a third of its validity is left. Raises ValueError for a host
        that the CA may not vouch for, OSError where the directory cannot be written.
        """
        host = certificates.normal(host)
        now = self._now()
        if (written := _written(self._directory)) != self._written:
            self._root, self._written = _settle(self._directory, self._hosts, now), written
            self._contexts.clear()
        kept = self._contexts.get(host)
        if kept is not None and now < kept[0]:
            self._contexts.move_to_end(host)
            return kept[1]
        if now >= certificates.renew_at(self._root.certificate):
            self._root = _settle(self._directory, self._hosts, now)
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = certificates.issue_leaf(
            key.public_key(),
            host=host,
            root=self._root.certificate,
            root_key=self._root.key,
            serial=x509.random_serial_number(),
            now=now,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        _load_chain(context, _private_pem(key) + leaf.public_bytes(Encoding.PEM), self._directory)
        self._contexts[host] = (certificates.renew_at(leaf), context)
        self._contexts.move_to_end(host)
        while len(self._contexts) > MAX_CONTEXTS:
            self._contexts.popitem(last=False)
        return context


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to know of an authority, without its key."""

    subject: str
    sha256: str
    begins_at: float
    """Seconds since the epoch; so below."""
    expires_at: float
    permitted: tuple[str, ...]
    """The DNS subtrees that it may vouch for."""
    file: Path
    modes: tuple[tuple[str, str], ...]
    """Files and directories with their modes, in octal."""
    loose: tuple[str, ...]
    """What others than the owner may read and should not."""


def facts(directory: Path) -> Facts:
    """Return what there is to know; raises `ConfigError` where there is no authority. Changes nothing."""
    file = _certificate_file(directory)
    try:
        root = x509.load_pem_x509_certificate(file.read_bytes())
        kept = [directory, _key_file(directory), file, *sorted(_confdir(directory).glob("*.pem"))]
        modes = [(path, path.stat().st_mode & 0o777) for path in kept]
    except FileNotFoundError as error:
        raise ConfigError(f"there is no CA in {directory}; `tokenhub serve` makes one") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"the CA in {directory} cannot be read: {error}") from error
    secret = {directory, _key_file(directory), _confdir(directory) / "mitmproxy-ca.pem"}
    return Facts(
        root.subject.rfc4514_string(),
        root.fingerprint(hashes.SHA256()).hex(":"),
        root.not_valid_before_utc.timestamp(),
        root.not_valid_after_utc.timestamp(),
        tuple(sorted(certificates.subtrees_of(root))),
        file,
        tuple((str(path), f"{mode:04o}") for path, mode in modes),
        tuple(f"{path} is open to other users" for path, mode in modes if path in secret and mode & _OTHERS),
    )


def _written(directory: Path) -> tuple[int, int]:
    """Return what tells one key file from the next; nothing where it cannot be read."""
    try:
        found = _key_file(directory).stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns


def _settle(directory: Path, hosts: Sequence[str], now: float) -> _Root:
    """Return the root to use from `now` on; write what the directory lacks."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_others(directory, "chmod 700")
    with _locked(directory / "lock"):
        _sweep(directory, now)
        key = _key(_key_file(directory))
        root = _Root(key, _certificate(directory, key, hosts, now))
        confdir = _confdir(directory)
        confdir.mkdir(mode=0o700, exist_ok=True)
        _refuse_others(confdir, "chmod 700")
        _keep(confdir / "mitmproxy-ca.pem", _private_pem(key) + root.pem, mode=0o600)
        _keep(confdir / "mitmproxy-ca-cert.pem", root.pem, mode=0o600)
        return root


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        _write(path, _private_pem(key), mode=0o600)
        return key
    _refuse_others(path, "chmod 600")
    try:
        found = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not a private key; move it away to get a new one") from error
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} is not an elliptic curve key; move it away to get a new one")
    return found


def _certificate(
    directory: Path, key: ec.EllipticCurvePrivateKey, hosts: Sequence[str], now: float
) -> x509.Certificate:
    path = _certificate_file(directory)
    wanted = certificates.subtrees(hosts)
    with contextlib.suppress(FileNotFoundError, ValueError):
        found = x509.load_pem_x509_certificate(path.read_bytes())
        fresh = now < certificates.renew_at(found)
        if fresh and certificates.belongs(found, key) and certificates.subtrees_of(found) == wanted:
            return found
    made = certificates.issue_root(key, hosts=hosts, serial=x509.random_serial_number(), now=now)
    _write(path, made.public_bytes(Encoding.PEM), mode=0o600)
    return made


def _certificate_file(directory: Path) -> Path:
    return directory / "ca.pem"


def _key_file(directory: Path) -> Path:
    return directory / "ca-key.pem"


def _confdir(directory: Path) -> Path:
    return directory / "mitmproxy"


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load_chain(context: ssl.SSLContext, pem: bytes, directory: Path) -> None:
    """Load a key and its certificate; `ssl` reads files only, so there is one for that moment."""
    handle, name = tempfile.mkstemp(prefix=_LEAF_PREFIX, dir=directory)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
        context.load_cert_chain(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _sweep(directory: Path, now: float) -> None:
    """Remove what a killed process left behind; the files of `_write` are made under the lock we hold."""
    for path in directory.glob(".ca*"):
        path.unlink(missing_ok=True)
    for path in directory.glob(_LEAF_PREFIX + "*"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < now - _STALE_SECONDS:
                path.unlink()


def _refuse_others(path: Path, remedy: str) -> None:
    if path.stat().st_mode & _OTHERS:
        raise ConfigError(f"{path} is open to other users; run: {remedy} {path}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes. The file stays: removing it would let two in."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _keep(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file unless it is there already; a key file that others can read is refused."""
    try:
        same = path.read_bytes() == content
    except FileNotFoundError:
        same = False
    else:
        if not mode & _OTHERS:
            _refuse_others(path, f"chmod {mode:o}")
    if not same:
        _write(path, content, mode=mode)


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file whole or not at all, also where the machine loses power."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    parent = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
