"""Every dialect there is."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tokenhub_core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dialects.openai_chat import OPENAI_CHAT
from tokenhub_core.types import Dialect

DIALECTS: Final[Mapping[Dialect, DialectModule]] = MappingProxyType(
    {
        Dialect.OPENAI_CHAT: OPENAI_CHAT,
        Dialect.ANTHROPIC_MESSAGES: ANTHROPIC_MESSAGES,
    }
)
"""The module of each dialect: the whole of `Dialect`, in its order."""


def dialect(name: Dialect) -> DialectModule:
    """Return the module that reads and writes this dialect."""
    return DIALECTS[name]
