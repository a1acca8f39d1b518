"""numpy arrays to wire buffers and back; no I/O, and no copy where none is needed."""

from __future__ import annotations

from typing import Any

import numpy as np

from tritonsmith_client._values import bytes_codec as bytescodec
from tritonsmith_client.dtypes import DataType, from_wire
from tritonsmith_client.errors import ResponseError

__all__ = [
    "Array",
    "Buffer",
    "array_at",
    "array_from_wire",
    "array_over",
    "data_type",
    "flat_view",
    "is_little_endian",
    "is_plain",
    "wire_buffer",
]

Array = np.ndarray[Any, Any]
Buffer = bytes | bytearray | memoryview

_LITTLE_ENDIAN = np.dtype("=i4").newbyteorder("<") == np.dtype("=i4")
# Up to this size a copy costs less than a view of memory that numpy takes for read-only or that is
# not aligned, and does not hold on to the message.
_COPY_UP_TO = 131072


def wire_buffer(array: Array, dtype: DataType, name: str) -> tuple[Buffer, int]:
    """Return what to send for an array: flat little-endian bytes and how many they are.

    Contiguous little-endian arrays are lent, not copied.

    Raises:
        InputError: an element of a BYTES tensor is no string.
    """
    if dtype.wire == "BYTES":
        text = bytescodec.encode(array, name)
        return text, len(text)
    if array.dtype.byteorder == ">" or not _LITTLE_ENDIAN:
        array = array.astype(array.dtype.newbyteorder("<"))
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    if not array.size:  # memoryview refuses to flatten an empty array
        return b"", 0
    if dtype.wire == "BF16":  # ml_dtypes arrays do not export a buffer
        array = array.reshape(-1).view(np.uint8)
    return flat_view(array), array.nbytes


def is_plain(array: Array) -> bool:
    """Whether the memory of a contiguous array like this is what goes over the wire."""
    return array.dtype.kind in "biuf" and is_little_endian(array.dtype) and array.size > 0


def is_little_endian(dtype: np.dtype[Any]) -> bool:
    """Whether its elements lie in memory as they go over the wire."""
    return _LITTLE_ENDIAN and dtype.byteorder != ">"


def flat_view(array: Array) -> memoryview:
    """Return the bytes of a contiguous array that is not empty."""
    # numpy declares that it exports a buffer from Python 3.12 on; it always has.
    return memoryview(array).cast("B")  # type: ignore[arg-type]


def data_type(wire: str, name: str) -> DataType:
    """Return the data type that a response names. Raises ResponseError for an unknown one."""
    try:
        return from_wire(wire)
    except KeyError:
        raise ResponseError(f"output '{name}' has the unknown data type '{wire}'") from None


def array_from_wire(
    message: bytes | memoryview,
    start: int,
    size: int,
    dtype: DataType,
    shape: tuple[int, ...],
    name: str,
) -> Array:
    """Return the output that lies at ``message[start : start + size]``.

    Raises:
        ResponseError: size and shape do not fit each other.
    """
    text: Array | None = None
    if dtype.wire == "BYTES":
        text = bytescodec.decode(message[start : start + size], name)
        count = text.size
    else:
        assert dtype.itemsize
        count, rest = divmod(size, dtype.itemsize)
        if rest:
            raise ResponseError(f"output '{name}' is {dtype} and has {size} bytes")
    if any(axis < 0 for axis in shape) or count != _elements(shape):
        raise ResponseError(f"output '{name}' has shape {list(shape)} and {count} elements")
    return array_at(message, start, shape, dtype.numpy) if text is None else text.reshape(shape)


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for axis in shape:  # not math.prod over numpy values: exact for any length
        count *= axis
    return count


class _Owned:
    """Lends memory to numpy; the array keeps this object, and so the owner, alive."""

    __slots__ = ("__array_interface__", "_owner")

    def __init__(self, owner: object, address: int, size: int) -> None:
        self._owner = owner
        self.__array_interface__ = {
            "version": 3,
            "shape": (size,),
            "typestr": "|u1",
            "data": (address, False),
        }


def array_over(owner: object, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return a writable array on memory that is there as long as its owner is."""
    size = _elements(shape) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    lent: Any = _Owned(owner, address, size)
    array: Array = np.asarray(lent).view(dtype).reshape(shape)
    return array


def array_at(
    message: bytes | memoryview, start: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Return a writable array of what lies in a message that nobody else holds.

    grpcio returns ``bytes``, which numpy would make read-only. The caller of this function is the
    only owner of the message, so nobody can see that its content changes.
    """
    if 0 in shape:
        return np.empty(shape, dtype)
    view: Array = np.ndarray(shape, dtype, message, start)
    if not _LITTLE_ENDIAN:
        swapped: Array = view.byteswap()
        return swapped
    if type(message) is not bytes:  # to numpy those are read-only, without being asked
        flags = view.flags
        if flags.writeable and flags.aligned:
            return view
    if view.nbytes <= _COPY_UP_TO:
        copy: Array = view.copy()
        return copy
    return array_over(message, view.__array_interface__["data"][0], shape, dtype)
