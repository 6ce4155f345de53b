"""Programs behind TokenHub: started by `tokenhub run --`, with placeholders where their keys would be."""

from __future__ import annotations

import asyncio
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.e2e.serving import PLACEHOLDERS, TOKENHUB, Serve, bare_environment
from tests.patience import PROGRAM_PATIENCE
from tokenhub_core.types import Json

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")

_LINE = 16 << 20


@dataclass(frozen=True)
class Ran:
    """A program that has ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Json]:
        return [orjson.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Program:
    """`agent.py`, waiting for orders."""

    process: asyncio.subprocess.Process

    async def __call__(self, do: str, **what: Any) -> Json:
        """Let it do one thing; return what it says came of it."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(orjson.dumps({"do": do, "with": what}) + b"\n")
        async with asyncio.timeout(PROGRAM_PATIENCE):
            line = await stdout.readline()
        assert line, f"the program ended over {do}"
        said: Json = orjson.loads(line)
        return said


def _environment(serve: Serve, **more: str) -> dict[str, str]:
    home = serve.data.parent / "program-home"
    return bare_environment(home, **{**PLACEHOLDERS, **more})


@asynccontextmanager
async def agent(serve: Serve, *options: str, **environ: str) -> AsyncIterator[Program]:
    """Run `agent.py` behind `serve` for as long as the block lasts."""
    process = await asyncio.create_subprocess_exec(
        *TOKENHUB,
        *("run", "--data-dir", str(serve.data), *options, "--"),
        *(sys.executable, str(Path(__file__).with_name("agent.py"))),
        env=_environment(serve, **environ),
        stdin=PIPE,
        stdout=PIPE,
        limit=_LINE,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        async with asyncio.timeout(PROGRAM_PATIENCE):
            assert b"ready" in await process.stdout.readline()
        yield Program(process)
        process.stdin.close()
        async with asyncio.timeout(PROGRAM_PATIENCE):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(serve: Serve, *command: str, options: tuple[str, ...] = (), **environ: str) -> Ran:
    """Run a command behind `serve` to its end."""
    process = await asyncio.create_subprocess_exec(
        *TOKENHUB,
        *("run", "--data-dir", str(serve.data), *options, "--", *command),
        env=_environment(serve, **environ),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        async with asyncio.timeout(PROGRAM_PATIENCE):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())
