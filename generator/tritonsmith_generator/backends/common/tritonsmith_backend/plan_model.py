"""A TensorRT plan for Triton: pinned buffers, one copy each way, one stream per instance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from tritonsmith_backend.batching import Arrays, Parts
from tritonsmith_backend.cuda import Buffer, Device, Stream
from tritonsmith_backend.model_config import check_shapes, read_config
from tritonsmith_backend.plan_engine import DTYPES, Plan
from tritonsmith_backend.plan_shapes import Region, Shape, choose_profile, lay_out

__all__ = ["PlanModel"]


class PlanModel:
    """A plan with its contexts and buffers, for one instance. Raises where config and plan differ.

    Args:
        trt: the module ``tensorrt`` or ``tensorrt_rtx``.
        args: what Triton gives to ``initialize``.
        warn: called with TensorRT's warnings.
    """

    def __init__(
        self, trt: ModuleType, args: Mapping[str, str], warn: Callable[[str], None]
    ) -> None:
        if args["model_instance_kind"] != "GPU":
            raise ValueError(
                f"model '{args['model_name']}': a TensorRT plan runs on a GPU; "
                "write instance_group { kind: KIND_GPU } into its config"
            )
        self._device = Device(int(args["model_instance_device_id"]))
        self.config = read_config(args, "model.plan", self._device.compute_capability)
        self._plan = Plan(trt, self.config.path, warn)
        self._check()
        self._stream = Stream()
        profiles = self.config.profiles or (0,)
        self._ranges = {index: self._plan.ranges(index) for index in profiles}
        self._contexts = {i: self._plan.context(i, self._stream.handle) for i in profiles}
        self._stream.wait()
        self._in, self._out = Buffer(), Buffer()
        self._growing = {
            name: _growing_output(trt, self._device)
            for name in self._data_dependent(next(iter(self._contexts.values())))
        }
        self._in.grow(self._largest_input())

    def run(self, inputs: Parts, outputs: Sequence[str]) -> Arrays:
        """The named outputs. Raises ValueError for shapes that no profile allows."""
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

    def _check(self) -> None:
        shapes, name = self._plan.shapes(), self.config.name
        check_shapes(name, self.config.inputs, {n: shapes[n] for n in self._plan.inputs}, "input")
        outputs = {n: shapes[n] for n in self._plan.outputs}
        check_shapes(name, self.config.outputs, outputs, "output")
        missing = sorted(self._plan.inputs.keys() - {t.name for t in self.config.inputs})
        if missing:
            raise ValueError(f"model '{name}': the config lacks the input(s) {', '.join(missing)}")
        if self._plan.on_host and self.config.max_batch_size:
            raise ValueError(
                f"model '{name}': {', '.join(sorted(self._plan.on_host))} are shape tensors; the "
                "embedded server serves them with max_batch_size: 0 only"
            )

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
        fixed = [name for name in self._plan.outputs if name not in self._growing]
        sizes = {n: prod(context.get_tensor_shape(n)) * self._itemsize(n) for n in fixed}
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
        """A copy of an output: the buffer is written again by the next run."""
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

    def _data_dependent(self, context: Any) -> list[str]:
        """Outputs whose shape is not known before the plan has run."""
        index = next(iter(self._ranges))
        for name, (_, best, _) in self._ranges[index].items():
            context.set_input_shape(name, best)
        if self._plan.on_host:
            return []  # their shapes follow from values, which TensorRT reads when it is asked
        return [n for n in self._plan.outputs if -1 in tuple(context.get_tensor_shape(n))]

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
            self.buffer = Buffer()
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
