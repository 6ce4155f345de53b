"""A transport whose every answer is scripted, byte for byte, for scenes about what providers must not be able to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import orjson

from tokenhub_core.errors import client_fault
from tokenhub_core.ports import Timeouts, UpstreamRequest
from tokenhub_core.types import Headers, Json


class Scripted:
    """One response, and what became of it."""

    def __init__(
        self, body: bytes | Sequence[bytes], *, status: int = 200, kind: str = "application/json"
    ) -> None:
        self.status = status
        self.headers: Headers = (("content-type", kind),)
        self.pieces = [body] if isinstance(body, bytes) else list(body)
        self.read_to_end = False
        self.eased: tuple[float, float] | None = None
        self.closed = 0

    async def read(self, limit: int) -> bytes:
        whole = b"".join(self.pieces)
        if len(whole) > limit:
            raise client_fault("too large")
        return whole

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        self.read_to_end = True

    def ease(self, *, gather: float, tick: float) -> None:
        self.eased = (gather, tick)

    async def close(self) -> None:
        self.closed += 1


class ScriptedTransport:
    """Answers each call by the next response; an exception stands for itself."""

    def __init__(self, *answers: Scripted | Exception) -> None:
        self.answers = list(answers)
        self.sent: list[UpstreamRequest] = []
        self.timeouts: list[Timeouts] = []

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> Scripted:
        self.timeouts.append(timeouts)
        self.sent.append(request)
        answer = self.answers[min(len(self.sent), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


def json(data: Json, status: int = 200) -> Scripted:
    return Scripted(orjson.dumps(data), status=status)


def stream(*events: bytes, kind: str = "text/event-stream") -> Scripted:
    return Scripted(events, kind=kind)


def completion(text: str = "Hi", **more: object) -> Json:
    """Return a whole OpenAI answer."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], **more}
