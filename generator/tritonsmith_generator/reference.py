"""ONNX Runtime's own answer on the CPU: what every plan and every server is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from tritonsmith_generator.errors import InputError

__all__ = ["Reference", "run"]

Arrays = dict[str, np.ndarray[Any, Any]]

# ONNX Runtime's log level 3: errors only. Its warnings concern optimizations, not results.
_ERRORS_ONLY = 3


class Reference:
    """A model loaded once, to be asked several times. Raises InputError if it doesn't load."""

    def __init__(self, model: Path) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        self._path = model
        try:
            self._session = ort.InferenceSession(
                str(model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:  # ONNX Runtime's exceptions have no common base of their own
            raise InputError(f"{model}: ONNX Runtime cannot load it: {_reason(exc)}") from exc

    def __call__(
        self, inputs: Mapping[str, np.ndarray[Any, Any]], outputs: Sequence[str] | None = None
    ) -> Arrays:
        """The named outputs (all by default) for these inputs. Raises InputError if it fails."""
        names = list(outputs or (output.name for output in self._session.get_outputs()))
        options = ort.RunOptions()
        options.log_severity_level = _ERRORS_ONLY + 1  # the error is raised, not logged as well
        try:
            return dict(zip(names, self._session.run(names, dict(inputs), options), strict=True))
        except Exception as exc:
            shapes = ", ".join(f"{name} {list(a.shape)}" for name, a in inputs.items())
            raise InputError(
                f"{self._path}: ONNX Runtime fails on inputs of shape {shapes}: {_reason(exc)}"
            ) from exc


def run(
    model: Path,
    inputs: Mapping[str, np.ndarray[Any, Any]],
    outputs: Sequence[str] | None = None,
) -> Arrays:
    """Load the model, ask it once. See ``Reference`` for several questions."""
    return Reference(model)(inputs, outputs)


def _reason(exc: Exception) -> str:
    """The last part of "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : reason", on one line."""
    return " ".join(str(exc).rsplit(" : ", 1)[-1].split())
