"""What a plan is asked on the GPU that it was built for, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonsmith_generator.spec.builder_options import Library

if TYPE_CHECKING:  # numpy is loaded where there are arrays
    import numpy as np

__all__ = ["Arrays", "PlanAnswers", "PlanQuestion"]

Arrays = Mapping[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class PlanQuestion:
    """Inputs for a plan: full arrays by name, in the data types that the plan has.

    ``plugins`` are the libraries that it needs.
    """

    library: Library
    plan: Path
    inputs: tuple[Arrays, ...]
    plugins: tuple[Path, ...] = ()


@dataclass(frozen=True)
class PlanAnswers:
    """The outputs by name for each of the inputs.

    None stands for inputs whose shapes no profile allows. ``skipped`` says why the plan could not
    be asked at all, and is empty where it could.
    """

    outputs: tuple[Arrays | None, ...] = ()
    skipped: str = ""
