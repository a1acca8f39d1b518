"""Sequences, sync and async."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.wire.awaited import Run

from tritonsmith_client import (
    Client,
    InputError,
    StatusError,
)


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
