"""Every dialect there is."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tokenhub_core.dialects.anthropic_count_tokens import ANTHROPIC_COUNT_TOKENS
from tokenhub_core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dialects.gemini import GEMINI
from tokenhub_core.dialects.ollama import OLLAMA_CHAT, OLLAMA_GENERATE
from tokenhub_core.dialects.openai_chat import OPENAI_CHAT
from tokenhub_core.dialects.openai_completions import OPENAI_COMPLETIONS
from tokenhub_core.dialects.openai_embeddings import OPENAI_EMBEDDINGS
from tokenhub_core.dialects.openai_responses import OPENAI_RESPONSES
from tokenhub_core.types import Dialect

DIALECTS: Final[Mapping[Dialect, DialectModule]] = MappingProxyType(
    {
        module.name: module
        for module in (
            OPENAI_CHAT,
            ANTHROPIC_MESSAGES,
            OPENAI_RESPONSES,
            OPENAI_COMPLETIONS,
            OPENAI_EMBEDDINGS,
            ANTHROPIC_COUNT_TOKENS,
            GEMINI,
            OLLAMA_CHAT,
            OLLAMA_GENERATE,
        )
    }
)
"""The module of each dialect: the whole of `Dialect`, in its order."""


def dialect(name: Dialect) -> DialectModule:
    """Return the module that reads and writes this dialect."""
    return DIALECTS[name]
