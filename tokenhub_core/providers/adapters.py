"""How each kind of provider is spoken to: the URL, the credential's header, and which headers go along.

A dialect says what a body means; an adapter says where it goes and with what authority. The rules:

* A credential goes to its provider's own endpoints only, and the caller's credential goes to the origin only.
* Toward any other provider the caller's headers pass an allow-list, so nothing the caller sent by habit
  (cookies, keys of another vendor, hop-by-hop fields) can arrive there.
* Toward the origin everything passes but what belongs to one connection: the caller meant it for that host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from tokenhub_core import __version__
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import Secret, UpstreamRequest
from tokenhub_core.providers.endpoints import join, site
from tokenhub_core.types import Dialect, Headers, Model, Provider, ProviderType, header

_AGENT: Final = f"tokenhub/{__version__}"
_ANTHROPIC_VERSION: Final = "2023-06-01"

_TRACE: Final = frozenset({"traceparent", "tracestate"})
_ANTHROPIC_OWN: Final = frozenset({"anthropic-beta", "anthropic-version"})
_ACCOUNT: Final = frozenset({"openai-organization", "openai-project"})

# RFC 9110, section 7.6.1, and what older proxies add.
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    }
)
# Written anew for every attempt: they describe the message that we send, not the one that came.
_OURS: Final = frozenset(
    {"host", "content-length", "content-encoding", "accept-encoding", "content-type", "accept", "expect"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """The facts of one attempt."""

    provider: Provider
    model: Model
    body: bytes = field(repr=False)
    dialect: Dialect
    """What the body is written in."""
    operation: str
    """The path below the provider's base."""
    stream: bool
    credential: Secret | None
    caller: Headers = field(repr=False)
    """The caller's own header fields."""
    request_id: str
    endpoint: int = 0
    """Counts attempts: where a provider has several endpoints they are used in turn."""

    @property
    def base(self) -> str:
        """Return the endpoint of this attempt; raises `TokenHubError` (`INTERNAL`) where there is none."""
        endpoints = self.provider.endpoints
        if not endpoints:
            message = f"provider {self.provider.id} has no endpoint for model {self.model.id}"
            raise TokenHubError(Fault(Kind.INTERNAL, Blame.US, message, cause="no_endpoint"))
        return endpoints[self.endpoint % len(endpoints)]


def upstream_request(sending: Sending) -> UpstreamRequest:
    """Return the request to send, credential included.

    For the origin the endpoint is the URL that the caller asked for, query included, or its scheme and host alone,
    and `credential` is not used: the caller's own headers carry one. Raises `TokenHubError` (`AUTH`) for a
    credential that cannot stand in a header, and (`INTERNAL`) for a provider without endpoints.
    """
    return _ADAPTERS[sending.provider.type](sending)


def dialect_of(type: ProviderType) -> Dialect:  # noqa: A002 - the field's own name, `Provider.type`
    """Return the dialect that this kind of provider speaks unless its record says otherwise.

    Simulators and origins speak either: their `Provider.dialect` decides.
    """
    return Dialect.ANTHROPIC_MESSAGES if type is ProviderType.ANTHROPIC else Dialect.OPENAI_CHAT


def models_url(provider: Provider, endpoint: int = 0) -> str:
    """Return the URL that lists a provider's models, empty for the origin (its list is the caller's business)."""
    if provider.type is ProviderType.ORIGIN or not provider.endpoints:
        return ""
    return join(provider.endpoints[endpoint % len(provider.endpoints)], "/models")


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
    if provider.type is ProviderType.ANTHROPIC:
        return (*_key(provider, credential, "x-api-key", ""), ("anthropic-version", _ANTHROPIC_VERSION))
    if provider.type in (ProviderType.ORIGIN, ProviderType.SIMULATOR):
        return ()
    return _key(provider, credential, "authorization", "Bearer ")


def _openai(sending: Sending) -> UpstreamRequest:
    provider = sending.provider
    allowed = _TRACE
    if provider.type is ProviderType.OPENAI and provider.cred_store == "caller":
        # Organisation and project name the account behind the caller's key; beside another key they are an error.
        allowed |= _ACCOUNT
    headers = (
        *_key(provider, sending.credential, "authorization", "Bearer "),
        *_common(sending),
        *_allowed(sending.caller, allowed),
    )
    return UpstreamRequest("POST", join(sending.base, sending.operation), headers, sending.body)


def _anthropic(sending: Sending) -> UpstreamRequest:
    # Only callers that speak Anthropic send these two, so no look at the caller's dialect is needed.
    own = _allowed(sending.caller, _ANTHROPIC_OWN)
    headers = (
        *_key(sending.provider, sending.credential, "x-api-key", ""),
        ("anthropic-version", header(own, "anthropic-version", _ANTHROPIC_VERSION)),
        *_common(sending),
        *(item for item in own if item[0] != "anthropic-version"),
        *_allowed(sending.caller, _TRACE),
    )
    return UpstreamRequest("POST", join(sending.base, sending.operation), headers, sending.body)


def _simulator(sending: Sending) -> UpstreamRequest:
    url = join(sending.base, sending.operation)
    return UpstreamRequest("POST", url, _common(sending), sending.body)


def _origin(sending: Sending) -> UpstreamRequest:
    listed = {
        token.strip().lower()
        for name, value in sending.caller
        if name == "connection"
        for token in value.split(",")
    }
    kept = tuple(
        (name, value)
        for name, value in sending.caller
        if name not in _HOP_BY_HOP
        and name not in _OURS
        and name not in listed
        and not name.startswith(("x-tokenhub-", ":"))
        and _printable(value)
    )
    common = tuple((name, value) for name, value in _common(sending) if not header(kept, name))
    rest = sending.base.partition("://")[2]
    whole = "/" in rest.rstrip("/")
    url = sending.base if whole else join(sending.base, sending.operation)
    return UpstreamRequest("POST", url, (*kept, *common), sending.body)


_ADAPTERS: Final[Mapping[ProviderType, Callable[[Sending], UpstreamRequest]]] = MappingProxyType(
    {
        ProviderType.OPENAI: _openai,
        ProviderType.OPENAI_COMPATIBLE: _openai,
        ProviderType.VLLM: _openai,
        ProviderType.ANTHROPIC: _anthropic,
        ProviderType.SIMULATOR: _simulator,
        ProviderType.ORIGIN: _origin,
    }
)


def _common(sending: Sending) -> Headers:
    # A compressor holds bytes back until it has a block's worth, so a compressed stream arrives in lumps: streams
    # are asked for as they are. Whole answers shrink to a fifth and lose nothing by waiting.
    return (
        ("content-type", "application/json"),
        ("accept", "text/event-stream" if sending.stream else "application/json"),
        ("accept-encoding", "identity" if sending.stream else "gzip, deflate"),
        ("user-agent", _AGENT),
        ("x-request-id", sending.request_id),
    )


def _allowed(caller: Headers, names: frozenset[str]) -> Headers:
    return tuple((name, value) for name, value in caller if name in names and _printable(value))


def _printable(value: str) -> bool:
    # A line break in a value would be a second header.
    return not any((char < " " and char != "\t") or char == "\x7f" for char in value)


def _key(provider: Provider, credential: Secret | None, name: str, prefix: str) -> Headers:
    # Files and environment variables often end in a line break that is not part of the key.
    value = credential.reveal().strip() if credential else ""
    if not value:
        return ()
    if not (value.isascii() and _printable(value) and " " not in value):
        message = f"the credential of provider {provider.id} has characters that no header can carry"
        raise TokenHubError(Fault(Kind.AUTH, Blame.CREDENTIAL, message, cause="bad_credential"))
    return ((name, prefix + value),)
