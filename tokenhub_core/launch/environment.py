"""The environment that makes a program's LLM traffic come through us.

No variable is read by everybody, so all of them are set; every line of the tables below is one that some
client needs. Whether a client goes through the proxy and whether it trusts our CA are separate questions
with separate variables, and each client answers both in its own way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.bypass import bypass
from tokenhub_core.ports import Secret
from tokenhub_core.types import KEY_PREFIX

ACTIVE: Final = "TOKENHUB_ACTIVE"
"""Set, to the proxy's URL, in every program that runs behind us."""
RESTORE: Final = "TOKENHUB_RESTORE"
"""What the changed variables were before, as a JSON object; null where one was not set."""

TRUST_STORE_PASSWORD: Final = "tokenhub"  # noqa: S105 - Java wants one; the store holds public certificates only

_PROXY: Final = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
"""Both cases: gRPC and wget read the lower one only, some read the upper one only."""

_UNSET: Final = (
    "ALL_PROXY",  # an inherited socks:// URL makes httpx raise when a client is built
    "all_proxy",
    "grpc_proxy",  # gRPC prefers these to https_proxy and no_proxy
    "no_grpc_proxy",
)

BUNDLE_VARIABLES: Final = (
    "SSL_CERT_FILE",  # OpenSSL, httpx, Go, reqwest, Ruby, .NET, curl; it replaces the client's own roots
    "REQUESTS_CA_BUNDLE",  # requests, boto3
    "CURL_CA_BUNDLE",  # curl
    "AWS_CA_BUNDLE",  # AWS CLI, boto3
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",  # gRPC: xai-sdk, Google clients
    "CODEX_CA_CERTIFICATE",  # Codex CLI
    "GIT_SSL_CAINFO",  # git, which ignores SSL_CERT_FILE where it is built with GnuTLS
    "PIP_CERT",  # pip
    "CARGO_HTTP_CAINFO",  # cargo
    "HTTPLIB2_CA_CERTS",  # httplib2: older Google clients
    "NIX_SSL_CERT_FILE",  # programs from Nix
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",  # gcloud
    "PERL_LWP_SSL_CA_FILE",  # Perl's LWP
    "npm_config_cafile",  # npm
)
"""Variables that name a bundle which *replaces* a client's roots: system, certifi and our CA together."""

EXTRA_VARIABLES: Final = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
"""Variables that name certificates which *add* to a client's roots: our CA is enough."""

CHANGED: Final = (
    *_PROXY,
    "NO_PROXY",
    "no_proxy",
    *_UNSET,
    *BUNDLE_VARIABLES,
    *EXTRA_VARIABLES,
    "NODE_USE_ENV_PROXY",
    "NODE_OPTIONS",
    "PYTHONPATH",
    "JAVA_TOOL_OPTIONS",
    "WGETRC",
    ACTIVE,
)
"""Every variable that `client_environment` sets or removes, `RESTORE` aside."""


_NO_SECRET: Final = Secret("")


@dataclass(frozen=True, slots=True)
class Trust:
    """The files that let a program trust us. `trust_store` is Java's, `wgetrc` wget's settings."""

    ca_file: Path
    bundle_file: Path
    trust_store: Path
    wgetrc: Path


@dataclass(frozen=True, slots=True)
class Changes:
    """What to set and what to remove."""

    set: Mapping[str, str]
    unset: tuple[str, ...] = ()

    def apply(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return `base` with the changes made."""
        kept = {name: value for name, value in base.items() if name not in self.unset}
        return kept | dict(self.set)


def client_environment(
    base: Mapping[str, str],
    *,
    proxy_url: str,
    trust: Trust,
    shim_dir: Path,
    llm_hosts: Sequence[str],
    include_localhost: bool = False,
    key: Secret = _NO_SECRET,
) -> Changes:
    """Return what has to change in `base` for a program started with it to come through `proxy_url`.

    Applying the changes to an environment that already has them changes nothing. `llm_hosts` are host names
    or patterns (`*.openai.azure.com`) that no `NO_PROXY` entry may exempt. With `include_localhost` calls to
    loopback (a local Ollama or vLLM) come through as well. `key` says to the proxy who the program
    is. Raises `ConfigError` for an unusable `proxy_url` or key.
    """
    host, port = _proxy_address(proxy_url)
    exempt = bypass(
        (base.get("no_proxy", ""), base.get("NO_PROXY", "")),
        llm_hosts=llm_hosts,
        include_localhost=include_localhost,
    )
    new = dict.fromkeys(_PROXY, keyed(proxy_url, key))
    if exempt:
        new |= dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(exempt))
    new |= dict.fromkeys(BUNDLE_VARIABLES, str(trust.bundle_file))
    new |= {name: _extra_certificates(base.get(name, ""), trust) for name in EXTRA_VARIABLES}
    new["NODE_USE_ENV_PROXY"] = "1"
    new["NODE_OPTIONS"] = _node_options(base.get("NODE_OPTIONS", ""), shim_dir / "node.cjs")
    new["PYTHONPATH"] = _prepended(base.get("PYTHONPATH", ""), str(shim_dir / "python"))
    java = _java_flags(host, port, exempt=exempt, trust_store=trust.trust_store)
    new["JAVA_TOOL_OPTIONS"] = _appended(base.get("JAVA_TOOL_OPTIONS", ""), java)
    new["WGETRC"] = str(trust.wgetrc)
    new[ACTIVE] = proxy_url
    new[RESTORE] = base.get(RESTORE) or json.dumps({name: base.get(name) for name in CHANGED})
    return Changes(new, tuple(name for name in CHANGED if name not in new))


def keyed(proxy_url: str, key: Secret) -> str:
    """Return the proxy's URL with a key of ours as its password (RFC 3986, 3.2.1), as it is without one.

    Raises `ConfigError`, which does not show it, for what is no key of ours, and where the URL has a password.
    """
    if not key:
        return proxy_url
    if not key.reveal().startswith(KEY_PREFIX):
        raise ConfigError(f"the key for the proxy must be an API key of TokenHub ({KEY_PREFIX}…)")
    _proxy_address(proxy_url)
    parts = urlsplit(proxy_url)
    if "@" in parts.netloc:
        raise ConfigError("the proxy URL has a user or a password already: give the key or those")
    return parts._replace(netloc=f"x:{quote(key.reveal(), safe='')}@{parts.netloc}").geturl()


def original_environment(base: Mapping[str, str]) -> Changes:
    """Return what takes `client_environment` back; nothing where it was never applied.

    Raises `ConfigError` when the memory of what was there before is damaged.
    """
    if not base.get(RESTORE):
        return Changes({})
    try:
        before = json.loads(base[RESTORE])
        old = {name: before.get(name) for name in CHANGED}
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{RESTORE} is damaged; start a new shell instead") from error
    kept = {name: value for name, value in old.items() if isinstance(value, str)}
    return Changes(kept, (*(name for name in CHANGED if name not in kept), RESTORE))


def _proxy_address(url: str) -> tuple[str, int]:
    """Return the proxy's host and port."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"the proxy URL {url!r} cannot be read: {error}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"the proxy URL {url!r} must look like http://127.0.0.1:8080")
    return parts.hostname, port or {"http": 80, "https": 443}[parts.scheme]


def _extra_certificates(present: str, trust: Trust) -> str:
    """Return the file of additional certificates.

    A program has one such variable. Where the user already fills it with certificates of their own, the
    bundle, which was built with them in it, takes its place; our CA alone would take theirs away.
    """
    return str(trust.ca_file if present in {"", str(trust.ca_file)} else trust.bundle_file)


def _node_options(present: str, shim: Path) -> str:
    option = f"--require={shim}"
    if any(mark in option for mark in ' "\\'):
        option = '"' + option.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return _appended(present, option)


def _appended(present: str, options: str) -> str:
    """Return the options with ours at the end, once."""
    if options in present:
        return present
    return f"{present} {options}".lstrip()


def _prepended(present: str, entry: str) -> str:
    """Return the search path with `entry` first, once.

    An empty path gets no second entry: an empty one would mean the current directory.
    """
    rest = [part for part in present.split(os.pathsep) if part != entry] if present else []
    return os.pathsep.join([entry, *rest])


def _java_flags(host: str, port: int, *, exempt: Sequence[str], trust_store: Path) -> str:
    """Return the JVM's flags: it reads no proxy variable and no PEM file."""
    flags = [
        f"-Dhttps.proxyHost={host}",
        f"-Dhttps.proxyPort={port}",
        f"-Dhttp.proxyHost={host}",
        f"-Dhttp.proxyPort={port}",
        # Also where nothing is exempt: the JVM's own default would leave loopback out.
        "-Dhttp.nonProxyHosts=" + "|".join(pattern for entry in exempt for pattern in _java_hosts(entry)),
        f"-Djavax.net.ssl.trustStore={trust_store}",
        f"-Djavax.net.ssl.trustStorePassword={TRUST_STORE_PASSWORD}",
    ]
    return " ".join(f'"{flag}"' if " " in flag else flag for flag in flags)


def _java_hosts(entry: str) -> tuple[str, ...]:
    """Return a bypass entry as Java reads it: subdomains need a star, ports and networks cannot be said."""
    if "/" in entry or entry.count(":") == 1:
        return ()
    if ":" in entry:
        return (f"[{entry}]",)
    if entry.replace(".", "").isdigit():
        return (entry,)
    name = entry.lstrip("*.")
    return (name, f"*.{name}")
