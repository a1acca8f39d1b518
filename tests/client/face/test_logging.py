"""What the client logs besides its calls: at DEBUG, and nothing unless somebody listens."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys

import numpy as np
import pytest
from support.wire.http_replies import http, then
from support.wire.scripted import ScriptedServer

from tritonsmith_client import AsyncClient, Client, Retry, UnavailableError
from tritonsmith_client.testing import FakeServer
from tritonsmith_generator.serve import Server

READY = then(http(b""))


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="tritonsmith")
    return caplog


def messages(said: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in said.records if r.name == "tritonsmith"]


def test_a_connection_is_logged_once(server: Server, said: pytest.LogCaptureFixture) -> None:
    with Client(server.http_url, shared_memory="off") as client:
        assert client.ready() and client.ready()
    place = server.http_url.removeprefix("http://")
    assert [m for m in messages(said) if "connected to" in m and place in m] == messages(said)
    assert len(messages(said)) == 1


def test_asyncio_logs_the_same(server: Server, said: pytest.LogCaptureFixture) -> None:
    async def ask() -> None:
        async with AsyncClient(server.http_url, shared_memory="off") as client:
            assert await client.ready()

    asyncio.run(ask())
    assert len(messages(said)) == 1 and messages(said)[0].startswith("connected to ")


def test_a_retry_says_what_failed_and_when_it_goes_on(said: pytest.LogCaptureFixture) -> None:
    server = FakeServer()
    tensors = {"x": ("FP32", [-1])}
    server.add("same", inputs=tensors, outputs=tensors, run=lambda inputs: {"x": inputs["x"]})
    with server.client(retry=Retry(attempts=3, first=0.001)) as client:
        model = client.model("same")
        server.fail(UnavailableError("the queue is full"))
        assert model(np.ones(2, np.float32))["x"].tolist() == [1, 1]
    (message,) = messages(said)
    assert "the queue is full" in message and "; attempt 2 of 3 in 0.00" in message


def test_a_failover_says_which_server_rests(said: pytest.LogCaptureFixture) -> None:
    dead = ScriptedServer(lambda connection: connection.close())
    alive = ScriptedServer(READY)
    urls = [f"http://{dead.address}", f"http://{alive.address}"]
    with Client(urls, shared_memory="off") as client:
        assert [client.live() for _ in urls] == [False, True]
    resting = [m for m in messages(said) if "rests for" in m]
    assert len(resting) == 1 and dead.address in resting[0] and resting[0].endswith("1 times")


def test_a_lease_of_shared_memory_is_logged(server: Server, said: pytest.LogCaptureFixture) -> None:
    with Client(server.grpc_url, shared_memory="auto") as client:
        model = client.model("identity")
        for number in range(4):
            model(IN_FP32=np.full((300, 400), number, np.float32))
    assert [m for m in messages(said) if "has mapped the region tritonsmith_client_" in m]


def test_a_program_that_does_not_log_sees_and_imports_nothing(server: Server) -> None:
    code = f"""
import sys
from tritonsmith_client import Client
with Client({server.http_url!r}, shared_memory="off") as client:
    assert client.ready()
assert "logging" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
