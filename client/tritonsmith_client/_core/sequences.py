"""The flags that requests of a sequence carry."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tritonsmith_client._protocol.options import SequenceStep
from tritonsmith_client._values.argument import Argument
from tritonsmith_client._values.validators import INT64, RefusedError, can_be_sent, is_whole
from tritonsmith_client.errors import InputError

__all__ = ["SequenceState", "sequence_id"]

_MOST_SEQUENCE_ID = 128  # bytes, for Triton


def sequence_id(wanted: int | str | None, model: str) -> int | str:
    """Return the id to use; a random one where none is given, so that processes do not collide.

    Raises:
        InputError: it is none, or means "no sequence" to the server, as 0 and '' do.
    """
    if wanted is None:
        return int.from_bytes(os.urandom(7), "little") + 1
    return _ID(wanted, model=model)


def _sequence_id(value: Any) -> int | str:
    if is_whole(value) and 0 < value < INT64:
        return int(value)
    good = isinstance(value, str) and can_be_sent(value)
    if good and 0 < len(value.encode()) <= _MOST_SEQUENCE_ID:
        return str(value)
    raise RefusedError(
        f"an int from 1 to {INT64 - 1} or a str of 1 to {_MOST_SEQUENCE_ID} bytes without NUL "
        "characters and lone surrogates; 0 and '' mean 'no sequence'"
    )


_ID = Argument("sequence id", _sequence_id)


class SequenceState:
    """Where a sequence stands: the first request starts it, and one has to end it."""

    def __init__(self, id: int | str) -> None:
        self.id = id
        self.streaming = False  # the responses to a request are still being read
        self._started = False
        self._ended = False
        self._last: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None

    def step(self, end: bool) -> SequenceStep:
        """Return the flags of the next request.

        Raises InputError after the end, and within a stream.
        """
        if self._ended:
            raise InputError(f"the sequence {self.id!r} has ended: begin another one")
        if self.streaming:
            raise InputError(
                f"the sequence {self.id!r} still streams: read its responses, or close() the "
                "stream, before the next request"
            )
        return SequenceStep(self.id, not self._started, end)

    def done(self, step: SequenceStep, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """Take note of a request that succeeded, or whose first response came."""
        self._started = True
        self._ended = step.end
        self._last = (args, named)

    def farewell(self) -> tuple[tuple[Any, ...], Mapping[str, Any]] | None:
        """Return the inputs to send with the end flag when nobody has ended the sequence.

        The server keeps a slot for a sequence until it has seen its end, and takes the flag only
        with a whole request: the last one is sent once more, and its result is dropped.
        """
        self.streaming = False  # whoever still reads is told of the end
        return self._last if self._started and not self._ended else None
