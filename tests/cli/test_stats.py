"""`tokenhub stats` against a TokenHub that is serving."""

from __future__ import annotations

from tests.cli.running import Running, Shell, columns
from tokenhub_core.cli.stats import stats


def test_what_calls_came_to_is_a_table(simulated: Running) -> None:
    """A window a line, or a value a line; what was recorded a moment ago is in it."""
    run = Shell(stats, simulated.it.data / "data")
    before = run.json()["global"][0]["request_count"]
    simulated.call()
    head, _, *lines = run().splitlines()
    assert columns(head) == ["window", "calls", "failed", "cost", "tokens", "p50", "p95", "first token"]
    assert [line.split()[0] for line in lines] == ["1m", "5m", "1h", "24h"]
    assert lines[0].split()[1] == str(before + 1)
    split = run("--by", "model", "--window", "5m").splitlines()
    assert any(line.startswith("gpt-4o ") for line in split)
    assert run.json()["by_model"]["1h"][0]["request_count"] >= 1
