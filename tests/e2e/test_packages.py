"""What is made of it when npm cannot install what scenes need."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e import packages

_NPM = """#!/bin/sh
echo "npm error code $CODE" >&2
echo "npm error more of it" >&2
exit 1
"""


@pytest.fixture
def _unable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Node that is fit, and an npm that fails with `$CODE`."""
    for name, text in (("node", "#!/bin/sh\necho v22.0.0\n"), ("npm", _NPM)):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))


@pytest.mark.usefixtures("_unable")
@pytest.mark.parametrize("code", ["ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "E404", "E503"])
def test_a_registry_out_of_reach_is_a_reason_to_skip(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what npm says of it."""
    monkeypatch.setenv("CODE", code)
    with pytest.raises(packages.MissingError, match=f"npm error code {code}"):
        packages.installed(packages.CLIENTS)


@pytest.mark.usefixtures("_unable")
@pytest.mark.parametrize("code", ["EUSAGE", "EINTEGRITY"])
def test_a_lock_file_that_is_none_is_a_failure(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ours: no network mends it."""
    monkeypatch.setenv("CODE", code)
    with pytest.raises(ValueError, match=code):
        packages.installed(packages.CLIENTS)
