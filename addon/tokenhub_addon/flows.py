"""What stands in a flow: its credentials left out, its answer's head, and the decision that was made for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, cast

from mitmproxy import http
from mitmproxy.flow import Flow
from mitmproxy.net.http import status_codes

from tokenhub_core.admission.doorkeeper import ASKING, Entry
from tokenhub_core.dialects.base import ErrorReply
from tokenhub_core.errors import Fault
from tokenhub_core.hops import end_to_end
from tokenhub_core.ports import Reply, Summary
from tokenhub_core.recognise import bare_host, without_secrets
from tokenhub_core.types import Caller, Dialect, Headers, Lane

type Errors = Callable[[Dialect | None, Fault, str], ErrorReply]
"""Tells a fault in a dialect; the last argument is the request id."""

NOTE: Final = "tokenhub_caller"
"""The name in a flow's metadata of the note that says whose call it is: see `replaying`."""

WARNING: Final = ":warning:"
"""The marker of a flow that came to an error."""
REPEAT: Final = ":repeat:"
"""The marker of a flow that was answered at a second try, or a later one."""

REDACTED: Final = "[redacted]"
"""What stands in a flow where a secret stood."""

_SECRETS: Final = frozenset({b"authorization", b"api-key", b"cookie", b"set-cookie"})
_ENDINGS: Final = (b"-api-key", b"-authorization", b"-auth", b"-token", b"-secret", b"-password")
"""What the names of vendors' own fields end with. More than is needed does no harm: all of it is put back."""
_PROXY_SECRETS: Final = frozenset({b"proxy-authorization"})
_PATH: Final = b":path"
"""Stands for the name of a field where the secret is in the query."""
_MASK: Final = "***"
_PROTOCOLS: Final = b"sec-websocket-protocol"
_KEY: Final = b"openai-insecure-api-key."
"""Browsers cannot set other fields of a handshake, so OpenAI takes the key for the name of a subprotocol."""

_FRAMED: Final = frozenset({"transfer-encoding"})
_LAST: Final = ("connection", b"close")
"""By it mitmproxy knows that a connection ends with this answer."""
_SWITCHING: Final = frozenset({"connection", "upgrade"})
_FRAMING: Final = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})


def redact(request: http.Request) -> list[tuple[bytes, bytes]]:
    """Take the credentials out of a request and return them, names in lower case, in order."""
    secrets = _conceal(request)
    path = request.data.path
    bare = without_secrets(path.decode("latin-1")).encode("latin-1")
    if bare != path:
        secrets.append((_PATH, path))
        request.data.path = bare
    return secrets


def scrubbed[F: Flow](flow: F) -> F:
    """Return the flow as it may be written to a file: one of HTTP without its credentials, in both directions."""
    if not isinstance(flow, http.HTTPFlow):
        return flow
    clean = flow.copy()  # type: ignore[no-untyped-call] # mitmproxy's
    clean.id = flow.id
    # Whose call it was: good in this process only, and nothing for a file.
    clean.metadata.pop(NOTE, None)
    # What the user has not saved on purpose: the flow as it was before a change by hand, with what was typed in since.
    clean._backup = None
    redact(clean.request)
    if clean.response is not None:
        _conceal(clean.response)
    return cast("F", clean)


def _conceal(message: http.Message) -> list[tuple[bytes, bytes]]:
    """Put the mask in the place of the secrets in a message's headers, and return them."""
    secrets: list[tuple[bytes, bytes]] = []
    fields: list[tuple[bytes, bytes]] = []
    for name, value in message.headers.fields:
        lower = name.lower()
        if _secret(lower, value) and value != REDACTED.encode():
            secrets.append((lower, value))
            fields.append((name, REDACTED.encode()))
        else:
            fields.append((name, value))
    message.headers.fields = tuple(fields)
    return secrets


def _secret(name: bytes, value: bytes) -> bool:
    """Tell whether a field, its name in lower case, holds a credential."""
    if name == _PROTOCOLS:
        return _KEY in value
    return name in _SECRETS or name in _PROXY_SECRETS or name.endswith(_ENDINGS)


def path_of(request: http.Request, secrets: Sequence[tuple[bytes, bytes]]) -> str:
    """Return the path with its secrets; what the user has changed since stays changed."""
    path = request.path
    whole = next((_text(value) for name, value in secrets if name == _PATH), None)
    if whole is None:
        return path
    if path == without_secrets(whole):
        return whole
    known = dict(field.partition("=")[::2] for field in whole.partition("?")[2].split("&"))
    bare, mark, query = path.partition("?")
    fields = (
        f"{name}={known.get(name, value)}" if value == _MASK else field
        for field in query.split("&")
        for name, _, value in (field.partition("="),)
    )
    return f"{bare}{mark}{'&'.join(fields)}"


def drop_masks(request: http.Request) -> None:
    """Take out of a request what was redacted in it: fields, and parameters of its query."""
    request.headers.fields = tuple(pair for pair in request.headers.fields if pair[1] != REDACTED.encode())
    bare, _, query = request.path.partition("?")
    left = "&".join(field for field in query.split("&") if not field.endswith(f"={_MASK}"))
    request.path = f"{bare}?{left}" if left else bare


def unredacted(
    fields: Iterable[tuple[bytes, bytes]], secrets: Sequence[tuple[bytes, bytes]]
) -> Iterable[tuple[bytes, bytes]]:
    """Yield the fields with their secrets; what the user has changed since stays changed.

    Credentials for the proxy itself go no further than here.
    """
    left = list(secrets)
    for name, value in fields:
        lower = name.lower()
        if value == REDACTED.encode():
            secret = next((pair for pair in left if pair[0] == lower), None)
            if secret is None or lower in _PROXY_SECRETS:
                continue
            left.remove(secret)
            yield name, secret[1]
        elif lower != b"proxy-connection":
            yield name, value


def established() -> http.Response:
    """Return the answer to a CONNECT."""
    head = b"HTTP/1.1", 200, b"Connection established"
    return http.Response(*head, http.Headers(), b"", None, 0.0, 0.0)


def go_on(message: http.Request | http.Response, *, switching: bool = False) -> None:
    """Leave in the head of a message what may go on to the other side; how it is framed is mitmproxy's to write.

    `switching`: it asks for a WebSocket, or grants one.
    """
    kept = {*end_to_end(lower(message.headers.fields))}
    staying = _FRAMED | _SWITCHING if switching else _FRAMED
    message.headers.fields = tuple(
        (name, value)
        for name, value in message.headers.fields
        if (plain := _text(name).lower()) in staying
        or (plain, _text(value)) in kept
        or (plain, value.strip().lower()) == _LAST
    )


def settle(flow: http.HTTPFlow) -> None:
    """Take the proxy's password out of a flow, and let its request name one host.

    Where it names two, the target counts, and `Host` follows (RFC 9112, 3.2.2).
    """
    if "proxyauth" in flow.metadata:
        flow.metadata["proxyauth"] = (flow.metadata["proxyauth"][0], REDACTED)
    request = flow.request
    named = request.headers.get_all("host")
    if request.authority and named and {*map(bare_host, named)} != {bare_host(request.authority)}:
        request.headers["host"] = request.authority


def lower(fields: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return header fields as the engine has them: text, names in lower case."""
    return tuple((_text(name).lower(), _text(value)) for name, value in fields)


def raw(fields: Headers) -> tuple[tuple[bytes, bytes], ...]:
    """Return header fields as mitmproxy has them; undoes `lower`, but for the names' case."""
    return tuple(
        (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape"))
        for name, value in fields
    )


def _text(given: bytes) -> str:
    return given.decode("utf-8", "surrogateescape")


NOBODY: Final = Entry((), "")
"""Who was not let in."""


def caller(flow: http.HTTPFlow, entry: Entry = NOBODY) -> Caller:
    """Return who sent a flow's request."""
    client = flow.client_conn
    user = flow.metadata.get("proxyauth") or ("",)
    return Caller(
        peer=client.peername[0],
        lane=Lane.INSPECT,
        mode=client.proxy_mode.type_name,
        proxy_user=entry.user or str(user[0]),
        program=flow.request.headers.get("user-agent", "").partition(" ")[0][:80],
        key=entry.key,
    )


def declared_size(request: http.Request) -> int:
    """Return what the request's content-length says, 0 where it says nothing that makes sense."""
    value = request.headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() else 0


def head(reply: Reply, request: http.Request) -> http.Response:
    """Return the head of a reply, framed for the client that asked."""
    headers: Headers = tuple(pair for pair in reply.headers if pair[0].lower() not in _FRAMING)
    if reply.frames is None:
        headers += (("content-length", str(len(reply.body))),)
    elif request.data.http_version == b"HTTP/1.1":
        headers += (("transfer-encoding", "chunked"),)
    elif request.data.http_version == b"HTTP/1.0":
        headers += (("connection", "close"),)
    return http.Response(
        http_version=b"HTTP/2.0" if request.is_http2 else b"HTTP/1.1",
        status_code=reply.status,
        reason=status_codes.RESPONSES.get(reply.status, "").encode(),
        headers=http.Headers([(name.encode(), value.encode()) for name, value in headers]),
        content=None,
        trailers=None,
        timestamp_start=time.time(),
        timestamp_end=None,
    )


def fault_reply(errors: Errors, dialect: Dialect | None, fault: Fault, request_id: str) -> Reply:
    """Return a fault as a whole reply."""
    told = errors(dialect, fault, request_id)
    asking = (ASKING,) if told.status == 401 else ()
    headers = (*told.headers, *asking, ("x-request-id", request_id))
    return Reply(told.status, headers, told.body, summary=Summary(request_id, fault=fault.label))


def whole(reply: Reply, request: http.Request) -> http.Response:
    """Return a reply that is not streamed as the response to a request."""
    response = head(reply, request)
    response.data.content = reply.body
    return response


def note(flow: http.HTTPFlow, summary: Summary) -> None:
    """Write the decision where mitmproxy shows it: comment, marker and metadata."""
    flow.comment = describe(summary)
    flow.marked = WARNING if summary.fault else REPEAT if summary.attempts > 1 else ""
    flow.metadata["tokenhub"] = {
        "request_id": summary.request_id,
        "model": summary.model,
        "provider": summary.provider,
        "reason": summary.reason,
        "attempts": summary.attempts,
        "fault": summary.fault,
    }


def describe(summary: Summary) -> str:
    """Return the decision in one line."""
    tries = f"{summary.attempts} attempt{'' if summary.attempts == 1 else 's'}" if summary.attempts else ""
    served = f"{summary.model} @ {summary.provider}" if summary.model else ""
    return " · ".join(part for part in (served, summary.reason, tries, summary.fault) if part)


def explained(flow: Flow) -> str:
    """Say in one line what was decided for a flow."""
    if not isinstance(flow, http.HTTPFlow):
        return f"{flow.type}: not routed"
    decision = flow.comment or "not routed"
    return (
        f"{flow.request.method} {flow.request.pretty_host}{flow.request.path.partition('?')[0]}: {decision}"
    )
