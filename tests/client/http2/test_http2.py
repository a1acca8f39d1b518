"""Our own HTTP/2 with grpcio's server, which says what no Triton says. What it does with the real
one is tested by every test that takes the fixture `url`."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from support.wire.callers import CALLERS, calling
from support.wire.http2 import DESCRIBED, X, infer_reply
from tritonclient.grpc import service_pb2

from tritonsmith_client import Client, DeadlineExceededError, InputError, Retry, StatusError

Infer = Callable[[bytes, grpc.ServicerContext], bytes]


class _Handler(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    def __init__(self, infer: Infer) -> None:
        self._infer = infer

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        if name in DESCRIBED:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: DESCRIBED[name])
        if name == "ModelInfer":
            return grpc.unary_unary_rpc_method_handler(self._infer)
        return None


@contextmanager
def grpcio_server(infer: Infer, **options: Any) -> Iterator[tuple[str, grpc.Server]]:
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(20),
        handlers=[_Handler(infer)],
        options=[("grpc.max_receive_message_length", -1), *options.items()],
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", server
    finally:
        server.stop(None).wait()


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    message = service_pb2.ModelInferRequest.FromString(request)
    return infer_reply(np.frombuffer(message.raw_input_contents[0], np.float32))


@pytest.fixture(params=CALLERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("size", [1, 4000, 4096, 20_000, 1_000_003, 6_000_000])
def test_sizes(kind: str, size: int) -> None:
    with (
        grpcio_server(echo) as (address, _),
        calling(kind, address, http2="own", shared_memory="off") as call,
    ):
        for start in range(3):
            x = np.arange(start, start + size, dtype=np.float32)
            assert np.array_equal(call("m", x, 30.0)["y"], x)


@pytest.mark.parametrize("code", list(grpc.StatusCode)[1:], ids=lambda c: c.name)
@pytest.mark.parametrize("http2", ["own", "grpcio"])
def test_every_status(kind: str, code: grpc.StatusCode, http2: str) -> None:
    def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(code, "grün 100 %\n2")

    with (
        grpcio_server(refuse) as (address, _),
        calling(kind, address, http2=http2, retry=Retry(attempts=1)) as call,
        pytest.raises((StatusError, DeadlineExceededError)) as caught,
    ):
        call("m", X, 10.0)
    assert f"grün 100 %\n2 ({code.name})" in str(caught.value)


def test_headers_and_the_deadline_reach_the_server(kind: str) -> None:
    seen: dict[str, Any] = {}

    def look(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.update(context.invocation_metadata(), left=context.time_remaining())
        return infer_reply()

    counter = iter(range(100))
    with (
        grpcio_server(look) as (address, _),
        calling(kind, address, http2="own", headers=lambda: {"X-Turn": str(next(counter))}) as call,
    ):
        for _ in range(2):
            call("m", X, 60.0)
    assert seen["x-turn"] == "5"
    assert 50.0 < seen["left"] < 62.0


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_compression_both_ways(kind: str, packing: str) -> None:
    seen: list[Any] = []

    def packed(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(dict(context.invocation_metadata()))
        context.set_compression(getattr(grpc.Compression, packing.title()))
        return echo(request, context)

    x = np.ones(100_000, np.float32)
    with (
        grpcio_server(packed) as (address, _),
        calling(kind, address, http2="own", compression=packing, shared_memory="off") as call,
    ):
        assert np.array_equal(call("m", x, 10.0)["y"], x)
    assert len(seen) == 1


def test_a_server_that_restarts_between_calls(kind: str) -> None:
    with calling_after(kind) as (call, address):
        for _ in range(3):
            with grpcio_server_at(address):
                assert np.array_equal(call("m", X, 10.0)["y"], X)


@contextmanager
def calling_after(kind: str) -> Iterator[tuple[Any, str]]:
    with grpcio_server(echo) as (address, _):
        pass
    with calling(kind, address, http2="own") as call:
        yield call, address


@contextmanager
def grpcio_server_at(address: str) -> Iterator[None]:
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), handlers=[_Handler(echo)])
    assert server.add_insecure_port(address)
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait()


def test_a_graceful_stop_loses_no_call() -> None:
    """GOAWAY while calls run: those that the server began are finished."""
    begun = threading.Barrier(5)

    def slow(request: bytes, context: grpc.ServicerContext) -> bytes:
        begun.wait(10)
        time.sleep(0.3)
        return echo(request, context)

    with grpcio_server(slow) as (address, server), Client(address, http2="own") as client:
        model = client.model("m")
        futures = [model.submit(X + n) for n in range(4)]
        begun.wait(10)
        server.stop(10)
        for n, future in enumerate(futures):
            assert np.array_equal(future.result()["y"], X + n)


def test_a_cancelled_call_ends_at_the_server() -> None:
    begun, ended = threading.Event(), threading.Event()

    def slow(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.add_callback(ended.set)
        begun.set()
        ended.wait(10)
        return infer_reply()

    with grpcio_server(slow) as (address, _), Client(address, http2="own") as client:
        future = client.model("m").submit(X)
        assert begun.wait(10)
        assert future.cancel()
        assert ended.wait(5)


def test_threads_share_a_client() -> None:
    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(60):
            x = random.standard_normal(int(random.integers(1, 60_000))).astype(np.float32)
            assert np.array_equal(model(x)["y"], x)

    with (
        grpcio_server(echo) as (address, _),
        Client(address, http2="own", shared_memory="off") as client,
        concurrent.futures.ThreadPoolExecutor(16) as pool,
    ):
        model = client.model("m")
        list(pool.map(work, range(16)))


def test_pings_and_small_limits_of_the_server(kind: str) -> None:
    """A server that asks often whether we are there, and allows one stream a connection."""
    strict = {
        "grpc.keepalive_time_ms": 100,
        "grpc.keepalive_timeout_ms": 1000,
        "grpc.http2.max_frame_size": 16384,
        "grpc.http2.hpack_table_size.decoder": 0,
        "grpc.max_concurrent_streams": 1,
    }

    def slow(request: bytes, context: grpc.ServicerContext) -> bytes:
        time.sleep(0.5)
        return echo(request, context)

    with (
        grpcio_server(slow, **strict) as (address, _),
        calling(kind, address, http2="own", shared_memory="off") as call,
    ):
        x = np.arange(500_000, dtype=np.float32)
        for _ in range(2):
            assert np.array_equal(call("m", x, 10.0)["y"], x)


def test_a_socket_of_the_file_system(tmp_path: Path) -> None:
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), handlers=[_Handler(echo)])
    server.add_insecure_port(f"unix:{tmp_path}/s")
    server.start()
    with Client(f"grpc+unix://{tmp_path}/s", http2="own") as client:
        assert np.array_equal(client.model("m")(X)["y"], X)
    server.stop(None).wait()


def test_an_unknown_choice() -> None:
    with pytest.raises(InputError, match="'grpcio' or 'own'"):
        Client("localhost:1", http2="h3")
