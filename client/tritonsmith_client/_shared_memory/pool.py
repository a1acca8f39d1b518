"""Shared memory of this host: regions, and leases of them that end with the arrays on them."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import numpy as np

from tritonsmith_client._shared_memory import blocks
from tritonsmith_client._shared_memory.blocks import Region
from tritonsmith_client._values.buffers import Array

__all__ = ["Lease", "RegionPool"]


class RegionPool:
    """Regions that are registered with the server and not in use. Threads may share it.

    Attributes:
        dropped: those that the server may let go of as soon as it writes no more to them.
    """

    def __init__(self, limit: int) -> None:
        """Args: limit: bytes of all regions together, those in use included."""
        self._limit = limit
        self._used = 0
        self._idle: dict[int, deque[Region]] = {}  # by size; append and pop are atomic
        self._names: set[str] = set()  # those that the server knows
        self._old: set[str] = set()  # those that it may know
        self.dropped: dict[str, int] = {}  # name and size of those that may still be written to
        self._lock = threading.RLock()  # a lease may end at any time, also while this is held

    def lease(self, size: int) -> Lease | None:
        """Return an idle region of this size, if there is one."""
        try:
            return Lease(self, self._idle[size].pop())
        except (KeyError, IndexError):
            return None

    def make(self, size: int) -> Lease | None:
        """Return a new region; None where memory or the limit is used up."""
        with self._lock:
            # Others need shared memory too, a server's Python models above all.
            if self._used + size > self._limit or size > blocks.free_bytes() // 2:
                return None
            self._used += size
        try:
            region = Region(size)
        except OSError:
            self._release(size)
            return None
        self._names.add(region.name)
        self._idle.setdefault(size, deque())
        return Lease(self, region)

    def give_back(self, region: Region) -> None:
        if region.name in self._names:
            self._idle[region.size].append(region)
        else:  # the server has been told to forget it, or has done so itself
            self._release(region.size)

    def drop(self, region: Region) -> None:
        """Forgets a region that may still be written to: it is never used again."""
        with self._lock:
            if region.name in self._names:
                self._names.discard(region.name)
                self.dropped[region.name] = region.size
            else:
                self._release(region.size)

    def disown(self, region: Region) -> None:
        """Take note that the server did not take a region."""
        with self._lock:
            self._names.discard(region.name)
            self._old.add(region.name)  # its answer may have been lost

    def forget(self, name: str) -> None:
        """Take note that the server let go of a dropped region."""
        with self._lock:
            self._release(self.dropped.pop(name, 0))

    def drain(self) -> list[str]:
        """Empty the pool; the names that the server may know, of regions in use as well."""
        self.reset()
        names, self._old = list(self._old), set()
        return names

    def reset(self) -> None:
        """No region is used again: the server may have forgotten them."""
        with self._lock:
            self._old |= self._names | self.dropped.keys()
            self._names.clear()
            for name in list(self.dropped):
                self.forget(name)
            for regions in list(self._idle.values()):
                while regions:
                    self._release(regions.pop().size)

    def _release(self, size: int) -> None:
        with self._lock:
            self._used -= size


class Lease:
    """A region for one request and for the arrays of its result.

    It goes back to the pool when the last of them is gone, but only if the server is done with it.

    Attributes:
        done: the server has answered and so writes no more.
    """

    __slots__ = ("_pool", "done", "region")

    def __init__(self, pool: RegionPool, region: Region) -> None:
        self._pool = pool
        self.region = region
        self.done = False

    def array(self, start: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return an array on the region, which keeps the lease."""
        if 0 in shape:
            return np.empty(shape, dtype)
        lent = _Lent(shape, dtype, self.region.map, start)
        lent.lease = self
        array: Array = lent.view(np.ndarray)
        return array

    def __del__(self) -> None:
        if self.done:
            self._pool.give_back(self.region)
        else:
            self._pool.drop(self.region)


class _Lent(np.ndarray[Any, Any]):
    """The base of an array on a region: it keeps the lease for as long as there are views of it."""

    __slots__ = ("lease",)
    lease: Lease
