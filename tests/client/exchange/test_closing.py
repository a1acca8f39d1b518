"""What is closed: clients, also while they are used, and streams that are left early."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable

import numpy as np
import pytest
from support.wire.callers import CALLERS, WAYS, Caller, caller
from support.wire.http_replies import http
from support.wire.scripted import ScriptedServer, read_request

from tritonsmith_client import AsyncClient, Client, ClosedError
from tritonsmith_generator.serve import Server

METADATA = (
    b'{"name":"m","versions":["1"],"platform":"p","inputs":[{"name":"x","datatype":"FP32",'
    b'"shape":[-1]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1]}]}'
)
CONFIG = b'{"name":"m","model_transaction_policy":{"decoupled":true}}'
EVENT = b'data: {"y":[1.0],"model_name":"m"}\n\n'
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + EVENT
ONE = np.ones(1, np.float32)
SLOW = np.full((1, 1), 2.0, np.float32)
LONG = {
    "COUNT": np.array([9], np.int32),
    "DELAY": np.ones(1, np.float32),
    "FAIL": np.array([False]),
}


class Endless(ScriptedServer):
    """Describes model 'm', and streams without an end.

    Attributes:
        left: a client has closed the connection of a stream.
    """

    def __init__(self) -> None:
        self.left = threading.Event()
        super().__init__(self._answer)

    def __enter__(self) -> Endless:
        return self

    def _answer(self, connection: socket.socket) -> None:
        while not (path := read_request(connection).split(b" ")[1]).endswith(b"_stream"):
            connection.sendall(http(CONFIG if path.endswith(b"config") else METADATA))
        connection.sendall(STREAM)
        if connection.recv(1) == b"":
            self.left.set()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", CALLERS)
def test_a_stream_that_is_left_early(kind: str, count: int) -> None:
    """The server hears of it at once, from one of several too, and not when memory is tidied up."""
    with Endless() as server, Caller(kind, [f"http://{server.address}"] * count) as made:
        parts = made.each(made.model("m").stream(ONE))
        assert next(parts)["y"].tolist() == [1.0]
        parts.close()
        assert server.left.wait(5)


@pytest.mark.parametrize("kind", CALLERS)
def test_a_stream_whose_headers_cannot_be_told(kind: str) -> None:
    """No connection is opened for it."""
    fails = threading.Event()

    def headers() -> dict[str, str]:
        if fails.is_set():
            raise LookupError("no token")
        return {}

    with Endless() as server, caller(kind, "http", server.address, headers=headers) as made:
        model = made.model("m")
        fails.set()
        with pytest.raises(LookupError):
            next(made.each(model.stream(ONE)))
        assert server.connections == 1


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_a_stream_of_a_closed_client(server: Server, kind: str, way: str) -> None:
    url = server.http_url if way == "http" else server.grpc_url
    with caller(kind, way, url) as made:
        model = made.model("repeat")
        made.do(made._client.close)
        with pytest.raises(ClosedError, match=r"after close\(\)"):
            next(made.each(model.stream(LONG)))


@pytest.mark.parametrize("kind", CALLERS)
def test_a_closed_client_of_several_servers(kind: str) -> None:
    """Those that were never asked are not asked any more either."""
    healthy = http(b"")
    with ScriptedServer() as a, ScriptedServer() as b:
        a._scripts, b._scripts = [a.answer(healthy, times=9)], [b.answer(healthy, times=9)]
        with Caller(kind, [f"http://{each.address}" for each in (a, b)]) as made:
            assert made.live()
            made.do(made._client.close)
            for _ in range(2):
                with pytest.raises(ClosedError, match=r"after close\(\)"):
                    made.live()
        assert a.connections + b.connections == 1


Use = Callable[[str], None]


@pytest.fixture(params=CALLERS)
def closed_meanwhile(request: pytest.FixtureRequest, server: Server) -> Use:
    """A call or a stream of a client that is closed while it is under way."""

    async def main(what: str) -> None:
        client = AsyncClient(server.grpc_url, timeout=20.0)
        slow, repeat = await client.model("slow"), await client.model("repeat")

        async def stream() -> None:
            async for _ in repeat.stream(LONG):
                pass

        async def call() -> None:
            await slow(SLOW)

        task = asyncio.ensure_future(stream() if what == "stream" else call())
        await asyncio.sleep(0.5)
        await client.close()
        await task

    def threads(what: str) -> None:
        client = Client(server.grpc_url, timeout=20.0)
        slow, repeat = client.model("slow"), client.model("repeat")
        future = slow.submit(SLOW) if what == "submit" else None
        threading.Timer(0.5, client.close).start()
        if what == "stream":
            for _ in repeat.stream(LONG):
                pass
        elif future is not None:
            future.result(10)
        else:
            slow(SLOW)

    def use(what: str) -> None:
        threads(what) if request.param == "sync" else asyncio.run(main(what))

    return use


@pytest.mark.parametrize("what", ["call", "submit", "stream"])
def test_a_client_that_is_closed_while_grpcio_works(closed_meanwhile: Use, what: str) -> None:
    with pytest.raises(ClosedError, match="closed while it was used"):
        closed_meanwhile(what)
