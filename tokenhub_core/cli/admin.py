"""The admin API of the TokenHub that is serving here, for the commands that use it."""

from __future__ import annotations

import http.client
import ipaddress
import os
import urllib.error
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

import msgspec

from tokenhub_core import __version__
from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.paths import data_dir
from tokenhub_core.launch.serveinfo import read_serve_info, serving
from tokenhub_core.ports import Secret
from tokenhub_core.types import Json

_SECONDS: Final = 30.0
_MAX_ANSWER: Final = 32 * 1024 * 1024
_MAX_WORDS: Final = 500


class _NoRedirects(HTTPRedirectHandler):
    """Leaves a redirect what it is: an answer that is no success. The token goes to one host only."""

    def redirect_request(self, *_: Any) -> None:
        return None


class AdminClient:
    """Speaks JSON with the admin API at `url`.

    Every method takes a path from the root (`/admin/v1/…`) and returns the decoded object, an empty one for an empty
    answer. Each raises `ConfigError` with the server's own words where it refuses, and where it cannot be reached.
    """

    def __init__(self, url: str, token: Secret, *, seconds: float = _SECONDS) -> None:
        self._url = _safe(url).rstrip("/")
        self._token = token
        self._seconds = seconds
        # The environment may well point at our own proxy, which is not the way to the admin API.
        self._opener: OpenerDirector = build_opener(ProxyHandler({}), _NoRedirects())

    @property
    def url(self) -> str:
        """Return where the server is."""
        return self._url

    def get(self, path: str) -> Json:
        """Read something."""
        return self._ask("GET", path, None)

    def post(self, path: str, json: Mapping[str, Any] | None = None) -> Json:
        """Make or do something."""
        return self._ask("POST", path, json)

    def lines(self, path: str, json: Mapping[str, Any] | None = None) -> Iterator[bytes]:
        """Read something line by line, or make it where `json` is given: what is told as it comes."""
        method, body = ("GET", None) if json is None else ("POST", msgspec.json.encode(json))
        with self._open(method, path, body, "application/json", accept="application/x-ndjson") as response:
            while line := response.readline(_MAX_ANSWER):
                yield line

    def stream(self, path: str, json: Mapping[str, Any]) -> Iterator[Json]:
        """Make or do something that takes its time, and yield what is told of it, an object a line."""
        for line in self.lines(path, json):
            yield _decoded(line)

    def events(self, last: str = "") -> Generator[tuple[str, str, Json]]:
        """Yield events as they come: id, type and data. `last` is the id of the last one that was heard."""
        name = kind = ""
        more = {"last-event-id": last} if last else {}
        path = "/admin/v1/events"
        with self._open("GET", path, None, "", accept="text/event-stream", more=more) as response:
            while line := response.readline(_MAX_ANSWER):
                field, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(": ")
                if field == "id":
                    name = value
                elif field == "event":
                    kind = value
                elif field == "data":
                    yield name, kind, _decoded(value.encode())

    def upload(self, path: str, data: bytes) -> Json:
        """Send bytes as they are."""
        return self._send("POST", path, data, "application/octet-stream")

    def put(self, path: str, json: Mapping[str, Any] | None = None) -> Json:
        """Replace something."""
        return self._ask("PUT", path, json)

    def patch(self, path: str, json: Mapping[str, Any] | None = None) -> Json:
        """Change something."""
        return self._ask("PATCH", path, json)

    def delete(self, path: str) -> Json:
        """Remove something."""
        return self._ask("DELETE", path, None)

    def _ask(self, method: str, path: str, json: Mapping[str, Any] | None) -> Json:
        try:
            body = None if json is None else msgspec.json.encode(json)
        except UnicodeEncodeError:
            raise ConfigError("what was given is not valid Unicode text") from None
        return self._send(method, path, body, "application/json")

    def _send(self, method: str, path: str, body: bytes | None, kind: str) -> Json:
        with self._open(method, path, body, kind) as response:
            return _decoded(response.read(_MAX_ANSWER))

    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        body: bytes | None,
        kind: str,
        *,
        accept: str = "application/json",
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> Iterator[Any]:
        """Yield the response; what goes wrong while it is read is told like what goes wrong before."""
        headers = {
            "authorization": f"Bearer {self._token.reveal()}",
            "accept": accept,
            "user-agent": f"tokenhub-cli/{__version__}",
            **more,
        }
        if body is not None:
            headers["content-type"] = kind
        try:
            request = Request(self._url + path, data=body, headers=headers, method=method)  # noqa: S310 - see `_safe`
            with self._opener.open(request, timeout=self._seconds) as response:
                yield response
        except urllib.error.HTTPError as error:
            with error:
                raise ConfigError(_words(error)) from None
        except UnicodeEncodeError:
            raise ConfigError("what was given is not valid Unicode text") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise ConfigError(f"cannot reach the admin API at {self._url}: {reason}") from None


def admin_client(data: Path | None) -> AdminClient:
    """Return a client of the TokenHub that serves from `data` (None: the default place).

    The token is `TOKENHUB_ADMIN_TOKEN`, else the file `admin-token` in the data directory. Raises `ConfigError` where
    nobody serves or no token is found.
    """
    place = data or data_dir(os.environ)
    return AdminClient(serving(place).side_url, _token(place))


def running_client(data: Path | None, *, seconds: float = _SECONDS) -> AdminClient | None:
    """Return what `admin_client` does, None where nobody serves from there. It waits `seconds` for each answer."""
    place = data or data_dir(os.environ)
    if read_serve_info(place) is None:
        return None
    try:
        info = serving(place)
    except ConfigError:
        return None
    return AdminClient(info.side_url, _token(place), seconds=seconds)


def _token(place: Path) -> Secret:
    named = os.environ.get("TOKENHUB_ADMIN_TOKEN", "").strip()
    path = place / "admin-token"
    try:
        token = named or path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"no admin token: TOKENHUB_ADMIN_TOKEN is not set, {path}: {reason}") from None
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError("the admin token cannot be used: it must be visible ASCII characters")
    return Secret(token)


def _safe(url: str) -> str:
    """Return `url` if the token may travel on it: encrypted, or not leaving this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _loopback(parts.hostname or "")):
        return url
    raise ConfigError(f"the admin API at {url}: only https, or http to this machine, carries the admin token")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _decoded(body: bytes) -> Json:
    if not body:
        return {}
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError):
        raise ConfigError("the admin API answered with something that is not a JSON object") from None


def _words(error: urllib.error.HTTPError) -> str:
    """Return the server's message as one line that does nothing to a terminal."""
    try:
        told = _decoded(error.read(_MAX_ANSWER))["error"]["message"]
    except (ConfigError, OSError, http.client.HTTPException, KeyError, TypeError):
        told = ""
    words = "".join(char if char.isprintable() else " " for char in told) if isinstance(told, str) else ""
    return words[:_MAX_WORDS].strip() or f"the admin API answered with status {error.code}"
