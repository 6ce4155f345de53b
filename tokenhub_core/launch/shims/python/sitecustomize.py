"""Loaded by every Python that `tokenhub run` starts, whatever its version, before its program.

PYTHONPATH names this directory, so this file hides a `sitecustomize` that was there before (distributions
and coverage tools have one). It loads our hooks, leaves the search path as if it had never been there, and
hands over to the one it hid. It is written in what Python 2.7 and 3.x share, and prints nothing.
"""

import os
import sys

if os.environ.get("TOKENHUB_ACTIVE") and sys.version_info >= (3, 7):
    try:
        import tokenhub_preload  # type: ignore[import-not-found]  # beside this file, found when it runs

        tokenhub_preload.install()
    except Exception:  # noqa: BLE001, S110 - the program's start matters more than its traffic
        pass

_here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib would double the start's cost
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _here]  # noqa: PTH100 - as above

_ours = sys.modules.pop("sitecustomize", None)
try:
    import sitecustomize  # type: ignore[import-not-found]  # noqa: F401 - the one that this file hides
except ImportError:
    # Python's own rule: no sitecustomize is fine, one whose own imports fail is reported by the caller.
    if getattr(sys.exc_info()[1], "name", "sitecustomize") != "sitecustomize":
        raise
    if _ours is not None:
        sys.modules["sitecustomize"] = _ours
