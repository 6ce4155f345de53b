"""The side server's doors with the whole application behind them: lists, limits, and whose a record is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.fakes.engine import message
from tests.fakes.house import House, house
from tests.fakes.keys import OTHER, SECRET, Book, limited
from tests.fakes.provider import FakeProvider
from tests.patience import PATIENCE
from tokenhub_core.admission.doorkeeper import Entry
from tokenhub_core.admission.foreign import Leak
from tokenhub_core.errors import TokenHubError
from tokenhub_core.types import Dialect, Origin, Scope

SHOWN = {"authorization": f"Bearer {SECRET}"}
ANTHROPIC = {"anthropic-version": "2023-06-01"}
SHUT = {"ANONYMOUS": "off"}
OPENAI, LOCAL = "gpt-4o", "llama"


def book(**to: Any) -> Book:
    """Return a book in which our key is good for what is said."""
    return Book(**{SECRET: limited(**to)})


async def stocked(it: House, fake: FakeProvider) -> None:
    """Register two providers with a model each, and an alias for each."""
    await it.provider(fake, "p", OPENAI)
    await it.provider(fake, "q", LOCAL)
    for name, model in (("fast", OPENAI), ("cheap", LOCAL)):
        await it.done("POST", "/aliases", {"name": name, "variants": [{"model_id": model, "weight": 1}]})


async def listed(it: House, path: str, headers: dict[str, str]) -> set[str]:
    """Return the names of a list, whichever shape it has."""
    told = await it.ask("GET", path, headers=headers)
    assert told.status == 200, told
    items = told.json.get("data") or told.json.get("models") or []
    return {(one.get("id") or one["name"]).removeprefix("models/") for one in items}


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/v1/models", {}),
        ("/v1/models", {"anthropic-version": "2023-06-01"}),
        ("/v1beta/models", {}),
        ("/api/tags", {}),
    ],
)
@pytest.mark.parametrize(
    ("to", "names"),
    [
        ({}, {OPENAI, LOCAL, "fast", "cheap"}),
        ({"models": ("gpt-*",)}, {OPENAI, "fast"}),
        ({"models": ("cheap",)}, {"cheap"}),
        ({"models": ("*",), "providers": ("q",)}, {LOCAL, "cheap"}),
        ({"models": ()}, set()),
    ],
)
async def test_a_list_shows_what_the_key_may_ask_for(
    tmp_path: Path, fake: FakeProvider, path: str, more: dict[str, str], to: Any, names: set[str]
) -> None:
    """In every shape; and nothing else is found by its name either."""
    async with house(tmp_path, settings=SHUT, book=book(**to)) as it:
        await stocked(it, fake)
        assert await listed(it, path, {**SHOWN, **more}) == names
        if path != "/api/tags":
            for name in (OPENAI, LOCAL, "fast", "cheap"):
                told = await it.ask("GET", f"{path}/{name}", headers={**SHOWN, **more})
                assert told.status == (200 if name in names else 404)


async def test_a_list_asks_for_its_scope(tmp_path: Path) -> None:
    """Without `plan` nobody is told which models there are, and without a key nobody at all."""
    chat = book(scopes=frozenset({Scope.CHAT}))
    async with house(tmp_path, settings=SHUT, book=chat) as it:
        for path in ("/v1/models", "/v1/models/x", "/v1beta/models", "/v1beta/models/x", "/api/tags"):
            assert (await it.ask("GET", path, headers=SHOWN)).status == 403
            assert (await it.ask("GET", path)).status == 401


async def test_what_a_key_is_not_good_for_is_a_403_that_names_it(tmp_path: Path, fake: FakeProvider) -> None:
    """In both dialects, by its name and by an alias; what it is good for is served, by no one else."""
    async with house(tmp_path, settings=SHUT, book=book(models=("gpt-*",))) as it:
        await stocked(it, fake)
        for name in (LOCAL, "cheap"):
            told = await it.chat(name, SHOWN)
            assert (told.status, told.fault["code"]) == (403, "model_not_allowed")
            assert LOCAL in told.fault["message"]
        body = {**message(), "model": LOCAL}
        told = await it.ask("POST", "/v1/messages", body, SHOWN)
        assert (told.status, told.fault["type"]) == (403, "permission_error")
        for name in (OPENAI, "fast", "*"):
            told = await it.chat(name, SHOWN)
            assert (told.status, told.header("x-tokenhub-provider")) == (200, "p")
        assert (await it.chat(LOCAL, {"x-api-key": OTHER})).status == 200


async def test_an_alias_that_a_key_may_ask_for_is_good_for_what_it_means(
    tmp_path: Path, fake: FakeProvider
) -> None:
    """The operator says what that is; asked for by its own name the model stays forbidden."""
    async with house(tmp_path, settings=SHUT, book=book(models=("cheap",))) as it:
        await stocked(it, fake)
        assert (await it.chat("cheap", SHOWN)).header("x-tokenhub-model") == LOCAL
        assert (await it.chat(LOCAL, SHOWN)).status == 403


async def test_a_record_says_whose_call_it_was(tmp_path: Path, fake: FakeProvider) -> None:
    """The key's id and its project, to be filtered by; of somebody anonymous neither; the decision has the limits."""
    async with house(tmp_path, book=book(models=("gpt-*",))) as it:
        await stocked(it, fake)
        await it.chat(OPENAI, SHOWN)
        await it.chat(OPENAI)
        for query, keys in (("", [None, "k-ann"]), ("?key=k-ann", ["k-ann"]), ("?project=apollo", ["k-ann"])):
            logs = (await it.done("GET", f"/logs{query}"))["logs"]
            assert [one["key_id"] for one in logs] == keys
        (log,) = (await it.done("GET", "/logs?key=k-ann"))["logs"]
        assert log["project"] == "apollo"
        assert (await it.done("GET", "/logs?key=k-bob"))["logs"] == []
        told = await it.done("GET", f"/decisions/{log['id']}")
        assert told["policy"]["allowed_models"] == ["gpt-*"]


async def test_a_key_in_an_address_is_refused(tmp_path: Path) -> None:
    """Whoever it belongs to; Gemini's own paths are the one exception."""
    async with house(tmp_path, simulate=True, settings=SHUT, book=Book()) as it:
        told = await it.ask("POST", f"/v1/chat/completions?key={SECRET}", b"{}", SHOWN)
        assert (told.status, told.fault["code"]) == (401, "key_in_query")
        assert (await it.ask("GET", f"/v1/models?key={SECRET}")).status == 401
        assert (await it.ask("GET", f"/v1beta/models?key={SECRET}")).status == 200


async def test_only_names_that_were_set_are_served(tmp_path: Path) -> None:
    """Beside addresses and localhost; any other one is somebody's who re-bound it."""
    async with house(tmp_path, settings={"ALLOWED_HOSTS": "llm.example, Gate.Example"}) as it:
        for host, status in (
            ("llm.example", 200),
            ("LLM.example:8090", 200),
            ("gate.example", 200),
            ("localhost", 200),
            ("x.llm.example", 403),
            ("llm.example.evil", 403),
        ):
            assert (await it.ask("GET", "/healthz", headers={"host": host})).status == status


async def test_an_alarm_is_counted_told_and_written_down(it: House) -> None:
    """A key that would have left: a metric, an event, an entry of the audit log; in none of them the key."""
    leak = Leak("api.openai.com", "sk-ant-", "10.0.0.7", "k-ann")
    with it.bus.listen() as heard:
        for _ in range(3):
            it.app.foreign._tell(leak)
        told = [event.data for event in heard.take()]
        assert told == [{**structs.asdict(leak)}] * 3
        async with asyncio.timeout(PATIENCE):
            while not (written := [event.data for event in heard.take() if event.type == "audit"]):
                await heard.ready()
    entry = written[0]
    assert (entry["subject"], entry["reason"]) == ("api.openai.com", "credential_leak")
    assert (entry["source"], entry["actor"]) == ("10.0.0.7", "k-ann")
    metrics = (await it.ask("GET", "/metrics")).body
    assert b'tokenhub_leaking_credentials_total{kind="sk-ant-"} 3' in metrics


@pytest.mark.parametrize(("store", "cause"), [("memory", ""), ("vault", "vault_locked")])
async def test_a_registered_providers_credential_is_there_for_what_passes(
    tmp_path: Path, store: str, cause: str
) -> None:
    """As the fleet, the vault and the rules of the running application have it; locked, nothing is lent."""
    settings = {"CLIENT_CREDENTIALS": "api.openai.com=replace"}
    async with house(tmp_path, settings=settings) as it:
        await it.done("POST", "/vault/init", {"admin_password": "correct horse battery"})
        given = {"base_url": "https://api.openai.com/v1", "cred_store": store, "api_key": "sk-lent"}
        await it.done("POST", "/providers", {"id": "openai", **given})
        await it.done("POST", "/vault/lock")
        entry = it.app.foreign.settled(Entry((("authorization", "Bearer x"),), "/v1/files"), "api.openai.com")
        lender, origin = it.app.watcher.lender, Origin("https", "api.openai.com", 443)
        assert lender is not None
        if not cause:
            loan = lender.lend(entry, origin, Dialect.OPENAI_CHAT)
            assert ("authorization", "Bearer sk-lent") in loan.on(entry.headers)
            return
        with pytest.raises(TokenHubError) as caught:
            lender.lend(entry, origin, Dialect.OPENAI_CHAT)
        assert (caught.value.fault.http_status, caught.value.fault.label) == (503, cause)
