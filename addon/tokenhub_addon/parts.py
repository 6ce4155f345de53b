"""mitmproxy's package of addons without the forty that we do not use: LDAP, Flask and what else they bring (6 MB).

Its `__init__` imports every addon that there is, for whoever runs mitmdump. Ours asks for a few by their names.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, Final

_PACKAGE: Final = "mitmproxy.addons"


class _Parts(ModuleType):
    """A package whose modules can be imported; what its own `__init__` says is run when somebody asks for it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or find_spec(f"{self.__name__}.{name}"):
            raise AttributeError(name)
        loader = self.__loader__
        assert isinstance(loader, Loader)
        whole: ModuleType = self
        whole.__class__ = ModuleType
        loader.exec_module(whole)
        return getattr(whole, name)


def by_parts() -> None:
    """Let mitmproxy's addons be imported one by one from now on; nothing changes where they are all there."""
    spec = None if _PACKAGE in sys.modules else find_spec(_PACKAGE)
    if spec is None:
        return
    package = module_from_spec(spec)
    package.__class__ = _Parts
    sys.modules[_PACKAGE] = package
    parent, _, name = _PACKAGE.rpartition(".")
    setattr(sys.modules[parent], name, package)
