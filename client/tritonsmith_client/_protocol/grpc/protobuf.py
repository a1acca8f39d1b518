"""The protobuf wire format, as far as the hot path needs it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tritonsmith_client.errors import ResponseError

__all__ = ["double", "fields", "length_delimited", "read_varint", "varint", "varints"]

_FIXED = {1: 8, 5: 4}  # wire type -> bytes


def varint(number: int) -> bytes:
    """Return a base-128 varint; negative numbers as their 64-bit two's complement."""
    number &= (1 << 64) - 1
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number > 0x7F:
        out.append((number & 0x7F) | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def length_delimited(field: int, content: bytes) -> bytes:
    """Return a field of wire type 2: a string, bytes or a message."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def double(field: int, number: float) -> bytes:
    return varint(field << 3 | 1) + struct.pack("<d", number)


def fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the fields of the message at ``data[start:end]``.

    Yields:
        (field number, wire type, value, length): for wire type 2 the value is where the content
        starts, for types 1 and 5 likewise; for type 0 it is the number itself and length is 0.

    Raises:
        ResponseError: this is no protobuf message.
    """
    try:
        while start < end:
            tag, start = read_varint(data, start)
            kind = tag & 7
            if kind == 0:
                number, start = read_varint(data, start)
                yield tag >> 3, kind, number, 0
                continue
            if kind == 2:
                length, start = read_varint(data, start)
            else:
                length = _FIXED[kind]
            if start + length > end:
                raise ResponseError(f"a protobuf field of {length} bytes is cut off")
            yield tag >> 3, kind, start, length
            start += length
    except (IndexError, KeyError) as exc:
        raise ResponseError("the reply is no protobuf message") from exc


def read_varint(data: bytes, start: int) -> tuple[int, int]:
    """Return a varint and where it ends.

    Raises IndexError where the data ends, or it never does.
    """
    number = data[start]
    start += 1
    if number < 0x80:
        return number, start
    number &= 0x7F
    for shift in range(7, 70, 7):
        byte = data[start]
        start += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & ((1 << 64) - 1), start
    raise IndexError("varint of more than 10 bytes")


def varints(data: bytes, start: int, end: int) -> list[int]:
    """Return the packed numbers at ``data[start:end]``."""
    numbers = []
    while start < end:
        number, start = read_varint(data, start)
        numbers.append(number)
    return numbers
