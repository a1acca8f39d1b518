"""Runs a plan on this machine's GPU, without a server, through the backend's own CUDA helpers."""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import tritonsmith_generator

Arrays = Mapping[str, "np.ndarray[Any, Any]"]

_COMMON = Path(tritonsmith_generator.__file__).parent / "backends" / "common"


class PlanRunner:
    """A plan, loaded. Call it with numpy inputs; it gives numpy outputs by name."""

    def __init__(self, library: str, path: Path) -> None:
        if str(_COMMON) not in sys.path:
            sys.path.append(str(_COMMON))
        self._cuda = importlib.import_module("tritonsmith_backend.cuda")
        plan_engine = importlib.import_module("tritonsmith_backend.plan_engine")
        self._dtypes = plan_engine.DTYPES
        self._device = self._cuda.Device(0)
        self._plan = plan_engine.Plan(importlib.import_module(library), path, lambda _: None)
        self._stream = self._cuda.Stream()
        self._contexts: dict[int, Any] = {}
        self._buffers: dict[str, Any] = {}

    def __call__(self, inputs: Arrays, profile: int = 0) -> dict[str, np.ndarray[Any, Any]]:
        context = self._bind(inputs, profile)
        self._execute(context)
        outputs = {}
        for name, dtype in self._plan.outputs.items():
            shape = tuple(context.get_tensor_shape(name))
            numpy_type, count = np.dtype(self._dtypes[dtype][1]), int(np.prod(shape))
            buffer = self._buffers[name]
            self._stream.to_host(buffer, count * numpy_type.itemsize)
            self._stream.wait()
            outputs[name] = buffer.view(0, numpy_type, count).reshape(shape).copy()
        return outputs

    def seconds(self, inputs: Arrays, profile: int = 0, repeats: int = 50) -> float:
        """Median time of one execution, inputs and outputs being on the GPU."""
        context = self._bind(inputs, profile)
        for _ in range(10):
            self._execute(context)
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            self._execute(context)
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    def _execute(self, context: Any) -> None:
        assert context.execute_async_v3(self._stream.handle), self._plan.last_error()
        self._stream.wait()

    def _bind(self, inputs: Arrays, profile: int) -> Any:
        if profile not in self._contexts:
            self._contexts[profile] = self._plan.context(profile, self._stream.handle)
            self._stream.wait()
        context = self._contexts[profile]
        for name, array in inputs.items():
            buffer = self._buffer(name, array.nbytes)
            buffer.view(0, array.dtype, array.size)[:] = array.reshape(-1)
            self._stream.to_device(buffer, array.nbytes)
            assert context.set_input_shape(name, array.shape), self._plan.last_error()
            context.set_tensor_address(name, buffer.device)
        for name, dtype in self._plan.outputs.items():
            count = int(np.prod(tuple(context.get_tensor_shape(name))))
            size = count * np.dtype(self._dtypes[dtype][1]).itemsize
            context.set_tensor_address(name, self._buffer(name, size).device)
        self._stream.wait()
        return context

    def _buffer(self, name: str, size: int) -> Any:
        buffer = self._buffers.setdefault(name, self._cuda.Buffer())
        buffer.grow(max(size, 1))
        return buffer
