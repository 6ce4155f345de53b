"""Of mitmproxy's addons a server loads those that it uses; whoever wants them all still gets them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

_PROGRAM: Final = """
import json, sys
import tokenhub_addon.listening
late = {"flask", "ldap3", "numpy", "sqlalchemy.dialects.postgresql", "mitmproxy.contentviews", "tokenhub_addon.desk",
    "tokenhub_core.http.operations"}
early = sorted(late & set(sys.modules))
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


_TRUSTING: Final = """
import json, ssl, sys
read = []
real = ssl.SSLContext.set_default_verify_paths
def noted(context):
    read.append(type(context).__name__)
    real(context)
ssl.SSLContext.set_default_verify_paths = noted
import tokenhub_addon
from aiohttp import connector
early = list(read)
context = connector._SSL_CONTEXT_VERIFIED
for _ in range(2):
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
ordinary = ssl.create_default_context()
print(json.dumps([early, read, len(context.get_ca_certs()) == len(ordinary.get_ca_certs()),
    context.verify_mode == ordinary.verify_mode, context.check_hostname,
    context.verify_flags == ordinary.verify_flags]))
"""


def test_a_library_reads_whom_it_trusts_when_it_is_first_used() -> None:
    """aiohttp would twice while it is imported; whoever uses its own context trusts whom it always did."""
    done = subprocess.run(
        [sys.executable, "-c", _TRUSTING], capture_output=True, text=True, check=True, timeout=100
    )
    early, read, *alike = json.loads(done.stdout)

    assert early == []
    assert read == ["_Late", "SSLContext"]
    assert alike == [True] * 4


def test_a_library_that_is_there_already_stays_as_it_is() -> None:
    """In a program that has imported aiohttp before nothing is changed."""
    program = (
        "import aiohttp.connector as before\nimport tokenhub_addon\n"
        "print(type(before._SSL_CONTEXT_VERIFIED).__name__, type(before._SSL_CONTEXT_UNVERIFIED).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100
    )

    assert done.stdout.split() == ["SSLContext", "SSLContext"]
