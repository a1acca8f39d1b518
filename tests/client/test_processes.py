"""Forked children, Unix domain sockets, and what grows over time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.servers import BriefServer

from tritonsmith_client import AsyncClient, Client
from tritonsmith_generator.serve import Server

MODELS = Path(__file__).parent / "models"

FORK = """
import os, sys, numpy as np
from tritonsmith_client import Client
url, http2, shared = sys.argv[1:]
client = Client(url, timeout=10.0, http2=http2, shared_memory=shared)
model = client.model("plain")
def right(n):
    array = np.full((3, 9000), n, np.float32)
    return np.array_equal(model(array)["Y"], array) and model.submit(array).result()["Y"][0, 0] == n
assert right(1) and right(2)
children = []
for n in range(3):
    child = os.fork()
    if not child:
        os._exit(0 if all(right(10 * n + k) for k in range(20)) else 1)
    children.append(child)
assert all(right(k) for k in range(20)), "the parent"
for child in children:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "a child"
client.close()
"""


@pytest.mark.parametrize("shared", ["off", "auto"])
@pytest.mark.parametrize(
    ("protocol", "http2"), [("grpc", "grpcio"), ("grpc", "own"), ("http", "grpcio")]
)
def test_a_forked_child_connects_anew(
    server: Server, protocol: str, http2: str, shared: str
) -> None:
    url = server.grpc_url if protocol == "grpc" else server.http_url
    command = [sys.executable, "-c", FORK, url, http2, shared]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def unix(start_server: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server behind Unix domain sockets; Triton puts the port into the file's name."""
    folder = tmp_path_factory.mktemp("sockets")
    server = BriefServer(
        MODELS,
        models=["plain"],
        extra_args=[f"--grpc-address=unix:{folder}/g.sock"],
    )
    with server:
        port = server.grpc_url.rsplit(":", 1)[1]
        yield f"grpc+unix://{folder}/g.sock:{port}"


def test_unix_domain_sockets(unix: str) -> None:
    array = np.ones((2, 5), np.float32)
    with Client(unix) as client:
        client.wait_ready(20)
        assert np.array_equal(client.model("plain")(array)["Y"], array)


def test_http_over_a_unix_domain_socket(tmp_path: Path) -> None:
    import socket

    path = tmp_path / "h.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with Client(f"http+unix://{path}") as client:
        assert client.live()

    async def main() -> bool:
        async with AsyncClient(f"http+unix://{path}") as client:
            return await client.live()

    assert asyncio.run(main())
    thread.join()
    listener.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def memory() -> int:
    """Resident bytes of this process that are its own."""
    resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("shared", ["off", "auto"])
def test_nothing_grows(url: str, shared: str) -> None:
    """A short soak; `make soak` is the long one (benchmarks/soak.py)."""
    with Client(url, timeout=30.0, shared_memory=shared) as client:
        model = client.model("plain")

        def call(number: int) -> bool:
            array = np.full((number % 3 + 1, 7000 * (number % 4) + 1), number, np.float32)
            return np.array_equal(model(array)["Y"], array)

        def calls(count: int) -> None:
            with ThreadPoolExecutor(8) as pool:
                assert all(pool.map(call, range(count)))

        calls(600)
        before = (descriptors(), threading.active_count(), memory())
        calls(1200)
        after = (descriptors(), threading.active_count(), memory())
    assert after[0] <= before[0] + 8  # a pool may grow to its eight callers
    assert after[1] <= before[1]
    assert after[2] - before[2] < 64 << 20
