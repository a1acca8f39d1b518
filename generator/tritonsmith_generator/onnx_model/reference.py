"""ONNX Runtime's own answer on the CPU: what every plan and every server is compared with."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime as ort

from tritonsmith_client.dtypes import from_numpy
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.host.limits import threads

__all__ = ["Reference", "run"]

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

_BF16 = "tensor(bfloat16)"

# ONNX Runtime's log level 3: errors only. Its warnings concern optimizations, not results.
_ERRORS_ONLY = 3


class Reference:
    """A model loaded once, to be asked several times. Raises InputError if it doesn't load.

    Args:
        exact: Q and DQ nodes are computed one by one, as ONNX defines them. Otherwise as ONNX
            Runtime serves them, in integers, whose 16-bit sums saturate on x86-64 CPUs without
            VNNI where weights use all 8 bits (ONNX Runtime's documentation of quantization).
    """

    def __init__(self, model: Path, exact: bool = False) -> None:
        options = ort.SessionOptions()
        if exact:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = threads()
        self._path = model
        try:
            self._session = ort.InferenceSession(
                str(model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:  # ONNX Runtime's exceptions have no common base of their own
            raise InputError(f"{model}: ONNX Runtime cannot load it: {_reason(exc)}") from exc

    def __call__(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> Arrays:
        """Return the named outputs (all by default) for these inputs.

        Raises InputError if it fails.
        """
        names = list(outputs or (output.name for output in self._session.get_outputs()))
        options = ort.RunOptions()
        options.log_severity_level = _ERRORS_ONLY + 1  # the error is raised, not logged as well
        try:
            return dict(zip(names, self._run(names, inputs, options), strict=True))
        except Exception as exc:
            shapes = ", ".join(f"{name} {list(a.shape)}" for name, a in inputs.items())
            raise InputError(
                f"{self._path}: ONNX Runtime fails on inputs of shape {shapes}: {_reason(exc)}"
            ) from exc

    def _run(
        self, names: list[str], inputs: Mapping[str, Array], options: ort.RunOptions
    ) -> list[Array]:
        ends = (*self._session.get_inputs(), *self._session.get_outputs())
        if not any(end.type == _BF16 for end in ends):
            return list(self._session.run(names, dict(inputs), options))
        # ONNX Runtime's Python binding has no numpy type for BF16, so it goes around numpy.
        values = {name: _to_value(array) for name, array in inputs.items()}
        return [_from_value(v) for v in self._session.run_with_ort_values(names, values, options)]


def run(
    model: Path,
    inputs: Mapping[str, Array],
    outputs: Sequence[str] | None = None,
) -> Arrays:
    """Load the model, ask it once. See ``Reference`` for several questions."""
    return Reference(model)(inputs, outputs)


def _to_value(array: Array) -> ort.OrtValue:
    if array.dtype != ml_dtypes.bfloat16:
        return ort.OrtValue.ortvalue_from_numpy(array)
    bits = np.ascontiguousarray(array).view(np.uint16)
    number = from_numpy(array.dtype).onnx
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, number)


def _from_value(value: ort.OrtValue) -> Array:
    if value.data_type() != _BF16:
        return np.asarray(value.numpy())
    size = math.prod(value.shape()) * 2
    bits = ctypes.string_at(value.data_ptr(), size)
    array: Array = np.asarray(np.frombuffer(bits, ml_dtypes.bfloat16))
    return np.asarray(array.reshape(value.shape()))


def _reason(exc: Exception) -> str:
    """Give the last part of "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : reason", on one line."""
    return " ".join(str(exc).rsplit(" : ", 1)[-1].split())
