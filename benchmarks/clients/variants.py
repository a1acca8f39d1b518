"""The clients that are compared, each as a user would call it: a numpy array in, a numpy array out.

Each variant is a function that opens a client in an ExitStack and returns the call. It imports its
client itself, because each runs in a process of its own, and some in another environment.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any
Call = Callable[[Array], Array]
AsyncCall = Callable[[Array], Awaitable[Array]]


@dataclass(frozen=True)
class Target:
    """A model and the addresses (host:port) that serve it; ca: for grpcs, if it has TLS."""

    model: str
    grpc: str
    http: str
    ca: str | None = None


@dataclass(frozen=True)
class Variant:
    """
    Attributes:
        open: what opens the client.
        asynchronous: the call is awaited, and so is open.
        shared: threads may share one client.
        floor: it calls no server and is there to compare with.
    """

    open: Callable[..., Any]
    asynchronous: bool = False
    shared: bool = True
    floor: bool = False


def tritonclient(protocol: str) -> Callable[[Target, ExitStack], Call]:
    def start(target: Target, stack: ExitStack) -> Call:
        module, options = _tritonclient(protocol), {}
        if target.ca is not None:
            options = {"ssl": True, "root_certificates": target.ca}
        client = module.InferenceServerClient(getattr(target, protocol), **options)
        stack.callback(client.close)

        def call(array: Array) -> Array:
            tensor = module.InferInput("X", list(array.shape), "FP32")
            tensor.set_data_from_numpy(array)
            return client.infer(target.model, [tensor]).as_numpy("Y")

        return call

    return start


def tritonclient_aio(protocol: str) -> Callable[[Target, AsyncExitStack], Awaitable[AsyncCall]]:
    async def start(target: Target, stack: AsyncExitStack) -> AsyncCall:
        module = _tritonclient(f"{protocol}.aio")
        client = module.InferenceServerClient(getattr(target, protocol))
        stack.push_async_callback(client.close)

        async def call(array: Array) -> Array:
            tensor = module.InferInput("X", list(array.shape), "FP32")
            tensor.set_data_from_numpy(array)
            return (await client.infer(target.model, [tensor])).as_numpy("Y")

        return call

    return start


def tritonclient_shm(protocol: str) -> Callable[[Target, ExitStack], Call]:
    """What a user can build by hand: a region each way for each size, the result copied out."""

    def start(target: Target, stack: ExitStack) -> Call:
        import tritonclient.utils.shared_memory as shm

        module = _tritonclient(protocol)
        client = module.InferenceServerClient(getattr(target, protocol))
        stack.callback(client.close)
        regions: dict[int, Any] = {}

        def region(size: int) -> Any:
            made = []
            for kind in ("in", "out"):
                name = f"bench_{os.getpid()}_{kind}_{size}"
                handle = shm.create_shared_memory_region(name, f"/{name}", size)
                stack.callback(shm.destroy_shared_memory_region, handle)
                client.register_system_shared_memory(name, f"/{name}", size)
                stack.callback(client.unregister_system_shared_memory, name)
                made += [name, handle]
            return made

        def call(array: Array) -> Array:
            size = array.nbytes
            if size not in regions:
                regions[size] = region(size)
            source, source_handle, goal, goal_handle = regions[size]
            shm.set_shared_memory_region(source_handle, [array])
            tensor = module.InferInput("X", list(array.shape), "FP32")
            tensor.set_shared_memory(source, size)
            output = module.InferRequestedOutput("Y")
            output.set_shared_memory(goal, size)
            client.infer(target.model, [tensor], outputs=[output])
            return np.array(shm.get_contents_as_numpy(goal_handle, np.float32, array.shape))

        return call

    return start


def pytriton(protocol: str) -> Callable[[Target, ExitStack], Call]:
    def start(target: Target, stack: ExitStack) -> Call:
        from pytriton.client import ModelClient

        url = f"{protocol}://{getattr(target, protocol)}"
        client = stack.enter_context(ModelClient(url, target.model, lazy_init=False))
        return lambda array: client.infer_batch(array)["Y"]

    return start


def tritony(target: Target, stack: ExitStack) -> Call:
    from tritony import InferenceClient

    client = InferenceClient.create_with(target.model, target.grpc, run_async=False)
    return lambda array: client(array)


def ours(protocol: str, **options: Any) -> Callable[[Target, ExitStack], Call]:
    def start(target: Target, stack: ExitStack) -> Call:
        from tritonsmith_client import TLS, Client

        settings, scheme = dict(options), protocol
        if target.ca is not None:
            settings["tls"], scheme = TLS(target.ca), protocol + "s"
        client = stack.enter_context(Client(f"{scheme}://{getattr(target, protocol)}", **settings))
        model = client.model(target.model)
        return lambda array: model(array)["Y"]

    return start


def ours_future(target: Target, stack: ExitStack) -> Call:
    """Calls that another thread can cancel."""
    from tritonsmith_client import Client

    client = stack.enter_context(Client(f"http://{target.http}", shared_memory="off"))
    model = client.model(target.model)
    return lambda array: model.submit(array).result()["Y"]


def ours_aio(
    protocol: str, **options: Any
) -> Callable[[Target, AsyncExitStack], Awaitable[AsyncCall]]:
    async def start(target: Target, stack: AsyncExitStack) -> AsyncCall:
        from tritonsmith_client import AsyncClient

        url = f"{protocol}://{getattr(target, protocol)}"
        client = await stack.enter_async_context(AsyncClient(url, **options))
        model = await client.model(target.model)

        async def call(array: Array) -> Array:
            return (await model(array))["Y"]

        return call

    return start


def memory_copy(target: Target, stack: ExitStack) -> Call:
    return lambda array: array.copy()


_ECHO = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
peer, _ = listener.accept()
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
buffer = memoryview(bytearray(1 << 24))
while True:
    head = peer.recv(8, socket.MSG_WAITALL)
    if not head: break
    size = got = int.from_bytes(head, "little")
    while got: got -= peer.recv_into(buffer[size - got : size])
    peer.sendall(buffer[:size])
"""


def socket_echo(target: Target, stack: ExitStack) -> Call:
    """The same bytes there and back through a TCP socket, with nothing around them."""
    echo = stack.enter_context(
        subprocess.Popen([sys.executable, "-c", _ECHO], stdout=subprocess.PIPE)
    )
    assert echo.stdout is not None
    link = stack.enter_context(socket.create_connection(("127.0.0.1", int(echo.stdout.readline()))))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(array: Array) -> Array:
        answer = np.empty_like(array)
        view, size, got = memoryview(answer).cast("B"), array.nbytes, 0
        data = memoryview(array).cast("B")
        sent = link.sendmsg([size.to_bytes(8, "little"), data]) - 8
        link.sendall(data[sent:])
        while got < size:
            got += link.recv_into(view[got:])
        return answer

    return call


def bare_http(target: Target, stack: ExitStack) -> Call:
    """The request and its reply over a bare socket: no deadline, no check, no error, no retry. What
    a client in Python could reach at most with this server."""
    host, _, port = target.http.rpartition(":")
    link = stack.enter_context(socket.create_connection((host, int(port))))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    known: dict[int, tuple[bytes, memoryview]] = {}  # by size: the request's head, the reply's

    def read(view: memoryview, got: int) -> None:
        while got < len(view):
            got += link.recv_into(view[got:], 0, socket.MSG_WAITALL)

    def head(array: Array) -> bytes:
        tensor = {"name": "X", "datatype": "FP32", "shape": array.shape}
        tensor["parameters"] = {"binary_data_size": array.nbytes}
        asked = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
        text = json.dumps(asked).encode()
        lines = [
            f"POST /v2/models/{target.model}/infer HTTP/1.1",
            f"Host: {target.http}",
            f"Inference-Header-Content-Length: {len(text)}",
            f"Content-Length: {len(text) + array.nbytes}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + text

    def first(array: Array) -> Array:
        request = head(array)
        link.sendall(request + array.tobytes())
        reply = b""
        while b"\r\n\r\n" not in reply:
            reply += link.recv(1)
        fields = dict(line.split(": ", 1) for line in reply.decode().split("\r\n")[1:-2])
        body = memoryview(bytearray(int(fields["Content-Length"])))
        read(body, 0)
        before = int(fields["Inference-Header-Content-Length"])
        known[array.nbytes] = request, memoryview(bytearray(len(reply) + before))
        return np.frombuffer(body[before:], np.float32).reshape(array.shape)

    def call(array: Array) -> Array:
        if array.nbytes not in known:
            return first(array)
        request, start = known[array.nbytes]
        data = memoryview(array).cast("B")
        sent = link.sendmsg([request, data]) - len(request)
        link.sendall(data[sent:])
        answer = np.empty_like(array)
        view = memoryview(answer).cast("B")
        link.recvmsg_into([start, view], 0, socket.MSG_WAITALL)
        return answer

    return call


def _tritonclient(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"tritonclient.{module}")
    except RuntimeError as exc:  # so it says that an extra is not installed
        raise ImportError(str(exc), name=f"tritonclient.{module}") from exc


VARIANTS = {
    "tritonclient.grpc": Variant(tritonclient("grpc")),
    "tritonclient.http": Variant(tritonclient("http"), shared=False),
    "tritonclient.grpc.aio": Variant(tritonclient_aio("grpc"), asynchronous=True),
    "tritonclient.http.aio": Variant(tritonclient_aio("http"), asynchronous=True),
    "tritonclient shared memory, gRPC": Variant(tritonclient_shm("grpc"), shared=False),
    "tritonclient shared memory, HTTP": Variant(tritonclient_shm("http"), shared=False),
    "pytriton gRPC": Variant(pytriton("grpc")),
    "pytriton HTTP": Variant(pytriton("http"), shared=False),
    "tritony gRPC": Variant(tritony, shared=False),
    "ours gRPC": Variant(ours("grpc", shared_memory="off")),
    "ours HTTP": Variant(ours("http", shared_memory="off")),
    "ours gRPC, own HTTP/2": Variant(ours("grpc", http2="own", shared_memory="off")),
    "ours HTTP, futures": Variant(ours_future),
    "ours gRPC, asyncio": Variant(ours_aio("grpc", shared_memory="off"), asynchronous=True),
    "ours gRPC, own HTTP/2, asyncio": Variant(
        ours_aio("grpc", http2="own", shared_memory="off"), asynchronous=True
    ),
    "ours HTTP, asyncio": Variant(ours_aio("http", shared_memory="off"), asynchronous=True),
    "ours shared memory, gRPC": Variant(ours("grpc", shared_memory="auto")),
    "ours shared memory, HTTP": Variant(ours("http", shared_memory="auto")),
    "ours shared memory, own HTTP/2": Variant(ours("grpc", http2="own", shared_memory="auto")),
    "floor: bare HTTP": Variant(bare_http, shared=False, floor=True),
    "floor: TCP echo": Variant(socket_echo, shared=False, floor=True),
    "floor: copy in memory": Variant(memory_copy, floor=True),
}
