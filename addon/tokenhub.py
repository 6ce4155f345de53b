"""TokenHub as a script of mitmproxy's: `mitmproxy -s addon/tokenhub.py`, and the same with mitmweb or mitmdump."""

import logging

try:
    from tokenhub_addon.engines import alone
except ImportError as error:
    # An error while it starts ends mitmproxy: it must not run on without us.
    _HINT = "install it where mitmproxy runs: pip install tokenhub"
    logging.getLogger(__name__).error("TokenHub cannot be loaded (%s); %s", error, _HINT)
    addons = []
else:
    addons = [alone()]
