"""The mitmproxy side of TokenHub: recognises LLM calls and hands them to the engine."""
