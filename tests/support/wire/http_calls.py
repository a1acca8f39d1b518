"""Plain HTTP calls, and waiting for what they shall answer."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def get(
    port: int,
    path: str,
    headers: Mapping[str, str] = {},
    method: str = "GET",
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
) -> tuple[int, bytes]:
    """Status and body; (0, b"") while nobody listens."""
    connection = (
        http.client.HTTPSConnection(host, port, context=tls, timeout=10)
        if tls
        else http.client.HTTPConnection(host, port, timeout=10)
    )
    try:
        connection.request(method, path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (ConnectionError, http.client.BadStatusLine, ssl.SSLError):
        return 0, b""
    finally:
        connection.close()


def until(what: Callable[[], Any], seconds: float = 60) -> Any:
    """What it returns once that is true. Fails if it does not come about."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.2)
    return found


def settled(what: Callable[[], Any]) -> Any:
    """What it returns once that stays the same: a server counts after it has answered."""
    before, found = object(), what()
    while found != before:
        time.sleep(0.3)
        before, found = found, what()
    return found
