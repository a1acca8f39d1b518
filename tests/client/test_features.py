"""Futures, map, large batches, streams, sequences and classification, sync and async.

Each test is written once, against a `Caller` that hides which client it is.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any

import numpy as np
import pytest
from support.stopwatch import Stopwatch

from tritonsmith_client import (
    AsyncClient,
    AsyncModel,
    AsyncSequence,
    Client,
    DeadlineExceededError,
    InputError,
    Model,
    RequestCancelledError,
    ResponseError,
    Result,
    Sequence,
    StatusError,
    UnsupportedError,
)

Run = Callable[[Callable[[Any], Awaitable[Any]]], Any]


class Awaited:
    """The sync surface with an `await` before it, so that one test fits both clients."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        return self._wrapped(found) if callable(found) else found

    async def __call__(self, *args: Any, **named: Any) -> Any:
        return self.inner(*args, **named)

    def _wrapped(self, function: Any) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            value = function(*args, **named)
            if isinstance(value, (Model, Sequence)) and function.__name__ != "model":
                return Awaited(value)
            if inspect.isgenerator(value) or isinstance(value, Iterator):
                return _each(value)
            if hasattr(value, "result") and hasattr(value, "cancel"):
                return _Future(value)
            return _done(Awaited(value) if isinstance(value, Model) else value)

        return call

    async def __aenter__(self) -> Awaited:
        return Awaited(self.inner.__enter__())

    async def __aexit__(self, *error: Any) -> None:
        self.inner.__exit__(*error)


class _Future:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def cancel(self) -> bool:
        return bool(self.inner.cancel())

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from ()
        return self.inner.result(timeout=20)


async def _done(value: Any) -> Any:
    return value


async def _each(values: Iterator[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value


@pytest.fixture(params=["sync", "async"])
def run(url: str, request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine function with either client."""

    def call(use: Callable[[Any], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            client: Any = (
                Awaited(Client(url, timeout=20.0))
                if request.param == "sync"
                else AsyncClient(url, timeout=20.0)
            )
            async with client:
                return await asyncio.wait_for(use(client), 60)

        return asyncio.run(main())

    return call


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


@pytest.mark.parametrize("size", [8, 9, 40, 1001])
def test_a_large_batch_is_sent_in_parts(run: Run, size: int) -> None:
    async def use(client: Any) -> None:
        model = await client.model("add_sub")
        left = np.arange(size * 16, dtype=np.int32).reshape(size, 16)
        right = left[::-1]
        result = await model(left, right)
        assert np.array_equal(result["SUM"], left + right)
        assert np.array_equal(result["DIFF"], left - right)

    run(use)


def test_a_large_batch_of_strings(run: Run) -> None:
    async def use(client: Any) -> None:
        model = await client.model("text")
        words = np.array([[f"word{n}".encode()] for n in range(200)], object)
        assert (await model(words))["UPPER"].tolist() == [[w[0].upper()] for w in words]

    run(use)


def test_a_large_batch_can_be_refused(run: Run) -> None:
    async def use(client: Any) -> None:
        nine = np.ones((9, 16), np.int32)
        model = await client.model("add_sub")
        with pytest.raises(InputError, match="batch of 9 and model 'add_sub' takes at most 8"):
            await model.using(split=False)(nine, nine)
        with pytest.raises(InputError, match="'INPUT0' has 9 and 'INPUT1' has 10"):
            await model(nine, np.ones((10, 16), np.int32))

    run(use)


def test_a_failing_part_fails_the_call(run: Run) -> None:
    async def use(client: Any) -> None:
        slow = await client.model("slow")
        seconds = np.zeros((9, 1), np.float32)
        seconds[6] = 3.0
        watch = Stopwatch()
        with pytest.raises(DeadlineExceededError):
            await slow.using(timeout=0.5)(seconds)
        assert watch.seconds() < 0.5 + 0.5

    run(use)


def test_out_takes_the_outputs(run: Run) -> None:
    async def use(client: Any) -> None:
        model = await client.model("add_sub")
        ones = np.ones((2, 16), np.int32)
        out = np.zeros((2, 16), np.int32)
        result = await model.using(out={"SUM": out})(ones, ones)
        assert result["SUM"] is out and (out == 2).all() and (result["DIFF"] == 0).all()
        with pytest.raises(InputError, match=r"out\['SUM'\] is int32\[1, 16\] and the output is"):
            await model.using(out={"SUM": out[:1]})(ones, ones)

    run(use)


def test_an_earlier_call_does_not_decide_what_becomes_of_options(run: Run) -> None:
    async def use(client: Any) -> None:
        model = await client.model("add_sub")
        ones = np.ones((2, 16), np.int32)
        out = np.zeros((2, 16), np.int32)
        for _ in range(2):
            await model(ones, ones)
        assert (await model.using(out={"SUM": out})(ones, ones))["SUM"] is out
        assert (out == 2).all()
        with pytest.raises(InputError, match="no output 'NONE'"):
            await model.using(out={"NONE": out})(ones, ones)

    run(use)


def test_numbers_are_converted_if_asked(run: Run) -> None:
    async def use(client: Any) -> None:
        identity = await client.model("identity")
        values = np.array([[0.5, 3.0, -2.0]], np.float32)
        for wire in ("BF16", "FP64", "FP16", "INT8"):
            with pytest.raises(InputError, match=r"or ask for that with using\(convert=True\)"):
                await identity({f"IN_{wire}": values})
            got = (await identity.using(convert=True)({f"IN_{wire}": values}))[f"OUT_{wire}"]
            assert got.tolist() == values.astype(got.dtype).tolist()
        with pytest.raises(InputError, match="takes BYTES and was given float32"):
            await identity.using(convert=True)(IN_BYTES=values)

    run(use)


def test_classes(run: Run) -> None:
    async def use(client: Any) -> None:
        model = await client.model("scores")
        scores = np.array([[0.1, 0.2, 0.7, 0.0], [0.9, 0.0, 0.1, 0.0]], np.float32)
        top = model.using(outputs=["PROBABILITY"], classes=2)
        rows = (await top(scores)).classes("PROBABILITY")
        assert [[(c.index, c.label) for c in row] for row in rows] == [
            [(2, "bird: a: kind"), (1, "dog")],
            [(0, "cat"), (2, "bird: a: kind")],
        ]
        assert rows[0][0].score == pytest.approx(0.7)
        with pytest.raises(ResponseError, match=r"no classification; ask for one with using\(cl"):
            (await model(scores)).classes("PROBABILITY")
        # The server would not survive that.
        with pytest.raises(InputError, match=r"output 'TEXT' .* holds strings"):
            await model.using(classes=2)(scores)

    run(use)


def test_sequences(run: Run) -> None:
    async def use(client: Any) -> None:
        model = await client.model("accumulate")
        one = np.array([[1]], np.int32)
        async with model.sequence() as first, model.sequence(id=77) as second:
            assert first.id != second.id == 77
            for number in range(1, 5):
                assert (await first(one))["SUM"] == number
                assert (await second(one * 10))["SUM"] == 10 * number
            assert (await second.end(one))["SUM"] == 41
            with pytest.raises(InputError, match="the sequence 77 has ended"):
                await second(one)
        async with model.sequence() as third:
            result = await third(one)
            assert (result["SUM"], result["OPEN"]) == (1, 1), "an earlier sequence is still open"

    run(use)


def test_a_sequence_ends_after_an_error_too(run: Run) -> None:
    async def use(client: Any) -> None:
        model = await client.model("accumulate")
        one = np.array([[1]], np.int32)
        with pytest.raises(RuntimeError):
            async with model.sequence() as track:
                with pytest.raises(InputError):
                    await track(one.astype(np.int64))
                assert (await track(one))["SUM"] == 1
                raise RuntimeError
        async with model.sequence() as track:
            assert (await track(one))["OPEN"] == 1

    run(use)


def test_sequences_of_a_decoupled_model(run: Run, url: str) -> None:
    async def use(client: Any) -> None:
        model = await client.model("steps")

        async def totals(stream: Any) -> list[int]:
            return [int(result["TOTAL"].item()) async for result in stream]

        async with model.sequence() as first, model.sequence(id=78) as second:
            if url.startswith("http"):
                with pytest.raises(InputError, match="over HTTP takes no sequence; use a grpc://"):
                    await totals(first.stream(steps(2)))
                return
            assert await totals(first.stream(steps(2))) == [1, 2]
            assert await totals(second.stream(steps(3))) == [1, 2, 3]
            assert await totals(first.stream(steps(0))) == []
            assert await totals(first.stream(steps(3))) == [3, 4, 5]
            assert await totals(second.end_stream(steps(1))) == [4]
            with pytest.raises(InputError, match="the sequence 78 has ended"):
                await totals(second.stream(steps(1)))
            with pytest.raises(StatusError, match=r"call its .stream\(\)"):
                await first(steps(1))
        async with model.sequence() as third:
            result = await anext(third.stream(steps(1)))
            assert result["TOTAL"] == 1 and result["OPEN"] == 1, "a sequence is still open"

    run(use)


def test_one_stream_of_a_sequence_at_a_time(run: Run, url: str) -> None:
    async def use(client: Any) -> None:
        if url.startswith("http"):
            return
        model = await client.model("steps")
        with pytest.raises(InputError):
            async with model.sequence() as track:
                await anext(track.stream(steps(1).astype(np.int64)))
        async with model.sequence() as track:
            with pytest.raises(StatusError, match="told to fail"):
                await anext(track.stream(steps(-1)))
            stream = track.stream(steps(50))
            assert (await anext(stream))["TOTAL"] == 1, "the sequence began anew"
            for other in (track(steps(1)), anext(track.stream(steps(1)))):
                with pytest.raises(InputError, match="still streams: read its responses, or close"):
                    await other
            await stream.aclose()
            after = [result async for result in track.stream(steps(1))]
            assert after[0]["TOTAL"] == 51, "the server still counted to the end"
            left = track.stream(steps(50))
            await anext(left)
        async with model.sequence() as track:
            assert (await anext(track.stream(steps(1))))["OPEN"] == 1, "an earlier one is open"

    run(use)


@pytest.mark.parametrize("id", [0, "", -1])
def test_ids_that_mean_no_sequence(client: Client, id: Any) -> None:
    with pytest.raises(InputError, match="0 and '' mean 'no sequence'"):
        client.model("accumulate").sequence(id=id)


def steps(count: int) -> Any:
    return np.array([[count]], np.int32)


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
