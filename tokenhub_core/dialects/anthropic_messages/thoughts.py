"""Thinking blocks, and what they carry for others.

This dialect signs its thoughts, and rejects a block without its own signature. A client, though, is shown the
thoughts of every provider. Its signature then says whose they are (see `dialects.seals`), so that the block is
known when it comes back: to its maker it is given, from Anthropic it is kept.

Where a seal alone is not enough, the signature holds an envelope: for a thought that nobody signed, for one
with a name or an encrypted twin, and for the seal of a tool call, which has no place of its own here and
travels in an empty block before the call.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import orjson

from tokenhub_core.dialects import seals
from tokenhub_core.types import Dialect, Json, Part, Reasoning, ToolUse

_HERE: Final = Dialect.ANTHROPIC_MESSAGES
_ENVELOPE: Final = seals.MARK + "carried:"


# --- read --------------------------------------------------------------------------------------------------


def read(text: str, signature: str) -> Reasoning:
    """Return the thought of a `thinking` block."""
    if not signature.startswith(_ENVELOPE):
        return Reasoning(text, seals.seal(_HERE, signature))
    carried = _opened(signature)
    return Reasoning(
        text,
        _word(carried, "signature"),
        _word(carried, "redacted"),
        id=_word(carried, "id"),
        summary=carried.get("summary") is True,
    )


def redacted(data: str) -> Reasoning:
    """Return the thought of a `redacted_thinking` block."""
    return Reasoning(redacted=seals.seal(_HERE, data))


def tool_seal(block: Json) -> str:
    """Return the seal that a `thinking` block carries for the next tool call, empty for any other block."""
    signature = block.get("signature")
    if not isinstance(signature, str) or not signature.startswith(_ENVELOPE):
        return ""
    return _word(_opened(signature), "tool")


def _opened(signature: str) -> dict[str, Any]:
    try:
        carried = orjson.loads(base64.b64decode(signature.removeprefix(_ENVELOPE), validate=True))
    except ValueError:
        return {}
    return carried if isinstance(carried, dict) else {}


def _word(carried: Json, key: str) -> str:
    value = carried.get(key)
    return value if isinstance(value, str) else ""


# --- for a client ------------------------------------------------------------------------------------------


def signature(given: Reasoning) -> str:
    """Return the signature that a client gets with a thought's text."""
    if given.signature and not (given.id or given.summary or given.redacted):
        return seals.shown(_HERE, given.signature)
    said = {"signature": given.signature, "redacted": given.redacted, "id": given.id}
    return _sealed({key: value for key, value in said.items() if value} | _flag(given))


def _flag(given: Reasoning) -> Json:
    return {"summary": True} if given.summary else {}


def _sealed(carried: Json) -> str:
    return _ENVELOPE + base64.b64encode(orjson.dumps(carried)).decode()


def to_client(given: Reasoning) -> Json:
    """Return the block that shows a thought."""
    if given.redacted and not (given.text or given.signature or given.id):
        return {"type": "redacted_thinking", "data": seals.shown(_HERE, given.redacted)}
    return {"type": "thinking", "thinking": given.text, "signature": signature(given)}


def before_tool(sealed: str) -> Json:
    """Return the empty block that carries the seal of the tool call after it."""
    return {"type": "thinking", "thinking": "", "signature": _sealed({"tool": sealed})}


# --- for a provider ----------------------------------------------------------------------------------------


def to_provider(given: Reasoning, losses: list[str]) -> Json | None:
    """Return the block that gives a thought back to Anthropic; None where it did not sign it, which is a loss."""
    if data := seals.opened(_HERE, given.redacted):
        return {"type": "redacted_thinking", "data": data}
    if value := seals.opened(_HERE, given.signature):
        return {"type": "thinking", "thinking": given.text, "signature": value}
    if given.text:
        losses.append("part:thinking")
    if given.signature or given.redacted:
        losses.append("thinking.signature")
    return None


def attached(parts: Iterable[tuple[Part, str]]) -> tuple[Part, ...]:
    """Return the parts without those that only carry a seal (their second member); the next tool call gets it."""
    done: list[Part] = []
    waiting = ""
    for part, seal in parts:
        if seal:
            waiting = seal
        elif waiting and isinstance(part, ToolUse):
            done.append(replace(part, signature=waiting))
            waiting = ""
        else:
            done.append(part)
    return tuple(done)
