"""What `tokenhub serve` prints once everything is open: commands that work when pasted."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from rich.console import Group, RenderableType
from rich.markup import escape

from tokenhub_addon.listening import Served


def next_steps(served: Served, *, terminal: bool) -> RenderableType:
    """Say what is open and what to try; the admin token only to somebody who sits in front of it."""
    settings = served.app.settings
    # The whole path: what is printed must work in a shell that knows no virtual environment.
    own = shlex.quote(str(_command()))
    where = f" --data-dir {shlex.quote(str(settings.data_dir))}"
    lines = [
        "",
        f"proxy        {served.proxy_url}",
        f"side server  {served.side_url}   (OpenAI and Anthropic compatible API)",
        f"live page    {served.side_url}/{_key(served, terminal=terminal)}",
        "",
        "Run a program with its LLM calls coming through here:",
        f"  {own} run{where} -- python your_program.py",
        "",
        "Or try it with curl:",
        (
            f"  {own} run{where} -- curl -s https://api.openai.com/v1/chat/completions"
            " -H 'content-type: application/json'"
            """ -d '{"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}'"""
        ),
        "",
    ]
    if settings.simulate:
        lines.insert(
            1,
            "SIMULATION: every answer is made up by the built-in simulator and marked x-tokenhub-simulated.\n"
            f"  For real ones: {own} provider add openai --api-key-stdin{where}, then start again.\n",
        )
    elif not served.app.catalog.fleet.models:
        lines.insert(
            1,
            "Nothing is registered: intercepted calls are served by the host they are meant for, with the"
            " program's own key.\n",
        )
    return Group(*(escape(line) for line in lines))


def _key(served: Served, *, terminal: bool) -> str:
    """Return what opens the live page: what goes into a file or a journal may be kept for long and read by others."""
    if terminal:
        return f"#token={served.app.admin_token.reveal()}"
    settings = served.app.settings
    where = "TOKENHUB_ADMIN_TOKEN" if settings.admin_token else str(settings.data_dir / "admin-token")
    return f"   (its token is in {where})"


def _command() -> str:
    return str(Path(sys.argv[0]).resolve())
