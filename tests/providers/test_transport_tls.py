"""The transport's TLS: nothing but a good certificate is talked to, and every refusal says why."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import orjson
import pytest

from tests.fakes.certificates import authority, demanding, server_context
from tests.fakes.listener import listener
from tests.fakes.provider import FakeProvider
from tests.patience import PATIENCE
from tokenhub_core.errors import Blame, ConfigError, Fault, Kind, TokenHubError
from tokenhub_core.ports import Timeouts, UpstreamRequest
from tokenhub_core.providers.transport import HttpTransport, tls_context

QUICK = Timeouts(connect=2.0, ttft=2.0, stall=2.0)


def chat(base: str, *, stream: bool = False) -> UpstreamRequest:
    body = {"model": "gpt-4o", "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
    return UpstreamRequest("POST", f"{base}/v1/chat/completions", (), orjson.dumps(body))


async def fault_of(transport: HttpTransport, request: UpstreamRequest) -> Fault:
    with pytest.raises(TokenHubError) as raised:
        await transport.send(request, QUICK)
    return raised.value.fault


async def whole(transport: HttpTransport, request: UpstreamRequest) -> bytes:
    response = await transport.send(request, QUICK)
    body = await response.read(1 << 20)
    await response.close()
    return body


async def test_an_authority_of_ones_own_is_trusted_by_file(tmp_path: Path) -> None:
    """A private provider works with `ca_file`, and its connections are shared like others."""
    ca = authority(tmp_path)
    async with (
        FakeProvider(tls=server_context(tmp_path, ca)) as provider,
        HttpTransport(ca_file=ca[2]) as transport,
    ):
        await whole(transport, chat(provider.url))
        await whole(transport, chat(provider.url, stream=True))
        assert len(provider.connections) == 1


async def test_a_transport_that_starts_again_reads_its_file_again(tmp_path: Path) -> None:
    """What it was given at first was made of what stood there then."""
    first, second = authority(tmp_path, "one"), authority(tmp_path, "two")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(first[2].read_bytes())
    transport = HttpTransport(ca_file=trusted, context=tls_context(trusted))
    async with FakeProvider(tls=server_context(tmp_path, second)) as provider:
        async with transport:
            assert (await fault_of(transport, chat(provider.url))).cause == "tls_untrusted"
        trusted.write_bytes(second[2].read_bytes())
        async with transport:
            assert await whole(transport, chat(provider.url))


@pytest.mark.parametrize(
    ("case", "cause"),
    [("expired", "tls_expired"), ("name", "tls_wrong_name"), ("authority", "tls_untrusted")],
)
async def test_a_bad_certificate_is_never_accepted_and_says_why(
    tmp_path: Path, case: str, cause: str
) -> None:
    """Verification cannot be relaxed, and the credential is not sent to whoever is there."""
    ca = authority(tmp_path)
    context = server_context(
        tmp_path, ca, address="127.0.0.9" if case == "name" else "127.0.0.1", expired=case == "expired"
    )
    trusted = authority(tmp_path, "other")[2] if case == "authority" else ca[2]
    async with FakeProvider(tls=context) as provider, HttpTransport(ca_file=trusted) as transport:
        fault = await fault_of(transport, chat(provider.url))
        assert (fault.kind, fault.blame, fault.cause) == (Kind.TRANSIENT, Blame.PROVIDER, cause)
        assert provider.requests == []


async def test_a_server_that_speaks_no_tls_is_a_protocol_fault() -> None:
    """An https endpoint that answers in plain text is told apart from a bad certificate."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with listener(plain) as port, HttpTransport() as transport:
        fault = await fault_of(transport, chat(f"https://127.0.0.1:{port}"))
    assert fault.cause == "tls_protocol"


@pytest.mark.parametrize(
    ("version", "cause", "words"),
    [
        (ssl.TLSVersion.TLSv1_3, "tls_client_certificate", "wants a certificate of its client"),
        (ssl.TLSVersion.TLSv1_2, "tls_protocol", "the TLS connection failed: handshake failure"),
    ],
)
async def test_a_server_that_wants_a_certificate_of_its_client_is_told_as_such(
    tmp_path: Path, version: ssl.TLSVersion, cause: str, words: str
) -> None:
    """There is none to show, and the error says that; TLS 1.2 has no alert of its own for it (RFC 8446, 6.2)."""
    ca = authority(tmp_path)
    with demanding(server_context(tmp_path, ca), ca, version) as port:
        async with HttpTransport(ca_file=ca[2]) as transport:
            fault = await fault_of(transport, chat(f"https://127.0.0.1:{port}"))

    assert fault.cause == cause
    assert words in fault.message


async def test_a_handshake_that_is_cut_off_is_told_as_such() -> None:
    """A connection that closes in the handshake is `tls_truncated`."""

    async def curt(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)

    async with listener(curt) as port, HttpTransport() as transport:
        fault = await fault_of(transport, chat(f"https://127.0.0.1:{port}"))
    assert fault.cause == "tls_truncated"


@pytest.mark.parametrize("answered", [False, True])
async def test_an_unfinished_tls_exchange_closes_its_socket_without_waiting_for_a_goodbye(
    tmp_path: Path, *, answered: bool
) -> None:
    """A peer that reads nothing more never says TLS's goodbye; its kernel still sees the end at once."""
    ca = authority(tmp_path)
    ended = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answered:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            await writer.drain()
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        sock = writer.get_extra_info("socket")
        # The first byte of tcp_info is the state: 7 is CLOSE, 8 is CLOSE_WAIT (linux/tcp_states.h).
        while sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] not in (7, 8):  # noqa: ASYNC110 - the kernel sets no event
            await asyncio.sleep(0.01)
        ended.set()

    tls = server_context(tmp_path, ca)
    async with listener(deaf, tls=tls) as port, HttpTransport(ca_file=ca[2]) as transport:
        request = chat(f"https://127.0.0.1:{port}", stream=True)
        if answered:
            response = await transport.send(request, QUICK)
            await response.close()
        else:
            with pytest.raises(TokenHubError):
                await transport.send(request, Timeouts(ttft=0.2))
        async with asyncio.timeout(PATIENCE):
            await ended.wait()


def test_tls_verifies_and_is_at_least_1_2() -> None:
    """The context cannot be built lax."""
    context = tls_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_ca_file_that_is_none_is_a_one_line_error(tmp_path: Path) -> None:
    """The operator reads which file is wrong."""
    bad = tmp_path / "bad.pem"
    bad.write_text("not a certificate")
    for path in (bad, tmp_path / "missing.pem"):
        with pytest.raises(ConfigError, match=path.name):
            tls_context(path)
