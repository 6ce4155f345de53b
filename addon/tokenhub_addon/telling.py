"""What `tokenhub serve` prints once everything is open: commands that work when pasted."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from rich.console import Group, RenderableType
from rich.markup import escape

from tokenhub_addon.listening import Served


def next_steps(served: Served, *, terminal: bool) -> RenderableType:
    """Say what is open and what to try; the login link only to somebody who sits in front of it."""
    settings = served.app.settings
    # The whole path: what is printed must work in a shell that knows no virtual environment.
    own = shlex.quote(str(_command()))
    where = f" --data-dir {shlex.quote(str(settings.data_dir))}"
    lines = [
        "",
        f"proxy        {served.proxy_url}",
        f"side server  {served.side_url}   (OpenAI and Anthropic compatible API)",
        *_page(served, f"{own} admin login{where}", terminal=terminal),
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


def _page(served: Served, login: str, *, terminal: bool) -> list[str]:
    """Return where the live page is: what goes into a file or a journal may be read by others, and holds no link."""
    if not terminal:
        return [f"live page    {served.side_url}/   (a link that signs in: {login})"]
    return [
        f"live page    {served.side_url}/login#{served.app.login_ticket()}",
        f"             (once, within ten minutes; then: {login})",
    ]


def _command() -> str:
    return str(Path(sys.argv[0]).resolve())
