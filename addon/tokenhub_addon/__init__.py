"""The mitmproxy side of TokenHub: recognises LLM calls and hands them to the engine."""

from tokenhub_addon.authorities import when_used
from tokenhub_addon.parts import by_parts

by_parts()
when_used()
