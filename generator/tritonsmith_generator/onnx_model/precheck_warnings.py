"""What is worth a warning in an ONNX file that can be built."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from tritonsmith_generator.onnx_model.onnx_file import (
    OnnxFile,
    graphs,
    repeated_node_names,
    signature_of,
    tensors,
    unsorted,
    values,
)

__all__ = ["warnings_of"]

# The oldest that TensorRT 11's parser reads (NVIDIA's documentation of ONNX support).
_OLDEST_OPSET = 9


def warnings_of(file: OnnxFile, target: str) -> Iterator[str]:
    """Say in words what is worth knowing of a model without problems."""
    for check in _WARNINGS:
        yield from check(file, target)


def _old_opset(file: OnnxFile, target: str) -> Iterator[str]:
    if file.opset < _OLDEST_OPSET and target != "onnxruntime":
        yield f"opset {file.opset} is older than {_OLDEST_OPSET}: TensorRT may refuse it"


def _double(file: OnnxFile, target: str) -> Iterator[str]:
    for what, value in values(file):
        if target != "onnxruntime" and value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            yield f"{what} '{value.name}' is DOUBLE: TensorRT serves it as FP32"


def _dynamic_without_batch(file: OnnxFile, target: str) -> Iterator[str]:
    for tensor in signature_of(file.proto).inputs:
        if tensor.dynamic_axes and 0 not in tensor.dynamic_axes:
            yield (
                f"input '{tensor.name}' is dynamic on axis {tensor.dynamic_axes[0]} but not on "
                "axis 0: Triton cannot batch it, max_batch_size is 0"
            )


def _unused_inputs(file: OnnxFile, target: str) -> Iterator[str]:
    used = {name for graph in graphs(file.proto.graph) for n in graph.node for name in n.input}
    used |= {output.name for output in file.proto.graph.output}
    for tensor in signature_of(file.proto).inputs:
        if tensor.name not in used:
            yield f"input '{tensor.name}' is used by no node: TensorRT may drop it"


def _untidy_nodes(file: OnnxFile, target: str) -> Iterator[str]:
    if unsorted(file):
        yield "the nodes are not in topological order: they are sorted in the copy that is built"
    if repeated := repeated_node_names(file):
        yield f"several nodes are named '{repeated[0]}': they are renamed in the copy that is built"


def _nan_weights(file: OnnxFile, target: str) -> Iterator[str]:
    for tensor in tensors(file.proto.graph):
        floats = tensor.data_type == TensorProto.FLOAT and tensor.raw_data
        if floats and np.isnan(np.frombuffer(tensor.raw_data, np.float32)).any():
            yield f"weight '{tensor.name}' holds NaN"


def _saturating_weights(file: OnnxFile, target: str) -> Iterator[str]:
    """See ``Reference``: two products of 255 and 64 fit 16 bits, those of 255 and 65 do not."""
    if target != "onnxruntime":
        return
    for tensor in tensors(file.proto.graph):
        integers = tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1 and tensor.raw_data
        if integers and np.abs(np.frombuffer(tensor.raw_data, np.int8).astype(np.int16)).max() > 64:
            yield (
                f"weight '{tensor.name}' takes all 8 bits of INT8, with which ONNX Runtime may be "
                "wrong on x86-64 CPUs without VNNI: quantize it with reduce_range=True, or serve "
                "it where the CPU has VNNI"
            )
            return  # the others are like it


_WARNINGS = (
    _old_opset,
    _double,
    _dynamic_without_batch,
    _unused_inputs,
    _untidy_nodes,
    _nan_weights,
    _saturating_weights,
)
