"""Log probabilities of tokens, as this dialect tells them beside a choice."""

from __future__ import annotations

import re
from typing import Any, Final

from tokenhub_core.types import Json, Logprob

_BYTES: Final = re.compile(r"bytes:((?:\\x[0-9a-f]{2})+)")
"""How the wire spells a token that is a part of a character."""


def read(given: object) -> tuple[Logprob, ...]:
    """Return the tokens of a choice's `logprobs`; nothing where there are none, or none that can be read."""
    content = given.get("content") if isinstance(given, dict) else None
    found = [_one(token) for token in content] if isinstance(content, list) else []
    return tuple(token for token in found if token is not None)


def _one(given: Any) -> Logprob | None:
    match given:
        case {"token": str(token), "logprob": int() | float() as logprob}:
            top = given.get("top_logprobs")
            likeliest = [_one(each) for each in top] if isinstance(top, list) else []
            return Logprob(token, logprob, tuple(each for each in likeliest if each is not None))
    return None


def write(given: tuple[Logprob, ...]) -> Json:
    """Return a choice's `logprobs`."""
    content = [_token(each) | {"top_logprobs": [_token(top) for top in each.top]} for each in given]
    return {"content": content, "refusal": None}


def _token(given: Logprob) -> Json:
    if found := _BYTES.fullmatch(given.token):
        raw = bytes.fromhex(found[1].replace("\\x", ""))
    else:
        raw = given.token.encode(errors="replace")
    return {"token": given.token, "bytes": list(raw), "logprob": given.logprob}
