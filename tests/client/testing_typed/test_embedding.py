"""Inside other programs: a running event loop, a web application, callbacks, a typical default."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI

from tritonsmith_client import AsyncClient, Client, Result
from tritonsmith_client.testing import FakeServer

ONES = np.ones((1, 16), np.int32)


def test_in_a_running_event_loop(url: str) -> None:
    """As in a notebook, whose cells run inside a loop: both clients work there."""

    async def cell() -> tuple[int, int]:
        with Client(url) as client:
            model = client.model("add_sub")
            one = int(model(ONES, ONES)["SUM"][0, 0])
            assert [int(r["SUM"][0, 0]) for r in model.map([(ONES, ONES)] * 3)] == [2] * 3
        async with AsyncClient(url) as other:
            two = int((await (await other.model("add_sub"))(ONES, ONES))["SUM"][0, 0])
        return one, two

    assert asyncio.run(cell()) == (2, 2)


async def get(app: FastAPI, path: str) -> bytes:
    """What a browser would get, without a web server in between."""
    body = bytearray()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        assert message.get("status", 200) == 200
        body.extend(message.get("body", b""))

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
    await app(scope, receive, send)
    return bytes(body)


def test_in_a_web_application(url: str) -> None:
    """One client for all requests: made when the application starts, closed when it ends."""
    held: dict[str, Any] = {}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncClient(url) as client:
            held["model"] = await client.model("add_sub")
            with Client(url) as sync:
                held["sync"] = sync.model("add_sub")
                yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/async/{number}")
    async def with_await(number: int) -> int:
        return int((await held["model"](ONES * number, ONES))["SUM"][0, 0])

    @app.get("/threads/{number}")
    def in_a_thread(number: int) -> int:
        return int(held["sync"](ONES * number, ONES)["SUM"][0, 0])

    async def main() -> list[bytes]:
        async with app.router.lifespan_context(app):
            paths = [f"/{kind}/{n}" for n in range(20) for kind in ("async", "threads")]
            return await asyncio.gather(*(get(app, path) for path in paths))

    assert asyncio.run(main()) == [str(n + 1).encode() for n in range(20) for _ in range(2)]


def test_callbacks(url: str) -> None:
    seen: list[int] = []
    rung = threading.Event()

    def note(future: Future[Result] | asyncio.Future[Result]) -> None:
        seen.append(int(future.result()["SUM"][0, 0]))
        rung.set()

    with Client(url) as client:
        client.model("add_sub").submit(ONES, ONES).add_done_callback(note)
        assert rung.wait(20)

    async def main() -> None:
        async with AsyncClient(url) as other:
            future = (await other.model("add_sub")).submit(ONES, ONES)
            future.add_done_callback(note)
            await future
            await asyncio.sleep(0)

    asyncio.run(main())
    assert seen == [2, 2]


def test_a_call_ends_within_a_minute_unless_told_otherwise() -> None:
    for kind in (Client, AsyncClient):
        assert inspect.signature(kind).parameters["timeout"].default == 60.0
    with Client("localhost") as client:
        left = client._core.deadline().remaining()
        assert left is not None and 59 < left <= 60


def test_tensors_without_axes() -> None:
    server = FakeServer()
    server.add(
        "scalar",
        inputs={"x": ("FP32", []), "name": ("BYTES", [])},
        outputs={"y": ("FP32", []), "name": ("BYTES", [])},
        run=lambda inputs: {"y": inputs["x"] * 2, "name": inputs["name"]},
    )
    with server.client() as client:
        for value in (np.float32(1.5), np.array(1.5, np.float32), 1.5):
            result = client.model("scalar")(value, "ü")
            assert (result["y"].shape, float(result["y"])) == ((), 3.0)
            assert (result["name"].shape, result["name"].item()) == ((), "ü".encode())
