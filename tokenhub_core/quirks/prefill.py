"""Models that go on from what the assistant has said last, and how each kind of server is told to.

Claude (up to 4.5), Gemini and Ollama do so of themselves; Mistral and DeepSeek want the message marked
(https://docs.mistral.ai/capabilities/completion, https://api-docs.deepseek.com/guides/chat_prefix_completion), vLLM and
SGLang want two fields beside the messages (https://docs.vllm.ai, `continue_final_message`). Nothing is done to calls of
callers: these names say what may be asked of a model when an answer broke off elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from tokenhub_core.quirks.base import Repaired
from tokenhub_core.types import Call, Json

PREFILL: Final = "prefill"
MARKED: Final = "prefill_prefix"
FLAGGED: Final = "prefill_flag"
_ALL: Final = frozenset({PREFILL, MARKED, FLAGGED})


def goes_on(quirks: Collection[str]) -> bool:
    """Tell whether a model with these quirks goes on from the assistant's last words."""
    return not _ALL.isdisjoint(quirks)


def alone(quirks: Collection[str]) -> bool:
    """Tell whether there is no other quirk: then nothing is to be repaired."""
    return _ALL.issuperset(quirks)


def untouched(call: Call) -> Repaired:
    """Return the call as it is."""
    return Repaired(call)


def marked(data: Json, quirks: Collection[str]) -> Json:
    """Return a body of chat completions, whose last message is the assistant's, with what its server has to be told."""
    if FLAGGED in quirks:
        return {**data, "continue_final_message": True, "add_generation_prompt": False}
    if MARKED in quirks:
        *before, last = data["messages"]
        return {**data, "messages": [*before, {**last, "prefix": True}]}
    return data
