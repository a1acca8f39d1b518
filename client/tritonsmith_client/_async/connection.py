"""What connections of HTTP/1.1 and HTTP/2 have in common, in an event loop."""

from __future__ import annotations

import asyncio
import select
from abc import ABC, abstractmethod
from typing import Generic

from tritonsmith_client._async.call_timer import CallTimer
from tritonsmith_client._exchange.transport import Received, Sent
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._values.buffers import Buffer

__all__ = ["PIECE", "AsyncConnection"]

PIECE = 1 << 20
_CLOSED = "the server closed the connection"
_ROUNDS = 4  # of the event loop, until it has surely looked at its sockets


class AsyncConnection(asyncio.BufferedProtocol, ABC, Generic[Sent, Received]):
    """One connection; used by one call at a time. Attributes as of `Kept`."""

    def __init__(self) -> None:
        self.sent = False
        self._lost = False
        self._paused = False
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[Received] | None = None
        self._timer = CallTimer(lambda: self._fail(TimeoutError()))
        self._poll = select.poll()

    @property
    @abstractmethod
    def silent(self) -> bool: ...
    @property
    @abstractmethod
    def keep_alive(self) -> bool: ...

    @abstractmethod
    def _start(self, request: Sent) -> None:
        """Has `_more` give what is to be sent for a request."""

    @abstractmethod
    def _more(self) -> Buffer:
        """Return what may be sent now; where that is nothing, say in `sent` whether it was all."""

    async def usable(self) -> bool:
        """Whether another call may follow, by all that the server has said since the last one.

        The event loop knows nothing of that yet where it had no time to look.
        """
        for _ in range(_ROUNDS):
            if self._lost or not self._poll.poll(0):
                return self.keep_alive and not self._lost
            await asyncio.sleep(0)
        return False

    async def exchange(self, request: Sent, deadline: Deadline) -> Received:
        """Send a request and wait for its reply; TimeoutError when the time is over."""
        self._timer.on(deadline)
        self.sent = False
        reply: asyncio.Future[Received] = asyncio.get_running_loop().create_future()
        self._reply = reply
        try:
            self._start(request)
            self._flush()
            return await reply
        finally:
            self._timer.off()
            if reply.done() and not reply.cancelled():
                reply.exception()  # seen, even where the call was cancelled first
            self._reply = None

    def close(self) -> None:
        self._lost = True
        self._timer.close()
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._poll.register(transport.get_extra_info("socket"), select.POLLIN)

    def eof_received(self) -> None:
        self._fail(ConnectionResetError(_CLOSED))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionResetError(_CLOSED))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    # What those below need.

    def _flush(self) -> None:
        """Write what may be sent, as long as the transport has room for it."""
        transport = self._transport
        assert transport is not None
        while not self._paused and not self._lost:
            out = self._more()
            if not out:
                return
            transport.write(out)
            if transport.is_closing():  # it could not write that, and says so later
                self.sent = False
                self._fail(ConnectionResetError(_CLOSED))

    def _fail(self, error: Exception) -> None:
        self.close()
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)
