"""Thoughts of a conversation, as the reasoning items of a request.

A provider takes back what it sealed itself; without its seal it takes only the id of an item that it has stored,
which is the caller's to know.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenhub_core.dialects.openai_responses.kept import Kept, put_back, spelled
from tokenhub_core.dialects.seals import opened
from tokenhub_core.types import Dialect, Json, Reasoning


def reasoning_items(given: Iterable[Reasoning], losses: list[str], *, own: bool) -> list[Json]:
    """Return the items of thoughts that stand in a row; what cannot be taken back is named in `losses`.

    `own` says that they came in a request of this dialect: then those without a seal go back as well.
    """
    return [item for row in rows(given) if (item := _item(row, losses, own=own)) is not None]


def rows(given: Iterable[Reasoning]) -> list[list[Reasoning]]:
    """Return thoughts that stand in a row, those of one item together."""
    found: list[list[Reasoning]] = []
    for thought in given:
        if found and _continues(found[-1][-1], thought):
            found[-1].append(thought)
        else:
            found.append([thought])
    return found


def _continues(last: Reasoning, this: Reasoning) -> bool:
    """Tell whether two thoughts are of one item.

    Clients of other dialects show the text and the seal as two thoughts, and give them back so.
    """
    if spelled(this.rest, "continues", ""):
        return True
    if _sealed(last) or isinstance(this.rest, Kept):
        return False
    if this.id or last.id:
        return this.id == last.id
    return not this.text and bool(_value(this))


def _sealed(thought: Reasoning) -> str:
    return thought.redacted or thought.signature


def _value(thought: Reasoning) -> str:
    return opened(Dialect.OPENAI_RESPONSES, _sealed(thought))


def lost(thought: Reasoning) -> list[str]:
    """Return the names of what goes with a thought that cannot be told."""
    names = ["part:thinking"] if thought.text else []
    names += ["thinking.signature"] if thought.signature else []
    return names + (["part:redacted_thinking"] if thought.redacted else [])


def _item(row: list[Reasoning], losses: list[str], *, own: bool) -> Json | None:
    value = _value(row[-1])
    if not value and (_sealed(row[-1]) or not own):
        losses += [name for thought in row for name in lost(thought)]
        return None
    item: Json = {"type": "reasoning"}
    if row[-1].id:
        # A made-up id would be refused, and what is sealed needs none.
        item["id"] = row[-1].id
    item["summary"] = [
        {"type": "summary_text", "text": thought.text}
        for thought in row
        if thought.text and (thought.summary or not own)
    ]
    if raw := [thought.text for thought in row if own and thought.text and not thought.summary]:
        item["content"] = [{"type": "reasoning_text", "text": text} for text in raw]
    if value:
        item["encrypted_content"] = value
    return put_back(item, row[0].rest) if own else item
