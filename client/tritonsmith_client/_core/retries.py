"""When to try again and how long to wait before: decisions only."""

from __future__ import annotations

from dataclasses import dataclass

from tritonsmith_client._exchange.exchange import Exchange, Flow, Hedge, Repeat, Sleep, T
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._net.log import debug
from tritonsmith_client._values.argument import Argument
from tritonsmith_client._values.validators import UINT32, seconds, whole
from tritonsmith_client.errors import (
    ConnectError,
    ConnectionLostError,
    TritonError,
    UnavailableError,
)

__all__ = ["Retry", "attempts"]


_ARGUMENTS: tuple[Argument[int] | Argument[float], ...] = (
    Argument("attempts", whole(1, UINT32)),
    Argument("first", seconds("from 0")),
    Argument("longest", seconds("from 0")),
)


@dataclass(frozen=True)
class Retry:
    """A policy. Only what is unavailable is tried again: no connection, not ready, queue full.

    Never tried again: what the server refused, what is part of a sequence or a stream, and an
    inference whose connection broke after it was sent, as the server may have executed it.

    Attributes:
        attempts: how often to send at most; 1 never repeats.
        first: upper end of the first random wait in seconds; it doubles each time.
        longest: upper end of any wait in seconds.
    """

    attempts: int = 3
    first: float = 0.05
    longest: float = 2.0

    def __post_init__(self) -> None:
        """Raise InputError for what is no number of attempts or seconds."""
        for argument in _ARGUMENTS:
            argument(getattr(self, argument.name), "Retry")

    def wait(self, attempt: int) -> float:
        """Seconds to wait after this attempt (the first is 1), with full jitter."""
        from random import uniform  # brings hashlib, for calls that failed only

        return uniform(0.0, min(self.longest, self.first * 2 ** (attempt - 1)))

    def again(self, error: TritonError, repeat: Repeat, attempt: int) -> bool:
        """Whether to send again after this attempt failed."""
        if attempt >= self.attempts or not isinstance(error, UnavailableError):
            return False
        if isinstance(error, ConnectionLostError):
            return repeat is Repeat.ALWAYS
        if repeat is Repeat.UNCONNECTED:
            return isinstance(error, ConnectError)
        return repeat is not Repeat.NEVER


def attempts(
    exchange: Exchange[T] | Hedge,
    policy: Retry,
    deadline: Deadline,
    failed: list[TritonError] | None = None,
) -> Flow[T]:
    """Send until it succeeds, the policy gives up, or the wait would pass the deadline.

    Args:
        failed: holds the failure of the first attempt, if that has been made already. It is taken
            out: a frame of its traceback that kept it would keep all that the call holds, until
            garbage is collected.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            if failed:
                raise failed.pop()
            reply: T = yield exchange
            return reply
        except TritonError as error:
            from tritonsmith_client._core.hints import completed  # for calls that failed only

            again = policy.again(error, exchange.repeat, attempt)
            wait = policy.wait(attempt) if again else 0.0
            left = deadline.remaining()
            if not again or (left is not None and wait >= left):
                raise completed(error, exchange.what) from error.__cause__
            # The error itself holds the call, by its traceback.
            failure = completed(error, exchange.what).message
        debug("%s; attempt %d of %d in %.3f s", failure, attempt + 1, policy.attempts, wait)
        yield Sleep(wait)
