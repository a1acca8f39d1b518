"""Exchanges, and the flows that yield them: what passes between the core and the transports.

The core does no I/O, and the transports do nothing else. A flow is a generator that yields
actions and is sent their results; a sync and an async driver each run the same flows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from tritonsmith_client._net.headers import Headers
from tritonsmith_client._values.buffers import Buffer
from tritonsmith_client._values.result import Result

__all__ = [
    "Action",
    "Asked",
    "Exchange",
    "Flow",
    "Foreseen",
    "Gather",
    "Hedge",
    "HookError",
    "Repeat",
    "Sleep",
    "T",
]

T = TypeVar("T")


class Repeat(Enum):
    """When a request may be sent again after a failure."""

    ALWAYS = "it only reads"
    UNEXECUTED = "when it surely was not executed"
    UNCONNECTED = "when there was no connection: the server's own answer is final"
    NEVER = "it is part of a sequence or a stream"


class Asked(str):
    """What is asked of a server, as messages name it: ``"loading model 'resnet50'"``.

    Attributes:
        model: the model that it is about, if any.
        version: of the model; empty for the newest.
        hint: what to do if this fails, where the kind of failure does not tell.
    """

    model: str | None
    version: str
    hint: str

    def __new__(cls, what: str, model: str = "", hint: str = "", version: str = "") -> Asked:
        asked = super().__new__(cls, what)
        asked.model = model or None
        asked.version = version
        asked.hint = hint
        return asked


class Foreseen(Protocol):
    """What a reply is, but for its tensors.

    Attributes:
        start: all that precedes the tensors.
        size: bytes of the tensors.
    """

    start: bytes
    size: int

    def result(self, tensors: memoryview) -> Result:
        """Args: tensors: their bytes, aligned, in memory that nobody else holds."""


@dataclass(slots=True, eq=False)  # made for each call, and a frozen one takes thrice as long
class Exchange(Generic[T]):
    """One request and how to read its reply.

    Attributes:
        what: for messages.
        route: the gRPC method path, or the HTTP request line and the headers that belong to the
            request, up to but without the empty line.
        body: buffers to send one after the other.
        parse: makes a value of the reply: of its bytes for gRPC, of an ``HttpReply`` for HTTP.
        repeat: when it may be sent again.
        headers: extra HTTP headers or gRPC metadata.
        affinity: requests with the same one go to the same server.
        tried: the servers that it was sent to, and that the next attempt leaves out if it can.
        attempt: how often it was sent, where hooks are told.
        foreseen: what the reply is, but for its tensors, if it is as the last ones were.
    """

    what: Asked
    route: str | bytes
    body: Sequence[Buffer]
    parse: Callable[[Any], T]
    repeat: Repeat = Repeat.ALWAYS
    headers: Headers = ()
    affinity: Hashable = None
    tried: set[Hashable] | None = None
    foreseen: Foreseen | None = None
    attempt: int = 0


class HookError(Exception):
    """What a caller's hook raised: no failure of a request, so that nothing is done about it.

    It ends where the call does: the caller gets the error itself.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@dataclass(frozen=True)
class Sleep:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Gather:
    """Run these flows side by side; the result is a list of theirs, in the same order."""

    flows: Sequence[Flow[Any]]


@dataclass(frozen=True)
class Hedge:
    """Send a request, and again if there is no answer after so many seconds.

    The first good answer counts, and the other attempt is cancelled. If one fails, the other may
    still succeed.
    """

    exchange: Exchange[Any]
    delay: float

    @property
    def what(self) -> Asked:
        return self.exchange.what

    @property
    def repeat(self) -> Repeat:
        return self.exchange.repeat


Action = Exchange[Any] | Sleep | Gather | Hedge
Flow = Generator[Action, Any, T]
