"""Durable calls as operators see them, through the whole application: the admin API, the commands, the settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import Running, Shell, running
from tests.e2e.serving import eventually
from tests.fakes.house import House, Told, house
from tests.workflows.server import NAMESPACE, Temporal
from tokenhub_core.cli.workflow import workflow
from tokenhub_core.errors import ConfigError

DURABLE: dict[str, Any] = {"messages": [{"role": "user", "content": "@@tokenhub durable=true\nHello"}]}


def settings(temporal: Temporal, queue: str) -> dict[str, str]:
    return {
        "TEMPORAL_ENABLED": "true",
        "TEMPORAL_HOST": temporal.address,
        "TEMPORAL_NAMESPACE": NAMESPACE,
        "TEMPORAL_TASK_QUEUE": queue,
        "VAULT_PASSWORD": "correct horse battery staple",
        "TEMPORAL_BEGIN_SECS": "60",
        "SHUTDOWN_DRAIN_SECS": "0",
    }


async def connected(it: House) -> None:
    """Return when the application has reached Temporal."""

    async def look() -> bool:
        return (await it.admin("GET", "/workflows")).status == 200

    await eventually(look)


def workflow_of(told: Told) -> str:
    return f"chat-{told.header('x-request-id')}"


async def test_a_durable_call_is_listed_and_shown(temporal: Temporal, tmp_path: Path) -> None:
    """By the id of its request, with its status and what happened; another call is not among them."""
    async with house(tmp_path, simulate=True, settings=settings(temporal, tmp_path.name)) as it:
        await connected(it)
        plain, durable = await it.chat(), await it.chat(**DURABLE)
        assert (plain.status, durable.status) == (200, 200)
        name = workflow_of(durable)
        shown = await it.done("GET", f"/workflows/{name}")
        assert (shown["workflow_id"], shown["status"]) == (name, "COMPLETED")
        assert shown["duration_ms"] > 0
        told = await it.done("GET", f"/workflows/{name}/history")
        happened = [event["event_type"] for event in told["events"]]
        assert happened[0] == "WORKFLOW_EXECUTION_STARTED"
        assert happened.count("ACTIVITY_TASK_COMPLETED") == 2
        assert happened[-1] == "WORKFLOW_EXECUTION_COMPLETED"
        assert (await it.admin("GET", f"/workflows/{workflow_of(plain)}")).status == 404

        async def listed() -> list[str]:
            found = await it.done("GET", "/workflows?status=COMPLETED&limit=200")
            return [one["workflow_id"] for one in found["workflows"] if one["workflow_id"] == name]

        assert await eventually(listed) == [name]
        running_ = await it.done("GET", "/workflows?status=RUNNING")
        assert name not in [one["workflow_id"] for one in running_["workflows"]]
        record = await it.done("GET", f"/logs/{durable.header('x-request-id')}")
        assert record["decision"]["policy"]["durable"] is True
        assert record["outcome"] == "ok"
        assert (await it.admin("POST", f"/workflows/{name}/cancel")).status == 404  # it is over


async def test_what_makes_no_sense_is_refused(temporal: Temporal, tmp_path: Path) -> None:
    """With what is wrong."""
    async with house(tmp_path, settings=settings(temporal, tmp_path.name)) as it:
        await connected(it)
        for query in ("status=Running", "limit=0", "limit=201", "limit=x"):
            refused = await it.admin("GET", f"/workflows?{query}")
            assert (refused.status, refused.fault["param"]) == (400, query.partition("=")[0])
        for path in ("", "/history"):
            assert (await it.admin("GET", f"/workflows/chat-nobody{path}")).status == 404
        assert (await it.admin("POST", "/workflows/chat-nobody/cancel")).status == 404


async def test_where_it_is_off_there_are_none(tmp_path: Path) -> None:
    """And a directive for it changes nothing."""
    async with house(tmp_path, simulate=True) as it:
        assert await it.done("GET", "/workflows") == {"workflows": [], "temporal_enabled": False}
        assert (await it.admin("GET", "/workflows/chat-x")).status == 404
        assert (await it.chat(**DURABLE)).status == 200


async def test_where_temporal_is_away_calls_are_made_and_operators_are_told(tmp_path: Path) -> None:
    """A server that starts without it serves; only looks at workflows fail."""
    nowhere = {"TEMPORAL_ENABLED": "true", "TEMPORAL_HOST": "127.0.0.1:1", "TEMPORAL_CALLS": "all"}
    async with house(tmp_path, simulate=True, settings=nowhere) as it:
        assert (await it.chat()).status == 200
        refused = await it.admin("GET", "/workflows")
        assert (refused.status, refused.fault["code"]) == (503, "temporal_unreachable")
        metrics = (await it.ask("GET", "/metrics")).body.decode()
        assert "tokenhub_temporal_up 0.0" in metrics
        assert "tokenhub_temporal_fallback_total 1.0" in metrics


async def test_what_a_locked_vault_cannot_seal_is_made_directly(temporal: Temporal, tmp_path: Path) -> None:
    """No call fails for it, and none goes to Temporal unsealed."""
    given = settings(temporal, tmp_path.name)
    async with house(tmp_path, simulate=True, settings=given) as it:
        await connected(it)
        await it.done("POST", "/vault/lock")
        told = await it.chat(**DURABLE)
        assert told.status == 200
        assert (await it.admin("GET", f"/workflows/{workflow_of(told)}")).status == 404


async def test_without_its_package_the_setting_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line; without the setting nothing needs it."""
    monkeypatch.setitem(sys.modules, "temporalio", None)
    for name in ("client", "codec", "activities", "definitions"):
        monkeypatch.delitem(sys.modules, f"tokenhub_core.workflows.{name}", raising=False)
    with pytest.raises(ConfigError, match=r"tokenhub\[temporal\]"):
        async with house(tmp_path, settings={"TEMPORAL_ENABLED": "true"}):
            pass


def test_the_commands_list_show_and_cancel(temporal: Temporal, tmp_path: Path) -> None:
    """As the admin API does; a name that nobody has is one line."""
    with running(tmp_path, simulate=True, settings=settings(temporal, tmp_path.name)) as served:
        run = Shell(workflow, tmp_path / "data")
        served.do(connected(served.it))
        name = workflow_of(_chat(served))

        async def listed() -> bool:
            found = await served.it.done("GET", "/workflows?limit=200")
            return name in [one["workflow_id"] for one in found["workflows"]]

        served.do(eventually(listed))
        assert name in run("list", "--limit", "200").replace("\n", "")
        assert run("show", name).startswith(f"{name}: COMPLETED\n")
        assert run.json("show", name)["events"][0]["event_type"] == "WORKFLOW_EXECUTION_STARTED"
        with pytest.raises(ConfigError, match="no such workflow"):
            run("cancel", "chat-nobody")


def _chat(served: Running) -> Told:
    told = served.do(served.it.chat(**DURABLE))
    assert told.status == 200
    return told
