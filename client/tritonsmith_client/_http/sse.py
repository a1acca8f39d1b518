"""Server-sent events without I/O: bytes in, the data of events out."""

from __future__ import annotations

from collections.abc import Mapping

from tritonsmith_client._http.messages import HttpReply
from tritonsmith_client._http.reader import HttpResponseReader

__all__ = ["BUFFER", "StreamReader"]


BUFFER = 1 << 16


def is_event(headers: Mapping[str, str]) -> bool:
    """Whether a response with these headers is a stream of events."""
    return headers.get("content-type", "").startswith("text/event-stream")


class StreamReader:
    """The events of one HTTP response, as they come; or the whole of a response that has none.

    Attributes:
        done: nothing more will come.
    """

    def __init__(self) -> None:
        self._http = HttpResponseReader()
        self._text = b""
        self.done = False

    def feed(self, data: bytes | memoryview) -> list[HttpReply]:
        """Return what has become complete with this; no data stands for the end of the stream.

        Raises:
            ResponseError: this is no such response.
            ConnectionResetError: it ends too early.
        """
        rest = memoryview(data)
        if not rest and not self._http.ended():
            raise ConnectionResetError("the server closed the connection")
        self.done = not rest or self._http.feed(rest)
        return self._events()

    def _events(self) -> list[HttpReply]:
        if not is_event(self._http.headers):
            return [self._http.reply()] if self.done else []
        self._text += self._http.take()
        # A line may end with CR, LF or both; a CR at the end may be half of both.
        text = self._text.replace(b"\r\n", b"\n")
        *blocks, self._text = text.split(b"\n\n")
        if self.done:
            blocks.append(self._text)
        events = [b"\n".join(_data(block)) for block in blocks]
        status, headers = self._http.status, self._http.headers
        return [HttpReply(status, headers, memoryview(event)) for event in events if event]


def _data(block: bytes) -> list[bytes]:
    """Return the data lines of an event; comments and other fields are left out."""
    fields = (line.partition(b":") for line in block.split(b"\n"))
    return [value.removeprefix(b" ") for name, _, value in fields if name == b"data"]
