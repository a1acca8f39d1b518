"""The fake server that other programs test with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tritonsmith_client import (
    InputError,
    InternalError,
    NotFoundError,
    PermissionDeniedError,
    Retry,
    UnavailableError,
    UnsupportedError,
)
from tritonsmith_client.testing import FakeServer

Arrays = Mapping[str, np.ndarray[Any, Any]]
ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)


def doubled(inputs: Arrays) -> Arrays:
    return {"y": inputs["x"] * 2, "text": np.array([b"ok"], object)}


@pytest.fixture
def server() -> FakeServer:
    server = FakeServer()
    server.add(
        "double",
        inputs={"x": ("FP32", [-1, 2])},
        outputs={"y": ("FP32", [-1, 2]), "text": ("BYTES", [1])},
        run=doubled,
    )
    return server


def test_a_function_is_a_model(server: FakeServer) -> None:
    with server.client() as client:
        assert client.ready() and client.model_ready("double") and not client.model_ready("x")
        model = client.model("double")
        result = model(ROWS)
        assert np.array_equal(result["y"], ROWS * 2) and result["text"].tolist() == [b"ok"]
        assert list(model.using(outputs=["y"], id="7")(ROWS)) == ["y"]
        assert model.using(id="7")(ROWS).id == "7"
        assert server.calls[0][0] == "double"
        assert np.array_equal(server.calls[0][1]["x"], ROWS)
        with pytest.raises(InputError, match="takes FP32"):
            model(ROWS.astype(int))
        with pytest.raises(NotFoundError):
            client.model("nope")
        with pytest.raises(UnsupportedError):
            client.index()


def test_the_doc_string_runs() -> None:
    import tritonsmith_client.testing as module

    lines = (module.__doc__ or "").splitlines()
    code = "\n".join(line[4:] for line in lines if line.startswith("    "))
    exec(code, {"FakeServer": FakeServer, "np": np})


def test_batches_futures_and_streams(server: FakeServer) -> None:
    server.add(
        "batched",
        inputs={"x": ("FP32", [-1, 2])},
        outputs={"y": ("FP32", [-1, 2])},
        run=lambda inputs: {"y": inputs["x"] + 1},
        max_batch_size=4,
    )
    server.add(
        "count",
        inputs={"x": ("FP32", [-1, 2])},
        outputs={"y": ("INT64", [1])},
        run=lambda inputs: [{"y": np.array([n])} for n in range(3)],
        config={"model_transaction_policy": {"decoupled": True}},
    )
    with server.client() as client:
        assert np.array_equal(client.model("batched")(ROWS)["y"], ROWS + 1)
        assert len(server.calls) == 2
        assert client.model("double").submit(ROWS).result()["y"].shape == (6, 2)
        assert client.model("count").config.decoupled
        assert [int(r["y"][0]) for r in client.model("count").stream(ROWS)] == [0, 1, 2]


def test_failures_on_demand(server: FakeServer) -> None:
    with server.client(retry=Retry(attempts=3, first=0.001)) as client:
        model = client.model("double")
        server.fail(UnavailableError("busy"), times=2)
        assert model(ROWS)["y"].shape == (6, 2), "two failures, three attempts"
        server.fail(InternalError("broken"))
        with pytest.raises(InternalError, match="broken"):
            model(ROWS)
        assert model(ROWS)["y"].shape == (6, 2)


def test_a_mistake_is_told_even_where_the_server_is_gone(server: FakeServer) -> None:
    with server.client() as client:
        model = client.model("double")
        server.fail(InternalError("gone"))
        with pytest.raises(InputError, match="takes FP32"):
            model(ROWS.astype(int))


def test_a_health_check_that_is_refused_says_what_to_do(server: FakeServer) -> None:
    with server.client() as client:
        for ask in (client.model_ready, lambda name: client.wait_ready(1.0, models=[name])):
            server.fail(PermissionDeniedError("closed"))
            with pytest.raises(PermissionDeniedError, match="closed; credentials go in") as caught:
                ask("double")
            assert caught.value.model == "double"


def test_the_async_client(server: FakeServer) -> None:
    async def main() -> None:
        async with server.async_client() as client:
            model = await client.model("double")
            assert np.array_equal((await model(ROWS))["y"], ROWS * 2)
            assert len([r async for r in model.map([ROWS] * 5)]) == 5
            assert len([r async for r in model.stream(ROWS)]) == 1

    asyncio.run(main())
