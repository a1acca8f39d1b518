"""When tensors travel through shared memory, and what happens when that fails. The flows here do
no more I/O than making regions, which takes no time."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .address import Address
from .deadline import Deadline
from .errors import StatusError, TritonError
from .exchange import Flow
from .protocol import WireProtocol
from .tensors import Buffer
from .values import Result

if TYPE_CHECKING:
    from .memory import Lease

__all__ = [
    "OutputSizes",
    "Placement",
    "Sharing",
    "collect",
    "fill",
    "learn",
    "possible",
    "worth_sharing",
]

_WORTH = 65536  # below, a request with its bytes inside is as fast
_LIMIT = 1 << 30
_MOST_FAILURES = 3
_SAME_HOST = ("", "localhost", "127.0.0.1", "::1")

OutputSizes = Mapping[str, int | None]  # None: BYTES, which stay in the response


def possible(address: Address) -> bool:
    """Whether the server might be on this host, which registering a region then proves."""
    return address.host in _SAME_HOST and Path("/dev/shm").is_dir()


def learn(result: Result) -> dict[str, int | None]:
    """The sizes to expect from requests that look the same."""
    return {n: None if a.dtype.kind == "O" else int(a.nbytes) for n, a in result.items()}


def worth_sharing(inputs: int, outputs: OutputSizes) -> bool:
    return inputs + sum(size or 0 for size in outputs.values()) >= _WORTH


@dataclass(frozen=True)
class Placement:
    """Where the tensors of one request lie in a region.

    Attributes:
        inputs: start and size of each input.
        outputs: start and size of each output that is not left in the response.
    """

    inputs: tuple[tuple[int, int], ...]
    outputs: Mapping[str, tuple[int, int]]


class Sharing:
    """The shared memory of one client with one server. Threads may share it."""

    def __init__(self, protocol: WireProtocol) -> None:
        from .memory import RegionPool  # mmap is not needed without shared memory

        self._protocol = protocol
        self._pool = RegionPool(_LIMIT)
        self._pid = os.getpid()
        self._failures = 0
        self._lock = threading.Lock()

    @property
    def off(self) -> bool:
        """Whether the server does not take part."""
        return self._failures >= _MOST_FAILURES

    def lease(
        self, inputs: list[int], outputs: OutputSizes, deadline: Deadline
    ) -> Flow[tuple[Lease, Placement] | None]:
        """A region with room for these sizes; None where there is none to be had."""
        from .memory import Lease, RegionPool, aligned

        if self._pid != os.getpid():  # a forked child must not write to its parent's regions
            self._pool, self._pid, self._failures = RegionPool(_LIMIT), os.getpid(), 0
        size = sum(map(aligned, inputs)) + sum(aligned(n) for n in outputs.values() if n)
        pool = self._pool
        region = pool.take(size)
        if region is None:
            region = pool.make(size)
            if region is None:
                return None
            lease = Lease(pool, region)
            try:
                yield self._protocol.register_memory(region.name, region.key, region.size)
            except StatusError:
                with self._lock:  # not on this host, or not allowed
                    self._failures = _MOST_FAILURES if not self._failures else self._failures + 1
                return None
            finally:
                region.unlink()  # the server has mapped it: nothing can be left behind
        else:
            lease = Lease(pool, region)
        placed = tuple((lease.place(n), n) for n in inputs)
        return lease, Placement(placed, {k: (lease.place(n), n) for k, n in outputs.items() if n})

    def worked(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        """The server refused a request with shared memory: it may have been started anew."""
        with self._lock:
            self._failures += 1
        self._pool.reset()

    def close(self) -> Flow[None]:
        """Tells the server to forget all regions; a server that is gone has done so."""
        try:
            for name in self._pool.drain():
                yield self._protocol.unregister_memory(name)
        except TritonError:
            return


def fill(lease: Lease, placement: Placement, buffers: list[tuple[Buffer, int]]) -> None:
    """Copies the inputs to where the request says they are."""
    for (start, size), (buffer, _) in zip(placement.inputs, buffers, strict=True):
        lease.write(buffer, start, size)


def collect(lease: Lease, placement: Placement, result: Result) -> Result:
    """The result with the outputs that lie in the region."""
    outputs: dict[str, Any] = dict(result)
    for name, (dtype, shape) in result.elsewhere.items():
        outputs[name] = lease.array(placement.outputs[name][0], shape, dtype)
    return result.holding(outputs)
