"""A plan, read by TensorRT or TensorRT for RTX: what it takes, gives and allows.

The module is an argument: ``tensorrt`` (8.6 to 11) and ``tensorrt_rtx`` name things alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tritonsmith_backend.plan_plugins import load_plugins
from tritonsmith_backend.plan_shapes import Ranges, Shape

__all__ = ["DTYPES", "Plan"]

# tensorrt.DataType by name, to config and to numpy; BF16 is carried as uint16
DTYPES = {
    "BOOL": ("TYPE_BOOL", "bool"),
    "UINT8": ("TYPE_UINT8", "uint8"),
    "INT8": ("TYPE_INT8", "int8"),
    "INT32": ("TYPE_INT32", "int32"),
    "INT64": ("TYPE_INT64", "int64"),
    "HALF": ("TYPE_FP16", "float16"),
    "FLOAT": ("TYPE_FP32", "float32"),
    "BF16": ("TYPE_BF16", "uint16"),
}


class Plan:
    """A deserialized engine. Raises RuntimeError with TensorRT's own reason if it does not load.

    Args:
        trt: the module ``tensorrt`` or ``tensorrt_rtx``.
        path: the plan.
        warn: called with TensorRT's warnings.
        plugins: libraries that are loaded before it.
        host_code: whether the plan may bring code for the host, which a version-compatible one
            does; only where its origin is trusted.
        logger: the process's own, where it has one already: TensorRT heeds no second one. It has
            the last error's text as ``last_error``.

    Attributes:
        inputs, outputs: name to TensorRT's data type name.
        on_host: the inputs and outputs whose values TensorRT reads on the host.
        engine: TensorRT's own object.
    """

    def __init__(
        self,
        trt: ModuleType,
        path: Path,
        warn: Callable[[str], None],
        plugins: Sequence[Path] = (),
        host_code: bool = False,
        logger: Any = None,
    ) -> None:
        self._trt = trt
        self._logger = _logger(trt, warn) if logger is None else logger
        if hasattr(trt, "init_libnvinfer_plugins"):
            trt.init_libnvinfer_plugins(self._logger, "")
        load_plugins(trt, plugins)
        self._runtime = trt.Runtime(self._logger)
        self._runtime.engine_host_code_allowed = host_code
        self.engine: Any = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            raise RuntimeError(
                f"{trt.__name__} {trt.__version__} cannot load {path.name}: "
                f"{self._logger.last_error or 'it gives no reason'}. A plan fits the version that "
                "built it and one GPU architecture; build it again here: gen-repo build"
            )
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        types = {name: self.engine.get_tensor_dtype(name).name for name in names}
        is_input = {n: self.engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT for n in names}
        self.inputs = {name: types[name] for name in names if is_input[name]}
        self.outputs = {name: types[name] for name in names if not is_input[name]}
        host = trt.TensorLocation.HOST
        self.on_host = {n for n in names if self.engine.get_tensor_location(n) == host}
        self._refuse_unknown(path, types)

    def shapes(self) -> dict[str, tuple[str, list[int]]]:
        """Return the type in the config's words and the shape of each input and output."""
        return {
            name: (DTYPES[dtype][0], list(self.engine.get_tensor_shape(name)))
            for name, dtype in {**self.inputs, **self.outputs}.items()
        }

    def ranges(self, profile: int) -> Ranges:
        """min, opt and max shape of each input in this profile."""
        found: dict[str, tuple[Shape, Shape, Shape]] = {}
        for name in self.inputs.keys() - self.on_host:
            shape = tuple(self.engine.get_tensor_shape(name))
            if -1 in shape:
                low, best, high = self.engine.get_tensor_profile_shape(name, profile)
                found[name] = (tuple(low), tuple(best), tuple(high))
            else:  # not every release has a profile for an input that can't change
                found[name] = (shape, shape, shape)
        return found

    def context(self, profile: int, stream: int) -> Any:
        """Return an execution context for this profile; ``stream`` is a CUDA handle."""
        context = self.engine.create_execution_context()
        if context is None:
            raise RuntimeError(f"no execution context: {self._logger.last_error}")
        if not context.set_optimization_profile_async(profile, stream):
            raise RuntimeError(
                f"profile {profile} cannot be used: the plan has "
                f"{self.engine.num_optimization_profiles}. {self._logger.last_error}"
            )
        return context

    def last_error(self) -> str:
        """Return what TensorRT last complained of."""
        return str(self._logger.last_error) or "TensorRT gives no reason"

    def _refuse_unknown(self, path: Path, types: dict[str, str]) -> None:
        for name, dtype in types.items():
            if dtype not in DTYPES:
                raise ValueError(
                    f"{path.name}: '{name}' is {dtype}, which Triton's protocol has not; "
                    f"it can serve {', '.join(DTYPES)}"
                )
            if self.engine.get_tensor_format(name) != self._trt.TensorFormat.LINEAR:
                raise ValueError(
                    f"{path.name}: '{name}' has a vectorized format, which the embedded server "
                    "does not serve; build the plan with linear inputs and outputs"
                )


def _logger(trt: ModuleType, warn: Callable[[str], None]) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        """Warnings and errors go to the server's log; the last error is kept for messages."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, message: str) -> None:
            levels = trt.ILogger.Severity
            if severity in (levels.ERROR, levels.INTERNAL_ERROR):
                self.last_error = message
            if severity not in (levels.INFO, levels.VERBOSE):
                warn(f"TensorRT: {message}")

    return Logger()
