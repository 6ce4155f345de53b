from __future__ import annotations

from pathlib import Path

import pytest

from tokenhub_core.launch.paths import data_dir, run_dir, shim_dir


def test_the_variable_names_the_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path and a tilde are resolved, because programs run elsewhere are told of it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert data_dir({"TOKENHUB_DATA_DIR": "~/th"}) == tmp_path / "th"
    assert data_dir({"TOKENHUB_DATA_DIR": "th"}) == tmp_path / "th"


def test_without_it_the_platform_decides() -> None:
    """An empty variable counts as none."""
    assert data_dir({}).name == "tokenhub"
    assert data_dir({"TOKENHUB_DATA_DIR": ""}) == data_dir({})
    assert run_dir(data_dir({})).parent == data_dir({})


def test_the_shims_are_part_of_the_package() -> None:
    """What the environment points at is there."""
    assert (shim_dir() / "node.cjs").is_file()
    assert (shim_dir() / "python" / "sitecustomize.py").is_file()
