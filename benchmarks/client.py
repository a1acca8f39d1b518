"""How fast the client is beside tritonclient, against the embedded tritonserver.

    python benchmarks/client.py [--quick] [--json FILE]

Every variant does the same thing: a numpy array in, a numpy array out, with the model 'plain' of
the tests, which gives back its input. All variants take turns in random order in one process;
the ratio is the median over rounds of tritonclient.grpc's median time through the variant's, so
above 1 is faster than tritonclient.grpc. Each answer is compared with its input once a round.

The floor at the end is what the same bytes cost without a server: a copy in memory, and there and
back through a plain socket.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import socket
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as tgrpc
import tritonclient.grpc.aio as tgrpc_aio
import tritonclient.utils as tutils
import tritonclient.utils.shared_memory as tshm

from tritonsmith_client import AsyncClient, Client, bytescodec
from tritonsmith_generator.serve import Server

try:  # tritonclient[all]
    import tritonclient.http as thttp
except ImportError:
    thttp = None

MODELS = Path(__file__).resolve().parents[1] / "tests" / "client" / "models"
SIZES = {"1 KB": (1024, 200), "64 KB": (65536, 100), "1 MB": (1 << 20, 30), "16 MB": (1 << 24, 6)}
BASE = "tritonclient.grpc"
Array = np.ndarray[Any, Any]
Call = Callable[[Array], Array]


@dataclass
class Row:
    """One variant at one size."""

    variant: str
    size: str
    microseconds: float
    ratio: float
    faults: float


def tritonclient_grpc(target: str, stack: ExitStack) -> Call:
    client = stack.enter_context(tgrpc.InferenceServerClient(target))

    def call(array: Array) -> Array:
        tensor = tgrpc.InferInput("X", list(array.shape), "FP32")
        tensor.set_data_from_numpy(array)
        return np.asarray(client.infer("plain", [tensor]).as_numpy("Y"))

    return call


def tritonclient_http(target: str, stack: ExitStack) -> Call:
    client = thttp.InferenceServerClient(target)
    stack.callback(client.close)

    def call(array: Array) -> Array:
        tensor = thttp.InferInput("X", list(array.shape), "FP32")
        tensor.set_data_from_numpy(array)
        return np.asarray(client.infer("plain", [tensor]).as_numpy("Y"))

    return call


def tritonclient_shm(target: str, stack: ExitStack, size: int) -> Call:
    """What a user of tritonclient can build by hand: a region each way, the result copied out."""
    client = stack.enter_context(tgrpc.InferenceServerClient(target))
    handles = []
    for kind in ("in", "out"):
        name = f"bench_{kind}_{size}"
        handle = tshm.create_shared_memory_region(name, f"/{name}", size)
        stack.callback(tshm.destroy_shared_memory_region, handle)
        client.register_system_shared_memory(name, f"/{name}", size)
        stack.callback(client.unregister_system_shared_memory, name)
        handles.append(handle)

    def call(array: Array) -> Array:
        tshm.set_shared_memory_region(handles[0], [array])
        tensor = tgrpc.InferInput("X", list(array.shape), "FP32")
        tensor.set_shared_memory(f"bench_in_{size}", size)
        output = tgrpc.InferRequestedOutput("Y")
        output.set_shared_memory(f"bench_out_{size}", size)
        client.infer("plain", [tensor], outputs=[output])
        view = tshm.get_contents_as_numpy(handles[1], np.float32, array.shape)
        return np.array(view)

    return call


def ours(url: str, stack: ExitStack, **options: Any) -> Call:
    model = stack.enter_context(Client(url, **options)).model("plain")
    return lambda array: model(array)["Y"]


def ours_async(url: str, stack: ExitStack) -> Call:
    loop = asyncio.new_event_loop()
    stack.callback(loop.close)
    client = AsyncClient(url)
    stack.callback(lambda: loop.run_until_complete(client.close()))
    model = loop.run_until_complete(client.model("plain"))

    async def call(array: Array) -> Array:
        return (await model(array))["Y"]

    return lambda array: loop.run_until_complete(call(array))


def measure(calls: dict[str, Call], label: str, size: int, count: int, rounds: int) -> list[Row]:
    """Times all variants at one size; the first round warms up and is dropped."""
    array = np.random.default_rng(size).standard_normal((1, size // 4)).astype(np.float32)
    times: dict[str, list[float]] = {name: [] for name in calls}
    faults: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name in random.sample(list(calls), len(calls)):
            call = calls[name]
            if not np.array_equal(call(array), array):
                raise SystemExit(f"{name} gave a wrong answer at {label}")
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            times[name].append(statistics.median(timed(call, array) for _ in range(count)))
            after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            faults[name].append((after - before) / count)
    base = times[BASE]
    return [
        Row(
            name,
            label,
            statistics.median(spent[1:]) * 1e6,
            statistics.median(b / s for b, s in zip(base[1:], spent[1:], strict=True)),
            statistics.median(faults[name][1:]),
        )
        for name, spent in times.items()
    ]


def timed(call: Call, array: Array) -> float:
    start = time.perf_counter()
    call(array)
    return time.perf_counter() - start


def latency(server: Server, rounds: int) -> list[Row]:
    target, http = server.grpc_url.removeprefix("grpc://"), server.http_url.removeprefix("http://")
    rows: list[Row] = []
    with ExitStack() as stack:
        calls: dict[str, Call] = {BASE: tritonclient_grpc(target, stack)}
        if thttp is not None:
            calls["tritonclient.http"] = tritonclient_http(http, stack)
        calls["ours gRPC"] = ours(server.grpc_url, stack)
        calls["ours HTTP"] = ours(server.http_url, stack)
        calls["ours gRPC, asyncio"] = ours_async(server.grpc_url, stack)
        calls["ours HTTP, asyncio"] = ours_async(server.http_url, stack)
        calls["ours shared memory, gRPC"] = ours(server.grpc_url, stack, shared_memory="auto")
        calls["ours shared memory, HTTP"] = ours(server.http_url, stack, shared_memory="auto")
        for label, (size, count) in SIZES.items():
            with ExitStack() as regions:
                extra = {"tritonclient shared memory": tritonclient_shm(target, regions, size)}
                rows += measure(calls | extra, label, size, count, rounds)
    return rows


def throughput(server: Server, seconds: float, rounds: int) -> dict[str, float]:
    """Calls a second by 16 callers at a time with 1 KB each."""
    target, http = server.grpc_url.removeprefix("grpc://"), server.http_url.removeprefix("http://")
    array = np.ones((1, 256), np.float32)
    with ExitStack() as stack:
        base = tritonclient_grpc(target, stack)
        threaded: dict[str, list[Call]] = {
            BASE: [base] * 16,
            "ours gRPC": [ours(server.grpc_url, stack)] * 16,
            "ours HTTP": [ours(server.http_url, stack)] * 16,
        }
        rates: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, calls in threaded.items():
                rates.setdefault(name, []).append(threads_rate(calls, array, seconds))
            if thttp is not None:  # its clients belong to one thread each
                rate = own_clients_rate(http, array, seconds)
                rates.setdefault("tritonclient.http, one a thread", []).append(rate)
            for name, url in (("gRPC", server.grpc_url), ("HTTP", server.http_url)):
                rate = asyncio.run(tasks_rate(lambda url=url: our_task(url), array, seconds))
                rates.setdefault(f"ours {name}, asyncio", []).append(rate)
            rate = asyncio.run(tasks_rate(lambda: their_task(target), array, seconds))
            rates.setdefault("tritonclient.grpc.aio", []).append(rate)
    return {name: statistics.median(found) for name, found in rates.items()}


def threads_rate(calls: list[Call], array: Array, seconds: float) -> float:
    end = time.perf_counter() + seconds

    def work(call: Call) -> int:
        count = 0
        while time.perf_counter() < end:
            call(array)
            count += 1
        return count

    with ThreadPoolExecutor(len(calls)) as pool:
        return sum(pool.map(work, calls)) / seconds


def own_clients_rate(http: str, array: Array, seconds: float) -> float:
    end = time.perf_counter() + seconds

    def work(_: int) -> int:
        count = 0
        with ExitStack() as stack:
            call = tritonclient_http(http, stack)
            while time.perf_counter() < end:
                call(array)
                count += 1
        return count

    with ThreadPoolExecutor(16) as pool:
        return sum(pool.map(work, range(16))) / seconds


AsyncCall = Callable[[Array], Awaitable[Any]]


async def our_task(url: str) -> tuple[AsyncCall, Callable[[], Awaitable[None]]]:
    client = AsyncClient(url)
    return await client.model("plain"), client.close


async def their_task(target: str) -> tuple[AsyncCall, Callable[[], Awaitable[None]]]:
    client = tgrpc_aio.InferenceServerClient(target)

    async def call(array: Array) -> Any:
        tensor = tgrpc_aio.InferInput("X", list(array.shape), "FP32")
        tensor.set_data_from_numpy(array)
        return (await client.infer("plain", [tensor])).as_numpy("Y")

    return call, client.close


async def tasks_rate(
    make: Callable[[], Awaitable[tuple[AsyncCall, Callable[[], Awaitable[None]]]]],
    array: Array,
    seconds: float,
) -> float:
    call, close = await make()
    end = time.perf_counter() + seconds

    async def work() -> int:
        count = 0
        while time.perf_counter() < end:
            await call(array)
            count += 1
        return count

    total = sum(await asyncio.gather(*(work() for _ in range(16))))
    await close()
    return total / seconds


def strings() -> dict[str, float]:
    """How many times faster strings are coded than tritonclient does it."""
    words = np.array([b"%08d words of about 20" % n for n in range(20_000)], object)
    wire = bytescodec.encode(words)
    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "encode": (
            lambda: tutils.serialize_byte_tensor(words),
            lambda: bytescodec.encode(words),
        ),
        "decode": (
            lambda: tutils.deserialize_bytes_tensor(wire),
            lambda: bytescodec.decode(wire),
        ),
    }
    found = {}
    for name, (theirs, mine) in pairs.items():
        ratios = []
        for _ in range(7):
            spent = []
            for function in (theirs, mine):
                start = time.perf_counter()
                function()
                spent.append(time.perf_counter() - start)
            ratios.append(spent[0] / spent[1])
        found[name] = statistics.median(ratios[1:])
    return found


def floor(size: int, count: int) -> dict[str, float]:
    """Microseconds for the same bytes without Triton: a copy, and a plain socket both ways."""
    left, right = socket.socketpair()
    data = np.ones(size, np.uint8)

    def echo() -> None:
        buffer = bytearray(size)
        view = memoryview(buffer)
        while True:
            got = 0
            while got < size:
                received = right.recv_into(view[got:])
                if not received:
                    return
                got += received
            right.sendall(buffer)

    thread = threading.Thread(target=echo, daemon=True)
    thread.start()
    answer = np.empty(size, np.uint8)

    def there_and_back() -> None:
        left.sendall(data)
        view, got = memoryview(answer), 0
        while got < size:
            got += left.recv_into(view[got:])

    found = {}
    for name, function in {"memory": data.copy, "socket": there_and_back}.items():
        spent = []
        for _ in range(count):
            start = time.perf_counter()
            function()
            spent.append(time.perf_counter() - start)
        found[name] = statistics.median(spent) * 1e6
    left.close()
    thread.join()
    right.close()
    return found


def table(rows: list[Row]) -> None:
    variants = list(dict.fromkeys(row.variant for row in rows))
    cells = {(row.variant, row.size): row for row in rows}
    print(f"{'one caller: microseconds (ratio)':34}" + "".join(f"{size:>20}" for size in SIZES))
    for variant in variants:
        shown = [cells[variant, size] for size in SIZES]
        line = "".join(f"{f'{r.microseconds:.0f} (x{r.ratio:.2f})':>20}" for r in shown)
        print(f"{variant:34}{line}")
    print(f"\n{'page faults a call':34}")
    for variant in variants:
        line = "".join(f"{cells[variant, size].faults:>20.0f}" for size in SIZES)
        print(f"{variant:34}{line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    rounds, seconds = (3, 0.5) if options.quick else (7, 2.0)
    with Server(MODELS, models=["plain"]) as server:
        rows = latency(server, rounds)
        rates = throughput(server, seconds, 3)
    table(rows)
    print("\n16 callers, 1 KB: calls a second (ratio to tritonclient.grpc)")
    for name, rate in rates.items():
        print(f"{name:34}{f'{rate:.0f} (x{rate / rates[BASE]:.2f})':>20}")
    codec = strings()
    print(f"\nstrings: encode x{codec['encode']:.2f}, decode x{codec['decode']:.2f} tritonclient's")
    floors = {label: floor(size, count) for label, (size, count) in SIZES.items()}
    print("\nfloor, and the distance of our fastest to the socket's")
    for label, found in floors.items():
        best = min(r.microseconds for r in rows if r.size == label and "ours" in r.variant)
        distance = best / found["socket"]
        print(
            f"{label:>8}: copy {found['memory']:.0f} us, socket {found['socket']:.0f} us, "
            f"ours {best:.0f} us (x{distance:.1f})"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of this process: {peak:.0f} MiB")
    if options.json:
        report = {"latency": [asdict(r) for r in rows], "throughput": rates, "strings": codec}
        options.json.write_text(json.dumps(report | {"floor": floors}, indent=1))


if __name__ == "__main__":
    main()
