"""HTTP responses in any pieces: the reader needs no socket."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonsmith_client import ResponseError
from tritonsmith_client._http.messages import HttpReply
from tritonsmith_client._http.reader import HttpResponseReader


def feed(reader: HttpResponseReader, data: bytes, cuts: list[int]) -> HttpReply | None:
    """Gives the reader the data in pieces; None if it wants more than there is."""
    reader.start(True)
    at = 0
    for size in [*cuts, len(data)]:
        piece = data[at : at + size]
        while piece:
            buffer = reader.buffer()
            assert len(buffer) > 0
            count = min(len(piece), len(buffer))
            buffer[:count] = piece[:count]
            piece = piece[count:]
            at += count
            if reader.received(count):
                assert at == len(data), "ended before the data did"
                return reader.reply()
    return reader.reply() if reader.ended() else None


def response(*headers: str, body: bytes = b"", status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode() + body


def chunked(body: bytes, sizes: list[int]) -> bytes:
    out, at = b"", 0
    for size in sizes:
        if body[at : at + size]:
            out += f"{len(body[at : at + size]):X};name=value\r\n".encode() + body[at : at + size]
            out += b"\r\n"
        at += size
    return out + b"0\r\nTrailer: x\r\n\r\n"


CUTS = st.lists(st.integers(1, 50), max_size=30)
BODIES = st.binary(max_size=300) | st.binary(min_size=70_000, max_size=70_100)


@given(BODIES, CUTS, st.lists(st.integers(1, 120), min_size=1, max_size=6))
def test_every_framing_in_any_pieces(body: bytes, cuts: list[int], sizes: list[int]) -> None:
    sizes = [*sizes, len(body)]
    framings = [
        response(f"content-LENGTH:  {len(body)}", body=body),
        response("Transfer-Encoding: chunked", body=chunked(body, sizes)),
        response("Connection: close", body=body),
        response(status="100 Continue") + response(f"Content-Length: {len(body)}", body=body),
    ]
    reader = HttpResponseReader()
    for data in framings:
        reply = feed(reader, data, cuts)
        assert reply is not None and reply.status == 200
        assert bytes(reply.body) == body


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_compressed_bodies(compress: object) -> None:
    body = compress(b"abc" * 100)  # type: ignore[operator]  # both take bytes
    encoding = "gzip" if compress is gzip.compress else "deflate"
    data = response(f"Content-Length: {len(body)}", f"Content-Encoding: {encoding}", body=body)
    reply = feed(HttpResponseReader(), data, [])
    assert reply is not None and bytes(reply.body) == b"abc" * 100


def test_tensors_start_at_a_multiple_of_64() -> None:
    for json in range(1, 130):
        data = response(
            f"Inference-Header-Content-Length: {json}", "Content-Length: 20000", body=bytes(20000)
        )
        reply = feed(HttpResponseReader(), data, [3, 40])
        assert reply is not None
        import numpy as np

        start = np.frombuffer(reply.body[json:], np.uint8).__array_interface__["data"][0]
        assert start % 64 == 0


def test_keep_alive() -> None:
    reader = HttpResponseReader()
    for data, expected in [
        (response("Content-Length: 0"), True),
        (response("Content-Length: 0", "Connection: close"), False),
        (response("Content-Length: 0").replace(b"1.1", b"1.0"), False),
        (response("Transfer-Encoding: chunked", body=b"0\r\n\r\n"), True),
        (response("Connection: keep-alive"), False),
        (response(status="204 No Content"), True),
    ]:
        feed(reader, data, [])
        assert reader.keep_alive is expected, data


def test_more_than_announced_ends_the_connection() -> None:
    reader = HttpResponseReader()
    reader.start(True)
    data = response("Content-Length: 1", body=b"ab")
    reader.buffer()[: len(data)] = data
    assert reader.received(len(data))
    assert bytes(reader.reply().body) == b"a"
    assert not reader.keep_alive


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
NONSENSE = {
    "another protocol": b"SSH-2.0-OpenSSH\r\n\r\n",
    "no status": b"HTTP/1.1 abc\r\n\r\n",
    "a header without colon": b"HTTP/1.1 200 OK\r\nabc\r\n\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "a length in words": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    "an endless length": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 500 + b"\r\n\r\n",
    "more than memory": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999\r\n\r\n",
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20000,
    "a bad chunk size": CHUNKED + b"xyz\r\n",
    "a signed chunk size": CHUNKED + b"-5\r\n",
    "a chunk that is too long": CHUNKED + b"1\r\nabc\r\n",
    "an endless chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"1" * 70000,
    "an unknown encoding": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Encoding: br\r\n\r\n",
    "no gzip": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Encoding: gzip\r\n\r\nabc",
}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_one_error(data: bytes) -> None:
    with pytest.raises(ResponseError):
        feed(HttpResponseReader(), data, [])


@given(st.binary(max_size=300), CUTS)
def test_garbage_is_a_typed_error_or_waits_for_more(data: bytes, cuts: list[int]) -> None:
    try:
        assert feed(HttpResponseReader(), data, cuts) is None
    except ResponseError:
        assert True
