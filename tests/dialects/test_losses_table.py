"""`docs/losses.md` says what is so: `UPDATE_DOCS=1 pytest tests/dialects/test_losses_table.py` writes it anew."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.dialects import pairs
from tests.dialects.pairs import CHATS
from tests.dialects.vanished import MARKER
from tokenhub_core.dialects import unsent
from tokenhub_core.types import Dialect

PAGE: Final = Path(__file__).parents[2] / "docs" / "losses.md"

HEAD: Final = """\
# Losses

What a call loses where its provider speaks another dialect. This page is generated from the tests' full inputs, which
use every field that a dialect has: each row is the longest list there can be, not what a usual call loses. A call of
text, tools and images loses nothing between the dialects that have these. Where client and provider speak the same
dialect the bytes pass, and there is nothing to lose.

## How to read it

A table has a client's dialect and, for each provider's, the names of what does not get there (*request*) and of what
does not come back in an answer (*answer*; *in a stream* and *when whole* where only one of the two has it).

* A name is that of a field as it stands on the wire, as far down as it takes to know it: `cache_control`,
  `response_format.json_schema.description`.
* `part:…` is a piece of content, `tool:…` a tool of a kind that only its own vendor runs, `stop_reason:…` a reason
  that the client's dialect has no word for.
* `thinking`, `thinking.show`, `thinking.budget_tokens` and `thinking.effort` are about how much is thought, however a
  dialect says it; `thinking.signature` and `part:redacted_thinking` are seals that only their maker can open.
* `messages` says that a conversation was told as one text, `choices[n>1]` that only the first of several answers came.
* `unsent:…` is what changes neither the answer nor its price, and is about the caller; no provider is thought less
  of for it. The table below says what these are.
* `x_…` are made-up fields: what nobody knows is named like anything else.

Some losses depend on the model, the value or the server, not on the dialects alone (a temperature above 1, a budget
between two efforts); they have names of the same kind. What changes neither the answer nor the bill is no loss: ids of
messages, padding of streams, what an answer only repeats of its request. The tests keep the list of those, with the
reason for each (`tests/dialects/omissions.py`).

## Where losses are told

* The reply's header `x-tokenhub-loss` has the names of what the request lost and, where the answer is whole, of what
  the answer did, up to 1,000 characters. Headers go before a stream, so what a stream loses is in the record only.
* The record of the call has the first fifty of them; `tokenhub explain` and the admin API show it.
* Routing counts what the request would lose, but for what is only unsent: a candidate whose dialect loses something
  scores worse, by 0.1 for the first loss and 0.05 for each other one, at most 0.3.
* With `TOKENHUB_LOSSY=false` such candidates are left out. A call that only they could serve is refused with 400.

[dialects.md](dialects.md) says what is carried, and how.

## What is not sent, and not missed

"""

REST: Final = """
What changes the price counts as a loss, if the answer is the same: `prompt_cache_key`, `prompt_cache_retention`,
`prompt_cache_options`, `prompt_cache_breakpoint` and `cache_control` say what is read from a cache and for how long,
`service_tier` how fast a call is served.
"""


def full(name: Dialect, kind: str) -> bytes:
    return next(path for path in pairs.inputs(name, kind) if path.stem == "full").read_bytes()


def listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "nothing"


def lost(client: Dialect, provider: Dialect) -> tuple[str, str]:
    """Return what a request of this pair loses, and what its answer does, as cells of a table."""
    asked = unsent.told(pairs.rendered(client, provider, full(client, "requests")).losses)
    whole = set(pairs.answered(client, provider, full(provider, "answers")).losses)
    streamed = set(pairs.streamed(client, provider, full(provider, "streams"))[1])
    cell = listed(sorted(whole & streamed)) if whole & streamed or not whole | streamed else ""
    if only := sorted(streamed - whole):
        cell += ("; " if cell else "") + f"*in a stream* {listed(only)}"
    if only := sorted(whole - streamed):
        cell += ("; " if cell else "") + f"*when whole* {listed(only)}"
    return listed(sorted(asked)), cell


def table(client: Dialect) -> str:
    """Return the section of one client's dialect."""
    rows = [f"\n## Clients of `{client}`\n", "| provider | request | answer |", "| --- | --- | --- |"]
    for provider in CHATS:
        if provider is not client:
            request, answer = lost(client, provider)
            rows.append(f"| `{provider}` | {request} | {answer} |")
    return "\n".join(rows) + "\n"


def test_the_page_of_losses_says_what_is_lost() -> None:
    """For every ordered pair, from its full request, answer and stream."""
    rows = "".join(f"| `{name}` | {why} |\n" for name, why in unsent.UNSENT.items())
    seen = f"{HEAD}| field | what it says |\n| --- | --- |\n{rows}{REST}" + "".join(map(table, CHATS))
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(seen)
    assert PAGE.read_text() == seen


def test_no_name_holds_a_text_of_the_caller() -> None:
    """Names are few, so that they can be counted: they hold nothing of what was said."""
    said = "".join(map(table, CHATS))
    assert "cache_control" in said
    assert not MARKER.search(said)
