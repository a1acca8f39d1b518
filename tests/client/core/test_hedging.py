"""Hedged calls: the quicker of two replicas answers, the slower one's work is ended."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.harness.paths import CLIENT_MODELS as MODELS
from support.wire.scripted import ScriptedServer, read_request

from tritonsmith_client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InputError,
    RequestCancelledError,
    Retry,
)
from tritonsmith_client._net.deadline import CancellableDeadline
from tritonsmith_generator.serve import Server

X = np.arange(6, dtype=np.float32).reshape(2, 3)
_METADATA = (
    b'{"name":"m","versions":["1"],"platform":"p",'
    b'"inputs":[{"name":"x","datatype":"FP32","shape":[-1]}],"outputs":[]}'
)
_CONFIG = b'{"name":"m","max_batch_size":0}'
SLOWLY = """
import time
from pathlib import Path
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        for _ in range(200):
            if request.is_cancelled():
                Path(__file__).with_name("cancelled").touch()
                break
            time.sleep(0.02)
        x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model `plain`, but that it takes four seconds, or until it is cancelled."""
    folder = tmp_path_factory.mktemp("lagging")
    shutil.copytree(MODELS / "plain", folder / "plain")
    config = folder / "plain" / "config.pbtxt"
    config.write_text(config.read_text().replace("count: 1", "count: 4"))
    (folder / "plain" / "1" / "model.py").write_text(SLOWLY)
    return folder


@pytest.fixture(scope="module")
def lagging(start_server: Callable[..., Server], folder: Path) -> Server:
    return start_server(folder)


@pytest.fixture
def urls(url: str, server: Server, lagging: Server) -> Iterator[list[str]]:
    both = [lagging.grpc_url, server.grpc_url]
    yield both if url.startswith("grpc") else [lagging.http_url, server.http_url]


def test_the_quicker_replica_answers(urls: list[str]) -> None:
    with Client(urls, timeout=2.5) as client:
        model = client.model("plain")
        hedged = model.using(hedge=0.1)
        for _ in range(5):
            assert np.array_equal(hedged(X)["Y"], X)
        assert [len(r["Y"]) for r in hedged.map([X] * 6)] == [2] * 6
        with pytest.raises(DeadlineExceededError):
            for _ in range(2):  # one of them is the slow one's turn
                model(X)


def test_asyncio(urls: list[str]) -> None:
    async def main() -> None:
        async with AsyncClient(urls, timeout=2.5) as client:
            model = await client.model("plain")
            hedged = model.using(hedge=0.1)
            for result in await asyncio.gather(*(hedged(X) for _ in range(6))):
                assert np.array_equal(result["Y"], X)
            with pytest.raises(DeadlineExceededError):
                for _ in range(2):
                    await model(X)

    asyncio.run(main())


def test_the_slower_one_is_told_to_stop(lagging: Server, server: Server, folder: Path) -> None:
    mark = folder / "plain" / "1" / "cancelled"
    mark.unlink(missing_ok=True)
    with Client([lagging.grpc_url, server.grpc_url], timeout=60.0) as client:
        hedged = client.model("plain").using(hedge=0.1)
        for _ in range(2):
            hedged(X)
        with Client(lagging.grpc_url, timeout=30.0) as other:  # once it is free again, it has seen
            other.model("plain")(X)
    assert mark.exists()


def test_the_slower_connection_is_closed() -> None:
    """Over HTTP that is how a server hears of it."""
    closed = threading.Event()
    asked = itertools.count(1)
    empty = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"outputs":[]}'

    def script(connection: socket.socket) -> None:
        while True:
            target = read_request(connection).split(b"\r\n")[0]
            if b"/infer" in target:
                if next(asked) == 2:  # the first attempt of the hedged call
                    break
                connection.sendall(empty)
                continue
            body = _CONFIG if b"/config" in target else _METADATA
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        if connection.recv(1) == b"":
            closed.set()

    with ScriptedServer(script) as server, Client(f"http://{server.address}") as client:
        model, x = client.model("m"), np.zeros(2, np.float32)
        model(x)
        assert dict(model.using(hedge=0.1, timeout=60.0)(x)) == {}
        assert closed.wait(10)


def test_the_deadline_is_for_both(lagging: Server, url: str) -> None:
    address = lagging.grpc_url if url.startswith("grpc") else lagging.http_url
    with Client(address, timeout=10.0) as client:
        model = client.model("plain").using(hedge=0.1, timeout=0.5)
        with pytest.raises(DeadlineExceededError):
            model(X)

        async def main() -> None:
            async with AsyncClient(address) as other:
                hedged = (await other.model("plain")).using(hedge=0.1, timeout=0.5)
                with pytest.raises(DeadlineExceededError):
                    await hedged(X)

        asyncio.run(main())


def test_a_hedged_call_can_be_cancelled(lagging: Server, url: str) -> None:
    address = lagging.grpc_url if url.startswith("grpc") else lagging.http_url
    with Client(address, timeout=60.0, retry=Retry(attempts=1)) as client:
        future = client.model("plain").using(hedge=0.05).submit(X)
        threading.Event().wait(0.3)
        assert future.cancel()
        with pytest.raises(RequestCancelledError):
            future.result(timeout=3)


def test_requests_of_a_sequence_are_never_sent_twice(client: Client) -> None:
    one = np.array([[1]], np.int32)
    model = client.model("accumulate").using(hedge=1e-9)
    with model.sequence() as track:
        assert [int(track(one)["SUM"][0, 0]) for _ in range(20)] == list(range(1, 21))


def test_a_refusal_is_an_answer(client: Client) -> None:
    with pytest.raises(InputError, match="takes FP32"):
        client.model("plain").using(hedge=0.1)(X.astype(int))
    with pytest.raises(InputError, match=r"hedge is -1; it must be seconds from 0 \(never\)"):
        client.model("plain").using(hedge=-1)


def test_a_call_waits_until_its_cancelling_is_over() -> None:
    """Otherwise that could end the next call over the same connection."""
    deadline = CancellableDeadline(None)
    begun = threading.Event()
    order: list[str] = []

    def abort() -> None:
        begun.set()
        time.sleep(0.2)
        order.append("aborted")

    deadline.on_cancel(abort)
    thread = threading.Thread(target=deadline.cancel)
    thread.start()
    assert begun.wait(5)
    deadline.on_cancel(None)
    order.append("given back")
    thread.join()
    assert order == ["aborted", "given back"]
