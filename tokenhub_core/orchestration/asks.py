"""What the machines of this package say to whoever drives them, and hear from it. Pure values, all serialisable.

A machine is a generator. It yields a `Batch` of asks that may be made at the same time, is sent what came of each, in
the order of the asks, and returns a `Composite`:

    machine = machines.machine(goal)
    batch = next(machine)
    while True:
        told = [… one `Told` for each of batch.asks …]
        batch = machine.send(told)          # StopIteration.value is the Composite

It draws no random numbers and reads no clock: the same goal and the same outcomes give the same asks, to the last
byte, so a run can be replayed from what it was told.

An ask is the caller's conversation and what is done to it. The conversation itself, with its turns, images and tools,
stays with the driver: so it is kept once and not once for each step, and an ask is a few kilobytes of JSON whatever
was attached to the call. `conversation.applied` makes a call of both.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import structs

from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.types import Json, Mode, Role, ToolUse, Usage

MAX_VOTERS: Final = 10
MAX_ITERATIONS: Final = 10

AGREED: Final = Fault(Kind.CANCELLED, Blame.US, "enough others said the same before", cause="agreed")
LATE: Final = Fault(
    Kind.TIMEOUT, Blame.US, "the step's share of the call's time was over", cause="step_deadline"
)
"""Why an ask of a batch was given up; its caller has not left."""


class Way(StrEnum):
    """How several calls make one answer."""

    PLANNING = "planning"
    """One call, to a model that is good at plans."""
    ADVERSARIAL = "adversarial"
    """An answer, a critique by another model, a better answer; again for each iteration."""
    VOTE = "vote"
    """Several models answer, and a judge chooses one of the answers."""
    REFINE = "refine"
    """One model answers and then improves its answer, once for each iteration."""


class Task(StrEnum):
    """What the first step of adversarial is asked for."""

    ANSWER = "answer"
    """What the caller's conversation asks for, as it stands."""
    PLAN = "plan"
    """A plan of how to do that."""


class Wishes(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one side of a mode is to be: by the field names of `Policy`. None: as the call itself says."""

    mode: Mode | None = None
    min_weight: int | None = None
    """It only raises what the call says."""
    model: str | None = None
    """The model to ask; the hard limits of the call hold for it as for any other."""


class Goal(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is to be done with a call."""

    way: Way
    seed: str
    """Decides the order in which a judge sees the answers, and nothing else."""
    voters: int = 3
    iterations: int | None = None
    """None: 1 of adversarial, 2 of refine."""
    primary: Wishes = Wishes()
    """Who answers,"""
    review: Wishes = Wishes()
    """and who criticises or judges."""
    task: Task = Task.ANSWER
    plan_only: bool = False
    """Adversarial: stop after the first step."""
    quorum: int = 1
    """Vote: fewer answers are no result."""
    agree: int | None = None
    """Vote: so many models that say the same need no judge, and the rest is not waited for. None: more than half of
    the voters."""


class Line(msgspec.Struct, frozen=True):
    """One turn of text."""

    role: Role
    text: str


class Ask(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step: a call to be routed and made within the limits of the caller's own."""

    step: str
    """Its name, unlike that of any other step of the goal: `voter-2`, `judge`."""
    lead: str = ""
    """A system turn in front of the conversation."""
    added: tuple[Line, ...] = ()
    """Turns behind it."""
    aside: bool = False
    """Whether it is a question of ours about the conversation: then what the caller set for its answer does not hold,
    and no tool is called."""
    wishes: Wishes = Wishes()
    avoid: tuple[str, ...] = ()
    """Ids of models that are asked only where there is no other one."""
    place: int = 0
    """Among the asks that share the candidates of one plan between them, which one it is, from 0,"""
    of: int = 1
    """and how many they are: each is to be another model's, at another provider where there is one."""


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of one ask."""

    step: str
    text: str = ""
    """What the model said, without what it thought."""
    calls: tuple[ToolUse, ...] = ()
    """The tools that it called."""
    body: bytes = b""
    """The whole answer in the caller's dialect: what the caller gets where this one is chosen."""
    model: str = ""
    provider: str = ""
    nanousd: int = 0
    """Of all attempts of the step."""
    usage: Usage = Usage()
    fault: Fault | None = None
    """Why there is no answer; None where there is one."""


class Batch(msgspec.Struct, frozen=True):
    """Asks that may be made at the same time."""

    asks: tuple[Ask, ...]
    agree: int = 0
    """So many models that say the same end the batch: the others are cancelled. 0: all are waited for."""
    share: float = 1.0
    """How much of the time that is left it may take; what is not in then is cancelled, too."""


class Note(msgspec.Struct, frozen=True):
    """What became of a step, for the record: no text of the caller's, none of a model's."""

    step: str
    model: str = ""
    provider: str = ""
    nanousd: int = 0
    verdict: str = ""
    """`final`: the answer is this one's. Of a judge, the name of the step that it chose, or `none`."""
    cause: str = ""
    """The label of the fault, empty where the step answered."""


class Composite(msgspec.Struct, frozen=True):
    """What came of a goal."""

    way: Way
    notes: tuple[Note, ...]
    """One for each ask, in their order."""
    final: Told | None = None
    """The answer; None where there is none, and `fault` says why."""
    output: Json = {}
    """The result as `/v1/plan` tells it."""
    decided: str = ""
    """Who chose: `judge`, `agreement`, `only` (there was no other answer), `first` (the judge gave no verdict)."""
    fault: Fault | None = None


type Machine = Generator[Batch, Sequence[Told], Composite]


def noted(told: Sequence[Told], final: Told | None, verdicts: Json | None = None) -> tuple[Note, ...]:
    """Return the notes of these outcomes; `verdicts` has, by the judge's step, whom it chose."""
    return tuple(
        Note(
            one.step,
            one.model,
            one.provider,
            one.nanousd,
            "final" if one is final else (verdicts or {}).get(one.step, ""),
            one.fault.label if one.fault else "",
        )
        for one in told
    )


def bound(goal: Goal) -> int:
    """Return the most steps that a goal can take."""
    match goal.way:
        case Way.PLANNING:
            return 1
        case Way.VOTE:
            return goal.voters + (goal.voters > 1)
        case Way.REFINE:
            return 1 + rounds(goal)
        case Way.ADVERSARIAL:
            return 1 if goal.plan_only else 1 + 2 * rounds(goal)


def rounds(goal: Goal) -> int:
    """Return how often an answer is improved."""
    if goal.iterations is not None:
        return goal.iterations
    return 2 if goal.way is Way.REFINE else 1


def over(wishes: Wishes, mode: Mode) -> Wishes:
    """Return the wishes, with the weights of this mode where none are named."""
    return wishes if wishes.mode is not None else structs.replace(wishes, mode=mode)
