"""Something wrong or doubtful that a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """Something wrong (error) or doubtful (warning); ``where`` is a path in what was checked."""

    severity: Literal["error", "warning"]
    where: str
    message: str
