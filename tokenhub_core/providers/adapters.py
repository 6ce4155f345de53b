"""How each kind of provider is spoken to: the URL, the credential's header, and which headers go along.

A dialect says what a body means; an adapter says where it goes and with what authority. The rules:

* A credential goes to its provider's own endpoints only, and the caller's credential goes to the origin only.
* Toward any other provider the caller's headers and its query pass an allow-list, so nothing the caller sent by
  habit (cookies, keys of another vendor, hop-by-hop fields) can arrive there. What belongs to a vendor's own
  family of dialects goes to that vendor only.
* Toward the origin everything passes but what belongs to one connection: the caller meant it for that host.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

import msgspec
import orjson

from tokenhub_core import __version__
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.hops import end_to_end
from tokenhub_core.ports import Secret, UpstreamRequest
from tokenhub_core.providers import vendors
from tokenhub_core.providers.endpoints import join, mount, site
from tokenhub_core.providers.vendors import ANY, Cap, Vendor, Way
from tokenhub_core.types import Dialect, Headers, Model, Provider, ProviderType, header

_AGENT: Final = f"tokenhub/{__version__}"
_ANTHROPIC_VERSION: Final = "2023-06-01"

_TRACE: Final = frozenset({"traceparent", "tracestate"})
_ACCOUNT: Final = frozenset({"openai-organization", "openai-project"})
ACCOUNT: Final = _ACCOUNT | {"x-goog-user-project", "cookie"}
"""What names the account behind a caller's own key; beside another key it is an error, or somebody else's."""
_QUERY: Final = frozenset({"alt", "beta"})
"""What of a caller's query another provider gets: the framing of its streams, and leave to use betas."""
_ANTHROPIC: Final = frozenset({Dialect.ANTHROPIC_MESSAGES, Dialect.ANTHROPIC_COUNT_TOKENS})
_OLLAMA: Final = frozenset({Dialect.OLLAMA_CHAT, Dialect.OLLAMA_GENERATE})

# RFC 9110, section 7.6.1, and what older proxies add.
# Written anew for every attempt: they describe the message that we send, not the one that came.
_OURS: Final = frozenset(
    {"host", "content-length", "content-encoding", "accept-encoding", "content-type", "accept", "expect"}
)


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one attempt."""

    provider: Provider
    model: Model
    body: bytes
    dialect: Dialect
    """What the body is written in."""
    operation: str
    """The path below the provider's base."""
    stream: bool
    credential: Secret | None
    caller: Headers
    """The caller's own header fields."""
    request_id: str
    trace: Headers = ()
    """What the provider is told of the call's trace, in the place of what the caller said of it."""
    endpoint: int = 0
    """Counts attempts: where a provider has several endpoints they are used in turn."""

    def __repr__(self) -> str:
        return f"Sending({self.provider.id}, {self.model.id}, {self.operation})"

    @property
    def base(self) -> str:
        """Return the endpoint of this attempt; raises `TokenHubError` (`INTERNAL`) where there is none."""
        endpoints = self.provider.endpoints
        if not endpoints:
            message = f"provider {self.provider.id} has no endpoint for model {self.model.id}"
            raise TokenHubError(Fault(Kind.INTERNAL, Blame.US, message, cause="no_endpoint"))
        return endpoints[self.endpoint % len(endpoints)]


class Place(msgspec.Struct, frozen=True):
    """Where an operation of a vendor is, and how it is spoken to there."""

    url: str
    way: Way
    cap: Cap | None


type Places = Callable[[ProviderType, str, Dialect, str], Place]
"""What `place` does; whoever sends much remembers it."""


def place(kind: ProviderType, base: str, dialect: Dialect, path: str) -> Place:
    """Return the place of the operation at `path` of a provider of this kind at this base, Azure's apart."""
    vendor = vendors.of(kind, base)
    return Place(_placed(vendor, kind, base, dialect, path), _way(vendor, dialect), vendor.cap)


def upstream_request(sending: Sending, places: Places = place) -> UpstreamRequest:
    """Return the request to send, credential included.

    For the origin the endpoint is the URL that the caller asked for, query included, or its scheme and host alone,
    and `credential` is not used: the caller's own headers carry one. Raises `TokenHubError` (`AUTH`) for a
    credential that cannot stand in a header, and (`INTERNAL`) for a provider without endpoints.
    """
    match sending.provider.type:
        case ProviderType.ORIGIN:
            return _origin(sending)
        case ProviderType.SIMULATOR:
            return UpstreamRequest("POST", join(sending.base, _path(sending)), _common(sending), sending.body)
        case _:
            return _vendor(sending, places)


def dialect_of(type: ProviderType) -> Dialect:  # noqa: A002 - the field's own name, `Provider.type`
    """Return the dialect that this kind of provider is spoken to in where it does not speak the call's own.

    Chat completions wherever there is a choice. That holds for Ollama, too, which loses little by it: its own two
    dialects have no place for ids of tool calls, and who speaks them is answered in them anyway (`also_of`).
    Simulators and origins speak any: their `Provider.dialect` decides.
    """
    match type:
        case ProviderType.ANTHROPIC:
            return Dialect.ANTHROPIC_MESSAGES
        case ProviderType.GEMINI:
            return Dialect.GEMINI
        case _:
            return Dialect.OPENAI_CHAT


def also_of(
    type: ProviderType,  # noqa: A002 - the field's own name, `Provider.type`
    *endpoints: str,
) -> tuple[Dialect, ...]:
    """Return the further dialects that all of these endpoints of a provider speak, for `Provider.also`."""
    spoken = [vendors.of(type, url).also for url in endpoints]
    return tuple(dialect for dialect in spoken[0] if all(dialect in one for one in spoken)) if spoken else ()


def models_url(provider: Provider, endpoint: int = 0) -> str:
    """Return the URL that lists a provider's models, empty for the origin (its list is the caller's business)."""
    if provider.type is ProviderType.ORIGIN or not provider.endpoints:
        return ""
    base = provider.endpoints[endpoint % len(provider.endpoints)]
    if provider.type is ProviderType.SIMULATOR:
        return join(base, "/models")
    if provider.type is ProviderType.AZURE:
        _, _, query = base.partition("?")
        return f"{_azure_site(base)}/openai{f'/models?{query}' if query else '/v1/models'}"
    vendor = vendors.of(provider.type, base)
    return _placed(vendor, provider.type, base, dialect_of(provider.type), "/models")


def health_url(provider: Provider, endpoint: int = 0) -> str:
    """Return the URL to probe, empty where there is nothing to probe.

    vLLM answers `/health` at its root without a credential; every other kind is asked for its models, which
    costs nothing and needs the same credential as a call.
    """
    if provider.type is ProviderType.VLLM and provider.endpoints:
        return site(provider.endpoints[endpoint % len(provider.endpoints)]) + "/health"
    return models_url(provider, endpoint)


def credential_headers(provider: Provider, credential: Secret | None) -> Headers:
    """Return the header fields that carry a provider's credential, and the version where one is required.

    For probes and model lists, which have no caller. Raises like `upstream_request`.
    """
    if provider.type in (ProviderType.ORIGIN, ProviderType.SIMULATOR):
        return ()
    dialect = dialect_of(provider.type)
    base = provider.endpoints[0] if provider.endpoints else ""
    headers = _key(provider, credential, _way(vendors.of(provider.type, base), dialect))
    return (*headers, ("anthropic-version", _ANTHROPIC_VERSION)) if dialect in _ANTHROPIC else headers


def key_at(
    provider: Provider, credential: Secret | None, *, base: str, dialect: Dialect, path: str
) -> Headers:
    """Return the field that carries a provider's credential at `path` of its host, where `base` is its endpoint.

    For what passes; nothing where it has none. Raises `TokenHubError` (`AUTH`) as `upstream_request` does.
    """
    vendor = vendors.of(provider.type, base)
    fitting = [way.prefix for way in vendor.ways if f"{path.partition('?')[0]}/".startswith(f"{way.prefix}/")]
    prefix = max(fitting, key=len, default="")
    way = next((way for way in vendor.ways if prefix and way.prefix == prefix), _way(vendor, dialect))
    return _key(provider, credential, way)


# --- other providers -----------------------------------------------------------------------------------------


def _vendor(sending: Sending, places: Places) -> UpstreamRequest:
    provider = sending.provider
    if provider.type is ProviderType.AZURE:
        vendor = vendors.of(provider.type, sending.base)
        there = Place(_azure(sending), _way(vendor, sending.dialect), vendor.cap)
    else:
        there = places(provider.type, sending.base, sending.dialect, _path(sending))
    headers = (
        *_key(provider, sending.credential, there.way),
        *_version(sending),
        *_common(sending),
        *sending.trace,
        *_allowed(sending.caller, _own(provider) if sending.trace else _TRACE | _own(provider)),
    )
    return UpstreamRequest("POST", there.url, headers, _capped(sending, there.cap))


def _way(vendor: Vendor, dialect: Dialect, prefix: str = "") -> Way:
    """Return how a dialect is spoken: at `prefix` if it is spoken there, else where it is spoken first."""
    speaking = [way for way in vendor.ways if dialect in way.dialects] or vendor.ways
    return next((way for way in speaking if prefix and way.prefix == prefix), speaking[0])


def _placed(vendor: Vendor, kind: ProviderType, base: str, dialect: Dialect, path: str) -> str:
    """Return the URL of a dialect's operation: below the vendor's prefix for it, else as `join` has it."""
    if kind is ProviderType.OLLAMA:
        base = base.removesuffix("/api")
    place = mount(base, [way.prefix for way in vendor.ways])
    if place is None or not _spoken(vendor, dialect):
        return join(base, path)
    where, prefix = place
    return where + _way(vendor, dialect, prefix).prefix + path


def _spoken(vendor: Vendor, dialect: Dialect) -> bool:
    return any(dialect in way.dialects for way in vendor.ways)


def _azure(sending: Sending) -> str:
    """Return an Azure URL: that of the deployment where the endpoint carries an `api-version`, else `/openai/v1`."""
    base, _, query = sending.base.partition("?")
    ways = vendors.of(ProviderType.AZURE, sending.base).ways
    speaking = [way for way in ways if sending.dialect in way.dialects] or [ways[0]]
    dated = [way for way in speaking if way.prefix != ways[0].prefix]
    if not query or not dated:
        return _azure_site(base) + speaking[0].prefix + _path(sending)
    # A slash in a name would be another place.
    prefix = dated[0].prefix.replace(ANY, quote(sending.model.name, safe=""))
    return f"{_azure_site(base)}{prefix}{sending.operation.partition('?')[0]}?{query}"


def _azure_site(base: str) -> str:
    """Return what stands before the service's own paths."""
    return re.split(r"(?<!/)/(?:openai|models|anthropic)(?=[/?]|\Z)|\?", base, maxsplit=1)[0].rstrip("/")


def _path(sending: Sending) -> str:
    """Return the operation with what another provider may see of its query: a key in it belongs to the origin."""
    path, _, query = sending.operation.partition("?")
    kept = "&".join(item for item in query.split("&") if item.partition("=")[0] in _QUERY)
    return f"{path}?{kept}" if kept else path


def _version(sending: Sending) -> Headers:
    if sending.dialect not in _ANTHROPIC:
        return ()
    own = _allowed(sending.caller, frozenset({"anthropic-version"}))
    return (("anthropic-version", header(own, "anthropic-version", _ANTHROPIC_VERSION)),)


def _own(provider: Provider) -> frozenset[str]:
    """Return the names of the fields that only this vendor understands. Only callers of its dialects send them."""
    match provider.type:
        case ProviderType.ANTHROPIC:
            return frozenset({"anthropic-beta"})
        case ProviderType.OPENAI:
            # Organisation and project name the account behind the caller's key; beside another key they are an
            # error.
            return frozenset({"openai-beta"}) | (_ACCOUNT if provider.cred_store == "caller" else frozenset())
        case _:
            return frozenset()


def _capped(sending: Sending, cap: Cap | None) -> bytes:
    """Return the body with its token cap under the name that the vendor knows.

    The only change that is ever made to a caller's own bytes here, and only where they would be refused or the
    cap ignored.
    """
    body = sending.body
    if cap is None or sending.dialect is not Dialect.OPENAI_CHAT or f'"{cap.unknown}"'.encode() not in body:
        return body
    if not cap.models.match(sending.model.name):
        return body
    data = orjson.loads(body)
    if cap.unknown not in data:
        return body
    if data.get(cap.known) is not None or data[cap.unknown] is None:
        del data[cap.unknown]
        return orjson.dumps(data)
    data.pop(cap.known, None)
    renamed = {cap.known if key == cap.unknown else key: value for key, value in data.items()}
    return orjson.dumps(renamed)


# --- the origin ------------------------------------------------------------------------------------------------


def _origin(sending: Sending) -> UpstreamRequest:
    kept = tuple(
        (name, value) for name, value in end_to_end(sending.caller) if name not in _OURS and _printable(value)
    )
    common = tuple((name, value) for name, value in _common(sending) if not header(kept, name))
    rest = sending.base.partition("://")[2]
    whole = "/" in rest.rstrip("/")
    url = sending.base if whole else join(sending.base, sending.operation)
    return UpstreamRequest("POST", url, (*kept, *common), sending.body)


# --- header fields ---------------------------------------------------------------------------------------------


def _common(sending: Sending) -> Headers:
    # A compressor holds bytes back until it has a block's worth, so a compressed stream arrives in lumps: streams
    # are asked for as they are. Whole answers shrink to a fifth and lose nothing by waiting.
    return (
        ("content-type", "application/json"),
        ("accept", _accepted(sending)),
        ("accept-encoding", "identity" if sending.stream else "gzip, deflate"),
        ("user-agent", _AGENT),
        ("x-request-id", sending.request_id),
    )


def _accepted(sending: Sending) -> str:
    """Return the type of the answer that the operation gives."""
    if not sending.stream:
        return "application/json"
    if sending.dialect in _OLLAMA:
        return "application/x-ndjson"
    # Gemini's streams are arrays unless the query asks for events.
    if sending.dialect is Dialect.GEMINI and "alt=sse" not in sending.operation:
        return "application/json"
    return "text/event-stream"


def _allowed(caller: Headers, names: frozenset[str]) -> Headers:
    return tuple((name, value) for name, value in caller if name in names and _printable(value))


def _printable(value: str) -> bool:
    # A line break in a value would be a second header.
    return not any((char < " " and char != "\t") or char == "\x7f" for char in value)


def _key(provider: Provider, credential: Secret | None, way: Way) -> Headers:
    # Files and environment variables often end in a line break that is not part of the key.
    value = credential.reveal().strip() if credential else ""
    if not value:
        return ()
    if not (value.isascii() and _printable(value) and " " not in value):
        message = f"the credential of provider {provider.id} has characters that no header can carry"
        raise TokenHubError(Fault(Kind.AUTH, Blame.CREDENTIAL, message, cause="bad_credential"))
    return ((way.header, way.scheme + value),)
