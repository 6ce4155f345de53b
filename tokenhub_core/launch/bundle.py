"""The files that let a program trust us without anybody else having to: bundle, Java store, wget's settings.

They live in the data directory and are named in the environment of one program at a time; the system's own
store is never touched. A bundle's first line says what it was built from, so that the next start sees by
sizes and times alone whether anything changed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import certifi
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate, serialize_java_truststore

from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.certificates import certificates, merged
from tokenhub_core.launch.environment import BUNDLE_VARIABLES, EXTRA_VARIABLES, TRUST_STORE_PASSWORD, Trust
from tokenhub_core.launch.files import write_atomic

_SYSTEM: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS, BSD
)
_RECORD: Final = "# TokenHub built this from "
_WGET_MARK: Final = "# What follows is TokenHub's."


def prepare_trust(run: Path, ca_file: Path, environ: Mapping[str, str]) -> Trust:
    """Return the trust files for one CA and one environment, built where they are missing or outdated.

    The bundle holds our CA, the system's roots, certifi's, and whatever bundles the environment already
    names, so that nothing that the program trusted before is lost. Environments that name different bundles
    get different files. Starts at the same moment may both build; either result is whole.
    Raises `ConfigError` when the CA cannot be read or the files cannot be written.
    """
    ca_file = ca_file.absolute()
    own = _own_bundles(run, ca_file, environ)
    stem = f"ca-bundle-{_digest(str(own))}" if own else "ca-bundle"
    bundle, store = run / f"{stem}.pem", run / f"{stem}.p12"
    sources = (ca_file, *_roots(), *map(Path, own))
    try:
        record = {"sources": [_state(path) for path in sources], "own": own}
        if not (store.is_file() and _record(bundle) == record):
            _build(bundle, store, sources, record)
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename}: {error.strerror}") from error
    return Trust(ca_file, bundle, store, _wgetrc(run, bundle, environ))


def _build(bundle: Path, store: Path, sources: Sequence[Path], record: object) -> None:
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sources]
    if next(certificates(texts[0]), None) is None:
        raise ConfigError(f"{sources[0]} holds no certificate")
    pem = merged(texts)
    # The store first: the bundle's record vouches for both.
    write_atomic(store, _java_store(certificates(pem)))
    write_atomic(bundle, f"{_RECORD}{json.dumps(record)}\n{pem}".encode())


def _roots() -> tuple[Path, ...]:
    """Return what every program should go on trusting: the system's bundle, where there is one, and certifi's."""
    compiled_in = ssl.get_default_verify_paths().openssl_cafile
    system = [path for path in map(Path, (*_SYSTEM, compiled_in)) if path.is_file()]
    return (*system[:1], Path(certifi.where()))


def _own_bundles(run: Path, ca_file: Path, environ: Mapping[str, str]) -> list[str]:
    """Return the bundles that the user brought. Of one of ours (a nested run), those that went into it."""
    found: dict[str, None] = {}
    for name in (*BUNDLE_VARIABLES, *EXTRA_VARIABLES):
        path = Path(environ.get(name, "")).absolute()
        if path.parent == run:
            found |= dict.fromkeys(_record(path).get("own", ()))
        elif path.is_file() and path not in {ca_file, *_roots()}:
            found.setdefault(str(path))
    return [path for path in found if Path(path).is_file()]


def _record(bundle: Path) -> Mapping[str, Any]:
    """Return what a bundle of ours was built from; nothing for a file that is not there or not ours."""
    with suppress(OSError, ValueError), bundle.open(encoding="utf-8") as file:
        head = file.readline()
        if head.startswith(_RECORD):
            record: dict[str, Any] = json.loads(head.removeprefix(_RECORD))
            return record
    return {}


def _state(path: Path) -> list[str | int]:
    stat = path.stat()
    return [str(path), stat.st_size, stat.st_mtime_ns]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _java_store(bodies: Iterable[str]) -> bytes:
    """Return a PKCS#12 store that Java trusts.

    Java takes a certificate for trusted only with an attribute of its own on it, which is what tells this
    format from plain PKCS#12. A root that cannot be parsed is left out; one that only breaks a rule (some
    system stores hold a serial number of zero) is kept without a word.
    """
    entries = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, body in enumerate(bodies):
            with suppress(ValueError):
                certificate = x509.load_der_x509_certificate(base64.b64decode(body))
                entries.append(PKCS12Certificate(certificate, f"root-{number}".encode()))
    return serialize_java_truststore(entries, BestAvailableEncryption(TRUST_STORE_PASSWORD.encode()))


def _wgetrc(run: Path, bundle: Path, environ: Mapping[str, str]) -> Path:
    """Return a settings file for wget with our bundle in it: wget reads no CA variable.

    Naming a file hides the user's own, and the format knows no include: so theirs is copied in front.
    """
    home = environ.get("HOME", "")
    own = Path(environ.get("WGETRC") or (f"{home}/.wgetrc" if home else ""))
    text = ""
    with suppress(OSError):
        text = own.read_text(encoding="utf-8", errors="surrogateescape").partition(_WGET_MARK)[0]
    text = f"{text.rstrip()}\n{_WGET_MARK}\nca_certificate = {bundle}\n".lstrip()
    path = run / f"wgetrc-{_digest(text)}"
    if not path.is_file():
        write_atomic(path, text.encode("utf-8", "surrogateescape"))
    return path
