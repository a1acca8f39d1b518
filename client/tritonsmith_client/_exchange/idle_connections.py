"""Which connection takes the next call, and which request goes out again: decisions only.

A server may close a connection that waits for the next call at any time. The next call then needs
another connection, and no error; but nothing may be executed twice.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, Protocol, TypeVar

from tritonsmith_client._exchange.exchange import Exchange, Repeat

__all__ = ["IdleConnections", "Kept", "may_send_again"]

_LIMIT = 256


class Kept(Protocol):
    """What a connection says of its last call.

    Attributes:
        sent: the whole request is on its way.
        silent: nothing of a reply has come.
        keep_alive: another call may follow.
    """

    sent: bool

    @property
    def silent(self) -> bool: ...
    @property
    def keep_alive(self) -> bool: ...


C = TypeVar("C", bound=Kept)


class IdleConnections(Generic[C]):
    """The connections that wait for a call. Threads may share it."""

    def __init__(self) -> None:
        self.closed = False
        self._owner: object = None
        self._connections: deque[C] = deque()  # append and pop are atomic

    def take(self, owner: object) -> C | None:
        """Take the one that was used last, if any; its `usable` says if the server still wants it.

        Args:
            owner: who may use it: a process, or an event loop in it. Connections of another one
                are let go of, not closed: they may be in use there.
        """
        if owner != self._owner:
            self._owner, self._connections = owner, deque()
        try:
            return self._connections.pop()
        except IndexError:
            return None

    def keep(self, connection: C) -> bool:
        """Take it back after a call; False where it has to be closed instead."""
        if not (connection.sent and connection.keep_alive) or len(self._connections) >= _LIMIT:
            return False
        self._connections.append(connection)
        return not self.closed  # which may have come about in another thread, just now

    def close(self, owner: object) -> list[C]:
        """Those that are left to close; later ones are not kept."""
        self.closed = True
        left, self._connections = self._connections, deque()
        return [*left] if owner == self._owner else []


def may_send_again(exchange: Exchange[Any], connection: Kept) -> bool:
    """Whether a request that failed over a connection that was kept may go out over a fresh one.

    The server has begun no reply, so it closed the connection before the request came, or as it
    came. It can only have executed what came as a whole.
    """
    return connection.silent and (not connection.sent or exchange.repeat is Repeat.ALWAYS)
