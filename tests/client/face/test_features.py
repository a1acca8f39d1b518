"""Futures, map, large batches, streams, sequences and classification, sync and async.

Each test is written once, against a `Caller` that hides which client it is.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.wire.awaited import Run
from support.wire.stopwatch import Stopwatch

from tritonsmith_client import (
    AsyncClient,
    AsyncModel,
    AsyncSequence,
    Client,
    DeadlineExceededError,
    InputError,
    Model,
    RequestCancelledError,
    Result,
    Sequence,
)


@pytest.mark.parametrize(
    "pair", [(Client, AsyncClient), (Model, AsyncModel), (Sequence, AsyncSequence)]
)
def test_both_clients_have_the_same_surface(pair: tuple[Any, Any]) -> None:
    ours, theirs = ({n for n in dir(c) if not n.startswith("_")} for c in pair)
    assert ours == theirs
    for name in [*ours, "__init__"]:
        left, right = (inspect.getattr_static(c, name) for c in pair)
        if isinstance(left, property):
            assert isinstance(right, property)
            continue
        parameters = [
            [(p.name, p.kind, p.default) for p in inspect.signature(f).parameters.values()]
            for f in (left, right)
        ]
        assert parameters[0] == parameters[1], name


def test_health_and_metadata(run: Run) -> None:
    async def use(client: Any) -> None:
        assert await client.live() and await client.ready()
        assert not await client.model_ready("nope")
        await client.wait_ready(5, models=["text"])
        assert (await client.metadata()).name == "triton"
        model = await client.model("add_sub")
        assert (model.name, model.config.max_batch_size) == ("add_sub", 8)
        with pytest.raises(DeadlineExceededError, match="model 'nope'"):
            await client.wait_ready(0.1, models=["nope"])

    run(use)


def test_calls_in_any_size(run: Run) -> None:
    async def use(client: Any) -> None:
        model = await client.model("identity")
        for shape in [(1, 1), (0, 3), (300, 300), (2048, 2048)]:
            array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
            got = (await model(IN_FP32=array))["OUT_FP32"]
            assert np.array_equal(got, array)
            got += 1

    run(use)


def test_a_deadline_leaves_the_client_usable(run: Run) -> None:
    async def use(client: Any) -> None:
        slow = await client.model("slow")
        watch = Stopwatch()
        with pytest.raises(DeadlineExceededError):
            await slow.using(timeout=0.3)(np.array([[2.0]], np.float32))
        assert watch.seconds() < 0.3 + 0.5
        assert (await slow(np.array([[0.0]], np.float32)))["SLEPT"].shape == (1, 1)

    run(use)


def test_deadlines_of_calls_over_one_connection_do_not_mix(run: Run) -> None:
    """An earlier call's deadline, shorter or longer, is not a later one's."""

    async def use(client: Any) -> None:
        slow = await client.model("slow")
        for timeout, seconds in ((30.0, 0.0), (0.7, 0.0), (30.0, 0.8), (1.9, 1.1), (20.0, 0.3)):
            await slow.using(timeout=timeout)(np.array([[seconds]], np.float32))
        watch = Stopwatch()
        with pytest.raises(DeadlineExceededError):
            await slow.using(timeout=0.3)(np.array([[2.0]], np.float32))
        assert watch.seconds() < 0.3 + 0.5

    run(use)


def test_futures_overlap(run: Run) -> None:
    async def use(client: Any) -> None:
        slow = await client.model("slow")
        watch = Stopwatch()
        futures = [slow.submit(np.array([[1.0]], np.float32)) for _ in range(4)]
        for future in futures:
            assert (await future)["SLEPT"][0, 0] == 1.0
        assert watch.seconds() < 4 * 1.0

    run(use)


def test_a_cancelled_future_ends_at_once(run: Run) -> None:
    async def use(client: Any) -> None:
        slow = await client.model("slow")
        watch = Stopwatch()
        future = slow.submit(np.array([[5.0]], np.float32))
        await asyncio.sleep(0.2)
        time.sleep(0.2)
        assert future.cancel()
        with pytest.raises((RequestCancelledError, asyncio.CancelledError)):
            await future
        assert watch.seconds() < 3.0
        assert (await slow(np.array([[0.0]], np.float32)))["SLEPT"].shape == (1, 1)

    run(use)


def test_map_keeps_order_and_counts(run: Run) -> None:
    async def use(client: Any) -> None:
        model = await client.model("add_sub")
        seen: list[int] = []
        ones = np.ones((1, 16), np.int32)
        items = ((ones * n, ones) for n in range(50))
        sums = [
            int(r["SUM"][0, 0]) async for r in model.map(items, concurrency=4, progress=seen.append)
        ]
        assert sums == [n + 1 for n in range(50)]
        assert seen == list(range(1, 51))
        named = [{"INPUT0": ones, "INPUT1": ones}] * 3
        assert len([r async for r in model.map(named)]) == 3
        with pytest.raises(InputError, match="concurrency is 0"):
            model.map([], concurrency=0)

    run(use)


def test_map_reads_no_further_than_it_must(run: Run) -> None:
    async def use(client: Any) -> None:
        model = await client.model("add_sub")
        taken: list[int] = []

        def items() -> Iterator[Any]:
            for number in range(1000):
                taken.append(number)
                yield (np.ones((1, 16), np.int32), np.ones((1, 16), np.int32))

        async for _ in model.map(items(), concurrency=3):
            if len(taken) > 5:
                break
        assert len(taken) <= 7

    run(use)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # a loop ended with open ones
def test_one_async_client_in_one_loop_after_another(url: str) -> None:
    client = AsyncClient(url)

    async def use() -> Result:
        model = await client.model("text")
        return await model([["a"]])

    for _ in range(3):
        assert asyncio.run(use())["UPPER"].tolist() == [[b"A"]]
    asyncio.run(client.close())
    gc.collect()


def test_many_tasks_share_a_client(url: str) -> None:
    async def main() -> None:
        async with AsyncClient(url) as client:
            model = await client.model("identity")

            async def call(number: int) -> bool:
                array = np.full((number % 7 + 1, 40 * (number % 3) + 1), number, np.int64)
                return np.array_equal((await model(IN_INT64=array))["OUT_INT64"], array)

            assert all(await asyncio.gather(*map(call, range(200))))

    asyncio.run(main())


def test_no_thread_outlives_the_client(url: str) -> None:
    before = set(threading.enumerate())
    with Client(url) as client:
        model = client.model("text")
        assert [r["UPPER"].item() for r in model.map([[["a"]], [["b"]]])] == [b"A", b"B"]
    deadline = time.monotonic() + 5
    while left := [t for t in threading.enumerate() if t not in before and "tritonsmith" in t.name]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
