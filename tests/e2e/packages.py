"""Packages of npm that scenes need: installed once per lock file, beside the virtual environment's own packages."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

CLIENTS: Final = Path(__file__).parents[1] / "clients"
"""The Node SDKs' package and lock, and the programs that drive SDKs."""
AGENTS: Final = CLIENTS / "agents"
"""The coding agents' package and lock."""

_LEAST_NODE: Final = 20
_INSTALL: Final = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
_PATIENCE: Final = 600.0
_OURS: Final = frozenset({"EUSAGE", "EINTEGRITY", "EJSONPARSE"})
"""What npm finds wrong with a lock file, and not with the way to its registry."""


class MissingError(Exception):
    """Why packages cannot be had here, in a sentence."""


def installed(folder: Path) -> Path:
    """Return the `node_modules` that the lock file in `folder` describes, installing them where they are not yet.

    No script of any package is run. Raises `MissingError` where there is no fit Node, no npm, or no registry, and
    `ValueError` where the lock file is not one.
    """
    if lacking := [name for name in ("node", "npm") if shutil.which(name) is None]:
        raise MissingError(f"there is no {lacking[0]} on this machine")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < _LEAST_NODE:
        raise MissingError(f"Node {version} is older than {_LEAST_NODE}")
    lock = (folder / "package-lock.json").read_bytes()
    place = Path(sys.prefix) / "node" / hashlib.sha256(lock).hexdigest()[:16]
    if not place.exists():
        _install(folder, place)
    return place / "node_modules"


def version(folder: Path, package: str) -> str:
    """Return the version of a package that the lock file in `folder` names."""
    lock = json.loads((folder / "package-lock.json").read_text())
    return str(lock["packages"][f"node_modules/{package}"]["version"])


def _install(folder: Path, place: Path) -> None:
    """Install beside `place` and move there: what stands under that name is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, ignore_cleanup_errors=True) as work:
        fresh = Path(work) / "fresh"
        fresh.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(folder / name, fresh)
        try:
            ran = subprocess.run(
                _INSTALL, cwd=fresh, capture_output=True, text=True, timeout=_PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            raise MissingError(f"npm did not end within {_PATIENCE:g} s") from None
        if ran.returncode:
            told = [line for line in ran.stderr.splitlines() if "error" in line] or ["it does not say why"]
            if _OURS & set(told[0].split()):
                raise ValueError(f"{folder} cannot be installed: {told}")
            raise MissingError(f"npm could not install the packages: {told[0]}")
        try:
            fresh.rename(place)
        except OSError:
            if not place.exists():  # or another run was faster
                raise
