"""Our own HTTP/2 against servers that break its rules, break off, or fall silent: always a typed
error, within the deadline, never a wrong answer, and a client that works afterwards."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.wire.callers import CALLERS, calling
from support.wire.http2 import OK, Peer, X, frame, grpc_frame, healthy, infer_reply, serving
from support.wire.scripted import ScriptedServer, reset
from support.wire.stopwatch import Stopwatch

from tritonsmith_client import (
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    InternalError,
    PermissionDeniedError,
    RequestCancelledError,
    ResourceExhaustedError,
    ResponseError,
    Retry,
    TritonError,
    UnavailableError,
    UnsupportedError,
)

ONCE = Retry(attempts=1)
DONE = [("grpc-status", "0")]
Answer = Callable[[Peer], None]


@pytest.fixture(params=CALLERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def failing(kind: str, answer: Answer, timeout: float = 10.0, **options: Any) -> TritonError:
    """The error of a call that is answered like that; the next call has to work."""
    answers = [answer]

    def once(peer: Peer) -> None:
        if answers:
            answers.pop()(peer)
        else:
            peer.send(peer.good(infer_reply()))

    with (
        ScriptedServer(serving(once)) as server,
        calling(kind, server.address, http2="own", retry=ONCE, **options) as call,
    ):
        watch = Stopwatch()
        with pytest.raises(TritonError) as caught:
            call("m", X, timeout)
        assert watch.seconds() < timeout + 0.5
        assert np.array_equal(call("m", X, 10.0)["y"], X)
        return caught.value


def head(peer: Peer, flags: int = 4) -> bytes:
    return frame(1, flags, peer.stream, peer.block(OK))


def message(peer: Peer) -> bytes:
    return frame(0, 0, peer.stream, grpc_frame(infer_reply()))


def trailers(peer: Peer) -> bytes:
    return frame(1, 5, peer.stream, peer.block(DONE))


def settings(number: int, value: int) -> bytes:
    return frame(4, 0, 0, struct.pack(">HI", number, value))


def before(*data: bytes) -> Answer:
    """These bytes in front of a good reply."""
    return lambda peer: peer.send(*data, peer.good(infer_reply()))


def body(content: bytes) -> Answer:
    """This in place of the gRPC message."""
    return lambda p: p.send(head(p), frame(0, 0, p.stream, content), trailers(p))


LIES: dict[str, Answer] = {
    "data before headers": lambda p: p.send(message(p), head(p), trailers(p)),
    "data of another stream": lambda p: p.send(head(p), frame(0, 0, p.stream + 2, b"x")),
    "data of an older stream": lambda p: p.send(frame(0, 0, 1, b"x")),
    "headers of another stream": lambda p: p.send(frame(1, 4, p.stream + 2, p.block(OK))),
    "headers in the middle": lambda p: p.send(head(p), head(p), trailers(p)),
    "no trailers": lambda p: p.send(
        head(p), frame(0, 1, p.stream, grpc_frame(infer_reply()))
    ),
    "no status": lambda p: p.send(
        head(p), message(p), frame(1, 5, p.stream, p.block([("x", "y")]))
    ),
    "no message": lambda p: p.send(head(p), trailers(p)),
    "half a message": body(grpc_frame(infer_reply())[:-7]),
    "half a prefix": body(b"\0\0"),
    "a byte too many": body(grpc_frame(infer_reply()) + b"x"),
    "two messages": body(2 * grpc_frame(infer_reply())),
    "two frames of messages": lambda p: p.send(head(p), message(p), message(p), trailers(p)),
    "a large second message": lambda p: p.send(
        head(p), message(p), frame(0, 0, p.stream, bytes(200_000)), trailers(p)
    ),
    "an unknown flag": body(b"\7" + grpc_frame(infer_reply())[1:]),
    "compressed without a word": body(b"\1" + grpc_frame(infer_reply())[1:]),
    "no protobuf": body(grpc_frame(b"\xff" * 40)),
    "another shape": body(grpc_frame(infer_reply(X).replace(b"\x1a\x01\x04", b"\x1a\x01\x05"))),
    "nothing but padding": lambda p: p.send(head(p), frame(0, 8, p.stream, b"\x09" + b"x" * 8)),
    "headers of padding": lambda p: p.send(frame(1, 12, p.stream, b"\x09" + b"x" * 8)),
    "empty padded headers": lambda p: p.send(frame(1, 12, p.stream)),
    "a push": before(frame(5, 4, 1, b"\0\0\0\2")),
    "a continuation of nothing": before(frame(9, 4, 5, b"x")),
    "interrupted headers": lambda p: p.send(
        frame(1, 0, p.stream, p.block(OK)), frame(6, 0, 0, bytes(8)), frame(9, 4, p.stream)
    ),
    "endless headers": lambda p: p.send(
        frame(1, 0, p.stream, p.block(OK)), *[frame(9, 0, p.stream, bytes(16384))] * 9
    ),
    "a window of nothing": before(frame(8, 0, 0, bytes(4))),
    "a window too large": before(frame(8, 0, 0, b"\x7f\xff\xff\xff")),
    "a stream's window too large": lambda p: p.send(
        frame(8, 0, p.stream, b"\x7f\xff\xff\xff"), p.good(infer_reply())
    ),
    "half a window": before(frame(8, 0, 0, b"\0\0")),
    "half a setting": before(frame(4, 0, 0, b"\0\0\0")),
    "settings in a stream": before(frame(4, 0, 1)),
    "tiny frames wanted": before(settings(5, 100)),
    "a first window too large": before(settings(4, 1 << 31)),
    "half a ping": before(frame(6, 0, 0, b"1234")),
    "a ping in a stream": before(frame(6, 0, 1, bytes(8))),
    "half a goodbye": before(frame(7, 0, 0, b"1234")),
    "half a reset": lambda p: p.send(frame(3, 0, p.stream, b"12")),
    "an unknown index": lambda p: p.send(frame(1, 4, p.stream, b"\xff\xff\x01")),
    "index 0": lambda p: p.send(frame(1, 4, p.stream, b"\x80")),
    "half a header": lambda p: p.send(frame(1, 4, p.stream, b"\x40\x0aabc")),
    "an endless number": lambda p: p.send(frame(1, 4, p.stream, b"\xff" * 12)),
    "a table too large": lambda p: p.send(frame(1, 4, p.stream, b"\x3f\xff\xff\x7f")),
    "no Huffman code": lambda p: p.send(frame(1, 4, p.stream, b"\x40\x84\xff\xff\xff\xff\x00")),
    "a bomb of headers": lambda p: p.send(
        frame(1, 4, p.stream, b"\x40\x01a\x7f\xe1\x1e" + b"x" * 4000 + b"\xbe" * 8000)
    ),
    "a large frame of headers": lambda p: p.send(frame(1, 4, p.stream, bytes(100_000))),
    "another content type": lambda p: p.send(
        frame(1, 4, p.stream, p.block([(":status", "200"), ("content-type", "text/html")])),
        message(p),
        trailers(p),
    ),
    "HTTP/1.1": lambda p: p.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "noise": lambda p: p.send(bytes(range(256)) * 64),
}  # fmt: skip


@pytest.mark.parametrize("answer", LIES.values(), ids=LIES)
def test_what_breaks_the_rules(kind: str, answer: Answer) -> None:
    error = failing(kind, answer, timeout=3.0)
    assert type(error) in (ResponseError, ConnectionLostError), repr(error)


def status(http: str) -> Answer:
    fields = [(":status", http), ("content-type", "text/html")]
    return lambda p: p.send(
        frame(1, 4, p.stream, p.block(fields)), frame(0, 0, p.stream, b"<html>"), trailers(p)
    )


def rst(code: int) -> Answer:
    return lambda p: p.send(head(p), frame(3, 0, p.stream, struct.pack(">I", code)))


REFUSALS: dict[str, tuple[Answer, type[TritonError]]] = {
    "HTTP 401": (status("401"), PermissionDeniedError),
    "HTTP 404": (status("404"), UnsupportedError),
    "HTTP 500": (status("500"), InternalError),
    "HTTP 503": (status("503"), UnavailableError),
    "RST_STREAM INTERNAL_ERROR": (rst(2), InternalError),
    "RST_STREAM REFUSED_STREAM": (rst(7), UnavailableError),
    "RST_STREAM CANCEL": (rst(8), RequestCancelledError),
    "RST_STREAM ENHANCE_YOUR_CALM": (rst(11), ResourceExhaustedError),
    "GOAWAY": (lambda p: p.send(frame(7, 0, 0, bytes(8))), UnavailableError),
}


@pytest.mark.parametrize(("answer", "expected"), REFUSALS.values(), ids=REFUSALS)
def test_what_is_refused(kind: str, answer: Answer, expected: type[TritonError]) -> None:
    assert type(failing(kind, answer, timeout=3.0)) is expected


def test_trailers_only(kind: str) -> None:
    fields = [*OK, ("grpc-status", "8"), ("grpc-message", "gro%C3%9Fe %25 Not")]
    error = failing(kind, lambda p: p.send(frame(1, 5, p.stream, p.block(fields))))
    assert isinstance(error, ResourceExhaustedError)
    assert error.server_message == "große % Not"


def test_a_reason_that_follows_the_reset(kind: str) -> None:
    """What grpcio's own server does when it cannot read a request."""
    said = [*OK, ("grpc-status", "3"), ("grpc-message", "no")]
    error = failing(
        kind,
        lambda p: p.send(
            frame(3, 0, p.stream, struct.pack(">I", 1)), frame(1, 5, p.stream, p.block(said))
        ),
    )
    assert str(error).startswith("inference with model 'm' failed: no (INVALID_ARGUMENT)")


def test_an_unprocessed_call_is_sent_again(kind: str) -> None:
    """GOAWAY that names an older stream: it was not executed."""
    goaway = serving(lambda p: p.send(frame(7, 0, 0, struct.pack(">II", p.stream - 2, 0))))
    with (
        ScriptedServer(goaway, healthy()) as server,
        calling(kind, server.address, http2="own") as call,
    ):
        assert np.array_equal(call("m", X, 10.0)["y"], X)
        assert server.connections == 2


def test_a_server_that_says_goodbye_finishes_what_it_has(kind: str) -> None:
    def last_call(peer: Peer) -> None:
        peer.send(frame(7, 0, 0, struct.pack(">II", peer.stream, 0)), peer.good(infer_reply()))

    with (
        ScriptedServer(serving(last_call), healthy()) as server,
        calling(kind, server.address, http2="own", retry=ONCE) as call,
    ):
        for _ in range(2):
            assert np.array_equal(call("m", X, 10.0)["y"], X)
        assert server.connections == 2


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_reply_that_breaks_off_at_every_byte(kind: str, how: str) -> None:
    """Never a wrong answer, and never a second execution that nobody asked for."""
    with socket.socket() as nobody:
        peer = Peer(nobody)
        length = [len(peer.good(infer_reply())) for _ in range(3)][2]  # two replies precede it
    counts = {"calls": 0}

    def cut(at: int) -> Answer:
        def answer(peer: Peer) -> None:
            counts["calls"] += 1
            peer.send(peer.good(infer_reply())[:at])
            if how == "reset":
                reset(peer.connection)
            raise OSError

        return answer

    cuts = range(0, length, 3 if kind == "async" else 1)
    with (
        ScriptedServer(*[serving(cut(at)) for at in cuts], healthy()) as server,
        calling(kind, server.address, http2="own") as call,
    ):
        for number, at in enumerate(cuts, 1):
            with pytest.raises(ConnectionLostError):
                call("m", X, 10.0)
            assert counts["calls"] == number, at


def drip(data: Callable[[Peer], bytes], pause: float) -> Answer:
    def answer(peer: Peer) -> None:
        for byte in data(peer):
            peer.send(bytes((byte,)))
            time.sleep(pause)

    return answer


def endless(piece: Callable[[Peer], bytes]) -> Answer:
    def answer(peer: Peer) -> None:
        peer.send(head(peer))
        while True:
            peer.send(piece(peer))
            time.sleep(0.01)

    return answer


def wait(peer: Peer) -> None:
    while peer.connection.recv(65536):
        pass


def silent_after(begin: Callable[[Peer], tuple[bytes, ...]]) -> Answer:
    def answer(peer: Peer) -> None:
        peer.send(*begin(peer))
        wait(peer)

    return answer


SLOW: dict[str, Answer] = {
    "silent": wait,
    "silent after the headers": silent_after(lambda p: (head(p),)),
    "silent before the trailers": silent_after(lambda p: (head(p), message(p))),
    "a slow drip": drip(lambda p: p.good(infer_reply()), 0.1),
    "pings for ever": endless(lambda p: frame(6, 0, 0, bytes(8))),
    "nothing for ever": endless(lambda p: frame(0, 0, p.stream)),
    "settings for ever": endless(lambda p: frame(4, 0, 0)),
}


@pytest.mark.parametrize("answer", SLOW.values(), ids=SLOW)
def test_what_takes_too_long(kind: str, answer: Answer) -> None:
    assert type(failing(kind, answer, timeout=0.5)) is DeadlineExceededError


GREETINGS: dict[str, Callable[[Peer], None]] = {
    "says nothing": wait,
    "closes": lambda p: p.connection.close(),
    "speaks HTTP/1.1": lambda p: p.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "starts with a ping": lambda p: p.send(frame(6, 0, 0, bytes(8))),
    "starts with an acknowledgement": lambda p: p.send(frame(4, 1, 0)),
    "says goodbye at once": lambda p: p.send(frame(7, 0, 0, bytes(8))),
}


@pytest.mark.parametrize("greet", GREETINGS.values(), ids=GREETINGS)
def test_a_server_that_does_not_begin(kind: str, greet: Callable[[Peer], None]) -> None:
    def script(connection: socket.socket) -> None:
        greet(Peer(connection))

    with (
        ScriptedServer(script, healthy()) as server,
        calling(kind, server.address, http2="own", retry=ONCE, timeout=1.0) as call,
    ):
        watch = Stopwatch()
        with pytest.raises((DeadlineExceededError, ResponseError, ConnectError)):
            call("m", X, 1.0)
        assert watch.seconds() < 1.5
        assert np.array_equal(call("m", X, 10.0)["y"], X)


def test_a_window_that_never_opens(kind: str) -> None:
    came: list[bytes] = []

    def script(connection: socket.socket) -> None:
        connection.sendall(settings(4, 0))
        while piece := connection.recv(65536):
            came.append(piece)

    with (
        ScriptedServer(script) as server,
        calling(kind, server.address, http2="own", retry=ONCE, timeout=0.5) as call,
    ):
        watch = Stopwatch()
        with pytest.raises(DeadlineExceededError):
            call("m", X, 0.5)
        assert watch.seconds() < 1.0
    assert b"ModelMetadata" in b"".join(came)
    assert b"\0\0\0\0\x03\n\x01m" not in b"".join(came)  # the message itself
