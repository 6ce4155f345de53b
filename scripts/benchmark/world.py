"""A simulated fleet whose truth is known: twelve models with prices and speeds, success rates that drift, an
improvement that nobody announces, and three outages. Everything follows from one seed.

A model's worth to a call is the expectation of its reward: success rate times the default reward of an answer with
its cost and time. The oracle knows it at every moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tokenhub_core.routing import fleet
from tokenhub_core.types import Features, Fleet, Model, Need, Prices, Provider, ProviderType

type Floats = NDArray[np.float64]

SECONDS_APART: Final = 0.5
"""Between two calls: 200,000 of them are a little more than a day."""
HORIZON_MS: Final = 20_000
DEAR_NANOUSD: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class Truth:
    """What one model is really like. Prices in nano-dollars per token, times in milliseconds."""

    name: str
    success: float
    swing: float
    """How far success drifts to both sides, slowly."""
    ttft: float
    pace: float
    input: float
    output: float
    weight: int
    """What its operator thinks of it."""
    tools: bool = True


TRUTHS: Final = (
    Truth("atlas-xl", 0.985, 0.010, 1800, 22, 5000, 25000, 10),
    Truth("atlas", 0.975, 0.015, 900, 14, 2500, 10000, 9),
    Truth("atlas-mini", 0.900, 0.030, 350, 7, 150, 600, 5),
    Truth("borealis", 0.965, 0.020, 1100, 12, 3000, 15000, 9),
    Truth("borealis-lite", 0.870, 0.040, 500, 6, 250, 1250, 6),
    Truth("cirrus", 0.930, 0.030, 700, 18, 1200, 5000, 7),
    Truth("cirrus-flash", 0.880, 0.020, 250, 5, 100, 400, 4, tools=False),
    Truth("dune-70b", 0.850, 0.050, 800, 25, 600, 800, 5),
    Truth("dune-8b", 0.700, 0.050, 200, 8, 50, 80, 2, tools=False),
    Truth("ember", 0.550, 0.010, 600, 30, 400, 1600, 6),
    Truth("fjord", 0.940, 0.030, 2500, 30, 800, 3200, 7),
    Truth("glacier", 0.910, 0.020, 400, 10, 900, 3600, 3),
)
IMPROVES: Final = ("ember", 0.30, 0.995, 0.15)
"""From this share of the run on this model has this success rate, and takes this share of its time."""
OUTAGES: Final = (("atlas-mini", 0.15, 0.20), ("ember", 0.55, 0.65), ("borealis-lite", 0.80, 0.84))
"""Model, begin and end as shares of the run: nearly every call to it fails."""
_DEAD: Final = 0.01
NOISE: Final = 0.25
"""The standard deviation of the logarithm of how much longer or shorter an answer takes than it should."""
FAILED_MS: Final = 200.0
"""How long a failed attempt takes."""


class World:
    """`count` calls and what every model would have answered to each: the same for whoever chooses.

    Tables have a row a call and a column a model.
    """

    def __init__(self, count: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        size = len(TRUTHS)
        self.count = count
        self.fleet = _fleet()
        self.at = 1.8e9 + np.arange(count) * SECONDS_APART
        self.text_bytes = np.minimum(random.lognormal(7.6, 1.5, count), 120_000).astype(np.int64) + 200
        self.tools = random.random(count) < 0.3
        self.output = np.clip(random.lognormal(5.3, 0.8, count), 10, 3_000).astype(np.int64)
        self.input = (self.text_bytes / np.where(self.tools, 3.1, 4.4)).astype(np.int64) + 12
        """The real count of tokens: JSON has fewer bytes a token than prose."""
        share = np.arange(count)[:, None] / count
        rates = _column("success") + _column("swing") * np.sin(
            6 * np.pi * share + random.random(size) * 2 * np.pi
        )
        name, begin, rate, quicker = IMPROVES
        rates[share[:, 0] >= begin, PLACES[name]] = rate
        for down, start, end in OUTAGES:
            rates[(start <= share[:, 0]) & (share[:, 0] < end), PLACES[down]] = _DEAD
        faster = np.ones((count, size))
        faster[share[:, 0] >= begin, PLACES[name]] = quicker
        noise = random.lognormal(0, NOISE, (count, size))
        first, rest = _column("ttft") * faster, _column("pace") * faster * self.output[:, None]
        self.costs = np.outer(self.input, _column("input")) + np.outer(self.output, _column("output"))
        value = 0.3 * (1 - np.minimum(self.costs / DEAR_NANOUSD, 1))
        value += 0.3 * (1 - np.minimum((first + rest) / HORIZON_MS, 1)) + 0.4
        self.able = _column("tools").astype(bool) | ~self.tools[:, None]
        self.rates = rates
        """How likely each model answers."""
        self.worth = np.where(self.able, rates * value, 0.0)
        """Expected rewards; 0 for a model that lacks what the call needs."""
        self.answers = random.random((count, size)) < rates
        self.first = first * noise
        """Milliseconds to the first token."""
        self.expected_ms = first + rest
        """The median time to the end of an answer."""
        self.whole = self.expected_ms * noise

    def features(self, n: int) -> Features:
        """Return a call as routing sees it."""
        needs = _TOOLS if self.tools[n] else _WORDS
        return Features(model="*", stream=True, needs=needs, text_bytes=int(self.text_bytes[n]), turns=3)


_WORDS: Final = frozenset({Need.CHAT})
_TOOLS: Final = frozenset({Need.CHAT, Need.TOOLS})


def _column(name: str) -> Floats:
    return np.array([float(getattr(truth, name)) for truth in TRUTHS])


ARMS: Final = tuple((truth.name, f"{truth.name}.example") for truth in TRUTHS)
PLACES: Final = {truth.name: number for number, truth in enumerate(TRUTHS)}


def _fleet() -> Fleet:
    providers = [Provider(f"{one.name}.example", ProviderType.VLLM, ("https://x.example",)) for one in TRUTHS]
    models = [
        Model(
            one.name,
            f"{one.name}.example",
            weight=one.weight,
            prices=Prices(one.input, one.output),
            lacks=frozenset() if one.tools else frozenset({Need.TOOLS}),
        )
        for one in TRUTHS
    ]
    return fleet.build(providers, models, version=1)
