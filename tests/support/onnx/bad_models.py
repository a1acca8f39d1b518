"""ONNX files with something wrong in them, made by hand. Each maker writes one into a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

Maker = Callable[[Path], Path]


def tensor(name: str, kind: int = T.FLOAT, shape: Sequence[int | str] | None = ("batch", 4)) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any] | None = None,
    outputs: Sequence[Any] | None = None,
    weights: Sequence[Any] = (),
    **options: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "graph",
        list(inputs if inputs is not None else [tensor("x")]),
        list(outputs if outputs is not None else [tensor("y")]),
        list(weights),
    )
    options.setdefault("opset_imports", [helper.make_opsetid("", 18)])
    return helper.make_model(graph, ir_version=options.pop("ir_version", 10), **options)


def relu(source: str = "x", target: str = "y", name: str = "relu") -> Any:
    return helper.make_node("Relu", [source], [target], name)


def saved(proto: onnx.ModelProto) -> Maker:
    def make(folder: Path) -> Path:
        path = folder / "model.onnx"
        path.write_bytes(proto.SerializeToString())
        return path

    return make


def raw(content: bytes) -> Maker:
    def make(folder: Path) -> Path:
        path = folder / "model.onnx"
        path.write_bytes(content)
        return path

    return make


def good() -> onnx.ModelProto:
    return model([relu()])


def truncated(folder: Path) -> Path:
    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"], "m")], weights=[weights])
    return raw(proto.SerializeToString()[:9000])(folder)


def external(location: str, size: int | None, length: int = 64) -> Maker:
    """A model whose weight of 4x4 lies in another file, of ``size`` bytes (None: missing)."""

    def make(folder: Path) -> Path:
        weight = T(name="w", data_type=T.FLOAT, dims=[4, 4], data_location=T.EXTERNAL)
        for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
            weight.external_data.add(key=key, value=value)
        node = helper.make_node("MatMul", ["x", "w"], ["y"], "m")
        if size is not None:
            (folder / location).write_bytes(bytes(size))
        return saved(model([node], weights=[weight]))(folder)

    return make


def sequence_output() -> onnx.ModelProto:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(T.FLOAT, None))
    node = helper.make_node("SequenceConstruct", ["x"], ["y"], "s")
    return model([node], outputs=[helper.make_value_info("y", kind)])


def typed(kind: int) -> onnx.ModelProto:
    node = helper.make_node("Identity", ["x"], ["y"], "i")
    return model([node], [tensor("x", kind)], [tensor("y", kind)])


def shapeless() -> onnx.ModelProto:
    proto = model([relu()])
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    return proto


def without_opset() -> onnx.ModelProto:
    proto = model([relu()])
    del proto.opset_import[:]
    return proto


def contradiction() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((5, 4), np.float32), "w")
    return model([helper.make_node("MatMul", ["x", "w"], ["y"], "m")], weights=[weight])


def unsorted() -> onnx.ModelProto:
    return model([relu("middle", "y", "second"), relu("x", "middle", "first")])


def repeated_names() -> onnx.ModelProto:
    return model([relu("x", "middle", "same"), relu("middle", "y", "same")])


def nan_weight() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.full((4, 4), np.nan, np.float32), "w")
    return model([helper.make_node("MatMul", ["x", "w"], ["y"], "m")], weights=[weight])


def eight_bit_weight() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.full((4, 4), -65, np.int8), "q")
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"], "d"),
        helper.make_node("MatMul", ["x", "w"], ["y"], "m"),
    ]
    return model(nodes, weights=[weight, scale])


def cycle() -> onnx.ModelProto:
    return model([relu("b", "a", "one"), relu("a", "b", "two")], outputs=[tensor("b")])


def shaped(shape: Sequence[int | str]) -> onnx.ModelProto:
    return model([relu()], [tensor("x", shape=shape)], [tensor("y", shape=shape)])


def looking_up() -> onnx.ModelProto:
    """Words, INT64 [batch, length], and a factor for each row; what it looks up has ten rows."""
    weight = numpy_helper.from_array(np.ones((10, 3), np.float32), "w")
    return model(
        [
            helper.make_node("Gather", ["w", "words"], ["found"], "look_up"),
            helper.make_node("ReduceMean", ["found"], ["mean"], "mean", axes=[1], keepdims=0),
            helper.make_node("Mul", ["mean", "factor"], ["y"], "multiply"),
        ],
        [tensor("words", T.INT64, ["batch", "length"]), tensor("factor", shape=["batch", 1])],
        [tensor("y", shape=["batch", 3])],
        [weight],
        opset_imports=[helper.make_opsetid("", 17)],
    )


def reshaping() -> onnx.ModelProto:
    """The values of ``target``, INT64 [2], are the shape of the output."""
    return model(
        [
            helper.make_node("Identity", ["target"], ["shape"], "same"),
            helper.make_node("Reshape", ["x", "shape"], ["y"], "reshape"),
        ],
        [tensor("x", shape=["n"]), tensor("target", T.INT64, [2])],
        [tensor("y", shape=["rows", "columns"])],
    )
