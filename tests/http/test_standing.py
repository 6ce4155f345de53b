"""How a server stands: its settings and where they come from, what exploring has learned."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from tests.e2e.serving import eventually
from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tokenhub_core import config
from tokenhub_core.http.standing import posteriors
from tokenhub_core.routing.bandit import Bandit
from tokenhub_core.types import Json

SECRET = "redis://:hush@127.0.0.1:1/0"


def sources(environ: dict[str, str], **flags: object) -> dict[str, tuple[str, str]]:
    """Return value and source of each setting, by the variable's name without its prefix."""
    given = {f"TOKENHUB_{name}": value for name, value in environ.items()}
    settings = config.parse(given, data_dir=Path(), overrides=flags)
    rows = config.standing(settings, given)
    return {row.variable.removeprefix("TOKENHUB_"): (row.value, row.source) for row in rows}


def test_a_setting_says_where_it_comes_from() -> None:
    """Nobody, the environment, a flag; a flag wins, and says so; the environment may say the default itself."""
    told = sources({"PORT": "9000", "WORKERS": "2", "SIMULATE": "false"}, workers=3, host="::1")
    assert told["ADMIN_PORT"] == ("8090", "default")
    assert told["PORT"] == ("9000", "environment")
    assert told["WORKERS"] == ("3", "started with")
    assert told["HOST"] == ("::1", "started with")
    assert told["SIMULATE"] == ("false", "environment")


def test_a_secret_is_told_as_set() -> None:
    """That there is one, and where it comes from; never what it is."""
    assert sources({"REDIS_URL": SECRET})["REDIS_URL"] == ("(redacted)", "environment")
    assert sources({})["REDIS_URL"] == ("", "default")


def test_every_setting_is_there_as_its_table_has_it() -> None:
    """The same names, defaults and meanings as in the manual."""
    rows = config.standing(config.parse({}, data_dir=Path()), {})
    assert [(row.variable, row.default, row.text) for row in rows] == config.table()
    assert {row.source for row in rows} == {"default"}


async def test_settings_are_read_by_a_viewer_without_secrets(tmp_path: Path) -> None:
    """All of them; no answer holds the secret."""
    async with house(tmp_path, settings={"MAX_CALLS": "7", "ADMIN_TOKEN": "hush" * 10}) as it:
        told = await it.done("GET", "/settings")
        rows = {row["variable"]: row for row in told["items"]}
        assert told["total"] == len(config.table())
        assert told["process"] == {"host": platform.node(), "pid": os.getpid(), "workers": 1}
        assert rows["TOKENHUB_MAX_CALLS"]["value"] == "7"
        assert rows["TOKENHUB_ADMIN_TOKEN"]["value"] == "(redacted)"
        assert "hush" not in str(told)


def test_posteriors_are_those_that_draws_are_made_from() -> None:
    """Alpha and beta of the bandit itself, the best mean first; who is likely to come first adds up to one."""
    bandit = Bandit()
    for _ in range(20):
        bandit.reward(("good", "p"), "small", 0.9, 1000.0)
        bandit.reward(("bad", "p"), "small", 0.1, 1000.0)
    good, bad = posteriors(bandit, "small", 1000.0)
    assert (good.model_id, bad.model_id) == ("good", "bad")
    alpha, beta = bandit.posteriors([("good", "p")], "small", 1000.0)
    assert (good.alpha, good.beta) == (alpha[0], beta[0])
    assert good.first > 0.99
    assert good.first + bad.first == pytest.approx(1)
    assert good.at == 1000.0
    assert posteriors(Bandit(), "", 0.0) == ()


async def test_a_call_teaches_what_the_page_shows(it: House, fake: FakeProvider) -> None:
    """After one answer its model has an arm, in its own kind of call and in all together."""
    await it.provider(fake, "p", "gpt-4o")
    none = await it.done("GET", "/posteriors")
    assert (none["contexts"], none["context"], none["items"]) == ([], "", [])
    await it.chat("gpt-4o")

    async def learned() -> Json | None:
        found = await it.done("GET", "/posteriors?context=small")
        return found if found["items"] else None

    told = await eventually(learned)
    assert told is not None
    (arm,) = told["items"]
    assert (arm["model_id"], arm["provider_id"], arm["first"]) == ("gpt-4o", "p", 1.0)
    assert arm["alpha"] > arm["beta"]
    assert (told["contexts"], told["context"]) == (["small"], "small")
