"""`tokenhub openapi`: the document without a server."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from tokenhub_core.cli.openapi import openapi
from tokenhub_core.errors import ConfigError
from tokenhub_core.http.operations import document


def test_it_is_printed_or_written(tmp_path: Path) -> None:
    """Both are the document; what was in the file is gone."""
    printed = CliRunner().invoke(openapi)
    assert (printed.exit_code, orjson.loads(printed.stdout)) == (0, document())
    file = tmp_path / "openapi.json"
    file.write_text("x" * 1_000_000)
    written = CliRunner().invoke(openapi, [str(file)])
    assert (written.exit_code, written.stdout) == (0, "")
    assert file.read_text() == printed.stdout


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """It names the file and why."""
    with pytest.raises(ConfigError, match=r"no/such: No such file or directory"):
        CliRunner().invoke(
            openapi, [str(tmp_path / "no" / "such")], catch_exceptions=False, standalone_mode=False
        )
