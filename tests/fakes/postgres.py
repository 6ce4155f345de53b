"""A real PostgreSQL for tests: one server for all workers of a run, or one of a test's own that may be ill-treated.

    python -m tests.fakes.postgres DIRECTORY

keeps the shared one: it ends when nobody holds the file `users` in that directory any more, however they ended.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

from tests.patience import PROGRAM_PATIENCE

_ROOT: Final = Path(__file__).parents[2]
_PLACES: Final = (
    "/usr/lib/postgresql/*/bin/postgres",
    "/usr/pgsql-*/bin/postgres",
    "/opt/homebrew/bin/postgres",
)
PASSWORD: Final = "p@ss w/rd"
"""Of the user `tokenhub`, where it comes by 127.0.0.1."""
_SMALL: Final = {
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "autovacuum": "off",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "fsync": "on",
}


def missing() -> str:
    """Return why there can be no server here, empty where there can."""
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed"
    if programs() is None:
        return "no PostgreSQL server is installed (Debian's package is called postgresql)"
    return ""


def programs() -> Path | None:
    """Return the directory of `postgres`, `initdb` and, where its package is there too, `pg_dump`."""
    found = [Path(name).resolve() for name in (shutil.which("postgres"),) if name]
    for pattern in _PLACES:
        found += sorted(Path("/").glob(pattern[1:]), reverse=True)
    return next((path.parent for path in found if path.with_name("initdb").exists()), None)


class Server:
    """A server in a directory of its own, reached through a socket in it and, with a password, by 127.0.0.1."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        self._settings = _SMALL | settings | {"unix_socket_directories": str(directory)}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 5432

    @classmethod
    def made(cls, **settings: str) -> Server:
        """Make a new one; it does not run yet."""
        server = cls(Path(tempfile.mkdtemp(prefix="tokenhub-pg-")), **settings)
        _given(server.directory)
        password = server.directory / "password"
        password.write_text(PASSWORD)
        _given(password)
        # A locale that sorts as people do: what relies on the order of bytes is to fail here.
        order = ("--locale-provider=icu", "--icu-locale=en", "--locale=C.UTF-8", "--encoding=UTF8")
        server._run(
            "initdb", "--no-sync", "--auth-local=trust", "--auth-host=scram-sha-256", "--username=tokenhub",
            f"--pwfile={password}", *order, f"--pgdata={server.directory / 'data'}",
        )  # fmt: skip
        return server

    def dsn(self, database: str = "postgres", *, user: str = "tokenhub") -> str:
        """Return the address through the socket."""
        return f"postgresql://{user}@/{database}?host={self.directory}&port={self.port}"

    def put(self, name: str, content: bytes) -> None:
        """Put a file beside its tables that nobody else can read."""
        path = self.directory / "data" / name
        path.write_bytes(content)
        path.chmod(0o600)
        _given(path)

    def start(self) -> None:
        """Start it; return when it takes connections."""
        if "port" not in self._settings:
            self.port = _free_port()
        options = [f"-c{name}={value}" for name, value in (self._settings | {"port": str(self.port)}).items()]
        log = (self.directory / "log").open("ab")
        self._process = subprocess.Popen(
            [_program("postgres"), "-D", str(self.directory / "data"), *options],
            stdout=log, stderr=log, cwd="/", start_new_session=True, **_user(),
        )  # fmt: skip
        self._settings["port"] = str(self.port)  # the same after a restart
        log.close()
        end = time.monotonic() + PROGRAM_PATIENCE
        while not self._listening(self._process.pid):
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((self.directory / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT ends sessions first, SIGQUIT ends at once, SIGKILL takes its children along."""
        process, self._process = self._process, None
        if process is None:
            return
        if how is signal.SIGKILL:
            for child in self._everyone(process.pid):
                _signalled(child, how)
        _signalled(process.pid, signal.SIGCONT)
        _signalled(process.pid, how)
        process.wait(PROGRAM_PATIENCE)

    def pause(self) -> None:
        """Stop every one of its processes: sockets stay open, and nothing answers."""
        assert self._process is not None
        for pid in (self._process.pid, *self._everyone(self._process.pid)):
            _signalled(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        assert self._process is not None
        for pid in (self._process.pid, *self._everyone(self._process.pid)):
            _signalled(pid, signal.SIGCONT)

    def remove(self) -> None:
        """End it, and leave nothing."""
        if self._process is not None:
            self.resume()
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _listening(self, pid: int) -> bool:
        """Tell whether the server has written that it is ready."""
        path = self.directory / "data" / "postmaster.pid"
        lines = path.read_text().split() if path.exists() else []
        return lines[:1] == [str(pid)] and lines[-1] == "ready"

    def _everyone(self, parent: int) -> list[int]:
        """Return the children of the server's first process."""
        path = Path(f"/proc/{parent}/task/{parent}/children")
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [_program(program), *arguments], capture_output=True, text=True, check=False, cwd="/", **_user()
        )
        if done.returncode:
            raise RuntimeError(done.stderr)


def shared(root: Path, users: IO[str]) -> str:
    """Return the address of the server that all workers of this run share; `users` is held by whoever needs it.

    `root` belongs to the run. The first who asks starts the server, and makes an empty database of the newest schema.
    """
    place = root / "postgresql"
    with (root / "postgresql.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        if not place.exists():
            command = [sys.executable, "-m", "tests.fakes.postgres", str(root)]
            keeper = subprocess.Popen(
                command, start_new_session=True, stdout=subprocess.PIPE, text=True, cwd=_ROOT
            )
            assert keeper.stdout is not None
            place.write_text(keeper.stdout.readline().strip())
            # It outlives whoever asked first; its end is nobody's to wait for.
            keeper.returncode = 0
            keeper.stdout.close()
    return place.read_text()


@contextmanager
def holding(root: Path) -> Iterator[IO[str]]:
    """Hold the file that says that the shared server is needed."""
    with (root / "postgresql.users").open("a") as users:
        yield users


def _keep(root: Path) -> None:
    server = Server.made()
    try:
        server.start()
        print(server.dsn(), flush=True)  # noqa: T201 -- read by whoever started this
        with (root / "postgresql.users").open("a") as users:
            fcntl.flock(users, fcntl.LOCK_EX)  # nobody holds it any more
    finally:
        server.remove()


def _program(name: str) -> str:
    directory = programs()
    assert directory is not None
    return str(directory / name)


def _user() -> dict[str, Any]:
    """Return who the server runs as: it refuses to be root."""
    if os.getuid():
        return {}
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


def _given(path: Path) -> None:
    if not os.getuid():
        one = pwd.getpwnam("postgres")
        os.chown(path, one.pw_uid, one.pw_gid)


def _signalled(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
