"""Options of sockets."""

from __future__ import annotations

import socket
from typing import Any

__all__ = ["keep_alive"]


def keep_alive(sock: Any, seconds: float | None) -> None:
    """Has the kernel check a connection after so much silence, and end it if nobody answers."""
    if seconds is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    settings = {"TCP_KEEPIDLE": max(1, int(seconds)), "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
    for name, value in settings.items():
        if hasattr(socket, name):  # not on every system
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
