"""Half a million calls over 16 threads and asyncio, every answer checked, and what has grown.

    python benchmarks/soak.py [--calls 500000]

Watches this process: memory that is its own, file descriptors, threads and names in /dev/shm.
Exits with 1 if an answer is wrong, or if the last quarter of the run uses more than the second.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tritonsmith_client import AsyncClient, Client
from tritonsmith_generator.serve import Server

MODELS = Path(__file__).resolve().parents[1] / "tests" / "client" / "models"
CALLERS = 16
WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("grpc", {"shared_memory": "off"}),
    ("grpc", {"shared_memory": "off", "http2": "own"}),
    ("http", {"shared_memory": "off"}),
    ("http", {"shared_memory": "auto"}),
)
ROUNDS = 8
# Growth that allocators and pools are allowed; a leak of one array a call is thousands of times it.
SLACK_MEMORY = 32 << 20
SLACK_COUNT = CALLERS


@dataclass(frozen=True)
class Usage:
    """What this process holds."""

    memory: int
    descriptors: int
    threads: int
    regions: int

    @classmethod
    def now(cls) -> Usage:
        gc.collect()
        resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
        return cls(
            (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE"),
            len(list(Path("/proc/self/fd").iterdir())),
            threading.active_count(),
            len(list(Path("/dev/shm").glob(f"tritonsmith_client_{os.getpid()}_*"))),
        )


def sample(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Mostly small, at times large; its numbers tell it from all others."""
    width = 40_000 if number % 50 == 0 else number % 700 + 1
    return np.arange(number, number + width, dtype=np.float32).reshape(1, width)


def threaded(url: str, start: int, count: int, **options: Any) -> int:
    """Wrong answers among so many calls by 16 threads."""
    with Client(url, **options) as client:
        model = client.model("plain")

        def call(number: int) -> bool:
            array = sample(number)
            return not np.array_equal(model(array)["Y"], array)

        with ThreadPoolExecutor(CALLERS) as pool:
            return sum(pool.map(call, range(start, start + count), chunksize=64))


async def tasked(url: str, start: int, count: int, **options: Any) -> int:
    """Wrong answers among so many calls by 16 tasks."""
    numbers = iter(range(start, start + count))
    async with AsyncClient(url, **options) as client:
        model = await client.model("plain")

        async def work() -> int:
            wrong = 0
            for number in numbers:
                array = sample(number)
                wrong += not np.array_equal((await model(array))["Y"], array)
            return wrong

        return sum(await asyncio.gather(*(work() for _ in range(CALLERS))))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=500_000)
    each = parser.parse_args().calls // (ROUNDS * 2 * len(WAYS))
    wrong = done = 0
    seen = []
    begin = time.perf_counter()
    with Server(MODELS, models=["plain"]) as server:
        for _ in range(ROUNDS):
            for protocol, options in WAYS:
                url = server.grpc_url if protocol == "grpc" else server.http_url
                wrong += threaded(url, done, each, **options)
                wrong += asyncio.run(tasked(url, done + each, each, **options))
                done += 2 * each
            usage = Usage.now()
            seen.append(usage)
            print(
                f"{done:>8} calls, {wrong} wrong: {usage.memory / 2**20:.0f} MiB, "
                f"{usage.descriptors} descriptors, {usage.threads} threads, "
                f"{usage.regions} regions",
                flush=True,
            )
    rate = done / (time.perf_counter() - begin)
    print(f"{rate:.0f} calls a second")
    early, late = seen[ROUNDS // 4], seen[-1]
    grown = (
        late.memory - early.memory > SLACK_MEMORY
        or late.descriptors - early.descriptors > SLACK_COUNT
        or late.threads - early.threads > SLACK_COUNT
        or late.regions > 0
    )
    sys.exit(1 if wrong or grown else 0)


if __name__ == "__main__":
    main()
