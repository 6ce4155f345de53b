"""From options to a finished environment: what `tokenhub run` and `tokenhub env` share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.bundle import prepare_trust
from tokenhub_core.launch.environment import Changes, client_environment
from tokenhub_core.launch.paths import run_dir, shim_dir
from tokenhub_core.launch.serveinfo import read_serve_info, serving
from tokenhub_core.ports import Secret
from tokenhub_core.recognise import HOSTS

KEY: Final = "TOKENHUB_KEY"
"""The variable that may hold an API key of ours, for the proxy."""

_NO_SECRET: Final = Secret("")


def prepare_client(
    environ: Mapping[str, str],
    data: Path,
    *,
    proxy: str | None = None,
    ca: Path | None = None,
    include_localhost: bool = False,
    key: Secret = _NO_SECRET,
) -> Changes:
    """Return the changes that put a program behind the TokenHub that serves from `data`, or behind `proxy`.

    A named `proxy` is not asked whether it is there: it may be on another host. Its CA is `ca`, or the one
    that this data directory last served with. Raises `ConfigError` when nothing is serving or no CA is known.
    """
    info = read_serve_info(data) if proxy else serving(data)
    if ca is None and info is not None:
        ca = Path(info.ca_file)
    if ca is None:
        raise ConfigError("--proxy needs --ca FILE: the certificate of the CA that the proxy signs with")
    return client_environment(
        environ,
        proxy_url=proxy or (info.proxy_url if info else ""),
        trust=prepare_trust(run_dir(data), ca, environ),
        shim_dir=shim_dir(),
        llm_hosts=info.hosts if info else tuple(HOSTS),
        include_localhost=include_localhost,
        key=key,
    )


def key_from(path: Path | None, environ: Mapping[str, str]) -> Secret:
    """Return the key in a file, else that in the environment, empty where there is none; raises `ConfigError`."""
    if path is None:
        return Secret(environ.get(KEY, "").strip())
    try:
        key = Secret(path.read_text().strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise ConfigError(f"--key-file {path} cannot be read: {reason}") from None
    if not key:
        raise ConfigError(f"--key-file {path} is empty")
    return key
