"""The client's end of an HTTP/2 connection (RFC 9113) that carries one gRPC call at a time. No I/O.

A shell sends what `take()` gives, asks for `buffer()`, receives into it and reports with
`received(n)`, until that says True. Calls that run side by side have a connection each, so that a
call ends with its connection when it is cancelled or out of time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tritonsmith_client._http2.flow_control import Http2Sender
from tritonsmith_client._http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_LIMIT,
    WINDOW_UPDATE,
    frame,
    window_update,
)
from tritonsmith_client._http2.hpack import Decoder, Encoder, Field
from tritonsmith_client._http2.message import Message
from tritonsmith_client._values.buffers import Buffer
from tritonsmith_client.errors import ResponseError

__all__ = ["Http2Connection", "Http2Reply", "Request", "is_grpc"]

# Headers that come again, headers that will not, and the body.
Request = tuple[tuple[Field, ...], tuple[Field, ...], Sequence[Buffer]]

_SCRATCH = 65536
_CONTROL_LIMIT = _SCRATCH - HEAD  # payload of all frames but DATA
_UNREPORTED = 1 << 29  # bytes received before the peer is told to send on
_AHEAD_FROM = 16384
_TABLE_SIZE = 4096
_LAST_STREAM = WINDOW_LIMIT
_NO_ERROR = 0
_REFUSED_STREAM = 7
_ON_CONNECTION = (SETTINGS, PING, GOAWAY)  # and not in a stream


@dataclass(frozen=True)
class Http2Reply:
    """How a call ended.

    Attributes:
        headers: of the response, empty where only trailers came.
        trailers: empty where the stream was reset.
        reset: the code of RST_STREAM, if there was one.
        refused: the server says that it did not begin to execute the call.
    """

    headers: dict[str, str]
    trailers: dict[str, str]
    message: Message
    reset: int | None = None
    refused: bool = False


class Http2Connection:
    """See the module. `ready` is False until the server's first frame has come.

    Attributes:
        keep_alive: another call may follow this one.
        silent: nothing has come for this call yet.
    """

    def __init__(self) -> None:
        self.ready = False
        self.keep_alive = True
        self.silent = True
        self._reply: Http2Reply | None = None
        self._out: list[Buffer] = [PREFACE]
        self._sender = Http2Sender()
        self._decoder = Decoder()
        self._table_size = _TABLE_SIZE  # the server's
        self._encoder: Encoder | None = None
        self._stream = -1  # the last one; clients have odd numbers
        self._scratch = bytearray(_SCRATCH)
        self._view = memoryview(self._scratch)
        self._start = self._end = 0  # what of it is not read yet
        self._ahead = _SCRATCH
        self._data_left = self._padding_left = 0  # of the DATA frame that is being read
        self._data_flags = 0
        self._in_data = False
        self._place: memoryview | None = None  # where the rest of a frame is received
        self._unreported = 0
        self._stream_unreported = 0
        self._block = b""  # of HEADERS that go on in CONTINUATION
        self._block_ends: bool | None = None
        self._headers: dict[str, str] | None = None
        self._message = Message()
        self._foreign = False  # the reply is no gRPC, and its content no concern of ours
        self._handlers: dict[int, Callable[[int, int, bytes], None]] = {
            HEADERS: self._on_headers,
            CONTINUATION: self._on_continuation,
            RST_STREAM: self._on_reset,
            SETTINGS: self._on_settings,
            PUSH_PROMISE: self._on_push,
            PING: self._on_ping,
            GOAWAY: self._on_goaway,
            WINDOW_UPDATE: self._on_window_update,
        }

    @property
    def complete(self) -> bool:
        """Whether the whole request has been given to the shell."""
        return not self._sender.left

    @property
    def over(self) -> bool:
        """Whether there is a reply."""
        return self._reply is not None

    def start(self, request: Request) -> None:
        """Begin a new call."""
        fields, others, body = request
        if self._encoder is None:
            self._encoder = Encoder(self._table_size)
        head = self._encoder.encode(fields, others)
        self._stream += 2
        self._reply, self._headers, self._message = None, None, Message()
        self._stream_unreported = 0
        self.silent = True
        if self._stream + 2 > _LAST_STREAM:
            self.keep_alive = False
        self._out += self._sender.start(self._stream, head, body)

    def take(self, most: int = WINDOW_LIMIT) -> list[Buffer]:
        """Return what to send now, if anything. Args: most: bytes of the request's body."""
        out, self._out = self._out, []
        if self._sender.left and self._reply is None:
            out += self._sender.more(most)
        return out

    def buffer(self) -> memoryview:
        """Where to receive the next bytes; never empty."""
        if self._place is not None:
            return self._place
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start:
            rest = self._end - self._start
            self._scratch[:rest] = self._view[self._start : self._end]
            self._start, self._end = 0, rest
        if self._end < self._ahead:
            return self._view[self._end : self._ahead]
        return self._view[self._end :]

    def received(self, count: int) -> bool:
        """Take note of bytes in the buffer; True once the call is over.

        Raises:
            ResponseError: this is no HTTP/2, or it breaks its rules; the connection is done with.
        """
        if self._place is None:
            self._end += count
        else:
            self._message.at += count
            self._data_left -= count
            self._place = self._place[count:] or None
            if self._place is not None:
                return False
        while not self._foreign and self._next():
            pass
        return self._reply is not None

    def ended(self) -> bool:
        """Return the end of the stream never completes a call."""
        return False

    def reply(self) -> Http2Reply:
        """How the call ended, once it is over."""
        assert self._reply is not None
        if self._sender.left:  # the server did not wait for the rest of the request
            self._sender.drop()
            self.keep_alive = False
        return self._reply

    # Frames.

    def _next(self) -> bool:
        """Read on in the scratch; False where more has to be received first."""
        if self._in_data:
            return self._read_data()
        view, start = self._scratch, self._start
        have = self._end - start
        if have < HEAD:
            return False
        length = view[start] << 16 | view[start + 1] << 8 | view[start + 2]
        kind, flags = view[start + 3], view[start + 4]
        stream = int.from_bytes(view[start + 5 : start + 9], "big") & WINDOW_LIMIT
        if not self.ready and (kind != SETTINGS or flags & ACK):
            raise ResponseError("the server does not speak HTTP/2")
        if stream and kind in _ON_CONNECTION:
            raise ResponseError(f"the server sent an HTTP/2 frame {kind} in a stream")
        if self._block_ends is not None and kind != CONTINUATION:
            raise ResponseError("the server's HTTP/2 headers are interrupted by another frame")
        if kind == DATA:
            return self._begin_data(length, flags, stream, have)
        if length > _CONTROL_LIMIT:
            raise ResponseError(f"the server sent an HTTP/2 frame {kind} of {length} bytes")
        if have < HEAD + length:
            self._ahead = _SCRATCH
            return False
        self._start = start + HEAD + length
        handler = self._handlers.get(kind)
        if handler is not None:  # unknown ones are to be ignored
            handler(flags, stream, bytes(view[start + HEAD : self._start]))
        return True

    def _begin_data(self, length: int, flags: int, stream: int, have: int) -> bool:
        padding = 0
        skip = HEAD
        if flags & PADDED:
            skip += 1
            if have < skip and length:
                return False
            padding = self._scratch[self._start + HEAD] + 1
            if padding > length:
                raise ResponseError("the server sent an HTTP/2 frame of nothing but padding")
        if stream != self._stream or self._reply is not None:
            raise ResponseError(f"the server sent data in the HTTP/2 stream {stream}")
        if self._headers is None:
            raise ResponseError("the server sent data before its HTTP/2 headers")
        self.silent = False
        self._start += skip
        self._data_left = length - padding
        self._padding_left = max(0, padding - 1)
        self._data_flags, self._in_data = flags, True
        self._consumed(length)
        return True

    def _read_data(self) -> bool:
        have = self._end - self._start
        part = min(have, self._data_left)
        if part:
            before = self._start
            self._message.add(self._view[before : before + part])
            self._start += part
            self._data_left -= part
        if self._data_left:
            # The rest of a large frame is received where it belongs.
            self._place = self._message.place(self._data_left) or None
            if self._place is None and self._message.complete:
                raise ResponseError("the reply holds more than one gRPC message")
            return False
        part = min(self._end - self._start, self._padding_left)
        self._start += part
        self._padding_left -= part
        if self._padding_left:
            return False
        self._in_data = False
        if self._data_flags & END_STREAM:
            raise ResponseError("the reply ends without a gRPC status")
        return True

    def _consumed(self, length: int) -> None:
        """Lets the server send as much again, long before it would have to wait."""
        self._unreported += length
        self._stream_unreported += length
        if self._unreported >= _UNREPORTED:
            self._out.append(window_update(0, self._unreported))
            self._unreported = 0
        if self._stream_unreported >= _UNREPORTED:
            self._out.append(window_update(self._stream, self._stream_unreported))
            self._stream_unreported = 0

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        late = self._reply is not None and self._reply.reset is None
        if stream != self._stream or late:
            raise ResponseError(f"the server sent headers in the HTTP/2 stream {stream}")
        start, end = 0, len(payload)
        if flags & PADDED:
            start, end = 1, end - (payload[0] if payload else 0)
        if flags & PRIORITY:
            start += 5
        if start > end:
            raise ResponseError("the server sent HTTP/2 headers of nothing but padding")
        self.silent = False
        self._block = payload[start:end]
        self._block_ends = bool(flags & END_STREAM)
        if flags & END_HEADERS:
            self._end_headers()

    def _on_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if self._block_ends is None or stream != self._stream:
            raise ResponseError("the server went on with HTTP/2 headers that it had not begun")
        self._block += payload
        if len(self._block) > _CONTROL_LIMIT:
            raise ResponseError(f"the reply has more than {_CONTROL_LIMIT} bytes of headers")
        if flags & END_HEADERS:
            self._end_headers()

    def _end_headers(self) -> None:
        fields = dict(self._decoder.decode(self._block))
        ends, self._block_ends, self._block = self._block_ends, None, b""
        if self._reply is not None:  # grpcio's server says why it reset a stream, but only then
            if "grpc-status" in fields:
                self._reply = Http2Reply(self._headers or fields, fields, self._message)
            return
        first = self._headers is None
        if first and not ends and fields.get(":status", "").startswith("1"):
            return  # an interim response: the real one follows
        if first and not is_grpc(fields):
            self.keep_alive, self._foreign = False, True
            ends = True
        if ends:
            self._finish(Http2Reply(self._headers or fields, fields, self._message))
        elif first:
            self._headers = fields
        else:
            raise ResponseError("the reply has HTTP/2 headers in its middle")

    def _finish(self, reply: Http2Reply) -> None:
        self._reply = reply
        content = self._message.content
        if content is not None and len(content) > _AHEAD_FROM:
            # So that the next reply, if it is alike, is received straight into its place.
            self._ahead = 256
        else:
            self._ahead = _SCRATCH

    def _on_reset(self, flags: int, stream: int, payload: bytes) -> None:
        (code,) = _numbers(">I", payload, RST_STREAM)
        if stream != self._stream or self._reply is not None:
            return  # of a call that is over
        self.silent = self.keep_alive = False  # more frames of this stream may be on their way
        refused = code == _REFUSED_STREAM
        self._finish(Http2Reply(self._headers or {}, {}, self._message, code, refused))

    def _on_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & ACK:
            return
        if len(payload) % 6:
            raise ResponseError("the server sent malformed HTTP/2 settings")
        for number, value in struct.iter_unpack(">HI", payload):
            if number == INITIAL_WINDOW_SIZE:
                self._sender.resize(value)
            elif number == MAX_FRAME_SIZE:
                self._sender.limit(value)
            elif number == HEADER_TABLE_SIZE and self._encoder is None:
                self._table_size = value
            elif number == HEADER_TABLE_SIZE and value < _TABLE_SIZE:
                self.keep_alive = False  # a new connection starts with the new size
        self.ready = True
        self._out.append(frame(SETTINGS, ACK, 0))

    def _on_push(self, flags: int, stream: int, payload: bytes) -> None:
        raise ResponseError("the server pushes, although it was told not to")

    def _on_ping(self, flags: int, stream: int, payload: bytes) -> None:
        _numbers(">Q", payload, PING)
        if not flags & ACK:
            self._out.append(frame(PING, ACK, 0, payload))

    def _on_goaway(self, flags: int, stream: int, payload: bytes) -> None:
        last, _ = _numbers(">II", payload[:8], GOAWAY)
        self.keep_alive = False
        if self._reply is None and self._stream > last & WINDOW_LIMIT:
            self._finish(Http2Reply({}, {}, self._message, _NO_ERROR, True))

    def _on_window_update(self, flags: int, stream: int, payload: bytes) -> None:
        (increment,) = _numbers(">I", payload, WINDOW_UPDATE)
        self._sender.widen(stream, increment & WINDOW_LIMIT)


def is_grpc(headers: Mapping[str, str]) -> bool:
    """Whether gRPC answered, rather than a proxy or another server."""
    kind = headers.get("content-type", "")
    return headers.get(":status") == "200" and kind.startswith("application/grpc")


def _numbers(form: str, payload: bytes, kind: int) -> tuple[int, ...]:
    if len(payload) != struct.calcsize(form):
        raise ResponseError(f"the server sent an HTTP/2 frame {kind} of {len(payload)} bytes")
    return struct.unpack(form, payload)
