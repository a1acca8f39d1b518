"""Runs a plan: one copy each way, one stream. Nothing here knows of Triton.

How memory is had and copied is the device's business: ``cuda`` has the one of the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from tritonsmith_backend.batching import Arrays, Parts
from tritonsmith_backend.plan_engine import DTYPES, Plan
from tritonsmith_backend.plan_shapes import Region, Shape, choose_profile, lay_out

__all__ = ["Buffer", "Device", "PlanRunner", "Stream"]


class Buffer(Protocol):
    """Memory on the GPU and as much on the host, at two addresses; see ``cuda.Buffer``."""

    device: int
    host: int

    def grow(self, size: int) -> None: ...
    def view(self, offset: int, dtype: Any, count: int) -> np.ndarray[Any, Any]: ...
    def close(self) -> None: ...


class Stream(Protocol):
    """An order of work on the GPU; ``handle`` is CUDA's."""

    handle: int

    def wait(self) -> None: ...
    def to_device(self, buffer: Any, size: int) -> None: ...
    def to_host(self, buffer: Any, size: int) -> None: ...
    def close(self) -> None: ...


class Device(Protocol):
    """One GPU."""

    def use(self) -> None: ...
    def stream(self) -> Stream: ...
    def buffer(self) -> Buffer: ...


class PlanRunner:
    """A plan with a context for each of these profiles, and buffers. Close it in the end."""

    def __init__(
        self, trt: ModuleType, plan: Plan, device: Device, profiles: Sequence[int]
    ) -> None:
        self._trt, self._plan, self._device = trt, plan, device
        self._stream = device.stream()
        self._ranges = {index: self._plan.ranges(index) for index in profiles}
        self._contexts = {i: self._plan.context(i, self._stream.handle) for i in profiles}
        self._stream.wait()
        self._in, self._out = device.buffer(), device.buffer()
        self._growing: dict[str, Any] = {}

    def reserve(self) -> None:
        """Take the memory for the largest inputs now, and not with the first that need it."""
        self._in.grow(self._largest_input())

    def run(self, inputs: Parts, outputs: Sequence[str]) -> Arrays:
        """Return the named outputs. Raises ValueError for shapes that no profile allows."""
        self._device.use()
        missing = sorted(self._plan.inputs.keys() - inputs.keys())
        if missing:
            raise ValueError(f"a plan needs all of its inputs; missing: {', '.join(missing)}")
        shapes = {name: _joined_shape(parts) for name, parts in inputs.items()}
        profile = choose_profile(
            {n: s for n, s in shapes.items() if n not in self._plan.on_host}, self._ranges
        )
        context, on_host = self._contexts[profile], self._plan.on_host
        self._send(context, inputs, shapes)
        regions = self._place_outputs(context, outputs)
        if not context.execute_async_v3(self._stream.handle):
            raise RuntimeError(f"TensorRT could not run the plan: {self._plan.last_error()}")
        copied = [regions[name] for name in outputs if name in regions and name not in on_host]
        if copied:
            self._stream.to_host(self._out, copied[-1].offset + copied[-1].size)
        self._stream.wait()
        return {name: self._fetch(context, name, regions.get(name)) for name in outputs}

    def close(self) -> None:
        """Give the GPU's memory back."""
        for owner in (self._in, self._out, *self._growing.values()):
            owner.close()
        self._contexts.clear()
        self._stream.close()

    def _largest_input(self) -> int:
        """Bytes of all inputs at the largest shapes of any profile."""
        sizes = [
            {n: prod(high) * self._itemsize(n) for n, (_, _, high) in ranges.items()}
            for ranges in self._ranges.values()
        ]
        return max(lay_out(one)[1] for one in sizes)

    def _send(self, context: Any, inputs: Parts, shapes: Mapping[str, Shape]) -> None:
        """Join the parts in pinned memory and copy them to the GPU at once."""
        sizes = {name: prod(shape) * self._itemsize(name) for name, shape in shapes.items()}
        regions, size = lay_out(sizes)
        self._in.grow(size)
        for name, parts in inputs.items():
            dtype = self._numpy(name)
            whole = self._in.view(regions[name].offset, dtype, prod(shapes[name]))
            start = 0
            for part in parts:
                whole[start : start + part.size] = part.reshape(-1)
                start += part.size
        if size:
            self._stream.to_device(self._in, size)
        for name, region in regions.items():
            base = self._in.host if name in self._plan.on_host else self._in.device
            if not context.set_input_shape(name, shapes[name]):
                raise ValueError(
                    f"input '{name}' can't have shape {list(shapes[name])}: "
                    + self._plan.last_error()
                )
            context.set_tensor_address(name, base + region.offset)

    def _place_outputs(self, context: Any, wanted: Sequence[str]) -> dict[str, Region]:
        """Give each output an address, those to be copied side by side at the buffer's start."""
        shapes = {name: tuple(context.get_tensor_shape(name)) for name in self._plan.outputs}
        for name in shapes.keys() - self._growing.keys():
            if -1 in shapes[name]:  # known when the plan has run
                self._growing[name] = _growing_output(self._trt, self._device)
        fixed = [name for name in shapes if name not in self._growing]
        sizes = {name: prod(shapes[name]) * self._itemsize(name) for name in fixed}
        first = [name for name in wanted if name in sizes and name not in self._plan.on_host]
        regions, size = lay_out(sizes, first)
        self._out.grow(size)
        for name, region in regions.items():
            base = self._out.host if name in self._plan.on_host else self._out.device
            context.set_tensor_address(name, base + region.offset)
        for name, allocator in self._growing.items():
            context.set_output_allocator(name, allocator)
        return regions

    def _fetch(self, context: Any, name: str, region: Region | None) -> np.ndarray[Any, Any]:
        """Return a copy of an output: the buffer is written again by the next run."""
        if region is None:
            return self._fetch_growing(name)
        shape = tuple(context.get_tensor_shape(name))
        found = self._out.view(region.offset, self._numpy(name), prod(shape))
        return np.array(found).reshape(shape)

    def _fetch_growing(self, name: str) -> np.ndarray[Any, Any]:
        allocator, dtype = self._growing[name], self._numpy(name)
        count = prod(allocator.shape)
        if count:
            self._stream.to_host(allocator.buffer, count * self._itemsize(name))
            self._stream.wait()
        found = allocator.buffer.view(0, dtype, count) if count else np.empty(0, dtype)
        copy: np.ndarray[Any, Any] = np.array(found).reshape(allocator.shape)
        return copy

    def _itemsize(self, name: str) -> int:
        return int(np.dtype(self._numpy(name)).itemsize)

    def _numpy(self, name: str) -> str:
        return DTYPES[self._plan.inputs.get(name) or self._plan.outputs[name]][1]


def _joined_shape(parts: Sequence[np.ndarray[Any, Any]]) -> Shape:
    if len(parts) == 1:
        return tuple(parts[0].shape)
    return (sum(len(part) for part in parts), *parts[0].shape[1:])


def _growing_output(trt: ModuleType, device: Device) -> Any:
    class GrowingOutput(trt.IOutputAllocator):  # type: ignore[misc, name-defined]
        """Memory for an output whose size TensorRT tells while it runs."""

        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.buffer = device.buffer()
            self.shape: Shape = ()

        def reallocate_output(self, _name: str, _memory: int, size: int, _alignment: int) -> int:
            device.use()
            self.buffer.grow(max(size, 1))
            return self.buffer.device

        def reallocate_output_async(
            self, name: str, memory: int, size: int, alignment: int, _stream: int
        ) -> int:
            return self.reallocate_output(name, memory, size, alignment)

        def notify_shape(self, _name: str, shape: Sequence[int]) -> None:
            self.shape = tuple(shape)

        def close(self) -> None:
            self.buffer.close()

    return GrowingOutput()
