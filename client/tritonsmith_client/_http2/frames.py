"""HTTP/2 frames (RFC 9113): their numbers, and those that a client sends."""

from __future__ import annotations

import struct

__all__ = [
    "ACK",
    "CONTINUATION",
    "DATA",
    "END_HEADERS",
    "END_STREAM",
    "FRAME_LIMIT",
    "GOAWAY",
    "HEAD",
    "HEADERS",
    "HEADER_TABLE_SIZE",
    "INITIAL_WINDOW_SIZE",
    "MAX_FRAME_SIZE",
    "PADDED",
    "PING",
    "PREFACE",
    "PRIORITY",
    "PUSH_PROMISE",
    "RST_STREAM",
    "SETTINGS",
    "WINDOW_LIMIT",
    "WINDOW_UPDATE",
    "frame",
    "frame_head",
    "settings",
    "window_update",
]

DATA, HEADERS, _PRIORITY_FRAME, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20  # flags
HEADER_TABLE_SIZE, ENABLE_PUSH, _MAX_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 3, 4, 5
HEAD = 9  # bytes before each frame's payload
FRAME_LIMIT = (1 << 24) - 1
WINDOW_LIMIT = (1 << 31) - 1
_FIRST_WINDOW = 65535  # of a connection, whatever the settings say


def frame_head(length: int, kind: int, flags: int, stream: int) -> bytes:
    return struct.pack(">HBBBI", length >> 8, length & 0xFF, kind, flags, stream)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frame_head(len(payload), kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    payload = b"".join(struct.pack(">HI", number, value) for number, value in values.items())
    return frame(SETTINGS, 0, 0, payload)


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


# What a client says first: no pushes, and as much room as there can be.
PREFACE = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + settings({ENABLE_PUSH: 0, INITIAL_WINDOW_SIZE: WINDOW_LIMIT, MAX_FRAME_SIZE: FRAME_LIMIT})
    + window_update(0, WINDOW_LIMIT - _FIRST_WINDOW)
)
