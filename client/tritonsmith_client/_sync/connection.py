"""What connections of HTTP/1.1 and HTTP/2 have in common, over blocking sockets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic

from tritonsmith_client._exchange.transport import Received, Sent
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._sync.sockets import DeadlineSocket

__all__ = ["CLOSED", "Connection"]

CLOSED = "the server closed the connection"


class Connection(ABC, Generic[Sent, Received]):
    """One connection; used by one call at a time. Attributes as of `Kept`."""

    def __init__(self, sock: DeadlineSocket) -> None:
        self.sent = False
        self._socket = sock

    @property
    @abstractmethod
    def silent(self) -> bool: ...
    @property
    @abstractmethod
    def keep_alive(self) -> bool: ...

    @abstractmethod
    def usable(self) -> bool:
        """Whether another call may follow, by all that the server has said since the last one."""

    @abstractmethod
    def _send(self, request: Sent, deadline: Deadline) -> None: ...
    @abstractmethod
    def _receive(self, deadline: Deadline) -> Received: ...

    def exchange(self, request: Sent, deadline: Deadline) -> Received:
        """Send a request and wait for its reply; TimeoutError when the time is over."""
        self.sent = False
        try:
            self._send(request, deadline)
            self.sent = True
        except (BrokenPipeError, ConnectionResetError):
            pass  # a server may refuse a request before it has read it all: see what it says
        return self._receive(deadline)

    def abort(self) -> None:
        """End a call in another thread."""
        self._socket.abort()

    def close(self) -> None:
        self._socket.close()
