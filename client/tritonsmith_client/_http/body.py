"""The body of a reply: aligned, and decompressed."""

from __future__ import annotations

import zlib

import numpy as np

from tritonsmith_client._values.buffers import flat_view
from tritonsmith_client.errors import ResponseError

__all__ = ["ALIGN_FROM", "aligned", "decompressed"]


_ALIGNMENT = 64


_SMALL_ALIGNMENT = 8


ALIGN_FROM = 16384


def aligned(length: int, before: int = 0) -> memoryview:
    """Memory for a body whose tensors start at a multiple of 64, or of 8 in a small one.

    Args:
        before: bytes that precede them.
    """
    if length < ALIGN_FROM:
        skip = -before % _SMALL_ALIGNMENT  # where a bytearray of Python's starts, too
        return memoryview(bytearray(skip + length))[skip:]
    try:
        memory = np.empty(length + 2 * _ALIGNMENT, np.uint8)
    except (MemoryError, ValueError) as exc:
        raise ResponseError(f"no memory for a reply of {length} bytes") from exc
    skip = -(memory.__array_interface__["data"][0] + before) % _ALIGNMENT
    return flat_view(memory)[skip : skip + length]


def decompressed(body: memoryview, encoding: str) -> memoryview:
    if encoding == "identity":
        return body
    if encoding not in ("gzip", "deflate"):
        raise ResponseError(f"the reply has the unknown Content-Encoding {encoding!r}")
    try:
        return memoryview(bytearray(zlib.decompress(body, zlib.MAX_WBITS | 32)))
    except zlib.error as exc:
        raise ResponseError(f"the reply is no {encoding} data: {exc}") from exc
