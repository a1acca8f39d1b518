"""Two attempts at one request, of which the first good answer counts."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from tritonsmith_client._exchange.exchange import Exchange, Hedge, HookError
from tritonsmith_client._net.deadline import CancellableDeadline, Deadline

__all__ = ["race"]

_Outcome = tuple[Any, BaseException | None]


def race(
    send: Callable[[Exchange[Any], Deadline], Any],
    submit: Callable[..., object],
    hedge: Hedge,
    deadline: Deadline,
) -> Any:
    """Run the attempts in other threads. Raises what the first of them raises, if all fail.

    Args:
        submit: runs a function in another thread.
        deadline: of both; cancelling it cancels them.
    """
    outcomes: SimpleQueue[_Outcome] = SimpleQueue()
    racing: list[CancellableDeadline] = []

    def attempt(own: CancellableDeadline) -> None:
        try:
            outcomes.put((send(hedge.exchange, own), None))
        except BaseException as error:
            outcomes.put((None, error))

    def start() -> None:
        racing.append(CancellableDeadline.like(deadline))
        if isinstance(deadline, CancellableDeadline) and deadline.cancelled:
            racing[-1].cancel()
        submit(attempt, racing[-1])

    def cancel() -> None:
        for own in racing:
            own.cancel()

    failures: list[BaseException] = []
    start()
    try:
        if isinstance(deadline, CancellableDeadline):
            deadline.on_cancel(cancel)
        while len(failures) < len(racing):
            try:
                value, error = outcomes.get(timeout=hedge.delay if len(racing) == 1 else None)
            except Empty:
                start()
                continue
            if error is None:
                return value
            if isinstance(error, HookError):
                raise error
            failures.append(error)
        raise failures[0]
    finally:
        cancel()
        if isinstance(deadline, CancellableDeadline) and not deadline.cancelled:
            deadline.on_cancel(None)
