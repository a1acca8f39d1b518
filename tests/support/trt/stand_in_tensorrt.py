"""The runtime half of TensorRT's Python API, for plans that are notes on ONNX models.

What it computes is ONNX Runtime's. What it shows is whether a caller keeps to the API: tensors are
read from and written to the addresses that it is given, shapes are checked against the profile, and
outputs whose shape follows from data are asked for memory when it runs.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum, IntEnum
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from support.trt.stand_in_driver import ON_DEVICE

from tritonsmith_client.dtypes import from_onnx
from tritonsmith_generator.onnx_model.reference import Reference

__version__ = "10.13.3.9"


class Severity(IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity
    INTERNAL_ERROR, ERROR, WARNING = Severity.INTERNAL_ERROR, Severity.ERROR, Severity.WARNING

    def log(self, severity: Any, message: str) -> None:
        raise NotImplementedError


class IOutputAllocator:
    pass


class IProgressMonitor:
    pass


TensorIOMode = Enum("TensorIOMode", "NONE INPUT OUTPUT")
TensorLocation = Enum("TensorLocation", "DEVICE HOST")
TensorFormat = Enum("TensorFormat", "LINEAR CHW2")


@dataclass(frozen=True)
class Note:
    """A plan, as this library has it.

    ``profiles`` are min, opt and max by input; ``growing`` are outputs whose shape follows from
    data, ``on_host`` inputs whose values say shapes. ``fault`` is what goes wrong: nothing, or
    ``load``, ``run``, ``context``, ``crash`` or ``bug``.
    """

    onnx: str
    profiles: Sequence[Mapping[str, Sequence[Sequence[int]]]]
    growing: Sequence[str] = ()
    on_host: Sequence[str] = ()
    fault: str = ""

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)))
        return path


def get_plugin_registry() -> Any:
    class Registry:
        all_creators = ()

    return Registry()


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        note = Note(**json.loads(plan))
        if note.fault == "load":
            self._logger.log(Severity.ERROR, "it was built for another GPU")
            return None
        return Engine(note, self._logger)


@dataclass(frozen=True)
class _Type:
    name: str


class Engine:
    def __init__(self, note: Note, logger: ILogger) -> None:
        self.note, self.logger = note, logger
        graph = onnx.load(note.onnx).graph
        weights = {weight.name for weight in graph.initializer}
        self.inputs = [value for value in graph.input if value.name not in weights]
        self.values = {value.name: value for value in (*self.inputs, *graph.output)}
        self.num_io_tensors = len(self.values)
        self.num_optimization_profiles = len(note.profiles)

    def get_tensor_name(self, index: int) -> str:
        return [*self.values][index]

    def dtype(self, name: str) -> Any:
        return from_onnx(self.values[name].type.tensor_type.elem_type)

    def get_tensor_dtype(self, name: str) -> _Type:
        return _Type(self.dtype(name).tensorrt)

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        given = name in {value.name for value in self.inputs}
        return TensorIOMode["INPUT" if given else "OUTPUT"]

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation["HOST" if name in self.note.on_host else "DEVICE"]

    def get_tensor_format(self, name: str) -> TensorFormat:
        return TensorFormat["LINEAR"]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        dims = self.values[name].type.tensor_type.shape.dim
        return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        return self.note.profiles[profile][name]

    def create_execution_context(self) -> Context | None:
        if self.note.fault == "context":
            self.logger.log(Severity.ERROR, "out of memory")
            return None
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine, self._profile = engine, -1
        self._ask = Reference(Path(engine.note.onnx))
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._profile = profile
        return profile < self._engine.num_optimization_profiles

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        ranges = self._engine.note.profiles[self._profile].get(name)
        if ranges and not all(
            a <= b <= c for a, b, c in zip(ranges[0], shape, ranges[2], strict=True)
        ):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        on_device = self._engine.get_tensor_location(name) == TensorLocation["DEVICE"]
        assert bool(address & ON_DEVICE) == on_device and address % 256 == 0, (name, address)
        self._addresses[name] = address & ~ON_DEVICE
        return True

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self._allocators[name] = allocator
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        shape = self._answers()[name].shape
        return (-1,) * len(shape) if name in self._engine.note.growing else shape

    def execute_async_v3(self, stream: int) -> bool:
        note = self._engine.note
        if note.fault == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if note.fault == "bug":
            raise TypeError("incompatible function arguments")
        if note.fault == "run":
            self._engine.logger.log(Severity.ERROR, "an illegal memory access was encountered")
            return False
        for name, array in self._answers().items():
            if name in note.growing:
                size = array.nbytes
                allocator = self._allocators[name]
                given = allocator.reallocate_output_async(name, 0, size, 256, stream)
                assert given & ON_DEVICE
                address = given & ~ON_DEVICE
                allocator.notify_shape(name, array.shape)
            else:
                address = self._addresses[name]
            ctypes.memmove(address, np.ascontiguousarray(array).ctypes.data, array.nbytes)
        return True

    def _answers(self) -> dict[str, Any]:
        return self._ask({value.name: self._read(value.name) for value in self._engine.inputs})

    def _read(self, name: str) -> Any:
        dtype, shape = self._engine.dtype(name).numpy, self._shapes[name]
        data = ctypes.string_at(self._addresses[name], prod(shape) * dtype.itemsize)
        return np.frombuffer(data, dtype).reshape(shape)
