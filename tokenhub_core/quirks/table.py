"""The repairs by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from tokenhub_core.quirks import inline, prefill, results, roles, thinking, words
from tokenhub_core.quirks.base import Quirk

QUIRKS: Final[Mapping[str, Quirk]] = {
    "tool_names": Quirk(
        "Tool names that are longer than 64 characters or hold anything but letters, digits, `_` and `-` "
        "go out under a short name and come back under their own.",
        words.tool_names,
    ),
    "tool_call_ids": Quirk(
        "Tool call ids that are longer than 40 characters or hold anything but letters, digits, `_` and `-` "
        "are rewritten, in calls and results alike.",
        words.tool_call_ids,
    ),
    "short_tool_call_ids": Quirk(
        "Tool call ids are rewritten to the nine letters and digits that Mistral asks for.",
        words.short_tool_call_ids,
    ),
    "orphan_tool_results": Quirk(
        "A tool result without its call becomes the user's words, and a call without a result is answered "
        "with an error.",
        results.orphan_tool_results,
    ),
    "developer_as_system": Quirk(
        "Messages of the role `developer` go out as `system`, for servers that know only that.",
        roles.developer_as_system,
    ),
    "system_first": Quirk(
        "All system messages become one, which stands first, for templates that allow no other.",
        roles.system_first,
    ),
    "merge_turns": Quirk(
        "Messages of the same speaker in a row become one and the user begins, for templates that want user "
        "and assistant to alternate.",
        roles.merge_turns,
    ),
    "inline_tool_calls": Quirk(
        "Calls that the model writes into its text (`<tool_call>{…}</tool_call>`, "
        "`<function=name>{…}</function>`, a code fence named `tool_call`) become tool calls, if the call "
        "offers the tool.",
        inline.inline_tool_calls,
    ),
    "thinking_tags": Quirk(
        "`<think>…</think>` or `<thinking>…</thinking>` at the beginning of an answer becomes reasoning.",
        thinking.thinking_tags,
    ),
    "thinking_opened": Quirk(
        "As `thinking_tags`, where the model's template has written the opening tag already, so that every "
        "answer begins with reasoning and only the closing tag is seen (DeepSeek R1, QwQ).",
        thinking.thinking_opened,
    ),
    prefill.PREFILL: Quirk(
        "The model goes on from a last message of the assistant: a stream that broke off elsewhere can be "
        "[resumed](resilience.md#resumed-streams) here (Claude up to 4.5, Gemini, Ollama).",
        prefill.untouched,
    ),
    prefill.MARKED: Quirk(
        'As `prefill`, where that message has to say `"prefix": true` (Mistral, DeepSeek).',
        prefill.untouched,
    ),
    prefill.FLAGGED: Quirk(
        "As `prefill`, where the call has to say `continue_final_message` (vLLM, SGLang).",
        prefill.untouched,
    ),
}
"""In the order in which they repair a call; the answer meets them the other way round."""


def unknown(names: Iterable[str]) -> list[str]:
    """Return those of `names` that no repair has, sorted."""
    return sorted(name for name in names if name not in QUIRKS)
