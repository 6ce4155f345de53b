"""What we stand on: every version is locked with its hashes, none is one of those that are known to be broken.

Nobody here can ask who publishes advisories. Those that were about what a gateway does stand in `BROKEN`.
"""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
LOCKS: Final = sorted(ROOT.glob("requirements*.lock"))
BROKEN: Final = {
    # Bodies in very many chunks, and cookies, that keep the parser busy: CVE-2025-69228, CVE-2025-69229.
    "aiohttp": (3, 13, 3),
    # Requests in requests, by lenient framing: CVE-2025-43859.
    "h11": (0, 16, 0),
    # Statements in the user's name at a directory: CVE-2026-40606.
    "mitmproxy": (12, 2, 2),
    # Bombs of compression in answers: CVE-2025-66471, CVE-2026-21441.
    "urllib3": (2, 6, 3),
}
"""The first version that is not broken."""
STARTERS: Final = {"a1_coverage.pth"}
"""Files that run code whenever this Python starts: measuring of coverage, where the environment asks for it."""


def locked(text: str) -> dict[str, tuple[str, int]]:
    """Return the version of each package, and of how many hashes it may be."""
    found = {}
    for entry in re.split(r"\n(?=[a-z0-9])", text):
        if match := re.match(r"([a-z0-9][a-z0-9._-]*)==([^ ;\\\n]+)", entry):
            found[match[1]] = (match[2], entry.count("--hash=sha256:"))
    return found


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]+", text)[:3])


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_package_is_locked_by_hash(lock: Path) -> None:
    """One exact version each, and nothing from an address or a folder."""
    text = lock.read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith((" ", "#", "--"))]
    assert len(lines) > 30
    assert [line for line in lines if not re.match(r"[a-z0-9][a-z0-9._-]*==", line)] == []
    assert {name for name, (_, hashes) in locked(text).items() if not hashes} == set()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_no_locked_version_is_known_to_be_broken(lock: Path) -> None:
    """And of those with an advisory at least the server's own parser is there."""
    versions = {name: version(told) for name, (told, _) in locked(lock.read_text()).items()}
    assert "aiohttp" in versions
    assert {name for name, least in BROKEN.items() if versions.get(name, least) < least} == set()


def test_a_broken_version_and_a_missing_hash_are_seen() -> None:
    """What the tests above look for is found."""
    told = locked("aiohttp==3.13.2 \\\n    --hash=sha256:00\nflask==3.1.3\n")
    assert told == {"aiohttp": ("3.13.2", 1), "flask": ("3.1.3", 0)}
    assert version("3.13.2") < BROKEN["aiohttp"] <= version("3.13.3")


def test_no_file_runs_code_whenever_python_starts() -> None:
    """Code in a `.pth` file runs before any of ours, in every program: it is how stolen packages took keys."""
    folder = Path(sysconfig.get_path("purelib"))
    running = {
        path.name
        for path in folder.glob("*.pth")
        if any(line.startswith(("import ", "import\t")) for line in path.read_text().splitlines())
    }
    assert running <= STARTERS
