"""Clients that speak to a proxy in every way there is, byte by byte where it matters.

Nothing here knows which lane answers: the same scenes run over all of them.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

import h2.config
import h2.connection
import h2.errors
import h2.events

from tests.patience import PATIENCE

OPENAI: Final = "api.openai.com"
ANTHROPIC: Final = "api.anthropic.com"
CHAT: Final = "/v1/chat/completions"
MESSAGES: Final = "/v1/messages"
KEY: Final = "sk-canary-0123456789"
"""A credential that must not turn up where it does not belong."""

"""Seconds that any single step of a scene may take."""

_dial = asyncio.open_connection
"""Bound here: a test may replace the name for the proxy's own dialling."""


# --- the proxy, as its clients see it ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proxy:
    """A listener of some mode, and the CA that its certificates are signed with."""

    host: str
    port: int
    cafile: str
    mode: str = "regular"

    def trust(self, *alpn: str) -> ssl.SSLContext:
        """Return a client's TLS context that trusts the proxy's CA and nobody else."""
        context = ssl.create_default_context(cafile=self.cafile)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context


@dataclass(slots=True)
class Answer:
    """A response as a client has read it. `complete` tells whether it ended as it should."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False


async def tunnel(
    proxy: Proxy, host: str, port: int = 443, *, via: str = "connect", auth: str = "", source: str = ""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection through the proxy: `via` CONNECT, `socks5`, or `direct` (the proxy is the host).

    `auth` is `user:password`, `source` the client's own address.
    """
    reader, writer = await _dial(proxy.host, proxy.port, local_addr=(source, 0) if source else None)
    try:
        if via == "connect":
            head = f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n"
            head += f"Proxy-Authorization: {basic(auth)}\r\n" if auth else ""
            writer.write(head.encode() + b"\r\n")
            client = H1(reader, writer, host)
            answer = await client.head()
            if answer.status != 200:
                raise RefusedError(answer.status, (await client.rest(answer)).body)
        elif via == "socks5":
            name = host.encode()
            await _greet(reader, writer, auth)
            writer.write(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack("!H", port))
            told = await timely(reader.readexactly(10))
            if told[1] != 0:
                raise RefusedError(told[1], b"")
    except BaseException:
        writer.close()
        raise
    return reader, writer


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, auth: str) -> None:
    """Say hello to a SOCKS proxy, with credentials where there are any (RFC 1929)."""
    method = 2 if auth else 0
    writer.write(bytes((5, 1, method)))
    assert await timely(reader.readexactly(2)) == bytes((5, method))
    if auth:
        user, _, password = auth.encode().partition(b":")
        writer.write(b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
        told = await timely(reader.readexactly(2))
        if told[1] != 0:
            raise RefusedError(told[1], b"")


def basic(auth: str) -> str:
    """Return `user:password` as HTTP shows it."""
    return f"Basic {base64.b64encode(auth.encode()).decode()}"


class RefusedError(Exception):
    """The proxy would not connect: its status or SOCKS reply code, and what it said."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


async def timely[T](step: Awaitable[T]) -> T:
    """Wait for one step of a scene, and not for ever."""
    async with asyncio.timeout(PATIENCE):
        return await step


# --- HTTP/1 ------------------------------------------------------------------------------------------------


class H1:
    """A plain HTTP/1 client: it sends what it is told to, and reads when it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self.reader = reader
        self.writer = writer
        self.host = host
        self.absolute = ""
        """Prefix of the request target, for absolute-form requests."""

    @classmethod
    async def tls(
        cls,
        proxy: Proxy,
        host: str = OPENAI,
        *,
        via: str = "connect",
        sni: str = "",
        auth: str = "",
        source: str = "",
    ) -> Self:
        """Connect with TLS through the proxy."""
        reader, writer = await tunnel(proxy, host, via=via, auth=auth, source=source)
        try:
            await timely(writer.start_tls(proxy.trust("http/1.1"), server_hostname=sni or host))
        except BaseException:
            writer.close()
            raise
        return cls(reader, writer, host)

    @classmethod
    async def plain(cls, proxy: Proxy, host: str = OPENAI, *, port: int = 80, source: str = "") -> Self:
        """Connect for absolute-form requests to a plain http URL."""
        reader, writer = await tunnel(proxy, host, via="direct", source=source)
        client = cls(reader, writer, host if port == 80 else f"{host}:{port}")
        client.absolute = f"http://{client.host}"
        return client

    @classmethod
    async def direct(cls, proxy: Proxy, *, source: str = "") -> Self:
        """Connect to a server of ours, for requests to itself."""
        reader, writer = await tunnel(proxy, proxy.host, via="direct", source=source)
        return cls(reader, writer, f"{proxy.host}:{proxy.port}")

    async def send(
        self,
        path: str = CHAT,
        body: bytes = b"{}",
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        version: str = "1.1",
    ) -> None:
        """Send a whole request. `content-length` is ours unless the headers have one."""
        fields = {"Host": self.host, "Content-Length": str(len(body)), **(headers or {})}
        lines = [f"{method} {self.absolute}{path} HTTP/{version}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await timely(self.writer.drain())

    async def begin(
        self, path: str = CHAT, *, method: str = "POST", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send the head of a request whose body follows in chunks."""
        fields = {"Host": self.host, "Transfer-Encoding": "chunked", **(headers or {})}
        lines = [f"{method} {self.absolute}{path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        await timely(self.writer.drain())

    async def send_chunk(self, piece: bytes) -> None:
        """Send a piece of a chunked body; an empty one ends it."""
        self.writer.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
        await timely(self.writer.drain())

    async def head(self) -> Answer:
        """Read a response's head."""
        raw = await timely(self.reader.readuntil(b"\r\n\r\n"))
        status, *lines = raw.decode().split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        return Answer(int(status.split()[1]), {name.lower(): value.strip() for name, _, value in pairs})

    async def chunk(self) -> bytes:
        """Read one chunk of a chunked body; empty at its end. Raises IncompleteReadError where it is cut."""
        size = int((await timely(self.reader.readuntil(b"\r\n"))).split(b";")[0], 16)
        return (await timely(self.reader.readexactly(size + 2)))[:-2]

    async def rest(self, answer: Answer) -> Answer:
        """Read the body of a response whose head was read."""
        try:
            if answer.headers.get("transfer-encoding") == "chunked":
                while piece := await self.chunk():
                    answer.body += piece
            elif "content-length" in answer.headers:
                answer.body = await timely(self.reader.readexactly(int(answer.headers["content-length"])))
            else:
                answer.body = await timely(self.reader.read())
            answer.complete = True
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        return answer

    async def answer(self) -> Answer:
        """Read a whole response."""
        return await self.rest(await self.head())

    async def ask(self, path: str = CHAT, body: bytes = b"{}", **how: Mapping[str, str]) -> Answer:
        """Send a request and read its response."""
        await self.send(path, body, headers=how.get("headers"))
        return await self.answer()

    async def at_end(self) -> bool:
        """Tell whether the proxy has closed the connection, and has had nothing more to say."""
        try:
            return await timely(self.reader.read(1)) == b""
        except ConnectionError:
            return True

    async def ends(self) -> bool:
        """Tell whether the connection is closed after whatever is still to be read."""
        try:
            async with asyncio.timeout(PATIENCE):
                while await self.reader.read(65_536):
                    pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True

    def abort(self) -> None:
        """Leave without a word."""
        self.writer.transport.abort()

    def half_close(self) -> None:
        """Say that nothing more will be sent, and go on listening: a FIN, also below TLS."""
        self.writer.get_extra_info("socket").shutdown(socket.SHUT_WR)

    def stop_reading(self) -> None:
        """Let what comes pile up."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined] # it reads as well

    def go_on_reading(self) -> None:
        """Take what has piled up."""
        self.writer.transport.resume_reading()  # type: ignore[attr-defined] # it reads as well

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)


# --- HTTP/2 ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Stream:
    """One HTTP/2 stream. `reset` is the error code of an RST_STREAM, None without one."""

    answer: Answer = field(default_factory=Answer)
    reset: int | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, condition: Callable[[Stream], bool]) -> Stream:
        """Wait for something to become true of the stream."""
        async with asyncio.timeout(PATIENCE):
            while not condition(self):
                self.changed.clear()
                await self.changed.wait()
        return self

    async def end(self) -> Answer:
        """Wait for the end, whichever; return what came."""
        await self.until(lambda stream: stream.answer.complete or stream.reset is not None)
        return self.answer


class H2:
    """An HTTP/2 client. What a stream may receive is opened again as it comes, unless the stream is slow."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self.reader = reader
        self.writer = writer
        self.host = host
        self.streams: dict[int, Stream] = {}
        self.slow: set[int] = set()
        """Streams whose windows are not opened again."""
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.closed = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    @classmethod
    async def tls(cls, proxy: Proxy, host: str = OPENAI, *, via: str = "connect") -> Self:
        """Connect with TLS through the proxy and agree on HTTP/2."""
        reader, writer = await tunnel(proxy, host, via=via)
        try:
            await timely(writer.start_tls(proxy.trust("h2"), server_hostname=host))
            if _agreed(writer) != "h2":
                raise ConnectionError("the proxy does not speak HTTP/2")
        except BaseException:
            writer.transport.abort()
            raise
        client = cls(reader, writer, host)
        client.begin()
        return client

    def begin(self) -> None:
        """Send the preface, and read from now on."""
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(2**24)
        self.flush()
        self._pump = asyncio.create_task(self._read(), name="h2 client")

    def flush(self) -> None:
        """Send what the protocol has to say."""
        if data := self.h2.data_to_send():
            self.writer.write(data)

    def send(
        self,
        path: str = CHAT,
        body: bytes = b"{}",
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        slow: bool = False,
    ) -> tuple[int, Stream]:
        """Send a whole request; return its stream. The window of a `slow` one is not opened again."""
        stream_id = self.h2.get_next_available_stream_id()
        pseudo = {":method": method, ":scheme": "https", ":authority": self.host, ":path": path}
        fields = {name.lower(): value for name, value in (headers or {}).items()}
        self.h2.send_headers(stream_id, [*pseudo.items(), *fields.items()])
        size = self.h2.max_outbound_frame_size
        for start in range(0, len(body), size):
            self.h2.send_data(stream_id, body[start : start + size])
        self.h2.end_stream(stream_id)
        stream = self.streams[stream_id] = Stream()
        if slow:
            self.slow.add(stream_id)
        self.flush()
        return stream_id, stream

    async def ask(
        self, path: str = CHAT, body: bytes = b"{}", *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request and read its response."""
        return await self.send(path, body, headers=headers)[1].end()

    def reset(self, stream_id: int) -> None:
        """Cancel a stream."""
        self.h2.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
        self.flush()

    def open_window(self, stream_id: int, size: int) -> None:
        """Let a slow stream receive `size` bytes more."""
        self.h2.increment_flow_control_window(size, stream_id)
        self.flush()

    async def _read(self) -> None:
        try:
            while data := await self.reader.read(65_536):
                for event in self.h2.receive_data(data):
                    self._handle(event)
                self.flush()
        except ConnectionError:
            pass
        finally:
            self.closed.set()

    def _handle(self, event: h2.events.Event) -> None:
        stream = self.streams.get(getattr(event, "stream_id", None) or 0)
        if stream is None:
            return
        match event:
            case h2.events.ResponseReceived():
                fields = {str(name): str(value) for name, value in event.headers or ()}
                stream.answer.status = int(fields.pop(":status"))
                stream.answer.headers = fields
            case h2.events.DataReceived():
                stream.answer.body += event.data or b""
                size = event.flow_controlled_length or 0
                if event.stream_id in self.slow:
                    self.h2.increment_flow_control_window(size or 1)
                elif size:
                    self.h2.acknowledge_received_data(size, event.stream_id or 0)
            case h2.events.StreamEnded():
                stream.answer.complete = True
            case h2.events.StreamReset():
                stream.reset = int(event.error_code or 0)
            case _:
                pass
        stream.changed.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        self.writer.transport.abort()
        await asyncio.sleep(0)


def _agreed(writer: asyncio.StreamWriter) -> str:
    """Return the protocol that TLS has agreed on, empty without TLS and without agreement."""
    tls = writer.get_extra_info("ssl_object")
    return (tls.selected_alpn_protocol() or "") if tls is not None else ""


# --- whichever it gets -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Call:
    """One call of a `Modern` client."""

    stream: Stream
    cancel: Callable[[], None]
    """Give it up: RST_STREAM, or a connection that is cut."""
    go_on: Callable[[], None]
    """Read on, where the call was slow."""

    async def until(self, condition: Callable[[Answer], bool]) -> Answer:
        """Wait for something to become true of what was received."""
        return (await self.stream.until(lambda stream: condition(stream.answer))).answer

    async def end(self) -> Answer:
        """Wait for the end, whichever; return what came."""
        return await self.stream.end()


class Modern:
    """A client that offers HTTP/2 and HTTP/1.1, as most libraries do, and uses what it gets.

    With HTTP/2 its calls are the streams of one connection, with HTTP/1.1 each has a connection of its own.
    """

    def __init__(self, dial: Callable[[], Awaitable[H1]]) -> None:
        self._dial = dial
        self._spare: list[H1] = []
        self._h1: list[H1] = []
        self._h2: H2 | None = None
        self._pumps: list[asyncio.Task[None]] = []
        self.protocol = ""

    async def __aenter__(self) -> Self:
        first = await self._dial()
        self.protocol = _agreed(first.writer) or "http/1.1"
        if self.protocol == "h2":
            self._h2 = H2(first.reader, first.writer, first.host)
            self._h2.begin()
        else:
            self._h1.append(first)
            self._spare.append(first)
        return self

    async def __aexit__(self, *_: object) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for client in self._h1:
            client.abort()
        if self._h2 is not None:
            await self._h2.__aexit__()
        await asyncio.sleep(0)

    async def send(
        self,
        path: str = CHAT,
        body: bytes = b"{}",
        *,
        headers: Mapping[str, str] | None = None,
        slow: bool = False,
    ) -> Call:
        """Send a whole request. Of a `slow` call no more is read than fits into a window or the buffers."""
        if self._h2 is not None:
            return self._stream(self._h2, path, body, headers=headers, slow=slow)
        client = self._spare.pop() if self._spare else await self._dial()
        if client not in self._h1:
            self._h1.append(client)
        await client.send(path, body, headers=headers)
        stream = Stream()

        def pump() -> None:
            client.go_on_reading()
            self._pumps.append(asyncio.create_task(_collect(client, stream), name="h1 client"))

        if slow:
            client.stop_reading()
        else:
            pump()
        return Call(stream, client.abort, pump)

    async def ask(self, path: str = CHAT, body: bytes = b"{}", **how: Mapping[str, str]) -> Answer:
        """Send a request and read its response."""
        return await (await self.send(path, body, headers=how.get("headers"))).end()

    @staticmethod
    def _stream(client: H2, path: str, body: bytes, *, headers: Mapping[str, str] | None, slow: bool) -> Call:
        stream_id, stream = client.send(path, body, headers=headers, slow=slow)

        def cancel() -> None:
            client.reset(stream_id)

        def go_on() -> None:
            client.open_window(stream_id, 4 << 20)

        return Call(stream, cancel, go_on)


async def _collect(client: H1, stream: Stream) -> None:
    """Read an HTTP/1 response into a stream; a connection that is cut is a reset one."""
    try:
        stream.answer = await client.head()
        stream.changed.set()
        if stream.answer.headers.get("transfer-encoding") == "chunked":
            while piece := await client.chunk():
                stream.answer.body += piece
                stream.changed.set()
            stream.answer.complete = True
        else:
            await client.rest(stream.answer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    if not stream.answer.complete:
        stream.reset = -1
    stream.changed.set()
