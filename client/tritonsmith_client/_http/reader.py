"""An HTTP/1.1 response, read piece by piece without I/O.

A shell asks for `buffer()`, receives into it, and reports with `received(n)` (or `ended()` for the
end of the stream) until that says True. The body is received straight into its final place, so
that the first tensor is aligned to 64 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

from tritonsmith_client._http.body import ALIGN_FROM, aligned, decompressed
from tritonsmith_client._http.head import Head, parse_head
from tritonsmith_client._http.messages import HttpReply
from tritonsmith_client.errors import ResponseError

__all__ = ["HttpResponseReader"]

_HEAD_LIMIT = 65536
_END = b"\r\n\r\n"


class HttpResponseReader:
    """Reads one response after the other from one connection.

    Attributes:
        fresh: nothing was read since `start`.
        complete: the whole response has arrived.
        keep_alive: once it is complete, whether another one may follow.
        silent: nothing has arrived yet.
        scratch, scratch_view: where `buffer` begins for a fresh response.
    """

    def __init__(self) -> None:
        self.scratch = bytearray(_HEAD_LIMIT)
        self.scratch_view = memoryview(self.scratch)
        self._heads: dict[bytes, Head] = {}
        self._ahead = _HEAD_LIMIT
        self.start(True)

    def start(self, has_body: bool) -> None:
        """Expect a new response; a response to HEAD has no body."""
        self.fresh = True
        self.complete = False
        self._filled = 0
        self._head: Head | None = None
        self._body: memoryview | None = None
        self._at = 0
        self._chunks: bytearray | None = None
        self._until_end = False
        self._tail = bytearray()
        self._taken = 0
        self._has_body = has_body
        self.keep_alive = False
        self.silent = True

    def buffer(self) -> memoryview:
        """Where to receive the next bytes; never empty."""
        if self._body is not None:
            return self._body[self._at :]
        if self._filled < self._ahead:
            return self.scratch_view[self._filled : self._ahead]
        return self.scratch_view[self._filled :]

    def received(self, count: int) -> bool:
        """Take note of bytes in the buffer; True once the response is complete.

        Raises:
            ResponseError: this is no HTTP response.
        """
        self.silent = self.fresh = False
        self.complete = self._take(count)
        return self.complete

    def _take(self, count: int) -> bool:
        if self._body is not None:
            self._at += count
            return self._at == self._body.nbytes
        self._filled += count
        if self._head is None and not self._read_head():
            return False
        if self._chunks is not None:
            return self._read_chunks()
        if self._until_end:
            self._tail += self.scratch_view[: self._filled]
            self._filled = 0
            return False
        return self._body is None or self._at == self._body.nbytes

    def holds(self, start: bytes, size: int, count: int) -> bool:
        """Whether the first ``count`` bytes are a whole response: ``start`` and ``size`` more."""
        return count == len(start) + size and self.scratch.startswith(start)

    def feed(self, data: memoryview) -> bool:
        """As `received`, for bytes that lie elsewhere."""
        while data and not self.complete:
            place = self.buffer()
            count = min(len(place), len(data))
            place[:count] = data[:count]
            data = data[count:]
            self.received(count)
        if data:
            self.keep_alive = False  # the server sent more than it announced
        return self.complete

    def ended(self) -> bool:
        """Take note of the end of the stream; True if it completes the response."""
        if self._until_end:
            self._body = memoryview(self._tail)
            self._at = len(self._tail)
            self.complete = True
        return self.complete

    @property
    def status(self) -> int:
        """0 before the headers have come."""
        return 0 if self._head is None else self._head.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Empty before they have come."""
        return {} if self._head is None else self._head.headers

    def take(self) -> bytes:
        """Return what has come of the body since the last time."""
        if self._body is not None:
            start, self._taken = self._taken, self._at
            return bytes(self._body[start : self._at])
        body = self._chunks if self._chunks is not None else self._tail
        taken = bytes(body)
        body.clear()
        return taken

    def reply(self) -> HttpReply:
        """Return the response, once complete."""
        assert self._head is not None
        body = memoryview(b"") if self._body is None else self._body
        if self._chunks is not None:
            body = memoryview(self._chunks)
        headers = self._head.headers
        if "content-encoding" in headers:
            body = decompressed(body, headers["content-encoding"])
        whole = self._head.framing == "length" and self.keep_alive and self._has_body
        raw = self._head.raw + _END if whole and "content-encoding" not in headers else b""
        return HttpReply(self._head.status, headers, body, raw)

    def _read_head(self) -> bool:
        while True:
            end = self.scratch.find(_END, 0, self._filled)
            if end < 0:
                if self._filled == _HEAD_LIMIT:
                    raise ResponseError(f"no end of the HTTP headers within {_HEAD_LIMIT} bytes")
                return False
            raw = bytes(self.scratch_view[:end])
            head = self._heads.get(raw)
            if head is None:
                head = parse_head(raw)
                if len(self._heads) > 64:
                    self._heads.clear()
                self._heads[raw] = head
            rest = self._filled - end - 4
            if head.status >= 200:
                break
            # An interim response, such as 100 Continue: the real one follows.
            self.scratch[:rest] = self.scratch_view[end + 4 : self._filled]
            self._filled = rest
        self._head = head
        self._begin_body(head, end + 4, rest)
        return True

    def _begin_body(self, head: Head, start: int, rest: int) -> None:
        self.keep_alive = head.keep_alive
        length = head.length if self._has_body else 0
        if head.framing == "length" or not self._has_body:
            if rest > length:
                self.keep_alive = False  # the server sent more than it announced
                rest = length
            # So that the next one's tensors, if it is alike, are received straight into place.
            self._ahead = start + head.tensors if length > ALIGN_FROM else _HEAD_LIMIT
            self._body = aligned(length, head.tensors)
            self._body[:rest] = self.scratch_view[start : start + rest]
            self._at = rest
            return
        if head.framing == "chunks":
            self._chunks = bytearray()
            self._chunk_left = 0
            self._chunk_state = "size"
        else:
            self._until_end, self.keep_alive = True, False
        self.scratch[:rest] = self.scratch_view[start : self._filled]
        self._filled = rest

    def _read_chunks(self) -> bool:
        """RFC 9112 7.1: sizes in hexadecimal, extensions and trailers are skipped."""
        assert self._chunks is not None
        at = 0
        done = False
        while not done:
            if self._chunk_state == "data":
                piece = min(self._chunk_left, self._filled - at)
                self._chunks += self.scratch_view[at : at + piece]
                at += piece
                self._chunk_left -= piece
                if self._chunk_left:
                    break
                self._chunk_state = "end"
            end = self.scratch.find(b"\r\n", at, self._filled)
            if end < 0:
                break
            line = bytes(self.scratch_view[at:end])
            at = end + 2
            done = self._chunk_line(line)
        self.scratch[: self._filled - at] = self.scratch_view[at : self._filled]
        self._filled -= at
        if self._filled == _HEAD_LIMIT:
            raise ResponseError("a line between two chunks is too long")
        if done and self._filled:
            self.keep_alive = False
        return done

    def _chunk_line(self, line: bytes) -> bool:
        """Take a line that is no data; True for the one that ends the body."""
        if self._chunk_state == "trailer":
            return not line
        if self._chunk_state == "end":
            if line:
                raise ResponseError("a chunk is longer than announced")
            self._chunk_state = "size"
            return False
        text = line.split(b";")[0].strip()
        try:
            if not text.isalnum():
                raise ValueError
            self._chunk_left = int(text, 16)
        except ValueError:
            raise ResponseError(f"{line[:40]!r} is no size of a chunk") from None
        self._chunk_state = "data" if self._chunk_left else "trailer"
        return False
