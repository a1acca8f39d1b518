"""What is special about streams over HTTP: JSON instead of tensors, events instead of messages."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wire.scripted import ScriptedServer, read_request

from tritonsmith_client import (
    AsyncClient,
    Client,
    ClosedError,
    ConnectionLostError,
    DeadlineExceededError,
    InputError,
    NotFoundError,
    ResponseError,
    StatusError,
    TritonError,
)
from tritonsmith_client._core.request_builder import RequestBuilder
from tritonsmith_client._exchange.exchange import Flow
from tritonsmith_client._http.sse import StreamReader
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._sync.model import Model
from tritonsmith_generator.serve import Server


def evented(client: Client, name: str) -> Model:
    """A model that is asked as decoupled ones are; the server does that for every model."""
    model = client.model(name)
    known = model._core.info
    decoupled = replace(known, config=replace(known.config, decoupled=True))
    model._core.builder = RequestBuilder(model._core._protocol, name, "", decoupled)
    model._core._refresh = unchanged  # type: ignore[method-assign]
    return model


def unchanged(deadline: Deadline) -> Flow[bool]:
    """Instead of reading again that the model is not decoupled."""
    yield from ()
    return False


@pytest.fixture
def http(server: Server) -> Iterator[Client]:
    with Client(server.http_url, timeout=20.0) as client:
        yield client


def test_numbers_and_text_keep_their_values_and_shapes(http: Client) -> None:
    plain, text = evented(http, "plain"), evented(http, "text")
    row = np.array([[0.1, np.nan, np.inf, -np.inf, 1e-45, 3.4028235e38]], np.float32)
    (result,) = plain.stream(row)
    assert result["Y"].dtype == np.float32 and result["Y"].shape == (1, 6)
    assert result["Y"].tobytes() == row.tobytes() or np.array_equal(
        result["Y"], row, equal_nan=True
    )
    (result,) = text.stream([["é\0", "b"]])
    assert result["UPPER"].tolist() == [["é\0".encode(), b"B"]]
    assert (result["LENGTH"].dtype, result["LENGTH"].tolist()) == (np.int64, [[3, 1]])
    assert (result.model_name, result.model_version) == ("text", "1")
    (result,) = text.using(outputs=["LENGTH"]).stream([["a"]])
    assert list(result) == ["LENGTH"] and result["LENGTH"].tolist() == [[1]]


def test_options_reach_the_model(http: Client) -> None:
    model = evented(http, "wishes").using(
        id="q7", parameters={"z": 1, "f": 1.5, "b": True, "s": "x"}
    )
    (result,) = model.stream(np.ones(1, np.float32))
    assert b'"id": "q7"' in result["SAID"].item() and b'"z": 1' in result["SAID"].item()
    assert b'"s": "x"' in result["SAID"].item() and result.id == "q7"


def test_an_output_that_is_not_as_declared(http: Client) -> None:
    (result,) = evented(http, "surprise").stream(np.array([False]))
    assert result["OUT"].tolist() == [0, 1, 2, 3, 4, 5]


def test_what_json_cannot_carry_is_refused(http: Client) -> None:
    identity, plain = evented(http, "identity"), evented(http, "plain")
    for name, array in (
        ("IN_FP16", np.ones((1, 1), np.float16)),
        ("IN_BF16", np.ones((1, 1), ml_dtypes.bfloat16)),
        ("IN_INT32", np.ones((2, 2), np.int32)),
    ):
        with pytest.raises(InputError, match=rf"'{name}' is .* use a grpc:// address") as caught:
            next(identity.stream({name: array}))
        assert (caught.value.model, caught.value.tensor) == ("identity", name)
    with pytest.raises(InputError, match=r"'X' is FP32 \[2, 3\]; over HTTP a stream takes one row"):
        next(plain.stream(np.ones((2, 3), np.float32)))
    with pytest.raises(InputError, match="holds what is no text"):
        next(evented(http, "text").stream([[b"\xff"]]))
    for options in ({"priority": 1}, {"queue_timeout": 1.0}, {"classes": 1}):
        with pytest.raises(InputError, match="a stream over HTTP takes no"):
            next(plain.using(**options).stream(np.ones((1, 1), np.float32)))


def test_errors_before_the_first_event(http: Client) -> None:
    repeat = http.model("repeat")
    count = {"COUNT": np.array([0], np.int32), "DELAY": np.zeros(1, np.float32)}
    with pytest.raises(StatusError, match="told to fail in the middle") as caught:
        next(repeat.stream({**count, "FAIL": np.array([True])}))
    assert type(caught.value) is StatusError, "Triton says 400 whatever the model says"
    model = evented(http, "plain")
    assert len([*model.stream(np.ones((1, 1), np.float32))]) == 1
    http.close()
    with pytest.raises(ClosedError):
        next(model.stream(np.ones((1, 1), np.float32)))


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"y":[1.0,2.0],"model_name":"m"}\n\n'
METADATA = (
    b'{"name":"m","versions":["1"],"platform":"p","inputs":[{"name":"x","datatype":"FP32",'
    b'"shape":[-1]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1]}]}'
)
CONFIG = b'{"name":"m","model_transaction_policy":{"decoupled":true}}'

X = np.ones(1, np.float32)
Ask = Callable[..., list[Any]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """``ask(reply)``: the results of a stream that a scripted server answers with it."""

    def ask(reply: bytes, timeout: float = 5.0) -> list[Any]:
        gone = threading.Event()

        def script(connection: socket.socket) -> None:
            while not (path := read_request(connection).split(b" ")[1]).endswith(b"_stream"):
                body = CONFIG if path.endswith(b"config") else METADATA
                length = b"Content-Length: %d\r\n\r\n" % len(body)
                connection.sendall(b"HTTP/1.1 200 OK\r\n" + length + body)
            connection.sendall(reply)
            if timeout < 1.0 and connection.recv(1) == b"":
                gone.set()

        def sync(url: str) -> list[Any]:
            with Client(url, timeout=20.0) as client:
                model = client.model("m").using(timeout=timeout)
                return [r["y"].tolist() for r in model.stream(X)]

        async def main(url: str) -> list[Any]:
            async with AsyncClient(url, timeout=20.0) as client:
                model = (await client.model("m")).using(timeout=timeout)
                return [r["y"].tolist() async for r in model.stream(X)]

        with ScriptedServer(script) as server:
            url = f"http://{server.address}"
            try:
                return sync(url) if request.param == "sync" else asyncio.run(main(url))
            finally:
                assert timeout > 1.0 or gone.wait(5), "the connection was not closed"

    return ask


@pytest.mark.parametrize(
    ("reply", "count"),
    [
        (CHUNKED + chunk(EVENT) * 3 + b"0\r\n\r\n", 3),
        (CHUNKED + chunk(EVENT * 3) + b"0\r\n\r\n", 3),
        (CHUNKED + b"".join(chunk(EVENT[n : n + 1]) for n in range(len(EVENT))) + b"0\r\n\r\n", 1),
        (CHUNKED + chunk(EVENT[:-2]) + b"0\r\n\r\n", 1),  # no empty line after the last one
        (CHUNKED + chunk(EVENT.replace(b"\n", b"\r\n") * 2) + b"0\r\n\r\n", 2),
        (CHUNKED + chunk(b": a comment\n\nevent: x\n" + EVENT + b"retry: 5\n\n") + b"0\r\n\r\n", 1),
        (CHUNKED + b"0\r\n\r\n", 0),
        (HEAD + b"Content-Length: %d\r\n\r\n" % len(EVENT * 2) + EVENT * 2, 2),
        (HEAD.replace(b"1.1", b"1.0") + b"\r\n" + EVENT * 2, 2),  # until the end of the stream
    ],
)
def test_every_framing(ask: Ask, reply: bytes, count: int) -> None:
    assert ask(reply) == [[1.0, 2.0]] * count


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (CHUNKED + chunk(EVENT) + b"5\r\nda", ConnectionLostError),
        (b"", ConnectionLostError),
        (CHUNKED + chunk(b"data: {\n\n") + b"0\r\n\r\n", ResponseError),
        (CHUNKED + chunk(b"data: [1]\n\n") + b"0\r\n\r\n", ResponseError),
        (CHUNKED + chunk(b'data: {"y":["a"]}\n\n') + b"0\r\n\r\n", ResponseError),
        (CHUNKED + b"zz\r\n", ResponseError),
        (b"SSH-2.0-x\r\n\r\n", ResponseError),
        (CHUNKED + chunk(b'data: {"error":"sorry"}\n\n') + b"0\r\n\r\n", StatusError),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno!", NotFoundError),
        (b"HTTP/1.1 504 Late\r\nContent-Length: 0\r\n\r\n", DeadlineExceededError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", ResponseError),
    ],
)
def test_every_fault_is_one_typed_error(ask: Ask, reply: bytes, kind: type[TritonError]) -> None:
    with pytest.raises(kind):
        ask(reply)


def test_silence_is_an_error_and_ends_the_connection(ask: Ask) -> None:
    with pytest.raises(DeadlineExceededError, match="no response within 0.9 s"):
        ask(CHUNKED + chunk(EVENT), timeout=0.9)


@given(st.lists(st.binary(max_size=20).filter(lambda b: not set(b) & set(b"\r\n"))), st.data())
def test_events_in_any_pieces(values: list[bytes], data: st.DataObject) -> None:
    values = [value for value in values if value]
    wire = CHUNKED + b"".join(chunk(b"data: " + value + b"\n\n") for value in values) + b"0\r\n\r\n"
    reader = StreamReader()
    found: list[bytes] = []
    while wire:
        size = data.draw(st.integers(1, len(wire)))
        found += [bytes(reply.body) for reply in reader.feed(wire[:size])]
        wire = wire[size:]
    assert found == values and reader.done
