"""What `serve` prints when everything is open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from tests.fakes.house import house
from tokenhub_addon.listening import Served
from tokenhub_addon.telling import next_steps
from tokenhub_core.ports import Secret


@pytest.mark.parametrize("given", [True, False])
async def test_the_admin_token_is_shown_to_a_terminal_only(tmp_path: Path, *, given: bool) -> None:
    """What goes into a journal says where the token is, not what it is."""
    async with house(tmp_path) as it:
        settings = replace(it.app.settings, admin_token=Secret(it.token if given else ""))
        app = replace(it.app, settings=settings)
        served = Served(app, "http://p", "http://s", tmp_path, cast("Any", None))

        def told(*, terminal: bool) -> str:
            console = Console(width=200)
            with console.capture() as capture:
                console.print(next_steps(served, terminal=terminal))
            return capture.get()

        assert f"http://s/#token={it.token}" in told(terminal=True)
        assert it.token not in told(terminal=False)
        where = "TOKENHUB_ADMIN_TOKEN" if given else str(tmp_path / "data" / "admin-token")
        assert f"(its token is in {where})" in told(terminal=False)
