"""What leaves the inspect lane is heard behind everybody who may change it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from mitmproxy import http

from tests.addon.clients import H1, H2
from tests.addon.inspection import Inspection, inspecting
from tests.addon.scripted import ScriptedEngine, streamed
from tests.addon.scripted import whole as answered
from tests.fakes.transport import Scripted
from tests.proof import saying
from tests.proof.shop import CHAT, Shop, record, shop
from tokenhub_addon.host import AddonOptions, Running
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.ports import Reply
from tokenhub_core.quirks.repairs import UNTOUCHED
from tokenhub_core.types import Snapshot


class Editor:
    """An addon, or a user, that changes answers on their way out."""

    def __init__(self, old: bytes, new: bytes) -> None:
        self._old = old
        self._new = new

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        if flow.response is not None and flow.response.stream:
            flow.response.stream = lambda data: data.replace(self._old, self._new)

    def response(self, flow: http.HTTPFlow) -> None:
        if flow.response is not None and flow.response.raw_content is not None:
            flow.response.content = flow.response.raw_content.replace(self._old, self._new)


class Passing:
    """An engine that hands on what a provider says, record and all."""

    def __init__(self, it: Shop, *, stream: bool) -> None:
        self._it = it
        self._pieces = saying.streamed() if stream else [saying.whole(saying.call())]
        self._stream = stream
        self.hold = asyncio.Event()
        self.at_end = False
        """Everything but the end of a stream was handed on."""

    async def __call__(self, snapshot: Snapshot) -> Reply:
        kind = "text/event-stream" if self._stream else "application/json"
        response = self._it.prover.listen(
            Scripted(self._pieces, kind=kind),
            request_id=snapshot.id,
            attempt=1,
            dialect=DIALECTS[CHAT],
            stream=self._stream,
            repairs=UNTOUCHED,
        )
        if self._stream:
            return streamed(self._frames(response.chunks(), snapshot.id))
        body = await response.read(1 << 20)
        await self._it.recorder.commit(record(snapshot.id))
        return answered(body)

    async def _frames(self, chunks: AsyncIterator[bytes], name: str) -> AsyncIterator[bytes]:
        try:
            async for chunk in chunks:
                if chunk == saying.DONE:
                    self.at_end = True
                    await self.hold.wait()
                yield chunk
        finally:
            await self._it.recorder.commit(record(name))


@asynccontextmanager
async def proving(
    confdir: Path, it: Shop, *, stream: bool, after: list[object]
) -> AsyncIterator[tuple[Inspection, Passing]]:
    engine = Passing(it, stream=stream)
    scripted = ScriptedEngine(engine)

    @asynccontextmanager
    async def make(_: AddonOptions) -> AsyncIterator[Running]:
        yield Running(scripted, it.recorder, prover=it.prover)

    async with inspecting(confdir, scripted, make=make, after=after) as lane:
        yield lane, engine


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("http_version", [H1, H2])
@pytest.mark.parametrize(("new", "verdict"), [(b"2", "same"), (b"9", "changed")])
async def test_what_an_addon_changes_is_changed(
    confdir: Path, tmp_path: Path, http_version: type[H1 | H2], *, stream: bool, new: bytes, verdict: str
) -> None:
    """Also in the middle of a stream. One that changes nothing is nobody's business."""
    async with shop(tmp_path / "t.sqlite") as it:
        editor = Editor(b"2}", new + b"}")
        async with proving(confdir, it, stream=stream, after=[editor]) as (lane, engine):
            engine.hold.set()
            client = await http_version.tls(lane.proxy)
            async with client:
                body = (await client.ask()).body
                assert (b"9}" in body) == (verdict == "changed")
                await lane.until(lambda: bool(it.told))
        (draft,) = it.told
        assert draft.verdict == verdict


@pytest.mark.parametrize("http_version", [H1, H2])
async def test_who_leaves_ends_what_is_heard(
    confdir: Path, tmp_path: Path, http_version: type[H1 | H2]
) -> None:
    """What went out until then is compared; nothing stays open."""
    async with (
        shop(tmp_path / "t.sqlite") as it,
        proving(confdir, it, stream=True, after=[]) as (lane, engine),
    ):
        client = await http_version.tls(lane.proxy)
        async with client:
            if isinstance(client, H2):
                client.send()
            else:
                await client.send()
            await lane.until(lambda: engine.at_end)
        await lane.until(lambda: bool(it.told))
        assert it.told[0].verdict in {"same", "partial"}
        assert len(it.prover) == 0
