"""Of mitmproxy's addons a server loads those that it uses; whoever wants them all still gets them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

_PROGRAM: Final = """
import json, sys
import tokenhub_addon.listening
early = sorted({"flask", "ldap3", "numpy"} & set(sys.modules))
from mitmproxy import addons
from mitmproxy.addons import core
print(json.dumps([early, len(addons.default_addons()), core is addons.core, "flask" in sys.modules]))
"""


def test_what_a_server_does_not_use_is_not_loaded() -> None:
    """Neither what other addons bring nor what only some calls need; mitmproxy's own list is whole when asked for."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=100
    )
    early, listed, same, whole = json.loads(done.stdout)

    assert (early, same, whole) == ([], True, True)
    assert listed > 30


def test_a_package_that_is_there_already_stays() -> None:
    """In a mitmproxy that has loaded its addons nothing is replaced."""
    program = (
        "import mitmproxy.addons as before, sys\n"
        "import tokenhub_addon\n"
        "print(before is sys.modules['mitmproxy.addons'], type(before).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100
    )

    assert done.stdout.split() == ["True", "module"]
