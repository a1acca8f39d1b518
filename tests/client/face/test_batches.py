"""Large batches, outputs into given arrays, conversions and classes, sync and async."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.wire.awaited import Run
from support.wire.stopwatch import Stopwatch

from tritonsmith_client import (
    DeadlineExceededError,
    InputError,
    ResponseError,
)


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
