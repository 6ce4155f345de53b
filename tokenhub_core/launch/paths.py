"""Where TokenHub keeps its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import platformdirs


def data_dir(environ: Mapping[str, str]) -> Path:
    """Return the data directory: `TOKENHUB_DATA_DIR`, or the platform's place for a user's data.

    It need not exist.
    """
    named = environ.get("TOKENHUB_DATA_DIR", "")
    return (
        Path(named).expanduser().absolute()
        if named
        else platformdirs.user_data_path("tokenhub", appauthor=False)
    )


def run_dir(data: Path) -> Path:
    """Return the place of what may be lost at any time: who is serving, trust bundles."""
    return data / "run"


def shim_dir() -> Path:
    """Return the directory of the preload shims: `node.cjs` and `python/`."""
    return Path(__file__).with_name("shims")
