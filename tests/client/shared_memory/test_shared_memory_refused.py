"""Where shared memory is not allowed, or interrupted while a region is registered."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable

import numpy as np
import pytest
from support.harness.paths import CLIENT_MODELS as MODELS
from support.wire.http_replies import http, infer_reply, silent, then
from support.wire.regions import BIG, own_regions
from support.wire.scripted import ScriptedServer

from tritonsmith_client import (
    AsyncClient,
    Client,
    PermissionDeniedError,
    UnavailableError,
)
from tritonsmith_generator.serve import Server


@pytest.fixture(scope="module")
def forbidding(start_server: Callable[..., Server]) -> Server:
    """A server that lets nobody register memory, as all do by default since release 26.04."""
    key = "shared-memory:k=secret"
    flags = [f"--grpc-restricted-protocol={key}", f"--http-restricted-api={key}"]
    return start_server(MODELS, models=["identity"], extra_args=flags)


def test_a_server_that_does_not_allow_it(forbidding: Server, url: str) -> None:
    address = forbidding.grpc_url if url.startswith("grpc") else forbidding.http_url
    with Client(address) as client:
        with pytest.raises((PermissionDeniedError, UnavailableError)):
            client.memory_status()
        model = client.model("identity")
        for number in range(5):
            array = np.full(BIG, number, np.float32)
            assert np.array_equal(model(IN_FP32=array)["OUT_FP32"], array)
        assert client._core.sharing is not None and client._core.sharing.off, "asked once"
    assert not own_regions()


def test_only_a_server_on_this_host_is_asked() -> None:
    local = ["localhost", "http://127.0.0.1:8000", "[::1]:8001", "grpc+unix:///tmp/t.sock"]
    elsewhere = ["triton:8001", "http://10.0.0.7:8000", ["localhost:1", "localhost:2"]]
    for urls, expected in ((local, True), (elsewhere, False)):
        for url in urls:
            with Client(url) as client:
                assert (client._core.sharing is not None) is expected, url
    for options in ({"shared_memory": "off"}, {"resolve": True}):
        with Client("localhost", **options) as client:
            assert client._core.sharing is None


BIG_X = np.zeros(50_000, np.float32)


def refusing_to_say() -> ScriptedServer:
    """A server that never answers when a region is registered."""
    reply = infer_reply([BIG_X.size], BIG_X.nbytes, BIG_X)
    return ScriptedServer(
        then(reply, http(b'{"name":"triton","version":"2"}'), http(b"[]"), silent)
    )


def test_an_interrupt_while_a_region_is_registered() -> None:
    """As in a notebook, which keeps the traceback."""
    with refusing_to_say() as server, Client(f"http://{server.address}", timeout=30.0) as client:
        model = client.model("m")
        model(BIG_X)
        here = threading.main_thread().ident
        timer = threading.Timer(0.5, signal.pthread_kill, [here, signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt) as held:
            model(BIG_X)
        assert held.tb and not own_regions(), "the name is still there"


def test_a_task_cancelled_while_a_region_is_registered() -> None:
    async def main() -> None:
        with refusing_to_say() as server:
            async with AsyncClient(f"http://{server.address}", timeout=30.0) as client:
                model = await client.model("m")
                await model(BIG_X)
                task = asyncio.ensure_future(model(BIG_X))
                while not own_regions():
                    await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError) as held:
                    await task
                assert held.tb and not own_regions(), "the name is still there"

    asyncio.run(main())
