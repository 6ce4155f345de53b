"""Modules that are loaded when they are first used: most processes never use them, and each costs start and memory.

A server that does not explore needs no NumPy (12 MB, 9 % of the time that imports take), one on SQLite no dialect of
PostgreSQL, one that nobody sends a schema no validator.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


class Later(ModuleType):
    """Stands for a module: `np = Later("numpy")`. Whoever asks it for something first loads the module.

    Imports of the real one raise what they always raise, at that moment.
    """

    def __getattr__(self, name: str) -> Any:
        """Return what the module has under this name, and keep it: the next time this is not called."""
        found = getattr(import_module(self.__name__), name)
        setattr(self, name, found)
        return found
