"""Shared memory with the real server: the same results, nothing left behind, and no lies when the
server goes away, is slow, or says more than expected."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.http_replies import http, infer_reply, silent, then
from support.regions import own_regions
from support.samples import sample
from support.scripted import ScriptedServer
from support.servers import BriefServer

from tritonsmith_client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InputError,
    InternalError,
    PermissionDeniedError,
    UnavailableError,
)
from tritonsmith_client._shared_memory.region_names import is_abandoned, region_name
from tritonsmith_client.dtypes import DATA_TYPES, DataType
from tritonsmith_generator.serve import Server

MODELS = Path(__file__).parent / "models"
BIG = (300, 400)


@pytest.fixture
def shared(url: str) -> Iterator[Client]:
    with Client(url, timeout=20.0) as client:  # found by itself
        yield client


def regions(server: Server) -> set[str]:
    """The regions that the server has mapped."""
    with urllib.request.urlopen(f"{server.http_url}/v2/systemsharedmemory/status") as reply:
        return {region["name"] for region in json.load(reply)}


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


def test_a_killed_client_leaves_no_name(server: Server) -> None:
    code = f"""
import os, numpy as np
from tritonsmith_client import Client
client = Client({server.http_url!r}, shared_memory="auto")
model = client.model("identity")
for n in range(3):
    model(IN_FP32=np.zeros((300, 400), np.float32))
print(os.getpid(), flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -9
    assert not list(Path("/dev/shm").glob(f"tritonsmith_client_{done.stdout.strip()}_*"))


USE = """
import asyncio, os, sys, numpy as np
from tritonsmith_client import AsyncClient, Client
url, how = sys.argv[1:]
array = np.zeros((300, 400), np.float32)
async def main():
    model = await AsyncClient(url).model("identity")
    for _ in range(3):
        await model(IN_FP32=array)
if how == "asyncio":
    asyncio.run(main())
else:
    client = Client(url)
    model = client.model("identity")
    for _ in range(3):
        kept = model(IN_FP32=array)
print(os.getpid(), flush=True)
if how == "killed":
    os.kill(os.getpid(), 9)
if how == "thrown away":
    del client, model
    second = Client(url)
    model = second.model("identity")
    for _ in range(2):
        model(IN_FP32=array)
    names = {s.name for s in second.memory_status()}
    assert len([n for n in names if n.startswith(f"tritonsmith_client_{os.getpid()}_")]) == 1, names
"""


def use(url: str, how: str) -> str:
    """Runs a program that never closes its client; the start of its regions' names."""
    command = [sys.executable, "-c", USE, url, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == (-9 if how == "killed" else 0), done.stderr
    return f"tritonsmith_client_{done.stdout.strip()}_"


@pytest.mark.parametrize("how", ["ended", "asyncio", "thrown away"])
def test_a_client_that_nobody_closed(url: str, server: Server, how: str) -> None:
    before = regions(server)
    owner = use(url, how)
    assert not [name for name in regions(server) - before if name.startswith(owner)]


def test_the_next_client_clears_up_after_a_killed_one(
    url: str, server: Server, shared: Client
) -> None:
    owner = use(url, "killed")
    assert [name for name in regions(server) if name.startswith(owner)], "it left a region"
    file = Path("/dev/shm", region_name().replace(f"_{os.getpid()}_", f"_{owner.split('_')[2]}_"))
    file.touch()  # as if it had been killed a moment earlier
    model = shared.model("identity")
    for number in range(2):
        array = np.full(BIG, number, np.float32)
        assert np.array_equal(model(IN_FP32=array)["OUT_FP32"], array)
    assert not [name for name in regions(server) if name.startswith(owner)]
    assert not file.exists()


def test_whose_a_region_is() -> None:
    mine = region_name()
    prefix, pid, started, namespace, secret = mine.rsplit("_", 4)
    assert not is_abandoned(mine)
    for other, abandoned in (
        ((pid, str(int(started) - 1), namespace), True),  # the number belongs to another one now
        (("4194305", started, namespace), True),  # above the largest number of a process
        (("4194305", started, "1"), False),  # in another container, as far as we know
        ((pid, started, "1"), False),
    ):
        assert is_abandoned("_".join((prefix, *other, secret))) is abandoned
    assert not is_abandoned("somebody_elses") and not is_abandoned("tritonsmith_client_1_2_3")


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
