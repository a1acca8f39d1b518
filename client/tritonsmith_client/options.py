"""What can be said about a call besides its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import EllipsisType

from .errors import InputError
from .exchange import Headers
from .values import Parameter

__all__ = ["Options", "headers_of"]

# Words that the protocol gives a meaning of its own; Triton reserves triton_* as well.
_RESERVED = {
    "binary_data_output": "nothing: outputs are always binary",
    "headers": "headers=",
    "priority": "priority=",
    "sequence_end": "model.sequence()",
    "sequence_id": "model.sequence()",
    "sequence_start": "model.sequence()",
    "timeout": "queue_timeout=",
}


@dataclass(frozen=True)
class Options:
    """
    Attributes:
        outputs: names of the wanted outputs; empty for all.
        timeout: seconds for the whole call; None for no deadline; ``...`` for the client's.
        id: comes back in the result and stands in the server's logs.
        parameters: reach the model; bool, int, float or str.
        priority: 1 is the highest, 0 the model's default.
        queue_timeout: seconds that the request may wait in the server's queue.
        headers: HTTP headers or gRPC metadata.
    """

    outputs: tuple[str, ...] = ()
    timeout: float | EllipsisType | None = ...
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    priority: int = 0
    queue_timeout: float | None = None
    headers: Headers = ()

    def wire_parameters(self) -> dict[str, Parameter]:
        """The request's parameters on the wire. Raises InputError for what has no place there."""
        for name, value in self.parameters.items():
            if name in _RESERVED or name.startswith("triton_"):
                use = _RESERVED.get(name, "another name")
                raise InputError(f"the parameter '{name}' belongs to the protocol: use {use}")
            if not isinstance(value, (bool, int, float, str)):
                raise InputError(
                    f"the parameter '{name}' is a {type(value).__name__}; "
                    "it must be a bool, int, float or str"
                )
        result = dict(self.parameters)
        if self.priority:
            result["priority"] = self.priority
        if self.queue_timeout is not None:
            result["timeout"] = int(self.queue_timeout * 1e6)  # Triton counts microseconds
        return result

    def key(self) -> tuple[object, ...]:
        """What of this shows in a request's head."""
        typed = tuple((name, type(v), v) for name, v in self.parameters.items())
        return (self.outputs, self.id, typed, self.priority, self.queue_timeout)


def headers_of(headers: Mapping[str, str] | None) -> Headers:
    """Headers in the form that both protocols take: names in lower case.

    Raises:
        InputError: a name or value that would end the line.
    """
    result = []
    for name, value in (headers or {}).items():
        if not name or any(c in name + value for c in "\r\n\0") or ":" in name or " " in name:
            raise InputError(f"the header {name!r} has a name or a value that no header may have")
        result.append((name.lower(), value))
    return tuple(result)
