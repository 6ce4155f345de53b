"""What several models on one question gain for their price, in a simulated fleet whose truth is known.

The machines, the plans, the places of voters and the reading of verdicts are the real ones; only the models are made
up. How likely a model answers a question right is the two-parameter logistic model of item response theory (Birnbaum,
1968): `1 / (1 + exp(-A (skill + knack - difficulty)))`. The knack is the model's own for each question, so that a
model that is asked twice tends to make its error twice. Whoever judges or criticises is as good as at a question that
is easier by `EASIER`; half of all errors fall into the same trap, so that models can agree in one.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import exp
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
from msgspec import structs
from rich.console import Console
from rich.table import Table

from scripts.benchmark import chart
from scripts.benchmark.world import Floats
from tokenhub_core.orchestration import machines
from tokenhub_core.orchestration.adversarial import CONTENT
from tokenhub_core.orchestration.asks import Ask, Composite, Goal, Line, Told, Way, Wishes
from tokenhub_core.orchestration.places import placed
from tokenhub_core.routing import fleet
from tokenhub_core.routing.eligibility import Circumstances
from tokenhub_core.routing.plan import plan
from tokenhub_core.types import Features, Mode, Model, Plan, Policy, Prices, Provider, ProviderType, Standing

COUNT: Final = 10_000
SEED: Final = 21

DISCRIMINATION: Final = 1.7
"""A of the formula: with it the logistic curve is within 0.01 of the normal one."""
KNACK: Final = 0.8
"""The standard deviation of what a model is better or worse at one question than at others as hard."""
EASIER: Final = 1.0
"""By how much it is easier to tell a right answer from a wrong one than to give it."""
OWN_EYES: Final = 2.0
"""How much harder it is with an answer of one's own: models hardly find their own errors without help from outside
(Huang et al., 2024)."""
TRAP: Final = 0.5
"""How many of all wrong answers are the same one."""
FALSE_ALARM: Final = 0.15
"""How often a critic objects to a right answer,"""
YIELDS: Final = 0.25
"""and how often its author then gives it up."""
HELP: Final = 0.5
"""By how much a true objection makes a question easier for its author."""

QUESTION: Final = 700
ANSWER: Final = 350
CRITIQUE: Final = 150
VERDICT: Final = 60
"""Tokens."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What a model is really like. Prices in nano-dollars per token."""

    name: str
    provider: str
    skill: float
    input: int
    output: int
    weight: int


TRUTHS: Final = (
    Truth("atlas-xl", "atlas", 1.30, 5000, 25000, 10),
    Truth("borealis", "borealis", 1.15, 3000, 15000, 9),
    Truth("cirrus", "cirrus", 0.80, 1200, 5000, 7),
    Truth("fjord", "fjord", 0.70, 800, 3200, 7),
    Truth("borealis-lite", "borealis", 0.25, 250, 1250, 6),
    Truth("atlas-mini", "atlas", 0.15, 150, 600, 5),
    Truth("dune-70b", "dune", 0.10, 250, 300, 5),
)
_BY_NAME: Final = {truth.name: truth for truth in TRUTHS}


def ways() -> Mapping[str, Goal]:
    """Return what is compared: each model alone, and the modes."""
    alone = {truth.name: Goal(Way.PLANNING, "", primary=Wishes(model=truth.name)) for truth in TRUTHS}
    cheap = Wishes(mode=Mode.CHEAP)
    return {
        **alone,
        "vote": Goal(Way.VOTE, ""),
        "vote, 5 voters": Goal(Way.VOTE, "", voters=5),
        "vote, cheap voters": Goal(Way.VOTE, "", primary=cheap),
        "vote, 5 cheap voters": Goal(Way.VOTE, "", voters=5, primary=cheap),
        "adversarial": Goal(Way.ADVERSARIAL, ""),
        "adversarial, cheap author": Goal(Way.ADVERSARIAL, "", primary=cheap),
        "refine": Goal(Way.REFINE, ""),
        "refine, cheap": Goal(Way.REFINE, "", primary=cheap),
    }


@dataclass(frozen=True, slots=True)
class Found:
    """What one way came to, a question a place."""

    way: str
    alone: bool
    """One model and nothing else."""
    right: Floats
    """1 or 0."""
    nanousd: Floats
    steps: float
    """In the mean."""

    @property
    def quality(self) -> float:
        """The share of right answers."""
        return float(self.right.mean())

    @property
    def dollars(self) -> float:
        """Of a thousand questions."""
        return float(self.nanousd.mean()) / 1e6

    @property
    def margin(self) -> float:
        """Half the width of the share's interval of 95 % (normal approximation)."""
        return 1.96 * float(self.right.std() / np.sqrt(len(self.right)))


def run(name: str, goal: Goal, count: int = COUNT, seed: int = SEED) -> Found:
    """Ask every question in one way; the questions, and what models make of them, are the same for all ways."""
    right, spent, steps = np.zeros(count), np.zeros(count), 0
    for n in range(count):
        asked = Question(n, seed)
        composite = asked.answered(goal)
        right[n] = composite.final is not None and _is_right(composite.final.text)
        spent[n] = sum(note.nanousd for note in composite.notes)
        steps += len(composite.notes)
    alone = goal.way is Way.PLANNING and goal.primary.model is not None
    return Found(name, alone, right, spent, steps / count)


class Question:
    """One question, and the luck of everybody with it."""

    def __init__(self, number: int, seed: int) -> None:
        self._name = f"{seed}.{number}"
        luck = self._luck("question")
        self._difficulty = luck.gauss(0, 1)
        self._knacks = {truth.name: self._luck(truth.name).gauss(0, KNACK) for truth in TRUTHS}
        self._times: Counter[str] = Counter()

    def answered(self, goal: Goal) -> Composite:
        """Return what comes of it by a goal."""
        machine = machines.machine(structs.replace(goal, seed=self._name))
        batch = next(machine)
        while True:
            told = [self._told(ask) for ask in batch.asks]
            try:
                batch = machine.send(told)
            except StopIteration as end:
                composite: Composite = end.value
                return composite

    def _told(self, ask: Ask) -> Told:
        candidate = placed(_planned(ask.wishes.mode, ask.wishes.model), ask).candidates[0]
        truth = _BY_NAME[candidate.model.id]
        # Whoever is asked the same thing once more has other luck, with the same knack.
        self._times[truth.name] += 1
        luck = self._luck(f"{truth.name} {ask.step} {self._times[truth.name]}")
        read = QUESTION + sum(_tokens(line) for line in ask.added)
        if ask.step == "judge":
            text, written = self._verdict(truth, ask.added[-1].text, luck), VERDICT
        elif ask.aside:
            text, written = self._critique(truth, ask, luck), CRITIQUE
        elif ask.added:
            text, written = self._mended(truth, ask, luck), ANSWER
        else:
            text, written = self._answer(truth, luck), ANSWER
        cost = read * truth.input + written * truth.output
        return Told(ask.step, text=text, model=truth.name, provider=truth.provider, nanousd=cost)

    def _able(self, truth: Truth, ease: float = 0.0) -> float:
        return _curve(truth.skill + self._knacks[truth.name] - self._difficulty + ease)

    def _answer(self, truth: Truth, luck: Random, ease: float = 0.0) -> str:
        if luck.random() < self._able(truth, ease):
            return _RIGHT
        return "trap" if luck.random() < TRAP else f"error {luck.randrange(1_000)}"

    def _verdict(self, truth: Truth, question: str, luck: Random) -> str:
        shown = _SHOWN.findall(question)
        right = [number for number, text in shown if _is_right(text)]
        wrong = [number for number, text in shown if not _is_right(text)]
        sees = luck.random() < self._able(truth, EASIER)
        # Who does not see which is right takes one of those that are wrong, where there is one.
        chosen = luck.choice((right if sees else wrong) or right or wrong)
        return f'{{"best": {chosen}}}'

    def _critique(self, truth: Truth, ask: Ask, luck: Random) -> str:
        if _is_right(ask.added[0].text):
            return _OBJECTION if luck.random() < FALSE_ALARM else CONTENT
        return _OBJECTION if luck.random() < self._able(truth, EASIER) else CONTENT

    def _mended(self, truth: Truth, ask: Ask, luck: Random) -> str:
        draft, said = ask.added[0].text, ask.added[-1].text
        alone = _OBJECTION not in said  # refining: the author is its own critic
        if _is_right(draft):
            gives_up = luck.random() < YIELDS * (FALSE_ALARM if alone else 1)
            return "error" if gives_up else draft
        if alone and luck.random() >= self._able(truth, EASIER - OWN_EYES):
            return draft
        return self._answer(truth, luck, HELP)

    def _luck(self, name: str) -> Random:
        return Random(hashlib.blake2b(f"{self._name} {name}".encode(), digest_size=8).digest())  # noqa: S311 - dice


_RIGHT: Final = "right"
_OBJECTION: Final = "This is wrong."
_SHOWN: Final = re.compile(r"<answer-(\d+) \w+>\n(.*?)\n</answer-")
_WORDS_OF_OURS: Final = 120
"""Tokens of what a mode says to a model around the answers that it shows."""


def _is_right(text: str) -> bool:
    return text == _RIGHT


def _tokens(line: Line) -> int:
    """Return about how many tokens a turn would have if its answers were as long as real ones."""
    if shown := len(_SHOWN.findall(line.text)):
        return _WORDS_OF_OURS + shown * ANSWER
    return _WORDS_OF_OURS + (CRITIQUE if _OBJECTION in line.text else 0) if " " in line.text else ANSWER


def _curve(value: float) -> float:
    return 1 / (1 + exp(-DISCRIMINATION * value))


@cache
def _planned(mode: Mode | None, model: str | None) -> Plan:
    """Return the real decision about such a question, by score: nobody is down, and nothing was learned."""
    providers = [
        Provider(name, ProviderType.VLLM, (f"https://{name}.example",))
        for name in dict.fromkeys(truth.provider for truth in TRUTHS)
    ]
    models = [
        Model(truth.name, truth.provider, weight=truth.weight, prices=Prices(truth.input, truth.output))
        for truth in TRUTHS
    ]
    found = plan(
        fleet.build(providers, models, version=1),
        Features(model="*", text_bytes=QUESTION * 4, max_output_tokens=ANSWER),
        Policy(mode=mode or Mode.NORMAL, model=model),
        now=Circumstances({one.id: Standing(True, False, 0.0, 0.0) for one in providers}, lambda _: True),
        seed="several",
    )
    assert isinstance(found, Plan)
    return found


def frontier(found: Sequence[Found]) -> list[Found]:
    """Return those that nothing cheaper equals in quality, by price: what is worth its money."""
    best: list[Found] = []
    for one in sorted(found, key=lambda one: (one.dollars, -one.quality)):
        if not best or one.quality > best[-1].quality:
            best.append(one)
    return best


def show(place: Path, console: Console, tell: Callable[[int, int, str], None], *, count: int = COUNT) -> None:
    """Compare all ways, print what each came to, and draw it into `place`."""
    every, found = ways(), []
    for done, (name, goal) in enumerate(every.items()):
        tell(done, len(every), name)
        found.append(run(name, goal, count))
    worth = frontier(found)
    table = Table(title=f"{count:,} questions, seed {SEED}", title_justify="left")
    for column in ("way", "right, %", "±", "$ for 1,000", "steps", "beside the model below it in price"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for one in found:
        name = f"{one.way} *" if one in worth else one.way
        figures = (
            f"{100 * one.quality:.1f}",
            f"{100 * one.margin:.1f}",
            f"{one.dollars:.2f}",
            f"{one.steps:.2f}",
        )
        table.add_row(name, *figures, "" if one.alone else _beside(one, found))
    console.print(table)
    console.print("* nothing that costs less is right as often")
    points = [(one.way, one.dollars, 100 * one.quality, one.alone) for one in found]
    place.write_text(
        chart.panels([chart.scatter("Right answers in %, by dollars for 1,000 questions", points)])
    )
    console.print(f"drawn into {place}")


def _beside(one: Found, found: Sequence[Found]) -> str:
    """Return by how much a way beats the best model that does not cost more, with an interval of 95 % by pairs."""
    models = [other for other in found if other.alone and other.dollars <= one.dollars]
    if not models:
        return "there is none"
    best = max(models, key=lambda other: other.quality)
    gain = one.right - best.right
    margin = 1.96 * float(gain.std() / np.sqrt(len(gain)))
    return f"{100 * float(gain.mean()):+.1f} ± {100 * margin:.1f} ({best.way})"
