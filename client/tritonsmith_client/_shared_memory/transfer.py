"""When tensors travel through shared memory, and what happens when that fails.

The flows here do no more I/O than making regions, which takes no time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tritonsmith_client._exchange.exchange import Flow
from tritonsmith_client._net.address import Address
from tritonsmith_client._net.log import debug
from tritonsmith_client._protocol.protocol import WireProtocol
from tritonsmith_client._shared_memory.placement import Placement
from tritonsmith_client._values.result import Result
from tritonsmith_client.errors import ConnectError, ConnectionLostError, StatusError, TritonError

if TYPE_CHECKING:
    from tritonsmith_client._exchange.transport import Transport
    from tritonsmith_client._shared_memory.pool import Lease, RegionPool

__all__ = ["Sharing", "collect", "possible"]

_LIMIT = 1 << 30
_LEAST_SHARE = 4
_CLEAR_AGAIN = 1.0  # seconds
_MOST_FAILURES = 3
_SAME_HOST = ("", "localhost", "127.0.0.1", "::1")


def possible(address: Address) -> bool:
    """Whether the server might be on this host, which registering a region then proves."""
    return address.host in _SAME_HOST and Path("/dev/shm").is_dir()


class Sharing:
    """The shared memory of one client with one server. Threads may share it.

    Args:
        server: its address.
        connect: makes a connection for what is left to say when nobody closes the client.
    """

    def __init__(
        self, protocol: WireProtocol, server: str, connect: Callable[[], Transport]
    ) -> None:
        self._protocol = protocol
        self._server = server
        self._connect = connect
        self._pid = 0
        self._failures = 0
        self._refuses = False
        self._clear_at = 0.0
        self._lock = threading.Lock()

    @property
    def off(self) -> bool:
        """Whether the server does not take part."""
        return self._failures >= _MOST_FAILURES

    def idle(self, size: int) -> Lease | None:
        """Lease a region of so many bytes that the server knows and that needs no preparation."""
        if self._pid != os.getpid() or (self._refuses and self._pool.dropped):
            return None
        return self._pool.lease(size)

    def lease(self, size: int) -> Flow[Lease | None]:
        """Return a region of so many bytes; None where there is none to be had."""
        if self._pid != os.getpid():
            yield from self._begin()
        pool = self._pool
        if self._refuses and pool.dropped and time.monotonic() > self._clear_at:
            self._clear_at = time.monotonic() + _CLEAR_AGAIN
            yield from self._clear(list(pool.dropped))
        return pool.lease(size) or (yield from self._new(pool, size))

    def worked(self) -> None:
        self._failures = 0

    def knows(self, region: str) -> Flow[bool]:
        """Whether the server still has a region; False where it does not say."""
        try:
            found = yield self._protocol.memory_status("system")
        except TritonError:
            return False
        return region in {status.name for status in found}

    def failed(self) -> None:
        """Take note that the server forgot a region: it was started anew, or others answer too."""
        with self._lock:
            self._failures += 1
        self._pool.reset()

    def close(self) -> Flow[None]:
        """Tells the server to forget all regions; a server that is gone has done so."""
        if self._pid == os.getpid():
            yield from self._clear(self._pool.drain())
            self._farewell.done()

    def _begin(self) -> Flow[None]:
        """Before the first region, also of a forked child, which must not use its parent's."""
        from tritonsmith_client._shared_memory.blocks import clear_folder
        from tritonsmith_client._shared_memory.cleanup import Farewell, left_behind
        from tritonsmith_client._shared_memory.orphans import refuses_while_in_use
        from tritonsmith_client._shared_memory.pool import RegionPool
        from tritonsmith_client._shared_memory.region_names import is_abandoned

        with self._lock:
            if self._pid == os.getpid():
                return
            self._pool, self._failures = RegionPool(_LIMIT), 0
            self._farewell = Farewell(self._server, self._protocol, self._connect)
            self._farewell.watch(self, self._pool)
            self._refuses = False
            self._pid = os.getpid()
        clear_folder()
        try:
            server = yield self._protocol.server_metadata()
            self._refuses = refuses_while_in_use(server.version)
            known = yield self._protocol.memory_status("system")
        except TritonError:  # the call itself will say what is wrong
            return
        abandoned = [status.name for status in known if is_abandoned(status.name)]
        yield from self._clear(left_behind(self._server) + (abandoned if self._refuses else []))

    def _new(self, pool: RegionPool, size: int) -> Flow[Lease | None]:
        lease = pool.make(size)
        if lease is None:
            return None
        region = lease.region
        try:
            yield self._protocol.register_memory(region.name, region.key, region.size)
        except StatusError as error:
            pool.disown(region)
            debug("%s has not mapped a region: %s", self._server, error.message)
            if not isinstance(error, (ConnectError, ConnectionLostError)):
                with self._lock:  # not on this host, or not allowed
                    self._failures = self._failures + 1 if self._failures else _MOST_FAILURES
            return None
        finally:
            region.unlink()  # the server has mapped it: nothing can be left behind
        debug("%s has mapped the region %s of %d bytes", self._server, region.name, region.size)
        return lease

    def _clear(self, names: Iterable[str]) -> Flow[None]:
        """Has the server let go of regions, except of those that it still uses."""
        for name in names:
            try:
                yield self._protocol.unregister_memory(name)
            except (ConnectError, ConnectionLostError):
                return
            except TritonError:
                continue
            self._pool.forget(name)


def collect(lease: Lease, placement: Placement, result: Result) -> None:
    """Completes a result, with which the server is done, with the outputs in the region."""
    lease.done = True
    # A view keeps the whole region: not for outputs that are a small part of it.
    keep = _LEAST_SHARE * placement.kept >= lease.region.size
    for name, (dtype, shape) in result.elsewhere.items():
        view = lease.array(placement.outputs[name][0], shape, dtype.numpy)
        result.add(name, view if keep else view.copy())
