"""Load on a model: how many answers a second, and how long they take."""

from __future__ import annotations

import math
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tritonsmith_client._sync.client import Client
from tritonsmith_client._values.buffers import Array
from tritonsmith_client.errors import InputError, TritonError

__all__ = ["Load", "Report", "run_load"]


@dataclass(frozen=True)
class Load:
    """What to do to a model.

    Attributes:
        inputs: the same for each call.
        concurrency: callers at a time, in each process.
        rate: calls a second, of each process; as many as possible if 0. A call that waits for a
            free caller counts the wait as part of its latency.
        seconds: how long; calls of the warm-up before are not counted.
        processes: clients in processes of their own.
        options: for `Client`, beside the URL.
    """

    url: str
    model: str
    inputs: Mapping[str, Array]
    version: str = ""
    concurrency: int = 1
    rate: float = 0.0
    seconds: float = 5.0
    warmup: float = 0.5
    processes: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What came of it.

    Attributes:
        latencies: milliseconds of each call that was answered, in rising order.
        errors: how often each error occurred.
        seconds: how long it really took.
    """

    latencies: tuple[float, ...]
    errors: Mapping[str, int]
    seconds: float

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def percentile(self, share: float) -> float:
        """Give the latency in milliseconds that this share of the calls (0 to 100) did not pass."""
        if not self.latencies:
            return math.nan
        rank = math.ceil(share / 100 * len(self.latencies))
        return self.latencies[max(0, rank - 1)]

    def histogram(self, bins: int) -> list[tuple[float, int]]:
        """Upper bounds in milliseconds, evenly spread up to the 99th percentile, and counts."""
        if not self.latencies:
            return []
        low, high = self.latencies[0], self.percentile(99)
        width = (high - low) / bins or 1.0
        counts = [0] * bins
        for latency in self.latencies:
            if latency <= high:
                counts[min(bins - 1, int((latency - low) / width))] += 1
        return [(low + width * (n + 1), count) for n, count in enumerate(counts)]


def run_load(load: Load) -> Report:
    """Put the load on.

    Raises InputError for numbers that make no sense, and what the first call raises: a model that
    does not answer at all needs no measuring.
    """
    if load.concurrency < 1 or load.processes < 1 or load.seconds <= 0 or load.rate < 0:
        raise InputError(
            "concurrency and processes must be at least 1, seconds above 0, and rate at least 0"
        )
    with Client(load.url, **load.options) as client:
        client.model(load.model, load.version)(load.inputs)
    if load.processes == 1:
        return _one_client(load)
    # Not forked: a forked child would inherit this process's gRPC threads.
    with multiprocessing.get_context("spawn").Pool(load.processes) as pool:
        return _merged(pool.map(_one_client, [load] * load.processes))


def _merged(reports: Sequence[Report]) -> Report:
    latencies = sorted(latency for report in reports for latency in report.latencies)
    errors = sum((Counter(report.errors) for report in reports), Counter[str]())
    return Report(tuple(latencies), dict(errors), max(report.seconds for report in reports))


def _one_client(load: Load) -> Report:
    with Client(load.url, **load.options) as client:
        model = client.model(load.model, load.version)
        begin = time.perf_counter() + load.warmup
        end = begin + load.seconds
        ticket = _Tickets(time.perf_counter(), load.rate)
        errors: Counter[str] = Counter()
        guard = threading.Lock()

        def caller(_: int) -> list[float]:
            latencies = []
            while (due := ticket.take()) < end and time.perf_counter() < end:
                start = _wait_until(due) if load.rate else time.perf_counter()
                try:
                    model(load.inputs)
                except TritonError as error:
                    with guard:
                        errors[type(error).__name__] += 1
                    continue
                if start >= begin:
                    latencies.append((time.perf_counter() - start) * 1e3)
            return latencies

        with ThreadPoolExecutor(load.concurrency) as pool:
            latencies = sorted(
                x for part in pool.map(caller, range(load.concurrency)) for x in part
            )
        return Report(tuple(latencies), dict(errors), time.perf_counter() - begin)


class _Tickets:
    """When each call is due: evenly spread at a rate, or always at once."""

    def __init__(self, start: float, rate: float) -> None:
        self._lock = threading.Lock()
        self._next = start
        self._step = 1.0 / rate if rate else 0.0

    def take(self) -> float:
        with self._lock:
            due = self._next
            self._next += self._step
            return due


def _wait_until(due: float) -> float:
    delay = due - time.perf_counter()
    if delay > 0:
        time.sleep(delay)
    return due
