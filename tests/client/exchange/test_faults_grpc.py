"""A gRPC server that answers what Triton never would: grpcio's, with handlers for raw bytes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import pytest
from support.wire.callers import CALLERS, Call, calling
from support.wire.stopwatch import Stopwatch
from tritonclient.grpc import model_config_pb2, service_pb2

from tritonsmith_client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    ResponseError,
    Retry,
    TritonError,
    UnavailableError,
    errors,
)
from tritonsmith_client._exchange.status import from_grpc_status

X = np.arange(4, dtype=np.float32)
DEADLINE = 10.0

Answer = Callable[[bytes, grpc.ServicerContext], bytes]


def reply(shape: tuple[int, ...] = (4,), dtype: str = "FP32", *raws: bytes) -> bytes:
    message = service_pb2.ModelInferResponse(model_name="m", model_version="1")
    message.outputs.add(name="y", datatype=dtype, shape=shape)
    message.raw_output_contents.extend(raws or (X.tobytes(),))
    return bytes(message.SerializeToString())


class RawServer:
    """Serves model 'm' (FP32[-1] to FP32[-1]); each inference gets the next answer."""

    def __init__(self) -> None:
        self.answers: list[bytes | Answer] = []
        self.calls = 0
        self._lock = threading.Lock()
        self._server = grpc.server(
            futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)]
        )
        self._server.add_generic_rpc_handlers((_Handlers(self),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def infer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            self.calls += 1
            answer = self.answers.pop(0) if self.answers else reply()
        return answer if isinstance(answer, bytes) else answer(request, context)

    def stop(self) -> None:
        self._server.stop(None).wait()


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stub alone
    def __init__(self, server: RawServer) -> None:
        metadata = service_pb2.ModelMetadataResponse(name="m", versions=["1"], platform="p")
        metadata.inputs.add(name="x", datatype="FP32", shape=[-1])
        metadata.outputs.add(name="y", datatype="FP32", shape=[-1])
        policy = model_config_pb2.ModelTransactionPolicy(decoupled=True)  # asked by stream()
        config = service_pb2.ModelConfigResponse(
            config=model_config_pb2.ModelConfig(name="m", model_transaction_policy=policy)
        )
        self._metadata = metadata.SerializeToString()
        self._config = config.SerializeToString()
        self._server = server

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = details.method.rpartition("/")[2]
        unary = {
            "ModelMetadata": lambda request, context: self._metadata,
            "ModelConfig": lambda request, context: self._config,
            "ModelInfer": self._server.infer,
        }
        if method == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(unary[method])

    def _stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield self._server.infer(request, context)


@pytest.fixture
def server() -> Iterator[RawServer]:
    made = RawServer()
    yield made
    made.stop()


@pytest.fixture(params=CALLERS)
def call(request: pytest.FixtureRequest, server: RawServer) -> Iterator[Call]:
    url = f"grpc://127.0.0.1:{server.port}"
    with calling(request.param, url, timeout=5.0, retry=Retry(attempts=1)) as made:
        yield made


MALFORMED: dict[str, bytes] = {
    "cut in a field": reply()[:-3],
    "no protobuf": b"\xff\xff\xff\xff",
    "a page": b"<html>Bad Gateway</html>",
    "a length beyond the end": b"\x0a\x7fm",
    "a group that never ends": b"\x0b",
    "a name that is no UTF-8": b"\x0a\x02\xff\xfe" + reply(),
    "bytes without an output": reply() + b"\x32\x04" + X.tobytes()[:4],
    "a shape for more elements": reply((5,)),
    "a negative shape": reply((-4,)),
    "a shape whose product overflows": reply((2**40, 2**40)),
    "too few bytes": reply((4,), "FP32", X.tobytes()[:12]),
    "an unknown data type": reply((4,), "FP4"),
    "strings that are none": reply((4,), "BYTES"),
    "a string longer than the reply": reply((1,), "BYTES", b"\xff\xff\xff\x7fab"),
}


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_reply(call: Call, server: RawServer, answer: bytes) -> None:
    server.answers = [answer]
    with pytest.raises(ResponseError, match="^inference with model 'm' failed: ") as caught:
        call("m", X, DEADLINE)
    assert caught.value.model == "m"
    assert np.array_equal(call("m", X, DEADLINE)["y"], X)  # and the next one is right
    assert server.calls == 2


def test_an_empty_reply_has_no_outputs(call: Call, server: RawServer) -> None:
    server.answers = [b""]
    with pytest.raises(errors.UnknownOutputError, match="'y'"):
        call("m", X, DEADLINE)["y"]


@pytest.mark.parametrize("code", [c for c in grpc.StatusCode if c is not grpc.StatusCode.OK])
def test_every_status_is_its_class(call: Call, server: RawServer, code: grpc.StatusCode) -> None:
    def abort(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(code, "the server's own words")

    # What may mean that the model was reloaded is asked again only if its signature is another.
    server.answers = [abort]
    with pytest.raises(TritonError) as caught:
        call("m", X, DEADLINE)
    expected = type(from_grpc_status(code.name, "", ""))
    assert type(caught.value) is expected
    assert "inference with model 'm'" in str(caught.value)
    assert server.calls == 1
    assert np.array_equal(call("m", X, DEADLINE)["y"], X)


def test_a_reply_that_does_not_come(call: Call, server: RawServer) -> None:
    released = threading.Event()

    def wait(request: bytes, context: grpc.ServicerContext) -> bytes:
        released.wait(20)
        return reply()

    server.answers = [wait]
    watch = Stopwatch()
    with pytest.raises(DeadlineExceededError):
        call("m", X, 0.5)
    assert watch.seconds() < 0.5 + 0.5
    released.set()
    assert np.array_equal(call("m", X, DEADLINE)["y"], X)


def test_the_deadline_holds_over_all_attempts(server: RawServer) -> None:
    def busy(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.UNAVAILABLE, "queue full")

    server.answers = [busy] * 1000
    watch = Stopwatch()
    with (
        calling("sync", f"127.0.0.1:{server.port}", retry=Retry(attempts=1000)) as call,
        pytest.raises((DeadlineExceededError, UnavailableError)),
    ):
        call("m", X, 2.0)
    assert watch.seconds() < 2.0 + 0.5
    assert server.calls > 1


class TestStreams:
    def test_a_malformed_response(self, server: RawServer) -> None:
        good = service_pb2.ModelStreamInferResponse(
            infer_response=service_pb2.ModelInferResponse.FromString(reply())
        ).SerializeToString()
        with Client(f"127.0.0.1:{server.port}", timeout=5.0) as client:
            model = client.model("m")
            server.answers = [good]
            assert [part["y"].tolist() for part in model.stream(X)] == [X.tolist()]
            for broken in (good[:-2], b"\x12\x7fm"):
                server.answers = [broken]
                with pytest.raises(ResponseError):
                    list(model.stream(X))

    async def _read(self, url: str) -> None:
        async with AsyncClient(url, timeout=5.0) as client:
            model = await client.model("m")
            async for _ in model.stream(X):
                pass

    def test_a_malformed_response_in_asyncio(self, server: RawServer) -> None:
        server.answers = [b"\x12\x7fm"]
        with pytest.raises(ResponseError):
            asyncio.run(self._read(f"grpc://127.0.0.1:{server.port}"))

    def test_a_response_that_does_not_come(self, server: RawServer) -> None:
        released = threading.Event()

        def wait(request: bytes, context: grpc.ServicerContext) -> bytes:
            released.wait(20)
            return reply()

        server.answers = [wait]
        with Client(f"127.0.0.1:{server.port}", timeout=5.0) as client:
            watch = Stopwatch()
            with pytest.raises(DeadlineExceededError):
                list(client.model("m").using(timeout=0.5).stream(X))
            assert watch.seconds() < 0.5 + 0.5
        released.set()
