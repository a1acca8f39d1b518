"""One client in a process of its own: measures when it is told to, a line of JSON each way.

    python worker.py VARIANT TARGET

TARGET is JSON, see variants.Target. The first line that it writes is {} or what is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from variants import VARIANTS, Array, Call, Target, Variant

_CALLERS = 16


class WrongAnswerError(Exception):
    pass


def example(size: int) -> Array:
    return np.random.default_rng().standard_normal((1, size // 4)).astype(np.float32)


def check(array: Array, answer: Array) -> None:
    if not np.array_equal(np.asarray(answer).reshape(array.shape), array):
        raise WrongAnswerError


def cost(count: int, work: Callable[[], None]) -> dict[str, float]:
    """CPU microseconds of all threads and minor page faults, for each of so many calls."""
    before, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time()
    work()
    spent = time.process_time() - cpu
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return {"cpu": spent / count * 1e6, "faults": faults / count}


def memory(field: str) -> int:
    """KiB of this process: VmRSS now, VmHWM at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise LookupError(field)


@contextlib.contextmanager
def extra_memory(found: dict[str, float]) -> Iterator[None]:
    """KiB that a call needs besides what the process already held."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    except OSError:
        yield
        return
    before = memory("VmRSS")
    yield
    found["memory"] = max(0, memory("VmHWM") - before)


class Threads:
    """Measures a client that blocks."""

    def __init__(self, variant: Variant, target: Target) -> None:
        self._variant, self._target = variant, target
        self._stack = ExitStack()
        self._call: Call = variant.open(target, self._stack)

    def latency(self, size: int, count: int) -> dict[str, float]:
        call, array, spent = self._call, example(size), []
        check(array, call(array))
        found: dict[str, float] = {}
        with extra_memory(found):
            answer = call(array)
        check(array, answer)
        del answer

        def work() -> None:
            for _ in range(count):
                start = time.perf_counter()
                call(array)
                spent.append(time.perf_counter() - start)

        found |= cost(count, work)
        check(array, call(array))
        return found | {"time": statistics.median(spent) * 1e6}

    def throughput(self, size: int, seconds: float) -> dict[str, float]:
        """All callers begin once each of them has made a call, so that no client is opened then."""
        moments: list[tuple[float, float]] = []

        def note() -> None:
            moments.append((time.perf_counter(), time.process_time()))

        begin, end = (threading.Barrier(_CALLERS, note, timeout=60) for _ in range(2))

        def work(_: int) -> int:
            done, array = 0, example(size)  # each caller its own
            with ExitStack() as stack:
                shared = self._variant.shared
                call = self._call if shared else self._variant.open(self._target, stack)
                answer = call(array)
                begin.wait()
                over = moments[0][0] + seconds
                while time.perf_counter() < over:
                    answer = call(array)
                    done += 1
                end.wait()
                check(array, answer)
            return done

        with ThreadPoolExecutor(_CALLERS) as pool:
            count = sum(pool.map(work, range(_CALLERS)))
        (start, cpu), (stop, later) = moments
        return {"rate": count / (stop - start), "cpu": (later - cpu) / count * 1e6}

    def close(self) -> None:
        self._stack.close()


class Tasks:
    """Measures a client of asyncio."""

    def __init__(self, variant: Variant, target: Target) -> None:
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._call = self._loop.run_until_complete(variant.open(target, self._stack))

    def latency(self, size: int, count: int) -> dict[str, float]:
        call, array, spent, run = self._call, example(size), [], self._loop.run_until_complete
        check(array, run(call(array)))
        found: dict[str, float] = {}
        with extra_memory(found):
            answer = run(call(array))
        check(array, answer)
        del answer

        async def work() -> None:
            for _ in range(count):
                start = time.perf_counter()
                await call(array)
                spent.append(time.perf_counter() - start)

        found |= cost(count, lambda: run(work()))
        check(array, run(call(array)))
        return found | {"time": statistics.median(spent) * 1e6}

    def throughput(self, size: int, seconds: float) -> dict[str, float]:
        call = self._call

        async def work(array: Array, end: float) -> int:
            done = 0
            answer = array
            while time.perf_counter() < end:
                answer = await call(array)
                done += 1
            check(array, answer)
            return done

        async def all_of_them() -> dict[str, float]:
            arrays = [example(size) for _ in range(_CALLERS)]
            await asyncio.gather(*map(call, arrays))
            start, cpu = time.perf_counter(), time.process_time()
            counts = await asyncio.gather(*(work(array, start + seconds) for array in arrays))
            spent, used = time.perf_counter() - start, time.process_time() - cpu
            return {"rate": sum(counts) / spent, "cpu": used / sum(counts) * 1e6}

        return self._loop.run_until_complete(all_of_them())

    def close(self) -> None:
        self._loop.run_until_complete(self._stack.aclose())


def main() -> None:
    variant = VARIANTS[sys.argv[1]]
    target = Target(**json.loads(sys.argv[2]))
    answers = sys.stdout
    sys.stdout = sys.stderr  # clients that print must not disturb

    def say(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    try:
        client = (Tasks if variant.asynchronous else Threads)(variant, target)
    except ImportError as error:
        say({"missing": f"not installed ({error.name})"})
        return
    say({})
    try:
        for line in sys.stdin:
            task, *numbers = json.loads(line)
            try:
                say(getattr(client, task)(*numbers))
            except WrongAnswerError:
                say({"wrong": True})
    finally:
        client.close()


if __name__ == "__main__":
    main()
