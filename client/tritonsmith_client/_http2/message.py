"""The one message of a unary gRPC reply, gathered from DATA frames straight into its place."""

from __future__ import annotations

import numpy as np

from tritonsmith_client._values.buffers import flat_view
from tritonsmith_client.errors import ResponseError

__all__ = ["Message"]

_PREFIX = 5  # a flag for compression, and the length
_ZEROED_BELOW = 16384


class Message:
    """Empty at first; `add` and `place` fill it."""

    def __init__(self) -> None:
        self.content: memoryview | None = None
        self.compressed = False
        self.at = 0
        self._prefix = b""

    @property
    def complete(self) -> bool:
        return self.content is not None and self.at == len(self.content)

    def add(self, data: memoryview) -> None:
        """Take the next bytes of the stream. Raises ResponseError for more than one message."""
        if self.content is None:
            missing = _PREFIX - len(self._prefix)
            self._prefix += data[:missing]
            if len(self._prefix) < _PREFIX:
                return
            data = data[missing:]
            self._begin()
        assert self.content is not None
        end = self.at + len(data)
        if end > len(self.content):
            raise ResponseError("the reply holds more than one gRPC message")
        self.content[self.at : end] = data
        self.at = end

    def place(self, size: int) -> memoryview:
        """Where the next bytes belong, at most so many; empty where that is not known yet."""
        if self.content is None:
            return memoryview(b"")
        return self.content[self.at : self.at + size]

    def _begin(self) -> None:
        flag, length = self._prefix[0], int.from_bytes(self._prefix[1:], "big")
        if flag > 1:
            raise ResponseError(f"the reply is no gRPC message: it starts with {flag}")
        self.compressed = bool(flag)
        if length < _ZEROED_BELOW:
            self.content = memoryview(bytearray(length))
            return
        try:
            self.content = flat_view(np.empty(length, np.uint8))
        except (MemoryError, ValueError) as exc:
            raise ResponseError(f"no memory for a reply of {length} bytes") from exc
