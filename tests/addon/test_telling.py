"""What `serve` prints when everything is open."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from rich.console import Console

from tests.fakes.house import house
from tokenhub_addon.listening import Served
from tokenhub_addon.telling import next_steps


async def test_a_login_link_is_shown_to_a_terminal_only(tmp_path: Path) -> None:
    """What goes into a journal says how to get one, and holds nothing that opens anything."""
    async with house(tmp_path) as it:
        served = Served(it.app, "http://p", "http://s", tmp_path, cast("Any", None))

        def told(*, terminal: bool) -> str:
            console = Console(width=200)
            with console.capture() as capture:
                console.print(next_steps(served, terminal=terminal))
            return capture.get()

        assert "http://s/login#" in told(terminal=True)
        assert "login#" not in told(terminal=False)
        assert "admin login" in told(terminal=False)
        assert it.token not in told(terminal=True) + told(terminal=False)
