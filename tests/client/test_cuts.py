"""A way to the real server that breaks after so many bytes: closed, reset, or silent for ever.

Whatever breaks, the call ends with a typed error within its deadline, and the next one, over a
way that works, has the right answer.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import cutting
from support.servers import BriefServer
from support.soak import by_turns
from support.stopwatch import Stopwatch

from tritonsmith_client import (
    AsyncClient,
    Client,
    ConnectionLostError,
    DeadlineExceededError,
    ResponseError,
    Result,
    Retry,
    TritonError,
    UnavailableError,
)
from tritonsmith_generator.serve import Server

MODELS = Path(__file__).parent / "models"
DEADLINE = 1.0
ROWS = np.arange(200_000, dtype=np.float32).reshape(2, 100_000)


class Proxy:
    """The cutting proxy, which runs in a process of its own, in front of a server."""

    def __init__(self, url: str) -> None:
        scheme, _, address = url.partition("://")
        self._process = subprocess.Popen(
            [sys.executable, cutting.__file__, *address.rsplit(":", 1)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.url = f"{scheme}://127.0.0.1:{self._answer()}"

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        assert self._answer() == "ok"

    def close(self) -> None:
        self._process.communicate(timeout=10)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture
def proxy(url: str) -> Iterator[Proxy]:
    made = Proxy(url)
    yield made
    made.close()


Infer = Callable[..., Result]


@pytest.fixture(params=["sync", "async"])
def calls(request: pytest.FixtureRequest, proxy: Proxy) -> Iterator[Infer]:
    """Calls 'plain' through the proxy, with one client for all calls."""
    # Whole tensors go over the wire.
    options: dict[str, Any] = {"timeout": 5.0, "retry": Retry(attempts=1), "shared_memory": "off"}
    if request.param == "sync":
        with Client(proxy.url, **options) as client:
            model = client.model("plain")
            yield lambda rows, timeout=DEADLINE: model.using(timeout=timeout)(rows)
        return
    loop = asyncio.new_event_loop()
    aclient = AsyncClient(proxy.url, **options)
    try:
        amodel = loop.run_until_complete(aclient.model("plain"))

        async def call(rows: Any, timeout: float) -> Result:
            return await amodel.using(timeout=timeout)(rows)

        yield lambda rows, timeout=DEADLINE: loop.run_until_complete(call(rows, timeout))
    finally:
        loop.run_until_complete(aclient.close())
        loop.close()


# In the first bytes, in the headers, in the JSON or the message's head, in the tensor, at its end.
COUNTS = {"down": [0, 1, 100, 300, 50_000, 799_000], "up": [0, 100, 300, 70_000, 790_000]}
CASES = [
    (how, direction, count)
    for how in ("close", "reset", "silent")
    for direction, counts in COUNTS.items()
    for count in (counts[::2] if how == "silent" else counts)  # each of those takes its time
]


WAYS = [*itertools.product(("grpc", "own", "http"), ("sync", "async"))]


@pytest.mark.parametrize(
    ("url", "calls", "how", "direction", "count"),
    by_turns(WAYS, CASES),
    indirect=["url", "calls"],
)
def test_a_cut_connection(calls: Infer, proxy: Proxy, how: str, direction: str, count: int) -> None:
    assert np.array_equal(calls(ROWS, 20.0)["Y"], ROWS)
    proxy.tell(f"cut {how} {direction} {count}")
    watch = Stopwatch()
    with pytest.raises((UnavailableError, DeadlineExceededError, ResponseError)) as caught:
        for _ in range(3):  # a connection may be replaced before it is used, or the cut come late
            calls(ROWS)
    assert watch.seconds() < 3 * DEADLINE + 0.5
    assert isinstance(caught.value, TritonError)
    proxy.tell("mend")
    deadline = time.monotonic() + 10
    while True:  # gRPC waits a little before it connects again
        try:
            assert np.array_equal(calls(ROWS + 1)["Y"], ROWS + 1)
            break
        except (UnavailableError, DeadlineExceededError):
            assert time.monotonic() < deadline, "the client did not recover"


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_inference_whose_answer_is_lost_is_not_executed_twice(
    proxy: Proxy, server: Server, kind: str, how: str
) -> None:
    """The server has the whole request, and the way breaks in the first bytes of its answer."""
    seconds = np.array([[0.1]], np.float32)

    async def broken() -> None:
        async with AsyncClient(proxy.url, timeout=10.0) as client:
            slow = await client.model("slow")
            proxy.tell(f"cut {how} down 60")
            await slow(seconds)

    def call() -> None:
        with Client(proxy.url, timeout=10.0) as client:
            slow = client.model("slow")
            proxy.tell(f"cut {how} down 60")
            slow(seconds)

    with Client(server.grpc_url) as direct:
        before = direct.statistics("slow")[0].inference_count
        with pytest.raises(ConnectionLostError, match="may have executed it"):
            call() if kind == "sync" else asyncio.run(broken())
        for _ in range(4):  # all instances: what was sent before has ended
            direct.model("slow")(seconds)
        assert direct.statistics("slow")[0].inference_count <= before + 1 + 4


@pytest.mark.parametrize("kind", ["grpc", "http"])
def test_a_server_that_is_killed_and_started_again(kind: str) -> None:
    """The call that it was busy with ends with an error; the same client's next ones are right."""
    server = BriefServer(MODELS, models=["plain", "slow"]).start().wait_ready()
    url = server.grpc_url if kind == "grpc" else server.http_url
    ports: dict[str, Any] = {f"{kind}_port": int(url.rsplit(":", 1)[1])}
    with Client(url, timeout=20.0) as client:
        plain = client.model("plain")
        assert np.array_equal(plain(ROWS)["Y"], ROWS)
        future = client.model("slow").submit(np.array([[10.0]], np.float32))
        time.sleep(0.5)
        start = time.monotonic()
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(UnavailableError):
            future.result(timeout=10)
        assert time.monotonic() - start < 5
        assert not client.live()
        server.stop()
        again = BriefServer(MODELS, models=["plain", "slow"], **ports).start()
        client.wait_ready(timeout=60, models=["plain"])
        assert np.array_equal(plain(ROWS + 2)["Y"], ROWS + 2)
        again.stop()


@pytest.mark.parametrize("kind", ["grpc", "http"])
def test_asyncio_and_a_server_that_is_killed_and_started_again(kind: str) -> None:
    server = BriefServer(MODELS, models=["plain", "slow"]).start().wait_ready()
    url = server.grpc_url if kind == "grpc" else server.http_url
    ports: dict[str, Any] = {f"{kind}_port": int(url.rsplit(":", 1)[1])}

    async def use() -> None:
        async with AsyncClient(url, timeout=20.0) as client:
            plain, slow = await client.model("plain"), await client.model("slow")
            pending = asyncio.ensure_future(slow(np.array([[10.0]], np.float32)))
            await asyncio.sleep(0.5)
            start = time.monotonic()
            os.kill(server.pid, signal.SIGKILL)
            with pytest.raises(UnavailableError):
                await pending
            assert time.monotonic() - start < 5
            server.stop()
            again = await asyncio.to_thread(BriefServer(MODELS, models=["plain"], **ports).start)
            await client.wait_ready(timeout=60, models=["plain"])
            assert np.array_equal((await plain(ROWS + 2))["Y"], ROWS + 2)
            again.stop()

    asyncio.run(use())
