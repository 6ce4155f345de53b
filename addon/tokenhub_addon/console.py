"""`tokenhub console` and `tokenhub web`: mitmproxy's own user interfaces with the addon where it belongs.

Arguments are mitmproxy's. The listener, the CA and the data directory are those of `tokenhub serve`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click
from mitmproxy import options
from mitmproxy.master import Master
from mitmproxy.tools import cmdline, main
from mitmproxy.tools.console.master import ConsoleMaster
from mitmproxy.tools.web.master import WebMaster

from tokenhub_addon.addon import TokenHub
from tokenhub_addon.engines import alone
from tokenhub_core import envfile, hostlist
from tokenhub_core.ca import CertificateAuthority
from tokenhub_core.clock import SystemClock
from tokenhub_core.config import Settings
from tokenhub_core.datadir import close_to_others
from tokenhub_core.launch.hardening import harden
from tokenhub_core.launch.paths import data_dir
from tokenhub_core.recognise import Recogniser, extra_hosts

_PASSED_ON: Final = {"ignore_unknown_options": True, "allow_extra_args": True}


@click.command(context_settings=_PASSED_ON, add_help_option=False)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def console(args: tuple[str, ...]) -> None:
    """Open mitmproxy's console with TokenHub in it."""
    harden()
    main.run(hosting(ConsoleMaster, alone, preset(os.environ)), cmdline.mitmproxy, args)


@click.command(context_settings=_PASSED_ON, add_help_option=False)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def web(args: tuple[str, ...]) -> None:
    """Open mitmweb with TokenHub in it."""
    harden()
    main.run(hosting(WebMaster, alone, preset(os.environ)), cmdline.mitmweb, args)


def preset(environ: Mapping[str, str]) -> dict[str, object]:
    """Return mitmproxy's options as TokenHub's settings have them; the CA is made if there is none.

    The addon's own options have their defaults from the same settings.
    Raises `ConfigError` where a setting cannot be used.
    """
    settings = hostlist.merged(envfile.settings(environ, data_dir(environ)))
    return {
        "confdir": str(_confdir(settings)),
        "listen_host": settings.host,
        "listen_port": settings.port,
        "mode": list(settings.modes),
        # Nothing may reach a host before it is clear who answers.
        "connection_strategy": "lazy",
        "tokenhub_data_dir": str(settings.data_dir),
    }


def _confdir(settings: Settings) -> Path:
    close_to_others(settings.data_dir)
    hosts = Recogniser(extra_hosts(settings.extra_hosts)).hosts
    authority = CertificateAuthority.open(settings.data_dir / "ca", hosts, now=SystemClock().now)
    return authority.mitmproxy_dir


def hosting[M: Master](base: type[M], make: Callable[[], TokenHub], presets: Mapping[str, object]) -> type[M]:
    """Return the master with our addon in it, before anything that saves or shows flows.

    `presets` are options; the command line and mitmproxy's own configuration file win over them.
    """

    class Hosting(base):  # type: ignore[valid-type, misc] # a base that is only known here
        def __init__(self, opts: options.Options, *args: Any, **kwargs: Any) -> None:
            super().__init__(opts, *args, **kwargs)
            ours = make()
            self.addons.add(ours)
            chain: list[object] = self.addons.chain
            chain.remove(ours)
            # Before `save`, so that a flow is redacted when it is written, and before the addon that chooses
            # layers, so that no other one has the first say.
            chain.insert(chain.index(self.addons.get("nextlayer")), ours)
            columns = {"web_columns": [*opts.web_columns, "comment"]} if "web_columns" in opts else {}
            opts.update(**presets, **columns)  # type: ignore[no-untyped-call] # mitmproxy's

    return Hosting
