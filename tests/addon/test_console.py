"""The launchers of mitmproxy's own user interfaces."""

from __future__ import annotations

from pathlib import Path

import pytest
from mitmproxy import options
from mitmproxy.master import Master
from mitmproxy.tools.console.master import ConsoleMaster
from mitmproxy.tools.web.master import WebMaster

from tests.addon.inspection import make_addon
from tests.addon.scenes import ScriptedEngine, Upstream
from tokenhub_addon.console import hosting, preset
from tokenhub_core.errors import ConfigError


@pytest.mark.parametrize("base", [ConsoleMaster, WebMaster])
async def test_the_addon_stands_before_what_saves_and_shows_flows(base: type[Master], tmp_path: Path) -> None:
    """In both interfaces the addon comes before `save` and the view, and its settings are the options'."""
    ours = make_addon(ScriptedEngine(), Upstream())
    presets = preset({"TOKENHUB_DATA_DIR": str(tmp_path / "data"), "TOKENHUB_MAX_BODY_BYTES": "2048"})
    opts = options.Options()
    master = hosting(base, lambda: ours, presets)(opts)
    ca = tmp_path / "data" / "ca" / "mitmproxy"
    try:
        chain = [getattr(addon, "name", type(addon).__name__.lower()) for addon in master.addons.chain]
        assert (
            chain.index("proxyserver") < chain.index("tokenhub") < chain.index("save") < chain.index("view")
        )
        assert opts.connection_strategy == "lazy"
        assert opts.tokenhub_max_body == 2048
        assert (opts.listen_host, opts.listen_port) == ("127.0.0.1", 8080)
        assert opts.confdir == str(ca)
        assert "web_columns" not in opts or "comment" in opts.web_columns
    finally:
        await Master.done(master)


def test_a_setting_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    """A malformed extra host stops the launcher with one line."""
    with pytest.raises(ConfigError, match="extra host"):
        preset({"TOKENHUB_DATA_DIR": str(tmp_path), "TOKENHUB_EXTRA_HOSTS": "nonsense"})
