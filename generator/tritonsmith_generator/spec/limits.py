"""How far a converted model may be from the original: by precision, and what the user allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, ClassVar

from pydantic import Field

__all__ = ["LIMITS", "Limits", "limits_for"]

_Error = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class Limits:
    """What the accuracy gate allows for each output; None where it doesn't look.

    ``Metrics`` has the same names and says what they mean. NaN on one side is never allowed.

    Attributes:
        relative_l2: the largest norm of the difference / norm of the reference, above 0.
        max_abs: the largest difference of two elements, in the output's own unit, above 0.
        cosine: the smallest cosine, above 0 and up to 1.
        top1: the smallest share of rows whose largest element is at the same place, and of
            integers that are equal; above 0 and up to 1.
    """

    # The spec reads ``accuracy.limit`` into this: a key that isn't one is an error there.
    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    relative_l2: _Error | None = None
    max_abs: _Error | None = None
    cosine: _Share | None = None
    top1: _Share | None = None


# Relative L2 errors of correct conversions lie well below these, those of wrong ones above.
LIMITS: Mapping[str, Limits] = {
    "fp32": Limits(relative_l2=1e-4),
    "tf32": Limits(relative_l2=5e-3),
    "fp16": Limits(relative_l2=1e-2),
    "bf16": Limits(relative_l2=3e-2),
    "int8": Limits(relative_l2=0.1),
    "fp8": Limits(relative_l2=0.1),
    "int4": Limits(relative_l2=0.1),
}


def limits_for(precision: str, given: Limits = Limits()) -> Limits:
    """Return the default limits of a precision, with those that the user gave in their place."""
    said = {name: limit for name, limit in asdict(given).items() if limit is not None}
    return replace(LIMITS[precision], **said)
