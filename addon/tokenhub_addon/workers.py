"""`tokenhub serve --workers N`: the supervisor's side. It starts, watches and stops workers, and carries their talk.

What is to be done `tokenhub_core.supervision` says; this does it. The supervisor serves nothing itself: it holds the
data directory's lock and the listening sockets, makes the CA and brings the database up to date before anyone starts.

SIGTERM and SIGINT: all leave in good order, the second time in a hurry. SIGHUP: all go on with settings that are read
anew, or none does. SIGUSR2: each worker has a successor, which runs what is installed now and has all settings.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from tokenhub_addon.sockets import Group, opened
from tokenhub_core.admission.pool import Claim, Nonces, Reservoir
from tokenhub_core.ca import CertificateAuthority
from tokenhub_core.clock import SystemClock
from tokenhub_core.config import PREFIX, Settings
from tokenhub_core.envfile import Given
from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.serveinfo import clear_serve_info
from tokenhub_core.opening import prepare
from tokenhub_core.ports import Secret
from tokenhub_core.recognise import Recogniser, extra_hosts
from tokenhub_core.reloading import BEGIN
from tokenhub_core.siblings import Frame, Put, packed, received
from tokenhub_core.supervision import Action, End, Kill, Patience, Phase, Start, Stop, Supervision, Tell, Tend
from tokenhub_core.vault.passwords import password_from

_COMMAND: Final = (
    sys.executable,
    "-P",
    "-c",
    "from tokenhub_core.cli import main; main()",
    "serve",
    "--worker",
)
"""`-P`: nothing is imported from the directory that somebody happens to start it in."""
_GRACE: Final = 15.0
"""Seconds beyond the drain after which a worker that should leave is killed."""
SECRETS: Final = frozenset(
    {
        "CREDENTIALS_DIRECTORY",
        f"{PREFIX}VAULT_PASSWORD",
        f"{PREFIX}VAULT_PASSWORD_FILE",
        f"{PREFIX}VAULT_PASSWORD_FD",
    }
)
"""What workers do not inherit: the password comes over their socket."""

_log: Final = logging.getLogger(__name__)


class Orders(msgspec.Struct, frozen=True):
    """What a worker is told at its start."""

    slot: int
    workers: int
    command: str
    """How the program was called, for what it tells."""
    parent: int
    """The supervisor's process id: the one that others know."""
    first: bool
    """It tells what is open."""
    alone: bool
    """There is nobody who could say whether the vault is open."""
    data_dir: str
    flags: dict[str, Any]
    groups: tuple[Group, ...]
    password: str = ""
    variables: dict[str, str] = {}
    """Of the environment file: all workers have the same, whenever they start."""

    def __repr__(self) -> str:
        return f"Orders(slot={self.slot})"


@dataclass(slots=True)
class _Worker:
    number: int
    process: asyncio.subprocess.Process
    writer: asyncio.StreamWriter
    variables: dict[str, str]
    ready: bool = False


@dataclass(slots=True)
class _Question:
    """What one worker asked the others."""

    asker: int
    id: int
    waits: set[int]
    parts: list[bytes] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


@contextmanager
def supervising(
    settings: Settings, flags: Mapping[str, Any], environ: Mapping[str, str], variables: Mapping[str, str]
) -> Iterator[Supervisor]:
    """Prepare what all workers share; raises `ConfigError` where that cannot be done."""
    password = password_from(
        settings.vault_password, settings.vault_password_file, settings.vault_password_fd, environ
    )
    groups, sockets = opened(settings, settings.workers)
    try:
        hosts = Recogniser(extra_hosts(settings.extra_hosts)).hosts
        CertificateAuthority.open(settings.data_dir / "ca", hosts, now=SystemClock().now)
        prepare(settings)
        given = {name: value for name, value in environ.items() if name not in SECRETS}
        supervisor = Supervisor(settings, flags, given, (groups, sockets), password or Secret(""))
        supervisor.variables = dict(variables)
        yield supervisor
    finally:
        for one in sockets:
            one.close()
        clear_serve_info(settings.data_dir, os.getpid())


class Supervisor:
    """Runs workers until they have all left."""

    def __init__(
        self,
        settings: Settings,
        flags: Mapping[str, Any],
        environ: Mapping[str, str],
        listening: tuple[list[Group], list[socket.socket]],
        password: Secret,
    ) -> None:
        self._settings = settings
        self._flags = dict(flags)
        self._environ = dict(environ)
        self._groups, self._sockets = listening
        self._password = password
        self.variables: dict[str, str] = {}
        """Of the environment file, as the last reload has read it."""
        patience = Patience(leave=settings.shutdown_drain_secs + _GRACE, hung=settings.worker_hang_secs)
        self._machine = Supervision(settings.workers, patience)
        self._workers: dict[int, _Worker] = {}
        self._pool = Reservoir()
        self._nonces = Nonces()
        self._questions: dict[int, _Question] = {}
        self._ids = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._told = False
        self._wake = asyncio.Event()
        self._end: asyncio.Future[int] | None = None

    async def run(self) -> int:
        """Serve until everybody has left, and return the exit code."""
        loop = asyncio.get_running_loop()
        self._end = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        loop.add_signal_handler(signal.SIGUSR2, self._renew)
        ticking = asyncio.create_task(self._tick(), name="supervisor clock")
        self._do(self._machine.begin(_now()))
        try:
            return await self._end
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, *self._tasks, return_exceptions=True)

    def _stop(self) -> None:
        # Whoever comes now is to be refused, and not to wait for a server that leaves.
        for one in self._sockets:
            one.close()
        self._do(self._machine.stop(_now()))

    def _reload(self) -> None:
        """Let one of those that serve reload for all; what comes of it, it tells."""
        for worker in self._workers.values():
            if worker.ready:
                self._send(worker, Frame("asked", next(self._ids), BEGIN))
                return

    def _renew(self) -> None:
        """Let all have successors, with the file as it is now; where it cannot be used, nobody has one."""
        given = Given(self._settings.data_dir, self._environ, self._flags)
        try:
            variables = given.read()
            given.settings(variables)
        except ConfigError as error:
            _log.error("workers are as they were: %s", error)
            return
        self.variables = variables
        self._do(self._machine.reload(_now()))

    async def _tick(self) -> None:
        while True:
            self._wake.clear()
            due = self._machine.due
            try:
                async with asyncio.timeout(None if due is None else max(due - _now(), 0.01)):
                    await self._wake.wait()
            except TimeoutError:
                self._do(self._machine.tick(_now()))

    def _do(self, actions: list[Action]) -> None:
        self._wake.set()
        for action in actions:
            match action:
                case Start():
                    self._later(self._start(action))
                case Stop():
                    self._signal(action.number, signal.SIGTERM)
                case Kill():
                    self._signal(action.number, signal.SIGKILL)
                case Tend():
                    for worker in self._workers.values():
                        self._send(worker, Frame("tend", body=bytes(action.slots)))
                case Tell():
                    (_log.error if action.bad else _log.info)("%s", action.what)
                case End():
                    if self._end is not None and not self._end.done():
                        self._end.set_result(action.code)

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _signal(self, number: int, which: signal.Signals) -> None:
        worker = self._workers.get(number)
        if worker is not None and worker.process.returncode is None:
            worker.process.send_signal(which)

    # --- one worker

    async def _start(self, order: Start) -> None:
        """Start a worker and stay with it to its end."""
        try:
            worker, reader = await self._spawned(order)
        except OSError as error:
            _log.error("a worker cannot be started: %s", error)
            self._do(self._machine.gone(order.number, 1, _now()))
            return
        self._workers[order.number] = worker
        if self._machine.phases.get(order.number) is not Phase.STARTING:
            # It was to leave before it was there.
            self._signal(order.number, signal.SIGTERM)
        while (frame := await received(reader)) is not None:
            self._heard(worker, frame)
        # Who does not talk any more is as good as gone: others take its connections before it is buried.
        code = await self._ended(worker)
        del self._workers[order.number]
        worker.writer.close()
        for number in [*self._questions]:
            self._answered(number, order.number, b"")
        self._do(self._machine.gone(order.number, code, _now()))

    async def _spawned(self, order: Start) -> tuple[_Worker, asyncio.StreamReader]:
        ours, theirs = socket.socketpair()
        first, self._told = not self._told, True
        orders = Orders(
            slot=order.slot,
            workers=self._settings.workers,
            command=sys.argv[0],
            parent=os.getpid(),
            first=first,
            alone=order.alone,
            data_dir=os.fspath(self._settings.data_dir),
            flags=self._flags,
            groups=tuple(self._groups),
            password=self._password.reveal() if order.alone else "",
            variables=self.variables,
        )
        with theirs:
            descriptors = [one.fileno() for one in self._sockets if one.fileno() >= 0]
            process = await asyncio.create_subprocess_exec(
                *_COMMAND,
                str(theirs.fileno()),
                env=self._environ,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *descriptors),
                # A terminal's Ctrl-C is for the supervisor, which passes it on once.
                process_group=0,
            )
        ours.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        worker = _Worker(order.number, process, writer, orders.variables)
        self._send(worker, Frame("orders", body=msgspec.msgpack.encode(orders)))
        return worker, reader

    async def _ended(self, worker: _Worker) -> int:
        try:
            async with asyncio.timeout(_GRACE):
                return await worker.process.wait()
        except TimeoutError:
            worker.process.kill()
            return await worker.process.wait()

    def _send(self, worker: _Worker, frame: Frame) -> None:
        if not worker.writer.is_closing():
            worker.writer.write(packed(frame))

    # --- what they say

    def _heard(self, worker: _Worker, frame: Frame) -> None:
        match frame.kind:
            case "ready":
                worker.ready = True
                self._send(worker, Frame("tend", body=bytes(self._machine.tended)))
                self._do(self._machine.ready(worker.number, _now()))
                if worker.variables != self.variables:
                    # It has begun before a reload, and was not asked.
                    self._send(worker, Frame("asked", next(self._ids), BEGIN))
            case "reloaded":
                self.variables = msgspec.msgpack.decode(frame.body, type=dict[str, str])
                for one in self._workers.values():
                    one.variables = self.variables if one.ready else one.variables
            case "beat":
                self._do(self._machine.beat(worker.number, _now()))
            case "ask":
                self._asked(worker, frame)
            case "answer":
                self._answered(frame.id, worker.number, frame.body)
            case "draw":
                claim = msgspec.msgpack.decode(frame.body, type=Claim)
                grant = self._pool.draw(str(worker.number), claim, int(_now() * 1000))
                self._send(worker, Frame("answers", frame.id, parts=(msgspec.msgpack.encode(grant),)))
            case "nonce":
                put, now = msgspec.msgpack.decode(frame.body, type=Put), int(_now() * 1000)
                told = self._nonces.put(put.name, put.value, now, now + put.lasts, replace=put.replace)
                self._send(worker, Frame("answers", frame.id, parts=(told,)))

    def _asked(self, worker: _Worker, frame: Frame) -> None:
        """Pass a question on to everybody; who only starts hears it too, but is not waited for."""
        others = [one for one in self._workers.values() if one is not worker]
        number = next(self._ids)
        waits = {one.number for one in others if one.ready} if frame.id else set()
        if frame.id:
            question = self._questions[number] = _Question(worker.number, frame.id, waits)
            loop = asyncio.get_running_loop()
            question.timer = loop.call_later(frame.seconds, self._over, number)
        for one in others:
            self._send(one, Frame("asked", number, frame.topic, frame.body))
        if frame.id and not waits:
            self._over(number)

    def _answered(self, number: int, who: int, body: bytes) -> None:
        question = self._questions.get(number)
        if question is None or who not in question.waits:
            return
        question.waits.discard(who)
        question.parts.append(body)
        if not question.waits:
            self._over(number)

    def _over(self, number: int) -> None:
        question = self._questions.pop(number)
        if question.timer is not None:
            question.timer.cancel()
        if (worker := self._workers.get(question.asker)) is not None:
            # Who did not answer has said nothing, and that is told, too.
            parts = (*question.parts, *(b"" for _ in question.waits))
            self._send(worker, Frame("answers", question.id, parts=parts))


def _now() -> float:
    return time.monotonic()
