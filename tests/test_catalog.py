"""What is configured and the fleet made of it: durable first, then swapped whole."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.patience import PATIENCE
from tokenhub_core import config
from tokenhub_core.catalog import Catalog, nano_per_token, prices_per_1k
from tokenhub_core.clock import SystemClock
from tokenhub_core.errors import Kind, TokenHubError
from tokenhub_core.providers import catalogue
from tokenhub_core.store.catalog import RoutingConfig, Stock
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.writer import Writer
from tokenhub_core.types import Dialect, Mode, Model, Need, Prices, Provider, ProviderType

LIST = catalogue.load()
P = Provider("p", ProviderType.OPENAI, ("https://p.example",))
ENV = Provider("env", ProviderType.OPENAI, ("https://api.openai.com",), cred_store="env:KEY")
TRANSIENT = Stock((ENV,), (Model("theirs", "env"),))


class Shelf:
    """A database, and catalogs on it as often as a program starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database: Database = open_database(str(folder / "t.sqlite"))
        self.writer = Writer(self.database)
        self.writer.start()

    async def catalog(self, transient: Stock = TRANSIENT, **overrides: Any) -> Catalog:
        settings = config.parse({}, data_dir=self.folder, overrides=overrides)
        made = Catalog(
            self.database,
            self.writer,
            prices=LIST,
            settings=settings,
            clock=SystemClock(),
            transient=transient,
        )
        await made.load()
        return made


@pytest_asyncio.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    shelf = Shelf(tmp_path)
    yield shelf
    await shelf.writer.close()
    shelf.database.close()


def spoken(provider: Provider) -> Provider:
    """Return a provider of OpenAI's kind as it stands in a fleet."""
    whole = (Dialect.OPENAI_RESPONSES, Dialect.OPENAI_COMPLETIONS, Dialect.OPENAI_EMBEDDINGS)
    return replace(provider, also=whole)


async def refused(doing: Any, param: str, kind: Kind = Kind.INVALID) -> str:
    """Await something that must be refused for `param`; return the words."""
    with pytest.raises(TokenHubError) as error:
        await doing
    fault = error.value.fault
    assert (fault.kind, fault.param) == (kind, param)
    return fault.message


async def test_a_change_is_durable_and_then_seen(shelf: Shelf) -> None:
    """The fleet is another one afterwards, the old one as it was; a restart sees the same."""
    catalog = await shelf.catalog()
    before = catalog.fleet
    await catalog.put_provider(P)
    await catalog.put_model(Model("a/b", "p", weight=7))
    assert "p" not in before.providers
    assert catalog.fleet.version > before.version
    assert [model.weight for model in catalog.fleet.by_id["a/b"]] == [7]
    again = await shelf.catalog()
    assert (again.fleet.providers, again.fleet.models) == (catalog.fleet.providers, catalog.fleet.models)


async def test_a_provider_is_stored_with_clean_endpoints(shelf: Shelf) -> None:
    """Whatever spelling was given."""
    catalog = await shelf.catalog()
    stored = await catalog.put_provider(
        Provider("p", ProviderType.OPENAI, ("HTTPS://P.Example:443/v1/", "https://q.example/"))
    )
    assert stored.endpoints == ("https://p.example/v1", "https://q.example")
    patched = await catalog.patch_provider("p", {"endpoints": ("https://R.example/",), "enabled": False})
    assert (patched.endpoints, patched.enabled) == (("https://r.example",), False)


async def test_what_a_provider_speaks_follows_from_where_it_is(shelf: Shelf) -> None:
    """It is not stored: a provider that moves speaks what is spoken there, also after a restart."""
    catalog = await shelf.catalog()
    await catalog.put_provider(Provider("p", ProviderType.OPENAI_COMPATIBLE, ("https://p.example",)))
    assert catalog.fleet.providers["p"].also == (Dialect.OPENAI_EMBEDDINGS,)
    await catalog.patch_provider("p", {"endpoints": ("https://openrouter.ai/api/v1",)})
    for again in (catalog, await shelf.catalog()):
        assert again.fleet.providers["p"].speaks(Dialect.OPENAI_RESPONSES) is Dialect.OPENAI_RESPONSES
        assert again.fleet.providers["p"].speaks(Dialect.GEMINI) is Dialect.OPENAI_CHAT
        assert again.stored("p").also == ()


async def test_a_dated_endpoint_is_for_azure_alone(shelf: Shelf) -> None:
    """Elsewhere a query in a base is a mistake."""
    catalog = await shelf.catalog()
    dated = ("https://me.openai.azure.com?api-version=2024-10-21",)
    stored = await catalog.put_provider(Provider("a", ProviderType.AZURE, dated))
    assert stored.endpoints == dated
    await refused(catalog.put_provider(Provider("o", ProviderType.OPENAI, dated)), "base_url")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"endpoints": ()}, "base_url"),
        ({"endpoints": ("http://public.example",)}, "base_url"),
        ({"endpoints": ("sim://openai",)}, "base_url"),
        ({"type": ProviderType.ORIGIN}, "type"),
        ({"type": ProviderType.SIMULATOR}, "type"),
        ({"cred_store": "caller"}, "cred_store"),
        ({"cred_store": "env:1X"}, "cred_store"),
        ({"cred_store": "env:TOKENHUB_VAULT_PASSWORD"}, "cred_store"),
    ],
)
async def test_what_cannot_be_stored_cannot_be_patched_in(
    shelf: Shelf, changes: dict[str, Any], param: str
) -> None:
    """One check for both ways; an origin that is registered would be sent the callers' own keys."""
    catalog = await shelf.catalog()
    await catalog.put_provider(P)
    await refused(catalog.patch_provider("p", changes), param)
    await refused(catalog.put_provider(Provider(**{**fields(P), "id": "q", **changes})), param)
    assert catalog.fleet.providers["p"] == spoken(P)


async def test_plain_http_is_for_those_who_said_so(shelf: Shelf) -> None:
    """By the setting, for any host."""
    catalog = await shelf.catalog(allow_http=True)
    await catalog.put_provider(Provider("p", ProviderType.OPENAI, ("http://public.example",)))


async def test_what_only_this_process_knows_is_not_changed_here(shelf: Shelf) -> None:
    """It is in the fleet, it says where it comes from, and it gives way to a stored one with all its models."""
    catalog = await shelf.catalog()
    assert [model.id for model in catalog.fleet.models] == ["theirs"]
    for doing in (
        catalog.patch_provider("env", {"enabled": False}),
        catalog.delete_provider("env"),
        catalog.add_listed("env"),
        catalog.patch_model("theirs", "env", {"weight": 1}),
        catalog.delete_model("theirs", "env"),
    ):
        assert "environment" in await refused(doing, "id")
    await refused(catalog.put_model(Model("m", "env")), "provider_id")
    await catalog.put_provider(Provider("env", ProviderType.OPENAI, ("https://mine.example",)))
    assert (catalog.fleet.providers["env"].endpoints, catalog.fleet.models) == (("https://mine.example",), ())
    await catalog.delete_provider("env")
    assert catalog.fleet.providers["env"] == spoken(ENV)


async def test_a_simulation_disconnects_stored_providers_out(shelf: Shelf) -> None:
    """They can be seen and changed, do not serve, and do not push a simulated one aside."""
    await (await shelf.catalog()).put_provider(P)
    sim = Provider("sim", ProviderType.SIMULATOR, ("sim://openai",))
    catalog = await shelf.catalog(Stock((sim,), (Model("m", "sim"),)), simulate=True)
    assert [(p.id, p.enabled) for p in catalog.fleet.providers.values()] == [("p", False), ("sim", True)]
    await catalog.patch_provider("p", {"cred_store": "none"})
    assert "simulator" in await refused(catalog.put_provider(Provider("sim", P.type, P.endpoints)), "id")
    after = await shelf.catalog()
    assert after.fleet.providers["p"].enabled


async def test_what_is_not_there_is_not_found(shelf: Shelf) -> None:
    """404, by the field that named it."""
    catalog = await shelf.catalog()
    await catalog.put_provider(P)
    for doing in (catalog.patch_provider("x", {}), catalog.delete_provider("x"), catalog.add_listed("x")):
        await refused(doing, "id", Kind.NOT_FOUND)
    await refused(catalog.put_model(Model("m", "x")), "provider_id", Kind.NOT_FOUND)
    await refused(catalog.patch_model("m", "p", {"weight": 1}), "id", Kind.NOT_FOUND)
    await refused(catalog.delete_model("m", "p"), "id", Kind.NOT_FOUND)
    for name, provider in (("m", ""), ("theirs", "p")):
        with pytest.raises(TokenHubError, match="no model"):
            catalog.models(name, provider)


async def test_names_that_would_break_headers_are_refused(shelf: Shelf) -> None:
    """Whoever brings them: the API, the credentials file, a script."""
    catalog = await shelf.catalog()
    await catalog.put_provider(P)
    for name in ("", "a\r\nb", ".", "..", " a", "x" * 201):
        await refused(catalog.put_model(Model(name, "p")), "id")
    for name in ("a/b", "a:b", "x" * 65):
        await refused(catalog.put_provider(Provider(name, P.type, P.endpoints)), "id")


async def test_open_prices_and_sizes_come_from_the_list(shelf: Shelf) -> None:
    """Of the provider's vendor; what was said stays, and what nobody knows is marked so."""
    catalog = await shelf.catalog()
    await catalog.put_provider(Provider("openai", ProviderType.OPENAI, ("https://api.openai.com",)))
    known = catalog.prefilled(Model("gpt-4o", "openai"), None)
    assert (known.prices.input, known.pricing_source) == (2500.0, "models-dev")
    assert known.max_context_tokens == 128_000
    own = catalog.prefilled(Model("gpt-4o", "openai", max_context_tokens=8000), Prices(1, 2))
    assert (own.prices, own.pricing_source, own.max_context_tokens) == (Prices(1, 2), "manual", 8000)
    assert catalog.prefilled(Model("gpt-4o", "openai"), Prices()).pricing_source == "manual"
    assert catalog.prefilled(Model("mine", "openai"), None).pricing_source == "unknown"
    other = catalog.prefilled(Model("mine", "openai", upstream="gpt-4o"), None)
    assert other.prices == known.prices


async def test_a_vendor_that_charges_nothing_is_not_unknown(shelf: Shelf) -> None:
    """A price of zero on the list is a price."""
    listed = (
        b'{"v":{"api":"https://v.example","models":{"free":{"id":"free","cost":{"input":0,"output":0}}}}}'
    )
    shelf_prices = catalogue.Catalogue(listed)
    settings = config.parse({}, data_dir=shelf.folder)
    catalog = Catalog(
        shelf.database,
        shelf.writer,
        prices=shelf_prices,
        settings=settings,
        clock=SystemClock(),
        transient=Stock((), ()),
    )
    await catalog.load()
    await catalog.put_provider(Provider("v", ProviderType.OPENAI_COMPATIBLE, ("https://v.example",)))
    assert catalog.prefilled(Model("free", "v"), None).pricing_source == "models-dev"


async def test_a_price_by_hand_is_marked_so(shelf: Shelf) -> None:
    """One side of a known price may change; of an unknown one both have to be said."""
    catalog = await shelf.catalog()
    await catalog.put_provider(P)
    await catalog.put_model(catalog.prefilled(Model("gpt-4o", "p"), None))
    patched = await catalog.patch_model("gpt-4o", "p", {"prices": {"input": 1.0}})
    assert (patched.prices.input, patched.prices.output, patched.pricing_source) == (1.0, 10_000.0, "manual")
    await catalog.put_model(catalog.prefilled(Model("mine", "p"), None))
    await refused(catalog.patch_model("mine", "p", {"prices": {"input": 1.0}}), "input_per_1k")
    await catalog.patch_model("mine", "p", {"prices": {"input": 1.0, "output": 2.0}})
    lacking = await catalog.patch_model("mine", "p", {"lacks": [Need.TOOLS]})
    assert lacking.lacks == {Need.TOOLS}


async def test_a_price_list_is_registered_once(shelf: Shelf) -> None:
    """Everything that the vendor sells and that is not there yet; what is there keeps its numbers."""
    catalog = await shelf.catalog()
    await catalog.put_provider(Provider("o", ProviderType.OPENAI, ("https://api.openai.com",)))
    await catalog.put_model(Model("gpt-4o", "o", weight=9))
    added = await catalog.add_listed("o")
    assert (added > 10, len(catalog.fleet.models)) == (True, added + 2)
    assert [model.weight for model in catalog.fleet.by_id["gpt-4o"]] == [9]
    assert await catalog.add_listed("o") == 0


async def test_what_was_set_at_run_time_lies_over_the_settings(shelf: Shelf) -> None:
    """Field by field; zero is set, None is not."""
    catalog = await shelf.catalog(default_mode=Mode.CHEAP, default_max_budget_usd=1.0)
    assert catalog.defaults().values["mode"] is Mode.CHEAP
    await catalog.put_routing(RoutingConfig(default_max_budget_usd=0.0, fallback=False))
    values = catalog.defaults().values
    assert (values["mode"], values["max_budget_usd"], values["fallback"]) == (Mode.CHEAP, 0.0, False)
    await catalog.put_routing(RoutingConfig())
    assert catalog.defaults().values["max_budget_usd"] == 1.0


async def test_the_last_change_is_the_one_that_is_seen(shelf: Shelf) -> None:
    """However many come at once: no older read takes a newer one's place."""
    catalog = await shelf.catalog()
    await catalog.put_provider(P)
    await catalog.put_model(Model("m", "p"))
    await asyncio.gather(*(catalog.patch_model("m", "p", {"weight": n % 11}) for n in range(40)))
    stored = (await shelf.catalog()).fleet.models
    assert [m.weight for m in catalog.fleet.models] == [m.weight for m in stored]


async def test_an_older_read_does_not_take_a_newer_ones_place(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first change's read is slow; the second change is seen all the same when both are done."""
    catalog = await shelf.catalog()
    reading, gate, read = asyncio.Event(), threading.Event(), catalog._read
    loop = asyncio.get_running_loop()

    def slow() -> Any:
        found = read()
        if not reading.is_set():
            loop.call_soon_threadsafe(reading.set)
            gate.wait(PATIENCE)
        return found

    monkeypatch.setattr(catalog, "_read", slow)
    first = asyncio.create_task(catalog.put_provider(P))
    await reading.wait()
    second = asyncio.create_task(catalog.put_provider(Provider("q", P.type, P.endpoints)))
    await asyncio.wait({second}, timeout=0.2)
    gate.set()
    await asyncio.gather(first, second)
    assert set(catalog.fleet.providers) == {"p", "q", "env"}


async def test_a_change_whose_caller_leaves_is_seen_all_the_same(shelf: Shelf) -> None:
    """The rows are written by then, so the fleet has to follow."""
    catalog = await shelf.catalog()
    changing = asyncio.create_task(catalog.put_provider(P))
    await asyncio.sleep(0)
    changing.cancel()
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "catalog commit"))
    assert "p" in catalog.fleet.providers


@pytest.mark.parametrize(
    ("input_usd", "output_usd", "prices"),
    [(None, None, None), (0.0, 0.0, Prices(0, 0)), (0.0003, 0.0011, Prices(300, 1100))],
)
def test_prices_are_both_or_none(
    input_usd: float | None, output_usd: float | None, prices: Prices | None
) -> None:
    """Dollars per thousand become whole nano-dollars where they are some."""
    assert prices_per_1k(input_usd, output_usd) == prices
    assert nano_per_token(0.000_000_1) == 0.1


@pytest.mark.parametrize("half", [(0.1, None), (None, 0.0)])
def test_one_price_alone_is_refused(half: tuple[float | None, float | None]) -> None:
    """The other would be taken for free."""
    with pytest.raises(TokenHubError, match="or neither"):
        prices_per_1k(*half)


def fields(provider: Provider) -> dict[str, Any]:
    return {name: getattr(provider, name) for name in Provider.__slots__}
