"""An ONNX model whose large weights stay out of the protobuf: read and written one at a time.

A protobuf cannot hold 2 GB, and shape inference or opset conversion copy it several times. So the
graph is a skeleton, and a weight is a function that returns its array when it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.passes import conditions
from tritonsmith_generator.passes.base import Array

__all__ = ["Model", "is_large", "read_model"]

# Smaller tensors (shapes, axes, scales) stay in the graph: shape inference needs their values.
SMALL = 1024

# A model with more weights than this is written with its weights in a file of their own.
INLINE_LIMIT = 1 << 30

# Weights in a file start at multiples of a page, so that readers can map them.
_PAGE = 4096


@dataclass
class Model:
    """A graph being changed. ``weights`` has an entry for each initializer left out of it."""

    proto: onnx.ModelProto
    weights: dict[str, Callable[[], Array]]

    @property
    def graph(self) -> onnx.GraphProto:
        return self.proto.graph

    @property
    def opset(self) -> int:
        return conditions.opset_of(self.proto)

    def value(self, tensor: TensorProto) -> Array:
        """Give the values of an initializer of the main graph, or of any tensor that is inline."""
        return self.values(tensor)()

    def values(self, tensor: TensorProto) -> Callable[[], Array]:
        """Return a function that returns what ``value`` returns now, whatever replaces it later."""
        if load := self.weights.get(tensor.name):
            return load
        array: Array = numpy_helper.to_array(tensor)
        return lambda: array

    def replace(self, tensor: TensorProto, load: Callable[[], Array]) -> None:
        """Give an initializer of the main graph other values, same shape and type."""
        if tensor.name in self.weights:
            self.weights[tensor.name] = load
        else:
            tensor.CopyFrom(numpy_helper.from_array(_typed(load(), tensor.data_type), tensor.name))

    def drop_unused_weights(self) -> None:
        """Remove the initializers of the main graph that nothing reads."""
        used = {
            name for g in onnx_file.graphs(self.graph) for node in g.node for name in node.input
        }
        used |= {value.name for g in onnx_file.graphs(self.graph) for value in g.output}
        for tensor in [t for t in self.graph.initializer if t.name not in used]:
            self.weights.pop(tensor.name, None)
            self.graph.initializer.remove(tensor)

    def add(
        self, name: str, onnx_type: int, dims: tuple[int, ...], load: Callable[[], Array]
    ) -> None:
        """Append an initializer to the main graph. ``load`` is called when it is written."""
        if helper.tensor_dtype_to_np_dtype(onnx_type).itemsize * np.prod(dims) <= SMALL:
            self.graph.initializer.append(numpy_helper.from_array(_typed(load(), onnx_type), name))
            return
        self.graph.initializer.append(_stub(name, onnx_type, dims))
        self.weights[name] = load

    def write(self, path: Path) -> Path:
        """Write the model, its weights beside it where they are large. Uses the model up."""
        sizes = {t.name: _bytes(t) for t in self.graph.initializer if t.name in self.weights}
        if sum(sizes.values()) <= INLINE_LIMIT:
            self._inline()
        else:
            with path.with_name(path.name + ".data").open("wb") as file:
                self._spill(file, path.name + ".data")
        with path.open("wb") as file:
            file.write(self.proto.SerializeToString())
        return path

    def _inline(self) -> None:
        for tensor in self.graph.initializer:
            if load := self.weights.pop(tensor.name, None):
                array = _typed(load(), tensor.data_type)
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    def _spill(self, file: BinaryIO, location: str) -> None:
        for tensor in self.graph.initializer:
            if load := self.weights.pop(tensor.name, None):
                file.write(b"\0" * (-file.tell() % _PAGE))
                offset = file.tell()
                _write(_typed(load(), tensor.data_type), tensor.data_type, file)
                entries = {"location": location, "offset": offset, "length": file.tell() - offset}
                del tensor.external_data[:]
                for key, text in entries.items():
                    tensor.external_data.add(key=key, value=str(text))


def read_model(path: Path) -> Model:
    """Read a model, its large weights left where they are. Raises InputError if it isn't ONNX."""
    file = onnx_file.read(path)
    model = Model(file.proto, {})
    for tensor in model.graph.initializer:
        if onnx_file.external(tensor):
            _leave_in_file(model, tensor, path.parent)
        elif _bytes(tensor) > SMALL:
            _take_out(model, tensor)
    for tensor in onnx_file.tensors(model.graph):
        if onnx_file.external(tensor) and tensor.name not in model.weights:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
            tensor.data_location = (
                TensorProto.DEFAULT
            )  # older releases of onnx leave both as they were
            del tensor.external_data[:]
    _forget_weight_inputs(model.proto)
    # A copy without the weights: the parsed protobuf would keep their memory until the end.
    model.proto, parsed = onnx.ModelProto(), model.proto
    model.proto.CopyFrom(parsed)
    return model


def is_large(file: onnx_file.OnnxFile) -> bool:
    """Tell whether the model's weights belong in a file of their own."""
    return file.size > INLINE_LIMIT


def _forget_weight_inputs(proto: onnx.ModelProto) -> None:
    """Up to IR version 3 weights are graph inputs too; a renamed weight would leave a real one."""
    names = {tensor.name for tensor in proto.graph.initializer}
    for value in [v for v in proto.graph.input if v.name in names]:
        proto.graph.input.remove(value)
        proto.ir_version = max(proto.ir_version, 4)


def _leave_in_file(model: Model, tensor: TensorProto, folder: Path) -> None:
    if _bytes(tensor) <= SMALL:
        return
    file = folder / onnx_file.location(tensor)
    offset = int(onnx_file.external_entry(tensor, "offset", "0"))
    model.weights[tensor.name] = _from_file(file, offset, tensor.data_type, tuple(tensor.dims))


def _take_out(model: Model, tensor: TensorProto) -> None:
    array = numpy_helper.to_array(tensor)
    model.weights[tensor.name] = lambda: array
    tensor.CopyFrom(_stub(tensor.name, tensor.data_type, tuple(tensor.dims)))


def _stub(name: str, onnx_type: int, dims: tuple[int, ...]) -> TensorProto:
    tensor = TensorProto(
        name=name, data_type=onnx_type, dims=dims, data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value="held-outside-the-graph")
    return tensor


def _from_file(
    file: Path, offset: int, onnx_type: int, dims: tuple[int, ...]
) -> Callable[[], Array]:
    dtype = helper.tensor_dtype_to_np_dtype(onnx_type)

    def load() -> Array:
        if bits := _BITS.get(onnx_type):
            count = -(-int(np.prod(dims)) * bits // 8)
            raw = np.fromfile(file, np.uint8, count, offset=offset)
            packed = TensorProto(data_type=onnx_type, dims=dims, raw_data=raw.tobytes())
            return numpy_helper.to_array(packed)
        return np.memmap(file, dtype, "r", offset, dims)

    return load


# Types of which several values share a byte in a file.
_BITS: dict[int, int] = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
}


def _bytes(tensor: TensorProto) -> int:
    count = int(np.prod(tuple(tensor.dims)))
    if bits := _BITS.get(tensor.data_type):
        return -(-count * bits // 8)
    if tensor.data_type == TensorProto.STRING:
        return 0  # strings stay in the graph
    return count * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _typed(array: Array, onnx_type: int) -> Array:
    return array.astype(helper.tensor_dtype_to_np_dtype(onnx_type), copy=False)


def _write(array: Array, onnx_type: int, file: BinaryIO) -> None:
    if onnx_type in _BITS:
        file.write(numpy_helper.from_array(array).raw_data)
    else:  # as bytes: the buffer protocol has no name for bfloat16 and float8
        file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
