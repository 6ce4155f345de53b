"""What is known of a call that passes by: what it used and cost, and in shadow what we would have done with it.

A `Watch` hears copies of the bytes in both directions and holds none of them back. It raises nothing, whatever
comes: a call that passes must not know that it is watched.

In shadow the call is decided once its request is complete, while the host is at work, with the health and the
estimates of that moment. What its tokens would have cost at the candidate is reckoned at the end, when they are
known: the input and the output that the call really had, at the candidate's prices; cached tokens are taken for
cached there only where it is the same model. What takes a tier of its own (batches, priorities) is priced like the
rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import orjson
from msgspec import structs

from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dispatch.gate import Gate
from tokenhub_core.errors import Fault
from tokenhub_core.lending import Lender
from tokenhub_core.metering import Meter
from tokenhub_core.modes import Modes
from tokenhub_core.ports import Clock, Foreseen, Foreseer
from tokenhub_core.routing import estimate, pricing
from tokenhub_core.routing.eligibility import UNKNOWN_PRICE
from tokenhub_core.routing.estimate import Estimates
from tokenhub_core.types import (
    Attempt,
    Caller,
    Candidate,
    Dialect,
    Headers,
    Prices,
    Record,
    Shadow,
    Snapshot,
    Timings,
    Usage,
    header,
)

_NEVER_DECIDED: Final = "undecided"
"""The shadow's fault where a call was over before its request was complete."""


def _nothing(host: str) -> None:
    del host


def _everybody(caller: Caller, at: float) -> Fault | None:
    del caller, at
    return None


@dataclass(frozen=True, slots=True)
class Watcher:
    """What is to be done with calls, and what every watch of those that pass works with."""

    engine: Foreseer
    modes: Callable[[], Modes]
    prices: Callable[[str, str], Prices | None]
    """Returns what a model (the second) costs at a host by the price list, None where nothing is known of it."""
    price_list: str
    """The name of that list."""
    dialects: Mapping[Dialect, DialectModule]
    estimates: Estimates
    clock: Clock
    max_body_bytes: int
    tunnelled: Callable[[str], None] = _nothing
    """Counts a connection that is not opened, by the host of the rule that says so."""
    admit: Callable[[Caller, float], Fault | None] = _everybody
    """Returns why a caller may not use anything at this moment (seconds since the epoch), None where it may."""
    lender: Lender | None = None
    """Has a credential for what passes in place of its client's; without one such requests are refused."""


class Watch:
    """Listens to one exchange; see `metering.Meter`, whose calls it takes.

    With a `watcher` what passes is priced, and in `shadow` it is decided. The body of `snapshot` is empty: it comes
    by `ask`.
    """

    def __init__(self, snapshot: Snapshot, *, watcher: Watcher | None = None, shadow: bool = False) -> None:
        self._watcher = watcher
        self._shadow = _Shadow(watcher, snapshot) if watcher and shadow else None
        hears = self._shadow.hear if self._shadow else None
        self._meter = Meter(snapshot.method, snapshot.path, snapshot.headers, hears)

    @property
    def decides(self) -> bool:
        """Tell whether the call is in shadow: then `decide` is worth calling."""
        return self._shadow is not None

    def asked(self) -> str:
        """Return the model that was asked for, as far as the request has been heard."""
        return self._meter.asked()

    def ask(self, piece: bytes) -> None:
        """Hear a piece of the request's body."""
        self._meter.ask(piece)
        if self._shadow is not None:
            self._shadow.ask(piece)

    def decide(self) -> None:
        """Hear that the request is complete, and decide the call; the second time nothing is done."""
        if self._shadow is not None:
            self._shadow.decide()

    def begin(self, status: int, headers: Headers) -> None:
        """Hear the answer's head, names in lower case."""
        self._meter.begin(status, headers)
        if self._shadow is not None:
            self._shadow.begin(status, headers)

    def feed(self, piece: bytes) -> None:
        """Hear a piece of the answer's body, encoded as it came."""
        self._meter.feed(piece)

    def told(self, record: Record) -> Record:
        """Return the record of the exchange, now that it is over, with what was heard of it."""
        reading, watcher = self._meter.read(), self._watcher
        record = structs.replace(
            record,
            stream=reading.stream,
            requested_model=reading.asked,
            model=reading.model,
            usage=reading.usage,
        )
        if watcher is None:
            return record
        if self._shadow is not None:
            record = self._shadow.told(record, self._meter.whole())
        prices = watcher.prices(record.origin_host, record.model or record.requested_model)
        cost = pricing.cost(prices, record.usage) if prices and record.usage else 0
        record = structs.replace(record, cost_nanousd=cost)
        return record if self._shadow is None else self._shadow.priced(record, prices)


class _Shadow:
    """One call in shadow."""

    def __init__(self, watcher: Watcher, snapshot: Snapshot) -> None:
        self._by = watcher
        self._snapshot = snapshot
        self._body = bytearray()
        self._foreseen: Foreseen | None = None
        self._complete = 0.0
        """When the request was, on the monotonic clock."""
        self._gate: Gate | None = None
        self._first: float | None = None

    def ask(self, piece: bytes) -> None:
        # One byte too many is kept, so that a body which is too large is seen to be.
        room = self._by.max_body_bytes + 1 - len(self._body)
        if self._foreseen is None and room > 0:
            self._body += piece[:room]

    def decide(self) -> None:
        if self._foreseen is None:
            self._complete = self._by.clock.monotonic()
            self._foreseen = self._by.engine.foresee(structs.replace(self._snapshot, body=bytes(self._body)))
            self._body.clear()

    def begin(self, status: int, headers: Headers) -> None:
        self.decide()
        request = self._foreseen.request if self._foreseen else None
        if request is None or not request.features.stream or not 200 <= status < 300:
            return
        module = self._by.dialects[request.dialect]
        try:
            parser = module.parser(header(headers, "content-type"))
            if parser is not None:
                # What tells a routed stream's first content, its end and its usage tells them here, too.
                self._gate = Gate(
                    source=module, target=module, request=request, parser=parser, created=0, fallback_id=""
                )
        except Exception:  # noqa: BLE001 -- what cannot be read passes all the same
            self._gate = None

    def hear(self, part: bytes) -> None:
        """Hear a piece of the answer's body, decoded."""
        if self._gate is None:
            return
        try:
            self._gate.feed(part)
        except Exception:  # noqa: BLE001 -- as above
            self._gate = None
            return
        if self._first is None and self._gate.committed:
            self._first = self._by.clock.monotonic()

    def told(self, record: Record, whole: bytes) -> Record:
        """Return the record with what was decided and how the answer went."""
        foreseen, request = self._foreseen, self._foreseen.request if self._foreseen else None
        if foreseen is None:
            return record
        usage, estimated = record.usage, False
        gate = self._gate
        if gate is not None:
            usage = usage.merge(gate.usage)
        if not usage and gate is not None and gate.committed and foreseen.plan is not None:
            # OpenAI's streams tell their usage to those only who ask for it, and nothing may be asked for here.
            output = -(-gate.output_chars // estimate.BYTES_PER_TOKEN)
            usage, estimated = Usage(self._input_tokens(foreseen), output), True
        first = None if self._first is None else _ms(self._first - self._snapshot.started)
        return structs.replace(
            record,
            stream=request.features.stream if request else record.stream,
            requested_model=request.features.model[:200] if request else record.requested_model,
            alias=foreseen.alias,
            variant=foreseen.variant,
            directive=foreseen.directive,
            usage=usage,
            usage_estimated=estimated,
            plan=foreseen.plan,
            stop=self._stop(whole),
            timings=Timings(ttft_ms=first, total_ms=record.timings.total_ms),
        )

    def priced(self, record: Record, prices: Prices | None) -> Record:
        """Return the record with what the call would have come to; `prices` are those that it was charged by."""
        usage, foreseen = record.usage, self._foreseen
        model = record.requested_model or record.model
        started = _ms(self._complete - self._snapshot.started) if foreseen else 0.0
        tried = Attempt(
            n=1,
            model=model,
            provider=f"origin:{record.origin_host}",
            started_ms=started,
            ended_ms=record.timings.total_ms,
            first_byte_ms=record.timings.ttft_ms,
            status=record.status,
            cause=record.fault or ("" if 200 <= record.status < 300 else f"http_{record.status}"),
            usage=usage,
            cost_nanousd=record.cost_nanousd,
        )
        shadow = Shadow(
            paid=record.cost_nanousd if prices and usage else None,
            paid_price=self._by.price_list if prices else UNKNOWN_PRICE,
            took_ms=round(record.timings.total_ms - started, 3),
        )
        return structs.replace(record, attempts=(tried,), shadow=self._would(record, shadow, foreseen))

    def _would(self, record: Record, shadow: Shadow, foreseen: Foreseen | None) -> Shadow:
        if foreseen is None:
            return structs.replace(shadow, fault=_NEVER_DECIDED)
        if (fault := foreseen.fault) is not None:
            return structs.replace(shadow, fault=fault.label, status=fault.http_status, message=fault.message)
        plan, usage = foreseen.plan, record.usage
        if plan is None or not plan.candidates:
            return shadow  # a count of tokens, which we would have made ourselves
        best = plan.candidates[0]
        same = best.provider.id == plan.origin
        if same:
            nanousd, price = shadow.paid, shadow.paid_price
        else:
            price = best.model.pricing_source
            known = bool(usage) and price != UNKNOWN_PRICE
            nanousd = pricing.cost(best.model.prices, _there(usage, best, record)) if known else None
        learned = self._by.estimates.latency_ms(best.model.id, best.provider.id, usage.output_tokens)
        return structs.replace(
            shadow,
            model=best.model.id,
            provider=best.provider.id,
            same=same,
            nanousd=nanousd,
            price=price,
            expected_ms=shadow.took_ms if same else learned if usage.output_tokens else None,
            losses=best.losses,
        )

    def _input_tokens(self, foreseen: Foreseen) -> int:
        plan, request = foreseen.plan, foreseen.request
        if request is None or plan is None:
            return 0
        return estimate.input_tokens(request.features, request.features.model, self._by.estimates)

    def _stop(self, whole: bytes) -> str:
        """Return why the model stopped, empty where that was not seen."""
        if self._gate is not None:
            return self._gate.stop.reason.value if self._gate.stop else ""
        request = self._foreseen.request if self._foreseen else None
        if request is None or not whole or not request.dialect.translates:
            return ""
        try:
            stop = self._by.dialects[request.dialect].parse_answer(orjson.loads(whole)).stop.reason
        except Exception:  # noqa: BLE001 -- as above
            return ""
        return stop.value


def _there(usage: Usage, best: Candidate, record: Record) -> Usage:
    """Return the tokens of a call as another candidate would count them: it has nothing of it in a cache.

    How much of an answer is thought differs between models, so there all of it is plain output.
    """
    if best.model.name in {record.model, record.requested_model}:
        return usage
    return Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


__all__ = ["Watch", "Watcher"]
