"""Blocking sockets whose sends and receives end when the time of a call is over."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tritonsmith_client._net.address import Address
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._net.name_lookup import Places, look_up
from tritonsmith_client._net.socket_options import keep_alive
from tritonsmith_client._values.buffers import Buffer

if TYPE_CHECKING:
    import ssl

__all__ = ["DeadlineSocket", "connect"]

_PIECE = 1 << 20
_JOINED = 1 << 16
_MAX_BUFFERS = 512  # sendmsg takes 1024 on Linux
_LEAST = 0.002  # seconds; below, a timeout is set as it is


class DeadlineSocket:
    """A connected socket. Used by one thread at a time, except for `abort`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def quiet(self) -> bool:
        """Whether the peer has neither closed it nor sent what was not received yet."""
        return not self._poll.poll(0)

    def send(self, buffers: Sequence[Buffer], deadline: Deadline) -> None:
        """Send all of them. Raises TimeoutError when the time is over."""
        if sum(map(len, buffers)) <= _JOINED:  # else each would be a record of its own
            buffers = [b"".join(buffers)]
        for buffer in buffers:
            self._send_rest(memoryview(buffer), deadline)

    def receive(self, buffer: memoryview, deadline: Deadline) -> int:
        """Receive what has come, at least one byte; 0 at the end of the stream.

        Raises TimeoutError when the time is over.
        """
        self._socket.settimeout(deadline.left())
        return self._socket.recv_into(buffer)

    def receive_both(self, first: memoryview, second: memoryview, deadline: Deadline) -> int:
        """As `receive`, into the one and then the other, if they can be filled at once."""
        return self.receive(first, deadline)

    def fill(self, buffer: memoryview, deadline: Deadline) -> int:
        """As `receive`, but may wait for as much as the buffer takes."""
        return self.receive(buffer, deadline)

    def abort(self) -> None:
        """End a send or receive in another thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()

    def _send_rest(self, data: memoryview, deadline: Deadline) -> None:
        """Unlike sendall, whose timeout is for each packet."""
        while data:
            self._socket.settimeout(deadline.left())
            data = data[self._socket.send(data[:_PIECE]) :]


class _KernelTimedSocket(DeadlineSocket):
    """The kernel watches the time, so that a call needs one system call to send and one to receive.

    Its timeout is set when it is longer than the time that is left, and then to a power of two
    below that, which also fits the next calls. When it is over too early, it is set again.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.settimeout(None)
        self._timeout = math.inf

    def send(self, buffers: Sequence[Buffer], deadline: Deadline) -> None:
        if deadline.at is not None and deadline.at - time.monotonic() < self._timeout:
            self._watch(deadline)
        try:
            sent = self._socket.sendmsg(buffers[:_MAX_BUFFERS])
        except BlockingIOError:
            sent = 0
            self._expired(deadline)
        if sent == sum(map(len, buffers)):
            return
        for buffer in buffers:
            size = len(buffer)
            if sent >= size:
                sent -= size
            else:
                self._send_rest(memoryview(buffer)[sent:], deadline)
                sent = 0

    def receive(self, buffer: memoryview, deadline: Deadline) -> int:
        if deadline.at is not None and deadline.at - time.monotonic() < self._timeout:
            self._watch(deadline)
        while True:
            try:
                return self._socket.recv_into(buffer)
            except BlockingIOError:
                self._expired(deadline)

    def fill(self, buffer: memoryview, deadline: Deadline) -> int:
        # One system call, and one wake-up of this thread, instead of one for each packet. When the
        # kernel's timeout is over it returns what has come.
        self._watch(deadline)
        while True:
            try:
                return self._socket.recv_into(buffer, 0, socket.MSG_WAITALL)
            except BlockingIOError:
                self._expired(deadline)

    def receive_both(self, first: memoryview, second: memoryview, deadline: Deadline) -> int:
        if deadline.at is not None and deadline.at - time.monotonic() < self._timeout:
            self._watch(deadline)
        while True:
            try:
                return self._socket.recvmsg_into((first, second))[0]
            except BlockingIOError:
                self._expired(deadline)

    def _send_rest(self, data: memoryview, deadline: Deadline) -> None:
        while data:
            self._watch(deadline)
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                self._expired(deadline)

    def _watch(self, deadline: Deadline) -> None:
        left = deadline.left()
        if left is not None and left < self._timeout:
            self._set(2.0 ** (math.frexp(left)[1] - 1) if left > _LEAST else left)

    def _expired(self, deadline: Deadline) -> None:
        """Raise TimeoutError if not only the kernel's timeout is over but the call's, too."""
        left = deadline.left()
        self._set(math.inf)
        if left is not None:
            self._watch(deadline)

    def _set(self, seconds: float) -> None:
        self._timeout = seconds
        microseconds = 0 if seconds == math.inf else max(1, math.ceil(seconds * 1e6))
        value = struct.pack("ll", *divmod(microseconds, 1_000_000))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._socket.setsockopt(socket.SOL_SOCKET, option, value)


def connect(
    address: Address,
    tls: ssl.SSLContext | None,
    name: str | None,
    deadline: Deadline,
    protocol: str | None = None,
    keepalive: float | None = None,
) -> DeadlineSocket:
    """Return a connection to the first of the host's addresses that answers.

    Args:
        name: the one that the server's certificate must have.
        protocol: what both sides have to agree on, if they use TLS.
        keepalive: as for `keep_alive`.

    Raises:
        TimeoutError: the time is over.
        OSError: there is no connection to be had.
    """
    sock = _open(address, deadline)
    try:
        if not address.unix:
            keep_alive(sock, keepalive)
        sock.settimeout(deadline.left())
        if tls is not None:
            wrapped = sock = tls.wrap_socket(sock, server_hostname=name)
            if protocol is not None and wrapped.selected_alpn_protocol() != protocol:
                raise OSError(f"the server does not speak {protocol}")
    except BaseException:
        sock.close()
        raise
    kernel = tls is None and sys.platform == "linux"
    return _KernelTimedSocket(sock) if kernel else DeadlineSocket(sock)


def _open(address: Address, deadline: Deadline) -> socket.socket:
    kinds: Places
    if address.unix:
        kinds = [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", address.path)]
    else:
        kinds = look_up(address.host, address.port, deadline)
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, place in kinds:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(deadline.left())
            sock.connect(place)
            if not address.unix:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as exc:
            sock.close()
            failure = exc
    raise failure
