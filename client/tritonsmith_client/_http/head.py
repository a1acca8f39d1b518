"""The head of a reply: status line and headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tritonsmith_client.errors import ResponseError


@dataclass(frozen=True)
class Head:
    """What the headers of a response say.

    Attributes:
        framing: where the body ends: after `length` bytes, after the last of its "chunks", or at
            the "end" of the stream.
        tensors: bytes of the body that precede its tensors.
    """

    raw: bytes
    status: int
    headers: Mapping[str, str]
    keep_alive: bool
    framing: str
    length: int
    tensors: int


def parse_head(raw: bytes) -> Head:
    first, *lines = raw.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isdecimal():
        raise ResponseError(f"no HTTP response: it starts with {first[:60]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ResponseError(f"no HTTP header: {line[:60]!r}")
        headers[name.strip().lower()] = value.strip()
    length = headers.get("content-length", "0")
    if not _is_length(length):
        raise ResponseError(f"Content-Length is {length[:40]!r}")
    status = int(rest[:3])
    framing = "length" if "content-length" in headers else "end"
    if "chunked" in headers.get("transfer-encoding", "").lower():
        framing = "chunks"
    if status in (204, 304):
        framing, length = "length", "0"
    closes = "close" in headers.get("connection", "").lower()
    keep_alive = version == "HTTP/1.1" and not closes
    before = headers.get("inference-header-content-length", "")
    tensors = int(before) if _is_length(before) else 0
    return Head(raw, status, headers, keep_alive, framing, int(length), tensors)


def _is_length(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19
