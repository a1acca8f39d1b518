"""The server's end of HTTP/2: strict about what the client sends (the h2 library reads it), free
to answer with any bytes at all."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import hpack
import numpy as np
from support.wire.scripted import Script
from tritonclient.grpc import model_config_pb2, service_pb2

__all__ = ["DESCRIBED", "OK", "Peer", "frame", "grpc_frame", "healthy", "infer_reply", "serving"]

X = np.arange(4, dtype=np.float32)
OK = [(":status", "200"), ("content-type", "application/grpc")]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def grpc_frame(message: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(message)) + message


def infer_reply(y: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = X) -> bytes:
    """A ModelInferResponse of model 'm'."""
    reply = service_pb2.ModelInferResponse(model_name="m", model_version="1")
    reply.outputs.add(name="y", datatype="FP32", shape=y.shape)
    reply.raw_output_contents.append(y.tobytes())
    return bytes(reply.SerializeToString())


def _described() -> dict[str, bytes]:
    metadata = service_pb2.ModelMetadataResponse(name="m", versions=["1"], platform="p")
    metadata.inputs.add(name="x", datatype="FP32", shape=[-1])
    metadata.outputs.add(name="y", datatype="FP32", shape=[-1])
    config = service_pb2.ModelConfigResponse(config=model_config_pb2.ModelConfig(name="m"))
    return {
        "ModelMetadata": metadata.SerializeToString(),
        "ModelConfig": config.SerializeToString(),
    }


DESCRIBED = _described()


@dataclass
class Peer:
    """One connection. Attributes: stream: of the request that came last."""

    connection: socket.socket
    stream: int = 0
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    encoder: hpack.Encoder = field(default_factory=hpack.Encoder)

    def __post_init__(self) -> None:
        self.http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.pings = 0

    def greet(self) -> None:
        self.http2.initiate_connection()
        self.connection.sendall(self.http2.data_to_send())

    def request(self) -> None:
        """Reads a whole request. Raises OSError where the client is gone, and h2's own errors
        where it broke the protocol."""
        headers: list[tuple[bytes, bytes]] = []
        body = b""
        while True:
            for event in self.events():
                if isinstance(event, h2.events.RequestReceived):
                    headers = event.headers
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                    self.http2.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
                elif isinstance(event, h2.events.PingAckReceived):
                    self.pings += 1
                elif isinstance(event, h2.events.StreamEnded):
                    self.stream, self.body = event.stream_id, body
                    self.headers = {k.decode(): v.decode() for k, v in headers}
                    self.path = self.headers[":path"].rpartition("/")[2]
                    self.connection.sendall(self.http2.data_to_send())
                    return
            self.connection.sendall(self.http2.data_to_send())

    def events(self) -> list[h2.events.Event]:
        data = self.connection.recv(65536)
        if not data:
            raise OSError("the client is gone")
        return self.http2.receive_data(data)

    def block(self, fields: list[tuple[str, str]], huffman: bool = False) -> bytes:
        return self.encoder.encode(fields, huffman=huffman)

    def good(self, message: bytes) -> bytes:
        """The bytes of a good reply."""
        return b"".join(
            (
                frame(1, 4, self.stream, self.block(OK)),
                frame(0, 0, self.stream, grpc_frame(message)),
                frame(1, 5, self.stream, self.block([("grpc-status", "0")])),
            )
        )

    def send(self, *data: bytes) -> None:
        self.connection.sendall(b"".join(data))


Answer = Callable[[Peer], None]


def serving(infer: Answer, greet: Callable[[Peer], None] = Peer.greet) -> Script:
    """Describes model 'm'; what to do with its inferences is up to the caller."""

    def script(connection: socket.socket) -> None:
        peer = Peer(connection)
        greet(peer)
        with contextlib.suppress(OSError):
            while True:
                peer.request()
                if peer.path in DESCRIBED:
                    peer.send(peer.good(DESCRIBED[peer.path]))
                else:
                    infer(peer)

    return script


def healthy() -> Script:
    return serving(lambda peer: peer.send(peer.good(infer_reply())))
