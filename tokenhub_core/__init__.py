"""TokenHub's engine: routes one LLM call to the best model and provider, in the caller's dialect.

Nothing here knows mitmproxy. `docs/architecture.md` is the map; `tests/test_architecture.py` keeps it true.
"""

__version__ = "0.1.0"
