"""A name service that does not answer holds no call past its timeout."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.wire.callers import CALLERS, Caller, caller
from support.wire.stopwatch import Stopwatch

import tritonsmith_client._core.balancing
from tritonsmith_client import AsyncClient, ConnectError, DeadlineExceededError
from tritonsmith_generator.serve import Server

WAYS = [(kind, way) for kind in CALLERS for way in ("http", "own")]  # grpcio looks names up itself
ask = socket.getaddrinfo


class NameService:
    """Knows "triton.test" as this host; says so when it is told to answer."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked: list[Any] = []

    def __call__(self, host: Any, *args: Any, **named: Any) -> Any:
        if host != "triton.test":
            return ask(host, *args, **named)
        self.asked.append(host)
        self.answers.wait(20)
        return ask("127.0.0.1", *args, **named)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameService]:
    made = NameService()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.answers.set()


@pytest.mark.parametrize("resolve", [False, True])
@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_a_call_ends_in_time(
    server: Server, names: NameService, kind: str, way: str, resolve: bool
) -> None:
    port = (server.http_url if way == "http" else server.grpc_url).rpartition(":")[2]
    with caller(kind, way, f"triton.test:{port}", timeout=0.2, resolve=resolve) as client:
        for _ in range(3):
            watch = Stopwatch()
            with pytest.raises(DeadlineExceededError, match=r"0\.2 s"):
                client.index()
            assert watch.seconds() < 2
        assert len(names.asked) == 1, "one thread waits, whoever asks"
        names.answers.set()
    with caller(kind, way, f"triton.test:{port}", resolve=resolve) as client:
        assert client.index()


@pytest.mark.parametrize("kind", CALLERS)
def test_a_stream_ends_in_time(server: Server, names: NameService, kind: str) -> None:
    url = f"http://triton.test:{server.http_url.rpartition(':')[2]}"
    names.answers.set()
    with Caller(kind, url, timeout=30.0) as client:
        model = client.model("repeat").using(timeout=0.2)
        names.answers.clear()
        watch = Stopwatch()
        with pytest.raises(DeadlineExceededError):
            list(client.each(model.stream([1], [0.0], [False])))
        assert watch.seconds() < 2


def test_an_event_loop_ends_in_time(names: NameService) -> None:
    async def use() -> None:
        async with AsyncClient("http://triton.test:1", timeout=0.2) as client:
            await client.index()

    watch = Stopwatch()
    with pytest.raises(DeadlineExceededError):
        asyncio.run(use())
    assert watch.seconds() < 2


@pytest.mark.parametrize("kind", CALLERS)
def test_servers_that_are_known_stay(
    server: Server, names: NameService, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tritonsmith_client._core.balancing, "_LOOK_UP_AGAIN", 0.0)
    url = f"http://triton.test:{server.http_url.rpartition(':')[2]}"
    names.answers.set()
    with Caller(kind, url, timeout=10.0, resolve=True) as client:
        assert client.index()
        names.answers.clear()
        watch = Stopwatch()
        assert client.index()
        assert watch.seconds() < 5


@pytest.mark.parametrize("host", ["a" * 70, "a..b"])
@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_a_name_that_no_host_can_have(kind: str, way: str, host: str) -> None:
    with caller(kind, way, f"{host}:1", timeout=5.0) as client:
        said = rf"no connection to \w+://{re.escape(host)}:1: no host has the name"
        with pytest.raises(ConnectError, match=said):
            client.index()
