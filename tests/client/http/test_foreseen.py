"""Replies that come again but for their tensors' bytes: the next one is read as the last one was,
and if it is another one after all, as if none had come before."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from support.wire.callers import CALLERS, Caller
from support.wire.http_replies import FAULTS, X, http, infer_reply, then
from support.wire.scripted import Script, ScriptedServer, read_request

from tritonsmith_client import ConnectionLostError, Retry, TritonError
from tritonsmith_client._http.reader import HttpResponseReader

# The second of two that are alike is what the third is foreseen by.
ALIKE = [infer_reply(values=X + n) for n in range(3)]


@contextmanager
def model_of(kind: str, server: ScriptedServer) -> Iterator[Any]:
    """A call of the model with one array, which gives the output."""
    options: dict[str, Any] = {"retry": Retry(attempts=1), "shared_memory": "off"}
    with Caller(kind, f"http://{server.address}", timeout=2.0, **options) as caller:
        model = caller.model("m")
        yield lambda: caller.do(model, X)["y"]


def warm(call: Any) -> None:
    for n in range(3):
        assert np.array_equal(call(), X + n)


def then_nine(connection: socket.socket) -> None:
    """What a second connection answers."""
    read_request(connection)
    connection.sendall(infer_reply(values=X + 9))


def in_pieces(reply: bytes, *cuts: int) -> Script:
    def script(connection: socket.socket) -> None:
        for start, end in zip((0, *cuts), (*cuts, len(reply)), strict=True):
            connection.sendall(reply[start:end])
            time.sleep(0.002)

    return script


@pytest.mark.parametrize("kind", CALLERS)
def test_a_reply_that_comes_again_is_not_parsed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    received = HttpResponseReader.received

    def counted(reader: HttpResponseReader, count: int) -> bool:
        counts.append(count)
        return received(reader, count)

    monkeypatch.setattr(HttpResponseReader, "received", counted)
    replies = [infer_reply(values=X + n) for n in range(9)]
    with ScriptedServer(then(*replies)) as server, model_of(kind, server) as call:
        for n in range(2):
            assert np.array_equal(call(), X + n)
        counts.clear()
        results = [call() for _ in range(7)]
        assert not counts
        for n, result in enumerate(results):  # each has memory of its own
            assert np.array_equal(result, X + 2 + n)
            assert result.flags.writeable and result.flags.aligned
        assert server.connections == 1


@pytest.mark.parametrize("kind", CALLERS)
@pytest.mark.parametrize(("fault", "error"), FAULTS.values(), ids=FAULTS)
def test_a_fault_after_replies_that_were_alike(
    fault: bytes | Script, error: type[TritonError], kind: str
) -> None:
    with ScriptedServer(then(*ALIKE, fault)) as server, model_of(kind, server) as call:
        warm(call)
        with pytest.raises(TritonError) as caught:
            call()
        assert type(caught.value) is error, repr(caught.value)


@pytest.mark.parametrize("kind", CALLERS)
def test_a_reply_that_ends_anywhere(kind: str) -> None:
    whole = infer_reply()
    for end in range(0, len(whole), 5):
        script = then(*ALIKE, whole[:end])
        with ScriptedServer(script) as server, model_of(kind, server) as call:
            warm(call)
            with pytest.raises(ConnectionLostError):
                call()


@pytest.mark.parametrize("kind", CALLERS)
@pytest.mark.parametrize("size", [16, 400_000])
def test_a_reply_in_pieces(kind: str, size: int) -> None:
    values = [np.arange(size // 4, dtype=np.float32) + n for n in range(40)]
    whole = [infer_reply([size // 4], size, value) for value in values]
    start = len(whole[0]) - size
    cuts: list[tuple[int, ...]] = [
        (1,),
        (start // 2,),
        (start - 1,),
        (start,),
        (start + 1,),
        (start + size // 2,),
    ]
    cuts += [(start // 2, start + 1), (start - 3, start, start + size - 1), (len(whole[0]) - 1,)]
    scripts = [in_pieces(reply, *cuts[n % len(cuts)]) for n, reply in enumerate(whole)]
    with ScriptedServer(then(*scripts)) as server, model_of(kind, server) as call:
        for value in values:
            assert np.array_equal(call(), value)
        assert server.connections == 1


def chunked(reply: bytes) -> bytes:
    head, _, body = reply.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    size = f"{len(body):x}".encode()
    head = b"\r\n".join([*lines, b"Transfer-Encoding: chunked"])
    return head + b"\r\n\r\n" + size + b"\r\n" + body + b"\r\n0\r\n\r\n"


def as_json(values: Any) -> bytes:
    """The tensor within the JSON."""
    output = {"name": "y", "datatype": "FP32", "shape": [4], "data": values.tolist()}
    return http(json.dumps({"model_name": "m", "outputs": [output]}).encode())


OTHERS = {
    "another shape": infer_reply([2, 2], values=X + 7),
    "more elements": infer_reply([6], 24, np.arange(6, dtype=np.float32) + 7),
    "fewer elements": infer_reply([1], 4, X[:1] + 7),
    "none": infer_reply([0], 0, X[:0]),
    "another header": infer_reply(values=X + 7).replace(b"\r\n", b"\r\nDate: today\r\n", 1),
    "another type": infer_reply(datatype="INT32", values=np.arange(4, dtype=np.int32)),
    "chunks": chunked(infer_reply(values=X + 7)),
    "JSON": as_json(X + 7),
    "an interim response": b"HTTP/1.1 100 Continue\r\n\r\n" + infer_reply(values=X + 7),
}


@pytest.mark.parametrize("kind", CALLERS)
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_reply_after_replies_that_were_alike(kind: str, other: bytes) -> None:
    with ScriptedServer(then(other)) as server, model_of(kind, server) as call:
        expected = call()
    script = then(*ALIKE, other, *ALIKE, other, other, other, *ALIKE)
    with ScriptedServer(script) as server, model_of(kind, server) as call:
        for others in (1, 3, 0):
            warm(call)
            for _ in range(others):
                answer = call()
                assert answer.dtype == expected.dtype and np.array_equal(answer, expected)
        assert server.connections == 1


@pytest.mark.parametrize("kind", CALLERS)
def test_more_than_was_announced(kind: str) -> None:
    """What comes after a reply is nobody's: the next call has a connection of its own."""
    script = then(*ALIKE, infer_reply(values=X + 3) + infer_reply(values=X + 66))
    with ScriptedServer(script, then_nine) as server, model_of(kind, server) as call:
        warm(call)
        assert np.array_equal(call(), X + 3)
        time.sleep(0.05)
        assert np.array_equal(call(), X + 9)
        assert server.connections == 2


@pytest.mark.parametrize("kind", CALLERS)
def test_a_connection_that_the_server_closes(kind: str) -> None:
    """It says so in a header, so that this reply is not what was foreseen."""
    last = infer_reply(values=X + 3).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    with ScriptedServer(then(*ALIKE, last), then_nine) as server, model_of(kind, server) as call:
        warm(call)
        assert np.array_equal(call(), X + 3)
        assert np.array_equal(call(), X + 9)
        assert server.connections == 2


@pytest.mark.parametrize("kind", CALLERS)
def test_connections_that_the_server_is_about_to_close(kind: str) -> None:
    """Each reply says so, and they are alike: none of them is used again."""

    def wait(connection: socket.socket) -> None:
        connection.recv(1)  # it is slow to close them

    def next_one(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(last)
        wait(connection)

    last = infer_reply(values=X + 9).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    with ScriptedServer(then(last, wait), next_one) as server, model_of(kind, server) as call:
        for _ in range(5):
            assert np.array_equal(call(), X + 9)
        assert server.connections == 5


@pytest.mark.parametrize("kind", CALLERS)
def test_outputs_that_are_not_aligned_in_the_reply(kind: str) -> None:
    def output(name: str, datatype: str, size: int, count: int) -> dict[str, Any]:
        parameters = {"binary_data_size": size}
        return {"name": name, "datatype": datatype, "shape": [count], "parameters": parameters}

    outputs = [output("flags", "INT8", 3, 3), output("y", "FP32", 16, 4)]
    head = json.dumps({"model_name": "m", "outputs": outputs}).encode()
    length = f"Inference-Header-Content-Length: {len(head)}"
    replies = [http(head + bytes(3) + (X + n).tobytes(), length) for n in range(4)]
    with ScriptedServer(then(*replies)) as server, model_of(kind, server) as call:
        for n in range(4):
            answer = call()
            assert np.array_equal(answer, X + n) and answer.flags.aligned
