"""The sending half of an HTTP/2 connection: one request at a time, within the peer's windows."""

from __future__ import annotations

from collections.abc import Sequence

from tritonsmith_client._http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_LIMIT,
    HEADERS,
    WINDOW_LIMIT,
    frame,
    frame_head,
)
from tritonsmith_client._values.buffers import Buffer
from tritonsmith_client.errors import ResponseError

__all__ = ["Http2Sender"]

_FIRST_WINDOW = 65535
_FIRST_FRAME = 16384
_TINY = 16384  # a body up to this size is joined with its head


class Http2Sender:
    """Cuts a body into frames, as far as the windows of connection and stream allow. No I/O."""

    def __init__(self) -> None:
        self.left = 0  # bytes of the body that wait for the peer's windows
        self._window = _FIRST_WINDOW
        self._stream_window = self._new_stream_window = _FIRST_WINDOW
        self._frame_size = _FIRST_FRAME
        self._stream = 0
        self._body: list[memoryview] = []  # what is left of it, last piece first

    def start(self, stream: int, head: bytes, body: Sequence[Buffer]) -> list[Buffer]:
        """Return what to send for a new request.

        A body that is too large for one frame, or for the peer's windows, follows in `more`.

        Args:
            body: not empty.
        """
        self._stream = stream
        self._stream_window = self._new_stream_window
        size = sum(map(len, body))
        opening = frame(HEADERS, END_HEADERS, stream, head)
        if size <= self._frame_size and size <= self._window and size <= self._stream_window:
            self.left = 0
            self._window -= size
            self._stream_window -= size
            opening += frame_head(size, DATA, END_STREAM, stream)
            return [b"".join((opening, *body))] if size <= _TINY else [opening, *body]
        self.left = size
        self._body = [memoryview(piece) for piece in reversed(body) if len(piece)]
        return [opening]

    def more(self, most: int) -> list[Buffer]:
        """Return what else may be sent now, but about that many bytes."""
        frames: list[Buffer] = []
        while most > 0 and (size := self._allowed()) > 0:
            most -= size
            self.left -= size
            self._window -= size
            self._stream_window -= size
            flags = 0 if self.left else END_STREAM
            frames.append(frame_head(size, DATA, flags, self._stream))
            while size:
                piece = self._body.pop()
                if len(piece) > size:
                    self._body.append(piece[size:])
                    piece = piece[:size]
                frames.append(piece)
                size -= len(piece)
        return frames

    def drop(self) -> None:
        """Take note that the peer wants no more of this request."""
        self.left = 0
        self._body = []

    def widen(self, stream: int, increment: int) -> None:
        """Heed a WINDOW_UPDATE of the peer. Raises ResponseError."""
        if not increment:
            raise ResponseError("the server sent an HTTP/2 window update of 0 bytes")
        if not stream:
            self._window = _checked(self._window + increment)
        elif stream == self._stream:
            self._stream_window = _checked(self._stream_window + increment)

    def resize(self, stream_window: int) -> None:
        """Heed the peer's INITIAL_WINDOW_SIZE. Raises ResponseError."""
        grown = _checked(stream_window) - self._new_stream_window
        self._new_stream_window = stream_window
        self._stream_window = _checked(self._stream_window + grown)

    def limit(self, frame_size: int) -> None:
        """Heed the peer's MAX_FRAME_SIZE. Raises ResponseError."""
        if not _FIRST_FRAME <= frame_size <= FRAME_LIMIT:
            raise ResponseError(f"the server wants HTTP/2 frames of at most {frame_size} bytes")
        self._frame_size = frame_size

    def _allowed(self) -> int:
        return min(self.left, self._frame_size, self._window, self._stream_window)


def _checked(window: int) -> int:
    if window > WINDOW_LIMIT:
        raise ResponseError("the server made an HTTP/2 window too large")
    return window
