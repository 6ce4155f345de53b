"""`tokenhub reload` against a TokenHub that is serving."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import Running, Shell, running
from tokenhub_core.cli.reload import reload


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Running]:
    """A server with an environment file."""
    with running(tmp_path, settings={"ENV_FILE": str(tmp_path / "env")}) as found:
        yield found


def say(it: Running, text: str) -> None:
    path = it.it.data / "env"
    path.write_text(text)
    path.chmod(0o600)


def test_what_was_changed_is_printed_and_what_cannot_be_used_is_one_line(it: Running) -> None:
    """Old and new value, and what holds later; a refusal is an error of the command line, and nothing is changed."""
    run = Shell(reload, it.it.data / "data")
    say(it, "TOKENHUB_DEFAULT_MODE=cheap\nTOKENHUB_PORT=1\nTOKENHUB_REDIS_URL=redis://:secret@x\n")
    told = run()

    assert told.splitlines()[:3] == [
        "TOKENHUB_PORT: 8080 -> 1  (from the next start on)",
        "TOKENHUB_REDIS_URL: empty -> (redacted)  (from the next start on)",
        "TOKENHUB_DEFAULT_MODE: normal -> cheap",
    ]
    assert told.splitlines()[-1] == "settings were read anew"
    assert "secret" not in told

    assert [one["variable"] for one in run.json()["changes"]] == ["TOKENHUB_PORT", "TOKENHUB_REDIS_URL"]

    say(it, "TOKENHUB_DEFAULT_MODE=dear\n")
    assert "TOKENHUB_DEFAULT_MODE='dear': must be one of cheap" in run.refusal()
