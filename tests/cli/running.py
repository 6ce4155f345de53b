"""A TokenHub that runs in a thread, and the commands against it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson
import pytest
from click.testing import CliRunner

from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tests.patience import PROGRAM_PATIENCE
from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.serveinfo import ServeInfo, write_serve_info

WIDTH = 80


@dataclass
class Running:
    """The application, a provider on a socket, and a way to use both from here."""

    it: House
    fake: FakeProvider
    loop: asyncio.AbstractEventLoop

    def do[T](self, work: Coroutine[Any, Any, T]) -> T:
        """Do something over there and return what came of it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def call(self, model: str = "gpt-4o", **more: Any) -> str:
        """Make a call and return its id."""
        return self.do(self.it.chat(model, **more)).header("x-request-id")

    def admin(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        return self.do(self.it.done(method, path, body))


@contextmanager
def running(
    folder: Path, *, simulate: bool = False, settings: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Serve until the end of the block, as `tokenhub serve` would; `settings` as `house` takes them."""
    ready, leave = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    found: list[Running] = []
    failed: list[BaseException] = []

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            it = await stack.enter_async_context(house(folder, simulate=simulate, settings=settings))
            fake = await stack.enter_async_context(FakeProvider())
            write_serve_info(folder / "data", ServeInfo(os.getpid(), it.url, it.url, "", (), 0.0))
            found.append(Running(it, fake, loop))
            ready.set()
            await leave.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        except BaseException as error:  # noqa: BLE001 - told to the test below
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(PROGRAM_PATIENCE)
        assert not failed, failed
        yield found[0]
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join()
        loop.run_until_complete(_settled())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _settled() -> None:
    """Return when connections that were closed last are gone: a loop does that in its next turns."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    for _ in range(3):
        await asyncio.sleep(0)


@dataclass
class Shell:
    """Runs one command group against a running TokenHub."""

    command: click.Command
    data: Path

    def __call__(self, *args: str, input: str | None = None) -> str:  # noqa: A002 - click's word
        """Return what was printed; a refusal is raised as the command line would tell it."""
        where = [*args, "--data-dir", str(self.data)]
        result = CliRunner().invoke(self.command, where, input=input, standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        if "--json" not in args:
            assert all(len(line) <= WIDTH for line in result.output.splitlines()), result.output
        return result.output

    def json(self, *args: str, input: str | None = None) -> Any:  # noqa: A002 - click's word
        return orjson.loads(self(*args, "--json", input=input))

    def refusal(self, *args: str, input: str | None = None) -> str:  # noqa: A002 - click's word
        """Return the one line that refuses."""
        with pytest.raises(ConfigError) as refused:
            self(*args, input=input)
        message = str(refused.value)
        assert "\n" not in message
        return message


def columns(line: str) -> Sequence[str]:
    """Return the cells of a printed row, which are two spaces apart or more."""
    return [cell.strip() for cell in line.split("  ") if cell.strip()]
