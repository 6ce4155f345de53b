"""Makes the two Python HTTP clients that ignore the proxy environment honour it: aiohttp and bare urllib3.

Nothing is imported that the program does not import itself: a finder in front of all others watches for two
modules and patches each right after it is loaded. Runs on Python 3.7 and newer. A patch that does not fit
the version at hand is skipped in silence: the program works as it would have without us.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # what type checkers take for true; importing `typing` would cost every start 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def install() -> None:
    """Watch for aiohttp and urllib3."""
    sys.meta_path.insert(0, _Watch({"aiohttp.client": _patch_aiohttp, "urllib3.poolmanager": _patch_urllib3}))


class _Watch:
    """A finder that finds nothing itself: it lets the others look and wraps what they find."""

    def __init__(self, patches: dict[str, Callable[[Any], None]]) -> None:
        self._patches = patches

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the others' spec for a watched module, None (no opinion) for every other one."""
        patch = self._patches.pop(name, None)
        if patch is None:
            return None
        for finder in sys.meta_path:
            find: Any = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if finder is not self and find else None
            if spec is not None:
                _patch_after(spec.loader, patch)
                return spec
        return None


def _patch_after(loader: Any, patch: Callable[[Any], None]) -> None:
    """Run `patch` on the module once `loader` has run it."""
    run = getattr(loader, "exec_module", None)
    if run is None:
        return

    def exec_module(module: Any) -> None:
        run(module)
        try:  # noqa: SIM105 - importing contextlib would cost every start
            patch(module)
        except Exception:  # noqa: BLE001, S110 - see the module's docstring
            pass

    try:  # noqa: SIM105 - as above
        loader.exec_module = exec_module
    except AttributeError:
        pass


def _patch_aiohttp(client: Any) -> None:
    """Make every session read the proxy variables.

    Also where the program says `trust_env=False`: libraries pass aiohttp's default on by name.
    """
    session = client.ClientSession
    original = session.__init__

    def start(self: Any, *args: Any, **options: Any) -> None:
        options["trust_env"] = True
        original(self, *args, **options)

    start.__name__, start.__doc__ = original.__name__, original.__doc__
    start.__dict__["__wrapped__"] = original  # what inspect.signature follows
    session.__init__ = start


def _patch_urllib3(poolmanager: Any) -> None:
    """Send what a plain `PoolManager` is asked for through a `ProxyManager` where the variables say so.

    Only that very class: a `ProxyManager` and a program's own subclass know what they want. Whole requests
    are handed over at `urlopen`, because a proxied plain-http request is written differently; code that asks
    for a connection pool gets a proxied one for https only, where the tunnel makes no difference.
    """
    # Here and not above: every Python start would pay for it, and a program with urllib3 has most of it.
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415

    plain = poolmanager.PoolManager
    open_direct, pool_direct = plain.urlopen, plain.connection_from_host

    def proxied(manager: Any, scheme: Any, host: Any) -> Any:
        """Return the manager's proxied twin for a destination; None where it goes direct."""
        proxy = getproxies().get(scheme)
        if type(manager) is not plain or not proxy or not host or proxy_bypass(host):
            return None
        twins = manager.__dict__.setdefault("_tokenhub_twins", {})
        if proxy not in twins:
            auth = poolmanager.parse_url(proxy).auth
            twins[proxy] = poolmanager.ProxyManager(
                proxy,
                headers=manager.headers,
                proxy_headers=_basic(auth) if auth else None,
                **manager.connection_pool_kw,
            )
        return twins[proxy]

    def urlopen(self: Any, method: Any, url: Any, *args: Any, **options: Any) -> Any:
        to = poolmanager.parse_url(url)
        twin = proxied(self, to.scheme, to.host)
        if twin is not None:
            return twin.urlopen(method, url, *args, **options)
        return open_direct(self, method, url, *args, **options)

    def connection_from_host(
        self: Any, host: Any, port: Any = None, scheme: Any = "http", pool_kwargs: Any = None
    ) -> Any:
        twin = proxied(self, scheme, host) if scheme == "https" else None
        if twin is not None:
            return twin.connection_from_host(host, port, scheme, pool_kwargs)
        return pool_direct(self, host, port, scheme, pool_kwargs)

    plain.urlopen, plain.connection_from_host = urlopen, connection_from_host


def _basic(auth: str) -> dict[str, str]:
    """Return the header for a proxy that wants `user:password`, which urllib3 does not read from the URL."""
    from base64 import b64encode  # noqa: PLC0415 - as above
    from urllib.parse import unquote  # noqa: PLC0415 - as above

    return {"proxy-authorization": "Basic " + b64encode(unquote(auth).encode()).decode("ascii")}
