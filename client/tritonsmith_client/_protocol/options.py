"""What can be said about a call besides its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import EllipsisType
from typing import Any

from tritonsmith_client._net.headers import Headers
from tritonsmith_client._values.buffers import Array
from tritonsmith_client._values.checked import checked
from tritonsmith_client._values.metadata import Parameter
from tritonsmith_client._values.regions import RegionTensor
from tritonsmith_client.errors import InputError

__all__ = ["Options", "SequenceStep", "changed"]


@dataclass(frozen=True)
class SequenceStep:
    """Where in a sequence a request stands."""

    id: int | str
    start: bool
    end: bool


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
        classes: above 0, each output is replaced by its so many largest values as
            ``value:index:label`` (the server's classification extension).
        convert: numbers of another data type are converted, float32 to BF16 for instance, instead
            of refused.
        split: a batch over the model's max_batch_size is sent in parts and joined.
        hedge: seconds after which a request without an answer is sent once more; 0 for never.
        out: arrays, or tensors in regions, that take the outputs of these names.
        sequence: id, start and end of the sequence that the request belongs to.
    """

    outputs: tuple[str, ...] = ()
    timeout: float | EllipsisType | None = ...
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    priority: int = 0
    queue_timeout: float | None = None
    headers: Headers = ()
    classes: int = 0
    convert: bool = False
    split: bool = True
    hedge: float = 0.0
    out: Mapping[str, Array | RegionTensor] = field(default_factory=dict)
    sequence: SequenceStep | None = None

    @property
    def may_share(self) -> bool:
        """Whether the request may travel through shared memory."""
        # The slower of two attempts would write into a region that is in use again.
        return not self.classes and not self.hedge and self.sequence is None

    @cached_property
    def plain(self) -> bool:
        """Whether a request is all there is to a call with these."""
        return not (self.convert or self.out or self.id or self.hedge or self.sequence)

    def wire_parameters(self) -> dict[str, Parameter]:
        """The request's parameters on the wire."""
        result = dict(self.parameters)
        if self.priority:
            result["priority"] = self.priority
        if self.queue_timeout is not None:
            result["timeout"] = round(self.queue_timeout * 1e6)  # Triton counts microseconds
        if self.sequence is not None:
            result["sequence_id"] = self.sequence.id
            result["sequence_start"] = self.sequence.start
            result["sequence_end"] = self.sequence.end
        return result

    @cached_property
    def key(self) -> tuple[object, ...]:
        """What of this shows in a request's head."""
        typed = tuple((name, type(v), v) for name, v in self.parameters.items())
        return (self.outputs, self.id, typed, self.priority, self.queue_timeout, self.classes)


def changed(options: Options, model: str, **given: Any) -> Options:
    """The options with those given that are not None, and with the timeout, which may be None.

    Args:
        model: its name, for messages.

    Raises:
        InputError: one of them makes no sense, or cannot be sent.
    """
    timeout = given.pop("timeout")
    changes = {
        name: checked(name, value, model=model)
        for name, value in given.items()
        if value is not None
    }
    if not isinstance(timeout, EllipsisType):
        changes["timeout"] = checked("timeout", timeout, model=model)
    result = replace(options, **changes)
    for name in result.out:
        if result.outputs and name not in result.outputs:
            raise InputError(
                f"model '{model}': out has the output '{name}', which is not among those asked "
                f"for with outputs={list(result.outputs)}",
                name,
                model=model,
                remedy="add it there or leave it out here",
            )
    return result
