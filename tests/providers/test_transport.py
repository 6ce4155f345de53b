"""The transport against a provider on a real socket that breaks in every way."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator

import orjson
import pytest

from tests.fakes.listener import listener, reset
from tests.fakes.provider import FakeProvider, closed_port
from tests.patience import PATIENCE
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import Timeouts, UpstreamRequest, UpstreamResponse
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.providers.transport import HttpTransport
from tokenhub_core.types import header

QUICK = Timeouts(connect=PATIENCE, ttft=PATIENCE, stall=PATIENCE)
SECRET = "sk-canary-1234567890"


def chat(
    base: str, *, stream: bool = False, model: str = "gpt-4o", text: str = "Tell me of Paris"
) -> UpstreamRequest:
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}
    headers = (("authorization", f"Bearer {SECRET}"), ("content-type", "application/json"))
    return UpstreamRequest("POST", f"{base}/v1/chat/completions", headers, orjson.dumps(body))


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as fake:
        yield fake


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    # What a test waits for is not that an idle connection grows old.
    async with HttpTransport(keepalive=10 * PATIENCE) as http:
        yield http


async def fault_of(transport: HttpTransport, request: UpstreamRequest, timeouts: Timeouts = QUICK) -> Fault:
    """Send, read to the end, and return the fault that this must end in."""
    with pytest.raises(TokenHubError) as raised:
        await whole(transport, request, timeouts)
    fault = raised.value.fault
    assert SECRET not in fault.message
    return fault


async def whole(transport: HttpTransport, request: UpstreamRequest, timeouts: Timeouts = QUICK) -> bytes:
    response = await transport.send(request, timeouts)
    try:
        return b"".join([chunk async for chunk in response.chunks()])
    finally:
        await response.close()


async def _drain(response: UpstreamResponse) -> None:
    async for _ in response.chunks():
        pass


# --- good answers ------------------------------------------------------------------------------------------


async def test_a_whole_answer_arrives_with_status_and_headers(
    transport: HttpTransport, provider: FakeProvider
) -> None:
    """What the provider said is what the caller gets: status, lower-case headers, body."""
    response = await transport.send(chat(provider.url), QUICK)
    body = orjson.loads(await response.read(1 << 20))
    await response.close()
    assert response.status == 200
    assert header(response.headers, "content-type") == "application/json"
    assert body["object"] == "chat.completion"
    assert provider.requests[0].header("authorization") == f"Bearer {SECRET}"
    assert provider.requests[0].header("host") == f"127.0.0.1:{provider.port}"


async def test_nothing_is_added_to_the_request_that_the_adapter_did_not_write(
    transport: HttpTransport, provider: FakeProvider
) -> None:
    """The transport adds the host and the length, and nothing about itself."""
    await whole(transport, chat(provider.url))
    names = [name for name, _ in provider.requests[0].headers]
    assert sorted(names) == ["authorization", "content-length", "content-type", "host"]


async def test_a_stream_comes_piece_by_piece_while_the_provider_is_still_sending(
    transport: HttpTransport,
) -> None:
    """The first chunk is here long before the last one is sent."""
    async with FakeProvider(profile=Profile(ttft=0.0, tokens_per_second=400.0)) as provider:
        response = await transport.send(chat(provider.url, stream=True), QUICK)
        times = [time.monotonic() async for _ in response.chunks()]
        await response.close()
    assert len(times) > 10
    assert times[-1] - times[0] > 0.1


async def test_finished_answers_share_one_connection(
    transport: HttpTransport, provider: FakeProvider
) -> None:
    """An answer read to its end gives its connection back."""
    for _ in range(5):
        await whole(transport, chat(provider.url))
        await whole(transport, chat(provider.url, stream=True))
    assert len(provider.requests) == 10
    assert len(provider.connections) == 1


async def test_an_error_status_is_an_answer_and_no_fault(
    transport: HttpTransport, provider: FakeProvider
) -> None:
    """Statuses are the dialects' to judge."""
    provider.script("gpt-4o", ["status:429:7"])
    response = await transport.send(chat(provider.url), QUICK)
    assert (response.status, header(response.headers, "retry-after")) == (429, "7")
    assert b"rate_limit_exceeded" in await response.read(10_000)
    await response.close()


async def test_a_redirect_is_never_followed(transport: HttpTransport, provider: FakeProvider) -> None:
    """A credential stays with its host: the redirect itself is the answer."""
    async with FakeProvider() as other:
        provider.script("gpt-4o", [f"redirect:{other.url}/v1/chat/completions"])
        response = await transport.send(chat(provider.url), QUICK)
        assert response.status == 307
        await response.close()
        assert other.requests == []


async def test_the_path_goes_out_byte_for_byte(transport: HttpTransport, provider: FakeProvider) -> None:
    """An origin's own escapes and query are not rewritten."""
    path = "/v1/chat/completions?api-version=2024%2D10&x=a+b%20c"
    request = chat(provider.url)
    await whole(transport, UpstreamRequest("POST", provider.url + path, request.headers, request.body))
    assert provider.requests[0].path == path


async def test_the_environments_proxy_is_ignored(
    monkeypatch: pytest.MonkeyPatch, transport: HttpTransport, provider: FakeProvider
) -> None:
    """The engine never sends through itself because of a proxy variable."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")
    await whole(transport, chat(provider.url))
    assert len(provider.requests) == 1


# --- faults before the head --------------------------------------------------------------------------------


async def test_a_refused_connection_is_told_as_such(transport: HttpTransport) -> None:
    """A closed port is `connect_refused`, and no wait for a limit."""
    fault = await fault_of(transport, chat(f"http://127.0.0.1:{closed_port()}"))
    assert (fault.kind, fault.blame, fault.cause) == (Kind.TRANSIENT, Blame.PROVIDER, "connect_refused")
    assert "127.0.0.1" in fault.message


async def test_a_name_that_does_not_resolve_is_a_dns_fault(transport: HttpTransport) -> None:
    """`.invalid` never resolves (RFC 6761)."""
    fault = await fault_of(transport, chat("http://nothing.invalid"))
    assert fault.cause in ("dns", "connect_timeout")


async def test_connecting_has_its_own_limit(transport: HttpTransport) -> None:
    """A handshake that never ends is `connect_timeout`, not the wait for an answer."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listener(silent) as port:
        limits = Timeouts(connect=0.1, ttft=PATIENCE)
        fault = await fault_of(transport, chat(f"https://127.0.0.1:{port}"), limits)
    assert (fault.kind, fault.cause) == (Kind.TIMEOUT, "connect_timeout")


async def test_silence_before_the_head_ends_at_the_ttft_limit_and_frees_the_provider(
    transport: HttpTransport, provider: FakeProvider
) -> None:
    """The limit counts from sending, and the provider sees the close."""
    provider.script("gpt-4o", ["ok", "hang"])
    await whole(transport, chat(provider.url))
    started = time.monotonic()
    fault = await fault_of(transport, chat(provider.url), Timeouts(connect=PATIENCE, ttft=0.1))
    assert (fault.kind, fault.blame, fault.cause) == (Kind.TIMEOUT, Blame.PROVIDER, "ttft_timeout")
    assert time.monotonic() - started > 0.09
    await provider.until(closed=1)


@pytest.mark.parametrize(
    ("script", "kind", "cause"),
    [
        ("disconnect", Kind.TRANSIENT, "disconnected"),
        ("bad-http", Kind.TRANSIENT, "bad_http"),
        ("long-header", Kind.TRANSIENT, "header_too_large"),
        ("many-headers", Kind.TRANSIENT, "bad_http"),
        ("truncate", Kind.TRUNCATED, "truncated"),
        ("reset", Kind.TRUNCATED, "reset"),
        ("bad-chunk", Kind.TRANSIENT, "bad_http"),
        ("until-eof-reset", Kind.TRUNCATED, "reset"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_broken_http_has_one_typed_cause(
    transport: HttpTransport, provider: FakeProvider, script: str, kind: Kind, cause: str, *, stream: bool
) -> None:
    """Every way to break HTTP comes out under its own label, and its socket is gone."""
    provider.script("gpt-4o", [script])
    fault = await fault_of(transport, chat(provider.url, stream=stream))
    assert (fault.kind, fault.cause, fault.blame) == (kind, cause, Blame.PROVIDER)
    await provider.until(closed=1)


@pytest.mark.parametrize(
    ("script", "kind", "cause"),
    [
        ("big-head", Kind.TRANSIENT, "header_too_large"),
        ("unknown-encoding", Kind.TRANSIENT, "bad_encoding"),
        ("double-gzip", Kind.TRANSIENT, "bad_encoding"),
        ("bad-gzip", Kind.TRANSIENT, "bad_encoding"),
        ("bad-brotli", Kind.TRANSIENT, "bad_encoding"),
        ("short-gzip", Kind.TRUNCATED, "truncated"),
    ],
)
async def test_a_whole_answer_that_cannot_be_used_has_one_typed_cause(
    transport: HttpTransport, provider: FakeProvider, script: str, kind: Kind, cause: str
) -> None:
    """HTTP was well, what it carried was not; the connection may serve on."""
    provider.script("gpt-4o", [script])
    fault = await fault_of(transport, chat(provider.url))
    assert (fault.kind, fault.cause, fault.blame) == (kind, cause, Blame.PROVIDER)


async def test_a_reset_before_the_head_is_told_as_such(transport: HttpTransport) -> None:
    """RST instead of an answer is `reset`."""

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        reset(writer)

    async with listener(rude) as port:
        fault = await fault_of(transport, chat(f"http://127.0.0.1:{port}"))
    assert fault.cause == "reset"


async def test_huge_heads_cost_little_memory(transport: HttpTransport, provider: FakeProvider) -> None:
    """Ten thousand header fields are cut off after a few, not collected."""
    provider.script("gpt-4o", ["many-headers"])
    await fault_of(transport, chat(provider.url))
    assert provider.connections[0].sent < 6_000_000


# --- faults inside the body --------------------------------------------------------------------------------


async def test_a_stall_ends_at_its_limit(transport: HttpTransport, provider: FakeProvider) -> None:
    """Half an answer and then silence is `stall_timeout`, with what came before handed on."""
    provider.script("gpt-4o", ["stall"])
    response = await transport.send(chat(provider.url, stream=True), Timeouts(stall=0.15))
    got: list[bytes] = []

    async def collect() -> None:
        async for chunk in response.chunks():
            got.append(chunk)  # noqa: PERF401 - what came before the fault must be kept

    started = time.monotonic()
    with pytest.raises(TokenHubError) as raised:
        await collect()
    await response.close()
    assert (raised.value.fault.kind, raised.value.fault.cause) == (Kind.TIMEOUT, "stall_timeout")
    assert b"chat.completion.chunk" in b"".join(got)
    assert time.monotonic() - started > 0.14
    await provider.until(closed=1)


async def test_a_slow_drip_is_no_stall(transport: HttpTransport, provider: FakeProvider) -> None:
    """Every byte moves the limit: an answer may take much longer than it."""
    provider.script("gpt-4o", ["drip"])
    started = time.monotonic()
    body = await whole(transport, chat(provider.url), Timeouts(stall=0.3))
    assert orjson.loads(body)["object"] == "chat.completion"
    assert time.monotonic() - started > 0.6


async def test_a_reader_that_is_slow_itself_is_no_stall(
    transport: HttpTransport, provider: FakeProvider
) -> None:
    """The limit runs only while the transport waits for the provider."""
    response = await transport.send(chat(provider.url, stream=True), Timeouts(stall=0.05))
    async for _ in response.chunks():
        await asyncio.sleep(0.12)
        break
    rest = b"".join([chunk async for chunk in response.chunks()])
    await response.close()
    assert rest == b"" or rest.endswith(b"data: [DONE]\n\n")


async def test_a_body_over_the_limit_is_refused_before_it_is_read(
    transport: HttpTransport, provider: FakeProvider
) -> None:
    """An announced length over the cap is a fault at once, an unannounced one as soon as it is passed."""
    provider.script("gpt-4o", ["big:5000000", "big-chunked:200000000"])
    for _ in range(2):
        response = await transport.send(chat(provider.url), QUICK)
        with pytest.raises(TokenHubError) as raised:
            await response.read(1_000_000)
        fault = raised.value.fault
        assert (fault.kind, fault.cause, fault.http_status) == (Kind.TOO_LARGE, "response_too_large", 502)
    await provider.until(closed=2)
    assert provider.connections[1].sent < 20_000_000


@pytest.mark.parametrize("script", ["gzip", "deflate", "raw-deflate", "brotli"])
async def test_encoded_bodies_are_decoded(
    transport: HttpTransport, provider: FakeProvider, script: str
) -> None:
    """What comes compressed is handed on plain, and the headers no longer claim otherwise."""
    provider.script("gpt-4o", [script])
    response = await transport.send(chat(provider.url), QUICK)
    assert orjson.loads(await response.read(1 << 20))["object"] == "chat.completion"
    assert not header(response.headers, "content-encoding")
    assert not header(response.headers, "content-length")
    await response.close()


@pytest.mark.parametrize("by_read", [True, False])
async def test_a_decompression_bomb_is_refused_in_bounded_memory(
    transport: HttpTransport, provider: FakeProvider, *, by_read: bool
) -> None:
    """A gigabyte in a megabyte never exists here, whichever way the body is read."""
    provider.script("gpt-4o", ["bomb:512"])
    response = await transport.send(chat(provider.url), QUICK)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TokenHubError) as raised:
        await (response.read(1 << 30) if by_read else _drain(response))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (raised.value.fault.kind, raised.value.fault.cause) == (Kind.TOO_LARGE, "decompression_bomb")
    assert grown < 64 * 1024  # KiB
    await provider.until(closed=1)


async def test_a_body_without_a_length_ends_with_its_connection(
    transport: HttpTransport, provider: FakeProvider
) -> None:
    """HTTP/1.0 style answers are whole answers."""
    provider.script("gpt-4o", ["until-eof"])
    assert orjson.loads(await whole(transport, chat(provider.url)))["object"] == "chat.completion"


# --- letting go --------------------------------------------------------------------------------------------


async def test_closing_an_unfinished_answer_closes_its_socket_at_once(
    transport: HttpTransport, provider: FakeProvider
) -> None:
    """The provider learns that nobody listens; closing again does nothing."""
    provider.script("gpt-4o", ["stall"])
    response = await transport.send(chat(provider.url, stream=True), QUICK)
    async for _ in response.chunks():
        break
    await response.close()
    await response.close()
    await provider.until(closed=1)


@pytest.mark.parametrize("script", ["hang", "stall"])
async def test_a_cancelled_exchange_closes_the_providers_socket(
    transport: HttpTransport, provider: FakeProvider, script: str
) -> None:
    """Whether it waits for the head or for more of a body, a cancelled caller frees the provider."""
    provider.script("gpt-4o", [script])
    task = asyncio.create_task(whole(transport, chat(provider.url, stream=True), Timeouts()))
    await provider.until(requests=1)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await provider.until(closed=1)


async def test_an_abandoned_upload_does_not_linger(transport: HttpTransport) -> None:
    """What a slow reader has not yet been sent is dropped with the exchange, not pushed at it for minutes."""
    got = 0
    closed = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        assert isinstance(writer.transport, asyncio.Transport)
        await reader.read(1)
        writer.transport.pause_reading()
        await asyncio.sleep(0.3)
        writer.transport.resume_reading()
        try:
            while data := await reader.read(1 << 20):
                got += len(data)
        finally:
            closed.set()

    async with listener(slow) as port:
        request = chat(f"http://127.0.0.1:{port}", text="x" * 30_000_000)
        fault = await fault_of(transport, request, Timeouts(ttft=0.1))
        assert fault.cause == "ttft_timeout"
        async with asyncio.timeout(PATIENCE):
            await closed.wait()
    assert got < len(request.body)


async def test_a_large_body_arrives_whole(transport: HttpTransport, provider: FakeProvider) -> None:
    """Bodies of many megabytes go out in pieces and with their length."""
    request = chat(provider.url, text="x" * 5_000_000)
    await whole(transport, request)
    assert provider.requests[0].body == request.body


async def test_closing_the_transport_closes_answers_in_flight(provider: FakeProvider) -> None:
    """Nothing outlives the transport, and sending on a closed one is our own fault."""
    provider.script("gpt-4o", ["stall"])
    transport = HttpTransport()
    await transport.start()
    await transport.send(chat(provider.url, stream=True), QUICK)
    await transport.close()
    await transport.close()
    await provider.until(closed=1)
    with pytest.raises(TokenHubError) as raised:
        await transport.send(chat(provider.url), QUICK)
    assert raised.value.fault.blame is Blame.US


async def test_too_many_answers_in_flight_fail_at_once_and_blame_nobody_else(provider: FakeProvider) -> None:
    """The pool's own limit must not look like a slow provider."""
    provider.script("gpt-4o", ["stall"])
    async with HttpTransport(max_connections=1) as transport:
        held = await transport.send(chat(provider.url, stream=True), QUICK)
        fault = await fault_of(transport, chat(provider.url))
        assert (fault.kind, fault.blame, fault.cause) == (Kind.OVERLOADED, Blame.US, "connection_limit")
        await held.close()
        provider.script("gpt-4o", ["ok"])
        await whole(transport, chat(provider.url))


async def test_a_header_that_cannot_be_sent_is_our_own_fault(
    transport: HttpTransport, provider: FakeProvider
) -> None:
    """A line break in a header value never reaches the wire."""
    bad = UpstreamRequest("POST", f"{provider.url}/v1/messages", (("x-a", "b\r\nx-c: d"),), b"{}")
    fault = await fault_of(transport, bad)
    assert (fault.kind, fault.blame) == (Kind.INTERNAL, Blame.US)
    assert provider.requests == []


async def test_an_address_that_is_never_allowed_is_not_connected_to(transport: HttpTransport) -> None:
    """What a name resolves to is checked when it is connected to."""
    fault = await fault_of(transport, chat("http://169.254.169.254"))
    assert fault.cause == "address_denied"
