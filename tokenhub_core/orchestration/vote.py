"""Vote: several models answer the call as it stands, and a judge who did not vote chooses one of the answers.

Where more than half of the voters say the same, each another model, that is the answer, and nobody is asked to judge;
nor where all say the same, or more than half do and all are of one model. What is not in when
seven tenths of the time are over is left out: the judge needs the rest. Answers stand in the order of the voters,
never in that in which they came. A judge who gives no verdict does not cost the caller its answer: then it is the
one that most others agree with, or else the first, and the result says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.orchestration import judge
from tokenhub_core.orchestration.asks import (
    Ask,
    Batch,
    Composite,
    Goal,
    Line,
    Machine,
    Told,
    Way,
    noted,
    over,
)
from tokenhub_core.orchestration.saying import gist, spoken, voices
from tokenhub_core.types import Json, Mode, Role

JUDGE: Final = "judge"
_VOTING: Final = 0.7
"""The voters' share of the time."""


def vote(goal: Goal) -> Machine:
    """Return the machine of a vote."""
    reviewer = (goal.review.model,) if goal.review.model else ()
    voters = over(goal.primary, Mode.NORMAL)
    asks = tuple(
        Ask(f"voter-{number + 1}", wishes=voters, avoid=reviewer, place=number, of=goal.voters)
        for number in range(goal.voters)
    )
    agree = goal.voters // 2 + 1 if goal.agree is None else goal.agree
    told = yield Batch(asks, agree=agree if goal.voters > 1 else 0, share=_VOTING if goal.voters > 1 else 1.0)
    answers = [one for one in told if one.fault is None]
    if len(answers) < max(1, goal.quorum):
        return Composite(Way.VOTE, noted(told, None), fault=_missed(goal, told, len(answers)))
    if len(answers) == 1:
        return _result(told, answers, answers[0], "only")
    agreed, count = _agreed(answers)
    if count >= agree or len(agreed) == len(answers):
        return _result(told, answers, agreed[0], "agreement")
    order = judge.order(goal.seed, len(answers))
    asked = Ask(
        JUDGE,
        lead=judge.LEAD,
        added=(Line(Role.USER, judge.question([answers[n] for n in order], goal.seed)),),
        aside=True,
        wishes=over(goal.review, Mode.HIGH_CONFIDENCE),
        avoid=tuple(dict.fromkeys(one.model for one in answers)),
    )
    (verdict,) = yield Batch((asked,))
    chosen = judge.verdict(verdict.text, len(order)) if verdict.fault is None else None
    if chosen is None:
        return _result(told, answers, agreed[0], "first", verdict)
    return _result(told, answers, answers[order[chosen]], "judge", verdict)


def _agreed(answers: Sequence[Told]) -> tuple[list[Told], int]:
    """Return the answers that most models agree in, of several the one that comes first, and how many those are.

    Where all answers are one model's, each counts for itself.
    """
    said = voices(answers)
    if len({one.model for one in answers}) == 1:
        said = Counter(map(gist, answers))
    most = max(said, key=lambda what: said[what])
    return [one for one in answers if gist(one) == most], said[most]


def _result(
    told: Sequence[Told], answers: Sequence[Told], final: Told, decided: str, verdict: Told | None = None
) -> Composite:
    responses: list[Json] = [
        {"model": one.model, "content": spoken(one), "selected": one is final} for one in answers
    ]
    output: Json = {"responses": responses, "selected": answers.index(final), "decided_by": decided}
    if verdict is None:
        return Composite(Way.VOTE, noted(told, final), final, output, decided)
    output["judge"] = verdict.model
    if verdict.fault is not None:
        output["judge_error"] = verdict.fault.message
    elif decided != JUDGE:
        output["judge_error"] = "the judge's reply holds no verdict"
    chosen = final.step if decided == JUDGE else "none"
    return Composite(Way.VOTE, noted((*told, verdict), final, {verdict.step: chosen}), final, output, decided)


def _missed(goal: Goal, told: Sequence[Told], count: int) -> Fault:
    faults = [one.fault for one in told if one.fault is not None]
    if not count and faults:
        return faults[0]
    message = f"of {goal.voters} voters {count} answered, and {goal.quorum} were needed"
    return Fault(Kind.TRANSIENT, Blame.PROVIDER, message, cause="quorum_missed")
