"""Streams of decoupled models, sync and async."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from support.wire.awaited import Run
from support.wire.stopwatch import Stopwatch

from tritonsmith_client import (
    Client,
    DeadlineExceededError,
    StatusError,
    UnsupportedError,
)


def wish(count: int, delay: float = 0.0, fail: bool = False) -> dict[str, Any]:
    return {
        "COUNT": np.array([count], np.int32),
        "DELAY": np.array([delay], np.float32),
        "FAIL": np.array([fail]),
    }


@pytest.mark.parametrize("count", [0, 1, 5, 200])
def test_streams(run: Run, count: int) -> None:
    async def use(client: Any) -> None:
        model = await client.model("repeat")
        got = [int(r["NUMBER"][0]) async for r in model.stream(wish(count))]
        assert got == list(range(count))

    run(use)


def test_several_streams_side_by_side(run: Run) -> None:
    async def use(client: Any) -> None:
        model = await client.model("repeat")

        async def read(count: int) -> list[int]:
            return [int(r["NUMBER"][0]) async for r in model.stream(wish(count, 0.001))]

        counts = [3, 10, 1, 7]
        assert await asyncio.gather(*map(read, counts)) == [list(range(n)) for n in counts]

    run(use)


def test_an_error_in_the_middle_of_a_stream(run: Run) -> None:
    async def use(client: Any) -> None:
        model = await client.model("repeat")
        got: list[int] = []
        with pytest.raises(StatusError, match="told to fail in the middle"):
            async for result in model.stream(wish(3, fail=True)):
                got.append(int(result["NUMBER"][0]))
        assert got == [0, 1, 2]
        assert len([r async for r in model.stream(wish(2))]) == 2

    run(use)


def test_a_stream_that_falls_silent(run: Run) -> None:
    async def use(client: Any) -> None:
        model = (await client.model("repeat")).using(timeout=1.0)
        got: list[int] = []
        # Each response comes in time, all of them together do not: the timeout is for each.
        async for result in model.stream(wish(30, 0.05)):
            got.append(int(result["NUMBER"][0]))
        assert got == list(range(30))
        watch = Stopwatch()
        with pytest.raises(DeadlineExceededError, match="no response within 1 s"):
            async for _ in model.stream(wish(1, 3.0)):
                pass
        assert watch.seconds() < 5

    run(use)


def test_a_stream_that_is_left_early(run: Run) -> None:
    async def use(client: Any) -> None:
        model = await client.model("repeat")
        stream = model.stream(wish(1000, 0.01))
        async for result in stream:
            if result["NUMBER"][0] == 2:
                break
        await stream.aclose()
        assert len([r async for r in model.stream(wish(2))]) == 2

    run(use)


def test_a_decoupled_model_cannot_be_called(client: Client) -> None:
    with pytest.raises(UnsupportedError):
        client.model("repeat")(wish(1))
