"""What the generator tells whoever watches it: values, printed by the command layer alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Event", "OnEvent", "Progress", "ignore"]


@dataclass(frozen=True)
class Event:
    """A stage of a model's build.

    Attributes:
        model: the model's name.
        stage: waiting (for memory), precheck, cases, passes, plan, publish, in this order, but
            cases while the plan is built where there are no passes; then done, whose ``detail``
            is the result's status.
        detail: what the stage is doing, in words; may be empty.
        fraction: 0 to 1; None where nobody knows how much is left.
    """

    model: str
    stage: str
    detail: str = ""
    fraction: float | None = None

    def __str__(self) -> str:
        return f"{self.stage}: {self.detail}" if self.detail else self.stage


OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """For callers that don't watch."""


# Called with what is being done and how much of the whole is done before it, 0.0 to 1.0.
Progress = Callable[[str, float], None]
