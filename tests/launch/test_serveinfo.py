from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.serveinfo import (
    ServeInfo,
    clear_serve_info,
    read_serve_info,
    serving,
    write_serve_info,
)


@pytest.fixture
def listening() -> Iterator[ServeInfo]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield ServeInfo(
            pid=os.getpid(),
            proxy_url=f"http://127.0.0.1:{server.getsockname()[1]}",
            side_url="http://127.0.0.1:8090",
            ca_file="/data/ca.pem",
            hosts=("api.openai.com", "*.openai.azure.com"),
            started_at=1.5,
        )


def test_what_serve_writes_run_reads(tmp_path: Path, listening: ServeInfo) -> None:
    """The file goes around whole, is found by whoever asks, and is the owner's alone."""
    write_serve_info(tmp_path, listening)

    assert serving(tmp_path) == read_serve_info(tmp_path) == listening
    assert stat.S_IMODE((tmp_path / "run" / "serve.json").stat().st_mode) == 0o600


def test_with_nothing_serving_the_error_says_what_to_start(tmp_path: Path) -> None:
    """One line that names the two ways to start."""
    with pytest.raises(ConfigError, match=r"nothing is serving from .*start scripts/run or tokenhub serve"):
        serving(tmp_path)


def test_the_file_of_a_killed_process_is_stale(tmp_path: Path, listening: ServeInfo) -> None:
    """A pid that is gone means nobody is serving, even where somebody else took the port."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write_serve_info(tmp_path, replace(listening, pid=dead.pid))

    with pytest.raises(ConfigError, match=f"process {dead.pid} is gone"):
        serving(tmp_path)


def test_a_closed_port_means_nobody_is_serving(tmp_path: Path, listening: ServeInfo) -> None:
    """A pid that was given to another process does not deceive."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"http://127.0.0.1:{server.getsockname()[1]}"
    write_serve_info(tmp_path, replace(listening, proxy_url=closed))

    with pytest.raises(ConfigError, match="nothing listens at"):
        serving(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    """What cannot be read is an error, not an absence."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "serve.json").write_text(content)

    with pytest.raises(ConfigError, match="cannot read"):
        read_serve_info(tmp_path)


def test_leaving_takes_only_one_s_own_file_away(tmp_path: Path, listening: ServeInfo) -> None:
    """A server that ends after its successor has started leaves the successor's file."""
    write_serve_info(tmp_path, listening)
    clear_serve_info(tmp_path, pid=listening.pid + 1)
    assert read_serve_info(tmp_path) == listening

    clear_serve_info(tmp_path, pid=listening.pid)
    assert read_serve_info(tmp_path) is None
    clear_serve_info(tmp_path, pid=listening.pid)
