"""Which of several servers takes the next call: decisions only.

Round robin over those that work. One that fails is left out for a while, longer each time, and
then gets one call again; if none works, the one whose turn comes first is tried.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from tritonsmith_client._net.address import Address
from tritonsmith_client._net.log import debug
from tritonsmith_client.errors import ResponseError, UnavailableError

__all__ = ["Balancer", "addresses_of", "is_server_fault"]

_FIRST_REST = 1.0
_LONGEST_REST = 30.0
_LOOK_UP_AGAIN = 30.0
_PATIENCE = 1.0


class _State:
    __slots__ = ("failures", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.until = 0.0


class Balancer:
    """Safe to share between threads.

    Args:
        names: the servers; with by_name, names whose addresses are the servers.
        by_name: they have to be looked up, and again every half minute.
    """

    def __init__(
        self,
        names: Sequence[Address],
        by_name: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.names = tuple(names)
        self._clock = clock
        self._lock = threading.Lock()
        self._states = {address: _State() for address in names}
        self._turn = 0
        self._look_up_at = 0.0 if by_name else math.inf
        self._found = False

    def due(self) -> bool:
        """Whether the names should be looked up before the next call; says so once."""
        with self._lock:
            now = self._clock()
            if now < self._look_up_at:
                return False
            self._look_up_at = now + _LOOK_UP_AGAIN
            return True

    def patience(self, left: float | None) -> float | None:
        """Seconds to wait for the names: all that are left, or few where servers are known."""
        if not self._found:
            return left
        return _PATIENCE if left is None else min(left, _PATIENCE)

    def update(self, addresses: Sequence[Address]) -> list[Address]:
        """Take over what was looked up, keeping what is known; return those that are gone."""
        if not addresses:  # the name service has a problem, which the servers may not have
            return []
        with self._lock:
            self._found = True
            gone = [a for a in self._states if a not in addresses]
            self._states = {a: self._states.get(a) or _State() for a in addresses}
            return gone

    def pick(self, affinity: Hashable = None, tried: set[Hashable] | None = None) -> Address:
        """Return the server for a call; the same one for the same affinity while it works.

        Args:
            tried: those to leave out if there are others; takes up the one that is picked.
        """
        with self._lock:
            now = self._clock()
            addresses = list(self._states)
            if affinity is not None:
                start = hash(affinity)
            else:
                start = self._turn
                self._turn += 1
            order = [addresses[(start + n) % len(addresses)] for n in range(len(addresses))]
            if tried:
                order.sort(key=tried.__contains__)
            for address in order:
                if self._states[address].until <= now:
                    break
            else:
                address = min(order, key=lambda a: self._states[a].until)
            state = self._states[address]
            if state.failures:  # one call at a time finds out whether it is back
                state.until = now + _FIRST_REST
            if tried is not None:
                tried.add(address)
            return address

    def worked(self, address: Address) -> None:
        state = self._states.get(address)
        if state is not None and state.failures:
            with self._lock:
                state.failures, state.until = 0, 0.0

    def failed(self, address: Address) -> None:
        """Take note that a server could not be reached or could not take a call."""
        with self._lock:
            state = self._states.get(address)
            if state is not None:
                rest = min(_LONGEST_REST, _FIRST_REST * 2**state.failures)
                state.failures += 1
                state.until = self._clock() + rest
                debug("%s rests for %g s: it has failed %d times", address, rest, state.failures)


def is_server_fault(error: Exception) -> bool:
    """Whether another server might have done better."""
    return isinstance(error, (UnavailableError, ResponseError))


def addresses_of(name: Address, found: Iterable[tuple[Any, ...]]) -> list[Address]:
    """Return what getaddrinfo found for a name, each once; TLS still asks for the name."""
    hosts = dict.fromkeys(str(entry[4][0]) for entry in found)
    return [replace(name, host=host, name=name.host) for host in hosts]
