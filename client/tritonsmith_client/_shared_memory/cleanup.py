"""What a server is told about the shared memory of clients that nobody closed.

A region stays in the server's memory until it is unregistered. A client that was thrown away
without close() leaves the names of its regions here: the next client of the same server that makes
a region unregisters them, and at the latest the interpreter does when it ends. What a killed
process leaves is recognized by its name (`ownership`).
"""

from __future__ import annotations

import atexit
import os
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client.errors import TritonError

if TYPE_CHECKING:
    from tritonsmith_client._exchange.transport import Transport
    from tritonsmith_client._protocol.protocol import WireProtocol
    from tritonsmith_client._shared_memory.pool import RegionPool

__all__ = ["Farewell", "left_behind"]

_SECONDS = 2.0
_left: deque[tuple[str, Farewell]] = deque()  # its append and pop are safe in a finalizer


class Farewell:
    """What it takes to say good-bye for one client, without the client.

    Args:
        server: its address; clients with the same one clear away for each other.
        connect: makes a connection for the good-bye, as the client's own may be gone.
    """

    def __init__(
        self, server: str, protocol: WireProtocol, connect: Callable[[], Transport]
    ) -> None:
        self.server = server
        self._protocol = protocol
        self._connect = connect
        self._pools: list[RegionPool] = []
        self._pid = os.getpid()

    def watch(self, owner: object, pool: RegionPool) -> None:
        """Take care of a pool once its owner is gone, or at the interpreter's end."""
        self._pools.append(pool)
        weakref.finalize(owner, self._leave).atexit = False
        atexit.register(self._say)

    def done(self) -> None:
        """Take note that the client has been closed."""
        atexit.unregister(self._say)
        self._pools.clear()

    def names(self) -> list[str]:
        """Return the regions that the server may know."""
        return [name for pool in self._pools for name in pool.drain()]

    def _leave(self) -> None:
        for pool in self._pools:
            pool.reset()  # frees the memory; the names are kept
        if self._pools:
            _left.append((self.server, self))

    def _say(self) -> None:
        if self._pid != os.getpid():  # a forked child has nothing to unregister of its parent's
            return
        names, deadline = self.names(), Deadline(_SECONDS)
        if not names:
            return
        transport = self._connect()
        try:
            for name in names:
                transport.send(self._protocol.unregister_memory(name), deadline)
        except TritonError:
            pass  # the server has gone, and the regions with it
        finally:
            transport.close()


def left_behind(server: str) -> list[str]:
    """Return the regions of clients of this server that were thrown away; each is said once."""
    names = []
    for _ in range(len(_left)):
        try:
            entry = _left.popleft()
        except IndexError:  # another thread was faster
            break
        if entry[0] == server:
            names += entry[1].names()
            entry[1].done()
        else:
            _left.append(entry)
    return names
