"""A connection that is kept for the next call, and what its server did to it meanwhile.

The event loop of an asynchronous client runs during calls only, as where a caller works between
two calls without an await: it has not heard of what came in between.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support.wire.callers import CALLERS, Caller, caller
from support.wire.http2 import Peer, frame, serving
from support.wire.http2 import infer_reply as grpc_reply
from support.wire.http_replies import CONFIG, METADATA, X, http, infer_reply
from support.wire.scripted import ScriptedServer, read_request, reset

from tritonsmith_client import ConnectError, Retry, TritonError

ONCE = Retry(attempts=1)
WAYS = [(kind, way) for kind in CALLERS for way in ("http", "own")]
LARGE = np.zeros(2_000_000, np.float32)  # more than the buffers of a connection take
End = Callable[[socket.socket], None]


def fin(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


class Breaking:
    """A connection that is reset once more has come than any description of a model takes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._left = 100_000

    def recv(self, size: int) -> bytes:
        data = self._connection.recv(size)
        self._left -= len(data)
        if self._left < 0:
            reset(self._connection)
            raise OSError("broken on purpose")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class Told(ScriptedServer):
    """Answers model 'm', and does after each inference what it was told.

    Attributes:
        done: that has been done.
        breaking: so many connections, the first ones, are reset in the middle of a large request.
    """

    def __init__(self, way: str, afterwards: End) -> None:
        self.done = threading.Event()
        self.breaking = 0
        self._afterwards = afterwards
        self._serve_one = self._http if way == "http" else serving(self._infer)
        super().__init__(self._one)

    def __enter__(self) -> Told:
        return self

    def _one(self, connection: Any) -> None:
        breaks = self.connections <= self.breaking
        given: Any = Breaking(connection) if breaks else connection
        self._serve_one(given)

    def _infer(self, peer: Peer) -> None:
        peer.send(peer.good(grpc_reply()))
        self._end(peer.connection)

    def _http(self, connection: socket.socket) -> None:
        while True:
            target = read_request(connection).split()[1]
            if target.endswith(b"/infer"):
                connection.sendall(infer_reply())
                self._end(connection)
            else:
                value = CONFIG if target.endswith(b"/config") else METADATA
                connection.sendall(http(json.dumps(value).encode()))

    def _end(self, connection: socket.socket) -> None:
        time.sleep(0.05)  # the call is over by then
        self._afterwards(connection)
        self.done.set()


@pytest.fixture(params=WAYS, ids="-".join)
def way(request: pytest.FixtureRequest) -> tuple[str, str]:
    kind, way = request.param
    return kind, way


def right(made: Caller, model: Any, server: Told) -> None:
    assert np.array_equal(made.do(model, X)["y"], X)
    assert server.done.wait(5)
    server.done.clear()


@pytest.mark.parametrize("end", [fin, reset])
def test_one_that_was_closed_is_not_used_again(way: tuple[str, str], end: End) -> None:
    with Told(way[1], end) as server, caller(*way, server.address, retry=ONCE) as made:
        model = made.model("m")
        for _ in range(5):
            right(made, model, server)
        assert server.connections == 5


@pytest.mark.parametrize("kind", CALLERS)
def test_what_nobody_asked_for_is_no_answer(kind: str) -> None:
    """Some servers say why before they close an idle connection: a reply, to no request."""
    late = infer_reply(values=X + 1)
    with (
        Told("http", lambda connection: connection.sendall(late)) as server,
        caller(kind, "http", server.address, retry=ONCE) as made,
    ):
        model = made.model("m")
        for _ in range(3):
            right(made, model, server)
        assert server.connections == 3


def goodbye(connection: socket.socket) -> None:
    connection.sendall(frame(7, 0, 0, struct.pack(">II", 1 << 20, 0)))


def ping(connection: socket.socket) -> None:
    connection.sendall(frame(6, 0, 0, bytes(8)))


@pytest.mark.parametrize(("said", "connections"), [(goodbye, 3), (ping, 1)])
@pytest.mark.parametrize("kind", CALLERS)
def test_what_the_server_says_between_two_calls(kind: str, said: End, connections: int) -> None:
    with Told("own", said) as server, caller(kind, "own", server.address, retry=ONCE) as made:
        model = made.model("m")
        for _ in range(3):
            right(made, model, server)
        assert server.connections == connections


def test_half_a_request_is_sent_again(way: tuple[str, str]) -> None:
    """It cannot have been executed; and a fresh connection may be better than the kept one."""
    with (
        Told(way[1], lambda _: None) as server,
        caller(*way, server.address, retry=ONCE, shared_memory="off", timeout=20.0) as made,
    ):
        server.breaking = 1
        model = made.model("m")
        assert "y" in made.do(model, LARGE)
        assert server.connections == 2


def test_half_a_request_over_a_fresh_connection(way: tuple[str, str]) -> None:
    """Its error says that nothing was executed, so the policy of retries may repeat it."""
    with (
        Told(way[1], fin) as server,
        caller(*way, server.address, retry=Retry(2), shared_memory="off", timeout=20.0) as made,
    ):
        model = made.model("m")
        right(made, model, server)
        server.breaking = 2
        assert "y" in made.do(model, LARGE)
        assert server.connections == 3
        assert server.done.wait(5)
        server.breaking = 9
        with pytest.raises(TritonError) as caught:
            made.do(model.using(id="once"), LARGE)
        assert type(caught.value) is ConnectError


@pytest.fixture
def children() -> Iterator[list[int]]:
    started: list[int] = []
    yield started
    for child in started:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_child_has_its_own(way: tuple[str, str], children: list[int]) -> None:
    """Even where it goes on with its parent's event loop."""
    with Told(way[1], lambda _: None) as server, caller(*way, server.address, retry=ONCE) as made:
        model = made.model("m")
        right(made, model, server)
        child = os.fork()
        if not child:
            try:
                os._exit(0 if np.array_equal(made.do(model, X)["y"], X) else 1)
            finally:
                os._exit(2)
        children.append(child)
        assert server.done.wait(10)
        assert server.connections == 2
