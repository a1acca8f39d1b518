"""Functions of the caller's that hear of each request and of what came of it.

They are called by a transport around another one, which decides nothing, and is not there where
nobody listens.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic

from tritonsmith_client._core.hints import completed
from tritonsmith_client._exchange.exchange import Exchange, HookError, T
from tritonsmith_client._exchange.transport import AsyncTransport, Transport
from tritonsmith_client._net.address import Address
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._net.headers import CALL_HEADERS
from tritonsmith_client._values.argument import Argument
from tritonsmith_client._values.validators import RefusedError, shown
from tritonsmith_client.errors import TritonError

__all__ = [
    "AsyncHookedTransport",
    "Hook",
    "Hooks",
    "HookedTransport",
    "RequestEvent",
    "ResponseEvent",
    "hooks",
]

Hook = Callable[[Any], object]
Hooks = Mapping[str, tuple[Hook, ...]]
_EVENTS = ("request", "response")
_ALLOWED = "a dict of lists of functions, {'request': [...], 'response': [...]}"


@dataclass(frozen=True, eq=False, slots=True)
class RequestEvent:
    """What is asked of a server, right before each attempt.

    Attributes:
        what: as messages name it, e.g. ``"inference with model 'resnet50'"``.
        model: the model that it is about, or None.
        version: of the model; empty for the newest.
        server: the one that is asked, e.g. ``"grpc://localhost:8001"``.
        protocol: ``"grpc"`` or ``"http"``.
        attempt: 1, and more when a request is sent again; `Client.wait_ready` asks often.
        headers: of this call, besides the client's own. What a hook changes here is sent with
            this attempt, and has to be as for ``using(headers=...)``.
    """

    what: str
    model: str | None
    version: str
    server: str
    protocol: str
    attempt: int
    headers: dict[str, str]


@dataclass(frozen=True, eq=False, slots=True)
class ResponseEvent:
    """What came of an attempt, when it is over.

    Attributes:
        request: what was asked.
        seconds: from sending it to the reply; for a stream to its end.
        replies: 1, or as many as a stream had; 0 where none came.
        error: why it failed, or was cancelled; None where it worked, and where a stream was left.
    """

    request: RequestEvent
    seconds: float
    replies: int
    error: BaseException | None

    @property
    def status(self) -> str:
        """What the server answered if it refused, as in `TritonError.status`; empty if not."""
        return self.error.status if isinstance(self.error, TritonError) else ""


def hooks(given: Any, client: str) -> Hooks:
    """Return the hooks of each event. Raises InputError.

    Args:
        client: the kind of it: only ``"AsyncClient"`` takes coroutine functions.
    """

    def check(value: Any) -> Hooks:
        if not isinstance(value, Mapping):
            raise RefusedError(_ALLOWED)
        for event in value:
            if event not in _EVENTS:
                what = f"event_hooks has {shown(event)}, and no event has that name"
                raise RefusedError(_ALLOWED, what)
        return {event: _functions(event, value.get(event, ()), client) for event in _EVENTS}

    return Argument("event_hooks", check)(given, client)


def _functions(event: str, given: Any, client: str) -> tuple[Hook, ...]:
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes, Mapping)):
        raise RefusedError(_ALLOWED, f"event_hooks['{event}'] is {shown(given)}")
    found = tuple(given)
    for hook in found:
        if not callable(hook):
            raise RefusedError(_ALLOWED, f"event_hooks['{event}'] has {shown(hook)}")
        if client == "Client" and _is_async(hook):
            what = f"event_hooks['{event}'] has the coroutine function {shown(hook)}"
            raise RefusedError("an ordinary function here: AsyncClient awaits them", what)
    return found


def _is_async(hook: Hook) -> bool:
    return inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(
        getattr(hook, "__call__", None)  # noqa: B004  # of an object, it may be async
    )


class _Attempt(Generic[T]):
    """One attempt at a request, as it goes on."""

    def __init__(self, exchange: Exchange[T], address: Address) -> None:
        exchange.attempt += 1
        what = exchange.what
        self.request = RequestEvent(
            what=str(what),
            model=what.model,
            version=what.version,
            server=str(address),
            protocol=address.protocol,
            attempt=exchange.attempt,
            headers=dict(exchange.headers),
        )
        self.replies = 0
        self._exchange = exchange
        self._error: BaseException | None = None

    def begin(self) -> Exchange[T]:
        """Return what to send, with the headers as the hooks left them."""
        try:
            headers = CALL_HEADERS(self.request.headers, "a request hook")
        except TritonError as error:
            raise HookError(error) from None
        self._start = time.perf_counter()
        exchange = self._exchange
        return exchange if headers == exchange.headers else replace(exchange, headers=headers)

    def failed(self, error: BaseException) -> None:
        if isinstance(error, TritonError):
            error = completed(error, self._exchange.what)
        self._error = error

    def end(self) -> ResponseEvent:
        """Return what came of it, and let go of the error: its traceback holds all of the call."""
        error, self._error = self._error, None
        seconds = time.perf_counter() - self._start
        return ResponseEvent(self.request, seconds, self.replies, error)


class HookedTransport:
    """Threads may share it. Args: address: of the server that the other transport reaches."""

    def __init__(self, inner: Transport, hooks: Hooks, address: Address) -> None:
        self._inner = inner
        self._hooks = hooks
        self._address = address

    def send(self, exchange: Exchange[T], deadline: Deadline) -> T:
        """Send as the other transport does. Raises HookError for what a hook raises."""
        attempt = _Attempt(exchange, self._address)
        self._call("request", attempt.request)
        sent = attempt.begin()
        try:
            reply = self._inner.send(sent, deadline)
            attempt.replies = 1
            return reply
        except BaseException as error:
            attempt.failed(error)
            raise
        finally:
            self._call("response", attempt.end())

    def stream(self, exchange: Exchange[T], timeout: float | None) -> Iterator[T]:
        """Yield what the other transport does. Raises HookError for what a hook raises."""
        attempt = _Attempt(exchange, self._address)
        self._call("request", attempt.request)
        sent = attempt.begin()
        try:
            for part in self._inner.stream(sent, timeout):
                attempt.replies += 1
                yield part
        except GeneratorExit:
            raise
        except BaseException as error:
            attempt.failed(error)
            raise
        finally:
            self._call("response", attempt.end())

    def close(self) -> None:
        self._inner.close()

    def _call(self, name: str, event: RequestEvent | ResponseEvent) -> None:
        try:
            for hook in self._hooks[name]:
                hook(event)
        except Exception as error:
            raise HookError(error) from None


class AsyncHookedTransport:
    """As `HookedTransport`, for asyncio: hooks may be coroutine functions too."""

    def __init__(self, inner: AsyncTransport, hooks: Hooks, address: Address) -> None:
        self._inner = inner
        self._hooks = hooks
        self._address = address

    async def send(self, exchange: Exchange[T], deadline: Deadline) -> T:
        """Send as the other transport does. Raises HookError for what a hook raises."""
        attempt = _Attempt(exchange, self._address)
        await self._call("request", attempt.request)
        sent = attempt.begin()
        try:
            reply = await self._inner.send(sent, deadline)
            attempt.replies = 1
            return reply
        except BaseException as error:
            attempt.failed(error)
            raise
        finally:
            await self._call("response", attempt.end())

    async def stream(self, exchange: Exchange[T], timeout: float | None) -> AsyncIterator[T]:
        """Yield what the other transport does. Raises HookError for what a hook raises."""
        attempt = _Attempt(exchange, self._address)
        await self._call("request", attempt.request)
        sent = attempt.begin()
        parts = self._inner.stream(sent, timeout)
        try:
            async for part in parts:
                attempt.replies += 1
                yield part
        except GeneratorExit:
            raise
        except BaseException as error:
            attempt.failed(error)
            raise
        finally:
            await parts.aclose()  # type: ignore[attr-defined]  # an async generator
            await self._call("response", attempt.end())

    async def close(self) -> None:
        await self._inner.close()

    async def _call(self, name: str, event: RequestEvent | ResponseEvent) -> None:
        try:
            for hook in self._hooks[name]:
                made = hook(event)
                if inspect.isawaitable(made):
                    await made
        except Exception as error:
            raise HookError(error) from None
