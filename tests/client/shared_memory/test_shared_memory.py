"""Shared memory with the real server: the same results, nothing left behind, and no lies when the
server goes away, is slow, or says more than expected."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from support.harness.paths import CLIENT_MODELS as MODELS
from support.onnx.samples import sample
from support.programs.servers import BriefServer
from support.wire.regions import BIG, own_regions, regions

from tritonsmith_client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InputError,
    InternalError,
)
from tritonsmith_client.dtypes import DATA_TYPES, DataType
from tritonsmith_generator.serve import Server


@pytest.mark.parametrize("dtype", DATA_TYPES, ids=str)
def test_every_data_type(shared: Client, server: Server, dtype: DataType) -> None:
    before = regions(server)
    model = shared.model("identity")
    for seed in range(4):
        array = sample(dtype, BIG, seed)
        got = model({f"IN_{dtype}": array})[f"OUT_{dtype}"]
        assert (got.dtype, got.shape) == (array.dtype, array.shape)
        if dtype.wire == "BYTES":
            assert got.tolist() == array.tolist()
        else:
            assert got.tobytes() == array.tobytes()
        got[...] = got
    assert regions(server) - before, "shared memory was not used"
    assert not own_regions(), "the name is still there"
    shared.close()
    assert regions(server) == before


def test_results_stay_what_they_are(shared: Client) -> None:
    model = shared.model("identity")
    kept = []
    for number in range(8):
        array = np.full(BIG, number, np.float32)
        kept.append(model(IN_FP32=array)["OUT_FP32"])
    for number, got in enumerate(kept):
        assert (got == number).all()


def test_regions_are_used_again_and_given_back(shared: Client, server: Server) -> None:
    before = regions(server)
    model = shared.model("identity")
    for number in range(30):
        assert (model(IN_INT32=np.full(BIG, number, np.int32))["OUT_INT32"] == number).all()
    gc.collect()
    assert len(regions(server) - before) <= 2


def test_small_tensors_travel_inside(shared: Client, server: Server) -> None:
    before = regions(server)
    model = shared.model("identity")
    for _ in range(3):
        assert model(IN_INT8=np.ones((2, 3), np.int8))["OUT_INT8"].sum() == 6
    assert regions(server) == before


def test_several_tensors_and_subsets(shared: Client) -> None:
    model = shared.model("add_sub")
    left = np.arange(4000 * 16, dtype=np.int32).reshape(4000, 16)
    for _ in range(2):
        result = model(left, left)
        assert np.array_equal(result["SUM"], left * 2) and not result["DIFF"].any()
    identity = shared.model("identity")
    for seed in range(3):
        given = {f"IN_{d}": sample(d, (99, 101), seed) for d in DATA_TYPES}
        result = identity(given)
        for name, array in given.items():
            assert result[name.replace("IN_", "OUT_")].tolist() == array.tolist()


def test_threads_do_not_share_regions(shared: Client) -> None:
    model = shared.model("identity")

    def call(number: int) -> bool:
        array = np.full((150 + number % 3, 200), number, np.int64)
        return np.array_equal(model(IN_INT64=array)["OUT_INT64"], array)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(call, range(300)))


def test_a_call_that_timed_out_cannot_write_into_the_next(shared: Client, server: Server) -> None:
    before = regions(server)
    slow = shared.model("slow")
    zeros = np.zeros((1, 100_000), np.float32)
    for _ in range(3):
        assert not slow(zeros)["SLEPT"].any()
    assert regions(server) - before, "shared memory was not used"
    for _ in range(2):  # a region each: the server will write into both more than a second later
        with pytest.raises(DeadlineExceededError):
            slow.using(timeout=0.1)(zeros + 1.5)
    kept = [slow(zeros)["SLEPT"] for _ in range(4)]
    time.sleep(2.0)
    assert not any(array.any() for array in kept)


def test_a_server_that_was_started_anew(url: str) -> None:
    kind = url.partition(":")[0]
    with BriefServer(MODELS, models=["identity"]) as first:
        address = first.grpc_url if kind == "grpc" else first.http_url
        port = int(address.rsplit(":", 1)[1])
        client = Client(address, timeout=20.0, shared_memory="auto")
        model = client.model("identity")
        for _ in range(3):
            assert (model(IN_FP32=np.full(BIG, 1, np.float32))["OUT_FP32"] == 1).all()
    options: dict[str, Any] = {f"{kind}_port": port}
    with client, BriefServer(MODELS, models=["identity"], **options) as second:
        client.wait_ready(20)
        for number in range(5):
            array = np.full(BIG, number, np.float32)
            assert np.array_equal(model(IN_FP32=array)["OUT_FP32"], array)
        assert regions(second), "shared memory was not used again"


def test_an_output_that_grows(shared: Client) -> None:
    """The text model's LENGTH keeps its size; UPPER stays in the response whatever it holds."""
    model = shared.model("text")
    for length in (1, 5, 5000, 1):
        words = [["x" * length] * 500]
        result = model(words)
        assert result["UPPER"].tolist() == [[b"X" * length] * 500]
        assert (result["LENGTH"] == length).all()


def test_a_server_that_does_not_take_part(server: Server) -> None:
    """A server elsewhere cannot open the region; here the region's folder is another one."""
    code = f"""
import numpy as np
from pathlib import Path
import tempfile
from tritonsmith_client import Client
from tritonsmith_client._shared_memory import blocks
blocks.FOLDER = Path(tempfile.mkdtemp())
with Client({server.grpc_url!r}, shared_memory="auto") as client:
    model = client.model("identity")
    for n in range(4):
        assert (model(IN_FP32=np.full((300, 400), n, np.float32))["OUT_FP32"] == n).all()
    assert client._core.sharing.off
assert not list(blocks.FOLDER.iterdir())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_model_that_fails_is_not_called_twice(shared: Client) -> None:
    model = shared.model("counted")
    array = np.ones(20000, np.float32)
    for _ in range(3):
        before = int(model(array)["CALLS"][0])
    for number in range(1, 4):
        with pytest.raises(InternalError, match=f"call {before + number} was told to fail"):
            model(-array)
    result = model(array)
    assert result["CALLS"][0] == before + 4 and np.array_equal(result["Y"], array)


def test_small_results_do_not_hold_on_to_large_inputs(shared: Client, server: Server) -> None:
    before = regions(server)
    model = shared.model("counted").using(outputs=["CALLS"])
    kept = [model(np.ones(20000, np.float32))["CALLS"] for _ in range(20)]
    assert len(regions(server) - before) == 1
    assert [int(n[0] - kept[0][0]) for n in kept] == list(range(20))


def test_the_server_lets_go_of_what_a_call_left_that_timed_out(
    shared: Client, server: Server
) -> None:
    before = regions(server)
    slow = shared.model("slow")
    zeros = np.zeros((1, 100_000), np.float32)
    for _ in range(2):
        slow(zeros)
    with pytest.raises(DeadlineExceededError):
        slow.using(timeout=0.1)(zeros + 1.5)
    left = regions(server) - before
    assert len(left) == 1
    slow(zeros)  # one of its own from now on
    deadline = time.monotonic() + 10
    while left <= regions(server):  # until the model is done
        assert time.monotonic() < deadline
        assert not slow(zeros)["SLEPT"].any()
        time.sleep(0.1)


def test_there_is_always_some_left_for_others(
    shared: Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = regions(server)
    monkeypatch.setattr("tritonsmith_client._shared_memory.blocks.free_bytes", lambda: 1 << 20)
    model = shared.model("identity")
    for number in range(3):
        array = np.full(BIG, number, np.float32)  # 1 MiB with its output: more than half of it
        assert np.array_equal(model(IN_FP32=array)["OUT_FP32"], array)
    assert regions(server) == before
    for _ in range(2):
        model(IN_FP32=array[:100])
    assert len(regions(server) - before) == 1


def test_asyncio(url: str) -> None:
    async def main() -> None:
        async with AsyncClient(url) as client:
            model = await client.model("identity")

            async def call(number: int) -> bool:
                array = np.full((200 + number % 3, 200), number, np.int64)
                return np.array_equal((await model(IN_INT64=array))["OUT_INT64"], array)

            for _ in range(3):
                assert all(await asyncio.gather(*map(call, range(20))))

    asyncio.run(main())
    assert not own_regions()


def test_another_word_is_refused() -> None:
    with pytest.raises(InputError, match="shared_memory is 'on'; it must be 'auto' or 'off'"):
        Client("localhost", shared_memory="on")
