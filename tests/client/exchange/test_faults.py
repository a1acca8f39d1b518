"""What no healthy server does. Always a typed error, within the deadline, and never a poisoned
connection afterwards."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import time
from typing import Any

import numpy as np
import pytest
from support.wire.callers import CALLERS, calling
from support.wire.http_calls import until
from support.wire.http_replies import CONFIG, FAULTS, METADATA, X, http, infer_reply, silent, then
from support.wire.scripted import Script, ScriptedServer, read_request
from support.wire.stopwatch import Stopwatch

from tritonsmith_client import (
    AsyncClient,
    Client,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    InvalidArgumentError,
    ResourceExhaustedError,
    Retry,
    TritonError,
    UnavailableError,
)


def call(url: str, timeout: float = 10.0, kind: str = "sync", **options: Any) -> Any:
    with calling(kind, url, timeout=5.0, **options) as made:
        return made("m", X, timeout)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("reply", "kind"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_one_typed_error_in_time(
    reply: bytes | Script, kind: type[TritonError], caller: str
) -> None:
    with ScriptedServer(then(reply)) as server:
        watch = Stopwatch()
        with pytest.raises(TritonError) as caught:
            timeout = 1.0 if kind is DeadlineExceededError else 10.0
            call(f"http://{server.address}", timeout, kind=caller, retry=Retry(attempts=1))
        assert type(caught.value) is kind, repr(caught.value)
        assert watch.seconds() < 1.0 + 0.5
        assert str(caught.value).startswith("inference with model 'm'")
        assert caught.value.model == "m"


def drip(connection: socket.socket) -> None:
    """A byte now and then: each receive succeeds, and the reply never ends."""
    for byte in infer_reply():
        connection.sendall(bytes((byte,)))
        time.sleep(0.05)


@pytest.mark.parametrize("caller", CALLERS)
def test_a_slow_drip_does_not_outlive_the_deadline(caller: str) -> None:
    with ScriptedServer(then(drip)) as server:
        watch = Stopwatch()
        with pytest.raises(DeadlineExceededError, match="deadline of 0.5 s"):
            call(f"http://{server.address}", timeout=0.5, kind=caller)
        assert watch.seconds() < 0.5 + 0.5


@pytest.mark.parametrize("caller", CALLERS)
def test_a_server_that_does_not_read(caller: str) -> None:
    def deaf(connection: socket.socket) -> None:
        for value in (METADATA, CONFIG):
            read_request(connection)
            connection.sendall(http(json.dumps(value).encode()))
        connection.recv(100)
        released.wait(10)

    released = threading.Event()
    large = np.zeros(30_000_000, np.float32)
    with (
        ScriptedServer(deaf) as server,
        calling(caller, f"http://{server.address}") as made,
    ):
        watch = Stopwatch()
        with pytest.raises(DeadlineExceededError):
            made("m", large, 0.5)
        assert watch.seconds() < 0.5 + 0.5
        released.set()


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_a_handshake_that_does_not_end(scheme: str, caller: str) -> None:
    def mute(connection: socket.socket) -> None:
        while connection.recv(100_000):
            pass

    watch = Stopwatch()
    with (
        ScriptedServer(mute) as server,
        calling(caller, f"{scheme}://{server.address}", timeout=0.5) as made,
        pytest.raises((DeadlineExceededError, UnavailableError)),
    ):
        made("m", X, 0.5)
    assert watch.seconds() < 0.5 + 0.5


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_host_that_does_not_answer(scheme: str) -> None:
    listener = socket.socket()  # bound and not listening is refused; a full backlog stays silent
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    address = listener.getsockname()
    fillers = [socket.socket() for _ in range(4)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(address)
    watch = Stopwatch()
    with (
        Client(f"{scheme}://127.0.0.1:{address[1]}", timeout=0.5) as client,
        pytest.raises((DeadlineExceededError, UnavailableError)),
    ):
        client.metadata()
    assert watch.seconds() < 0.5 + 0.5
    for filler in [*fillers, listener]:
        filler.close()


def test_a_stale_connection_is_replaced_without_an_error() -> None:
    with ScriptedServer(then(), then(infer_reply())) as server:
        # The second connection answers metadata first; give it only what it is asked for.
        server._scripts[1] = server.answer(infer_reply())
        with Client(f"http://{server.address}", retry=Retry(attempts=1)) as client:
            model = client.model("m")
            until(lambda: server.ended == 1)  # the server's FIN is here
            assert np.array_equal(model(X)["y"], X)
        assert server.connections == 2


def test_an_inference_that_may_have_run_is_not_repeated() -> None:
    server = ScriptedServer(then(lambda c: c.close()), then(infer_reply()))
    with server, pytest.raises(ConnectionLostError, match="may have executed it"):
        call(f"http://{server.address}", retry=Retry(attempts=5))
    assert server.connections == 1


def test_what_is_unavailable_is_tried_again() -> None:
    busy = http(b'{"error": "Exceeds maximum queue size"}', status="503 Service Unavailable")
    with ScriptedServer(then(busy, busy, infer_reply())) as server:
        result = call(f"http://{server.address}", retry=Retry(attempts=3))
        assert np.array_equal(result["y"], X)
    server = ScriptedServer(then(busy, busy, infer_reply()))
    with server, pytest.raises(UnavailableError, match="Exceeds maximum queue size"):
        call(f"http://{server.address}", retry=Retry(attempts=2))


def test_what_was_refused_is_not_tried_again() -> None:
    refused = http(b'{"error": "no"}', status="400 Bad Request")
    same = [http(json.dumps(v).encode()) for v in (METADATA, CONFIG)]
    server = ScriptedServer(then(refused, *same, infer_reply()))
    with server, pytest.raises(InvalidArgumentError, match="no"):
        call(f"http://{server.address}", retry=Retry(attempts=5))


def test_a_reloaded_model_is_read_again() -> None:
    refused = http(b'{"error": "unexpected shape"}', status="400 Bad Request")
    new = METADATA | {"inputs": [{"name": "x", "datatype": "FP32", "shape": [4]}]}
    again = [http(json.dumps(v).encode()) for v in (new, CONFIG)]
    with ScriptedServer(then(refused, *again, infer_reply())) as server:
        assert np.array_equal(call(f"http://{server.address}")["y"], X)
    changed = METADATA | {"inputs": [{"name": "x", "datatype": "FP64", "shape": [4]}]}
    again = [http(json.dumps(v).encode()) for v in (changed, CONFIG)]
    with (
        ScriptedServer(then(*again, infer_reply())) as server,
        Client(f"http://{server.address}") as client,
    ):
        model = client.model("m")
        assert "y" in model(X.astype(np.float64))  # refused here at first, then read again
        assert model.metadata.inputs[0].dtype.wire == "FP64"


@pytest.mark.parametrize("caller", CALLERS)
def test_an_early_refusal_of_a_large_request_is_heard(caller: str) -> None:
    def refuse(connection: socket.socket) -> None:
        for value in (METADATA, CONFIG):
            read_request(connection)
            connection.sendall(http(json.dumps(value).encode()))
        connection.recv(1000)
        connection.sendall(http(b'{"error": "too large"}', status="413 Payload Too Large"))
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.2)

    with (
        ScriptedServer(refuse) as server,
        calling(caller, f"http://{server.address}", shared_memory="off") as made,
        pytest.raises(ResourceExhaustedError, match="too large"),
    ):
        made("m", np.zeros(20_000_000, np.float32), 10.0)


def test_refused_connections_end_at_once() -> None:
    watch = Stopwatch()
    with Client("http://127.0.0.1:9") as client, pytest.raises(ConnectError):
        client.metadata()
    assert watch.seconds() < 2.0


def test_grpc_to_what_is_no_grpc() -> None:
    def chatter(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        time.sleep(0.2)

    watch = Stopwatch()
    with (
        ScriptedServer(chatter) as server,
        Client(server.address, timeout=2.0) as client,
        pytest.raises((UnavailableError, DeadlineExceededError)),
    ):
        client.metadata()
    assert watch.seconds() < 2.0 + 0.5


def test_a_silent_grpc_peer() -> None:
    watch = Stopwatch()
    with (
        ScriptedServer(silent) as server,
        Client(server.address, timeout=0.5) as client,
        pytest.raises((UnavailableError, DeadlineExceededError)),
    ):
        client.metadata()
    assert watch.seconds() < 0.5 + 0.5


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "grpc://127.0.0.1:9"])
def test_a_deadline_that_is_over_before_there_is_a_connection(url: str) -> None:
    """An error, and no coroutine that was begun for nobody, of which Python would warn."""

    async def main() -> None:
        async with AsyncClient(url, timeout=1e-9, http2="own") as client:
            with pytest.raises(DeadlineExceededError):
                await client.metadata()

    asyncio.run(main())
    gc.collect()
