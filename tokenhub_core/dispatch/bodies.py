"""The request body for each candidate: the caller's own bytes wherever that is possible."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from tokenhub_core.dialects import seals, unsent, wire
from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dispatch.seams import listens
from tokenhub_core.quirks import prefill
from tokenhub_core.quirks.repairs import UNTOUCHED, AnswerRepairs, repaired
from tokenhub_core.shaping.shape import Shape
from tokenhub_core.types import (
    Call,
    Candidate,
    Dialect,
    OutputFormat,
    Request,
    Role,
    Text,
    Thinking,
    Tool,
    Turn,
)


class Body(msgspec.Struct, frozen=True):
    """A body and the names of what it could not carry."""

    data: bytes
    losses: tuple[str, ...] = ()
    answers: AnswerRepairs = UNTOUCHED
    """What is to be done to the answer."""


class Bodies:
    """The bodies of one call. The canonical form is made at most once, and only when a candidate needs it.

    `cap` bounds the answers of a caller who set no cap; `shape` is what is done to the text of any answer.
    """

    def __init__(
        self,
        request: Request,
        dialects: Mapping[Dialect, DialectModule],
        output_schema: Mapping[str, Any] | None = None,
        *,
        cap: int | None = None,
        shape: Shape | None = None,
    ) -> None:
        self._request = request
        self._dialects = dialects
        self.cap = cap
        self._shape = shape
        self.shaped = shape is not None
        """Whether answers get another form."""
        self._output = OutputFormat(output_schema, "answer") if output_schema is not None else None
        # Thoughts that another dialect sealed would be refused as forgeries.
        self._passes = self._output is None and not seals.foreign(request.body)
        self._leans = not self._passes and self._output is None and _leans(request)
        self._goes_on = False
        """The last message is the assistant's, to be gone on from."""
        self._call: Call | None = None
        self._losses: dict[Dialect, tuple[str, ...]] = {}

    def render(self, candidate: Candidate, cap: int | None) -> Body:
        """Return the body for this candidate; `cap` replaces the caller's output limit when given."""
        if cap is None and self.cap is not None:
            # Of a caller who set none it is the operator's; more than its own a model would refuse.
            cap = min(self.cap, candidate.model.max_output_tokens or self.cap)
        target = self._dialects[candidate.dialect]
        repairs = None
        quirks = candidate.model.quirks
        if quirks and not prefill.alone(quirks) and self._request.dialect.translates:
            repairs = repaired(self._canonical(), quirks)
        answers = self._with_shape(repairs.answers if repairs else UNTOUCHED)
        sound = repairs is None or repairs.call is self._call
        if sound and self._passes and target.name is self._request.dialect:
            patched = target.patch(self._request, model=candidate.model.name, max_output_tokens=cap)
            return Body(patched, answers=answers)
        if self._leans and repairs is None and target.name is self._request.dialect:
            # The provider has the rest of the conversation: only what it cannot open is left out.
            data = seals.unsealed(self._request.data)
            request = msgspec.structs.replace(self._request, data=data, body=wire.encode(data))
            patched = target.patch(request, model=candidate.model.name, max_output_tokens=cap)
            return Body(patched, ("thinking.signature",), answers=answers)
        call = repairs.call if repairs else self._canonical()
        if cap is None and call.max_output_tokens is None and call.dialect is not target.name:
            # A dialect that asks for a cap would otherwise cut the answer at its own small default.
            cap = candidate.model.max_output_tokens or None
        rendered = target.render(call, model=candidate.model.name, max_output_tokens=cap)
        lost = (*repairs.losses, *rendered.losses) if repairs else rendered.losses
        data = rendered.data
        if self._goes_on and target.name is Dialect.OPENAI_CHAT:
            data = prefill.marked(data, quirks)
        return Body(wire.encode(data), unsent.told(lost), answers=answers)

    def losses(self, dialect: Dialect) -> tuple[str, ...]:
        """Return what another dialect cannot carry of the call, as far as that changes its answer or price.

        Raises `TokenHubError` where it can carry nothing.
        """
        found = self._losses.get(dialect)
        if found is None:
            rendered = self._dialects[dialect].render(self._canonical(), model="", max_output_tokens=None)
            found = self._losses[dialect] = unsent.counted(rendered.losses)
        return found

    def own_schema(self) -> Mapping[str, Any] | None:
        """Return the schema that the call itself asks its answer to fit, None where it brings none."""
        output = self._canonical().output
        return None if output is None else output.schema

    def again(self, said: str, told: str) -> Bodies | None:
        """Return the bodies of the call gone on with an answer and what is told of it.

        None where the conversation is kept by its provider, so that it cannot be told anew.
        """
        if _leans(self._request):
            return None
        again, call = copy.copy(self), self._canonical()
        turns = [Turn(Role.USER, (Text(told),))]
        if said.strip():
            turns.insert(0, Turn(Role.ASSISTANT, (Text(said),)))
        again._call = replace(call, turns=(*call.turns, *turns))
        again._passes = again._leans = False
        again._losses = {}
        return again

    def resumable(self) -> bool:
        """Tell whether an answer that broke off could be gone on with: one text in its own form, that nothing measures.

        Raises `TokenHubError` where the call cannot be read into the canonical form.
        """
        if self.shaped or not self._request.dialect.translates or _leans(self._request):
            return False
        call = self._canonical()
        if not listens(call.dialect) and not all(isinstance(one, Tool) for one in call.tools):
            return False  # what such tools say could not be written anew
        return call.output is None and call.logprobs is None and (call.n or 1) == 1

    def resumed(self, said: str, tokens: int) -> Bodies | None:
        """Return the bodies of the call gone on with what was said of its answer; None where the cap leaves no more.

        Nothing is thought again: what was thought has been said in other words already.
        """
        again, call = copy.copy(self), self._canonical()
        cap = call.max_output_tokens
        if cap is not None and (cap := cap - tokens) < 1:
            return None
        if self.cap is not None:
            again.cap = self.cap - tokens
            if again.cap < 1:
                return None
        *before, last = call.turns
        # Some refuse blanks at the end, and to the others they are half a token.
        words = Text(said.rstrip())
        if last.role is Role.ASSISTANT:
            turns = (*before, replace(last, parts=(*last.parts, words)))
        else:
            turns = (*before, last, Turn(Role.ASSISTANT, (words,)))
        again._call = replace(call, turns=turns, max_output_tokens=cap, thinking=Thinking())
        again._passes = again._leans = False
        again._goes_on = True
        again._losses = {}
        return again

    def _with_shape(self, answers: AnswerRepairs) -> AnswerRepairs:
        shape = self._shape
        if shape is None:
            return answers
        scanners = (*answers.scanners, *shape.scanners)
        return replace(answers, scanners=scanners, stations=shape.stations, shaped=True)

    def _canonical(self) -> Call:
        if self._call is None:
            call = self._dialects[self._request.dialect].parse(self._request)
            self._call = replace(call, output=self._output) if self._output else call
        return self._call


def _leans(request: Request) -> bool:
    """Tell whether a call goes on from one that its provider keeps: it cannot be told anew, not even to that one."""
    stored = request.data.get("previous_response_id") or request.data.get("conversation")
    return request.dialect is Dialect.OPENAI_RESPONSES and bool(stored)
