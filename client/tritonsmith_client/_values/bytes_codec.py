"""BYTES tensors: each element is a 4-byte little-endian length and that many bytes."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from tritonsmith_client._values.validators import shown
from tritonsmith_client.errors import InputError, ResponseError

__all__ = ["decode", "encode"]

_LENGTH = struct.Struct("<I")


def encode(array: np.ndarray[Any, Any], name: str = "") -> bytes:
    """Return the wire form of an array of strings.

    Args:
        array: dtype ``object`` (elements bytes, str, bytearray or memoryview), ``S`` or ``U``;
            str is sent as UTF-8. numpy itself drops trailing NULs from ``S`` elements.
        name: the tensor, for messages.

    Raises:
        InputError: an element is something else, such as None or a number, or no valid Unicode.
    """
    if array.dtype.kind == "S":
        return _encode_fixed(array)
    items = array.ravel().tolist()
    if set(map(type, items)) - {bytes}:
        items = [_as_bytes(item, name) for item in items]
    lengths = struct.pack(f"<{len(items)}I", *map(len, items))
    pieces: list[bytes] = [b""] * (2 * len(items))
    pieces[0::2] = [piece for (piece,) in struct.iter_unpack("4s", lengths)]
    pieces[1::2] = items
    return b"".join(pieces)


def decode(message: bytes | memoryview, name: str = "") -> np.ndarray[Any, Any]:
    """Return the elements of a BYTES tensor, as a flat object array of ``bytes``.

    Raises:
        ResponseError: the lengths do not add up to the message.
    """
    data = bytes(message)
    total = len(data)
    items = _decode_uniform(data) if total >= _LENGTH.size else None
    if items is None:
        items = []
        append, unpack = items.append, _LENGTH.unpack_from
        end, last = 0, total - 4  # where the last string can begin
        while end <= last:
            start = end + 4
            end = start + unpack(data, end)[0]
            append(data[start:end])
        if end != total:
            raise ResponseError(
                f"output '{name}' is malformed: {total} bytes hold {len(items)} strings that "
                f"end at byte {end}"
            )
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def _decode_uniform(data: bytes) -> list[bytes] | None:
    """Elements that all have the length of the first, which one vector comparison shows."""
    length = _LENGTH.unpack_from(data)[0]
    step = length + 4
    count, rest = divmod(len(data), step)
    if rest:
        return None
    lengths = np.ndarray((count,), "<u4", data, 0, (step,))
    if not (lengths == length).all():
        return None
    return [data[start : start + length] for start in range(4, len(data) + 1, step)]


def _encode_fixed(array: np.ndarray[Any, Any]) -> bytes:
    """`S` arrays without a Python loop: a matrix of length prefixes and text, then a mask."""
    flat = np.ascontiguousarray(array.ravel())
    width = flat.dtype.itemsize
    if not flat.size or not width:
        return b"\0\0\0\0" * flat.size
    lengths = np.char.str_len(flat).astype("<u4")
    rows = np.empty((flat.size, width + 4), np.uint8)
    rows[:, :4] = lengths.view(np.uint8).reshape(-1, 4)
    rows[:, 4:] = flat.view(np.uint8).reshape(-1, width)
    if int(lengths.min()) == width:
        return rows.tobytes()
    keep = np.arange(width + 4)[None, :] < (lengths[:, None].astype(np.int64) + 4)
    return rows[keep].tobytes()


def _as_bytes(item: object, name: str) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        try:
            return item.encode()
        except UnicodeEncodeError as exc:
            raise _no_unicode(item, name, exc) from exc
    if isinstance(item, (bytearray, memoryview)):
        return bytes(item)
    raise InputError(
        f"input '{name}' is BYTES and has an element of type {type(item).__name__}; elements must "
        "be bytes, str, bytearray or memoryview: encode it yourself, e.g. str(x).encode()",
        name,
    )


def _no_unicode(item: str, name: str, exc: UnicodeEncodeError) -> InputError:
    return InputError(
        f"input '{name}' is BYTES and has the str {shown(item)}, which has no UTF-8: a lone "
        f"surrogate at {exc.start}",
        name,
        hint="give bytes, such as text.encode(errors='replace')",
    )
