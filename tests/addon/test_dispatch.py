"""Cached dispatch does what mitmproxy's own does: each rule is checked on both."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from mitmproxy import exceptions, http, options
from mitmproxy.addonmanager import AddonManager
from mitmproxy.master import Master
from mitmproxy.proxy.layers.http._hooks import HttpRequestHook
from mitmproxy.proxy.server_hooks import ClientConnectedHook
from mitmproxy.test import tflow

from tokenhub_addon.dispatch import CachedAddons, CachedMaster, quiet, unchecked

type Log = list[str]


class Named:
    """An addon that writes down what it hears."""

    def __init__(
        self, name: str, log: Log, *addons: object, error: Exception | type[Exception] | None = None
    ) -> None:
        self.name = name
        self.log = log
        self.addons = list(addons)
        self.error = error

    def request(self, flow: http.HTTPFlow) -> None:
        self.log.append(self.name)
        if self.error:
            raise self.error


class Later(Named):
    """The same with a coroutine."""

    async def request(self, flow: http.HTTPFlow) -> None:  # type: ignore[override] # mitmproxy takes both
        self.log.append(self.name)


class Updated:
    """Hears of changed flows."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def update(self, flows: list[http.HTTPFlow]) -> None:
        self.log.append(f"update {len(flows)}")


@pytest.fixture
def log() -> Log:
    return []


@pytest.fixture(params=[AddonManager, CachedAddons])
async def manager(request: pytest.FixtureRequest) -> AddonManager:
    master = CachedMaster(options.Options())
    if request.param is AddonManager:
        master.addons = AddonManager(master)  # type: ignore[no-untyped-call] # mitmproxy's
    return master.addons


@pytest.fixture
def add(manager: Any) -> Callable[..., None]:
    added: Callable[..., None] = manager.add
    return added


async def fire(manager: AddonManager) -> None:
    await manager.handle_lifecycle(HttpRequestHook(tflow.tflow()))


async def test_addons_hear_a_hook_in_order(manager: Any, add: Callable[..., None], log: Log) -> None:
    """The chain's order holds; sub-addons follow their parent; coroutines are awaited in their turn."""
    add(Named("a", log, Later("a1", log)), Later("b", log), Named("c", log))
    await fire(manager)

    assert log == ["a", "a1", "b", "c"]


async def test_an_addon_that_comes_or_goes_is_noticed(
    manager: Any, add: Callable[..., None], log: Log
) -> None:
    """Adding, registering below another and removing all count from the next event on."""
    first, second = Named("a", log), Named("b", log)
    add(first)
    await fire(manager)
    add(second)
    await fire(manager)
    third = Named("b1", log)
    manager.register(third)
    second.addons.append(third)
    await fire(manager)
    manager.remove(first)
    await fire(manager)
    manager.clear()
    await fire(manager)

    assert log == ["a", "a", "b", "a", "b", "b1", "b", "b1"]


async def test_a_failing_addon_stops_its_own_group_only(
    manager: Any, add: Callable[..., None], log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception is logged, skips the sub-addons of the one that failed, and the chain goes on."""
    add(Named("a", log, Named("a1", log), error=RuntimeError("oops")), Named("b", log))
    with caplog.at_level(logging.ERROR):
        await fire(manager)

    assert log == ["a", "b"]
    assert "oops" in caplog.text


async def test_an_addon_can_halt_the_chain(manager: Any, add: Callable[..., None], log: Log) -> None:
    """After `AddonHalt` nobody else hears the event."""
    add(Named("a", log, error=exceptions.AddonHalt), Named("b", log))
    await fire(manager)

    assert log == ["a"]


async def test_an_options_error_is_for_the_caller(manager: Any, add: Callable[..., None], log: Log) -> None:
    """`OptionsError` is raised, not logged."""
    add(Named("a", log, error=exceptions.OptionsError), Named("b", log))
    with pytest.raises(exceptions.OptionsError):
        await fire(manager)


async def test_an_event_of_a_flow_is_followed_by_an_update(
    manager: Any, add: Callable[..., None], log: Log
) -> None:
    """Whoever shows flows hears after each of their events that they may have changed."""
    add(Updated(log), Named("a", log))
    await fire(manager)
    await manager.handle_lifecycle(ClientConnectedHook(tflow.tclient_conn()))

    assert log == ["a", "update 1"]


async def test_handlers_are_looked_up_once(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second event of the same kind does not walk the addons again."""
    master = CachedMaster(options.Options())
    master.addons.add(Named("a", log))  # type: ignore[no-untyped-call] # mitmproxy's
    await fire(master.addons)
    monkeypatch.setattr(AddonManager, "_iter_hooks", None)
    await fire(master.addons)

    assert log == ["a", "a"]


async def test_log_records_are_not_turned_into_addon_events() -> None:
    """The stock master puts a handler on the root logger; ours takes it away."""
    before = list(logging.getLogger().handlers)
    master: Master = CachedMaster(options.Options())

    assert isinstance(master.addons, CachedAddons)
    assert logging.getLogger().handlers == before


def test_quiet_turns_proxy_chatter_off() -> None:
    """Connections are not worth a line; errors are."""
    quiet()
    logger = logging.getLogger("mitmproxy.proxy.server")

    assert not logger.isEnabledFor(logging.INFO)
    assert logger.isEnabledFor(logging.WARNING)


def test_the_check_of_messages_comes_back() -> None:
    """Switched off it lets anything pass; the way back restores what was there."""
    before = http.MessageData.__post_init__
    restore = unchecked()
    assert http.MessageData.__post_init__ is not before
    restore()
    assert http.MessageData.__post_init__ is before
