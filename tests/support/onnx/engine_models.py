"""ONNX models for the engine's tests: real ones from the onnx package, and small ones made here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
OPSETS = [helper.make_opsetid("", 18)]


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, list[int | str]]],
    outputs: list[str],
    weights: dict[str, np.ndarray] | None = None,
    external: bool = False,
) -> Path:
    """Write a model; ``inputs`` gives (TensorProto type, shape) by name, outputs have no shape."""
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    opsets = [*OPSETS, helper.make_opsetid("acme", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    if external:
        onnx.save(model, path, save_as_external_data=True, location="weights.bin")
    else:
        onnx.save(model, path)
    return path


def encoder(path: Path) -> Path:
    """Embeddings of INT64 ``ids`` [batch, seq], scaled by FLOAT ``mask`` [batch, seq]."""
    table = np.random.default_rng(0).standard_normal((50, 16), dtype=np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"], name="lookup"),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"], name="column"),
        helper.make_node("Mul", ["embedded", "column"], ["masked"], name="masking"),
        helper.make_node("MatMul", ["masked", "weights"], ["y"], name="project"),
    ]
    weights = {
        "table": table,
        "last": np.array([2], np.int64),
        "weights": table[:16, :8].copy(),
    }
    both: list[int | str] = ["batch", "seq"]
    inputs = {"ids": (TensorProto.INT64, both), "mask": (TensorProto.FLOAT, both)}
    return save(path, nodes, inputs, ["y"], weights)


def two_layers(path: Path, external: bool = False) -> Path:
    """FLOAT ``x`` [batch, 256] through two matrix products; 1 MB of weights."""
    random = np.random.default_rng(1)
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("MatMul", ["b", "w1"], ["y"], name="second"),
    ]
    weights = {
        name: random.standard_normal((256, 512)[:: 1 if name == "w0" else -1], dtype=np.float32)
        for name in ("w0", "w1")
    }
    inputs: Mapping[str, tuple[int, list[int | str]]] = {"x": (TensorProto.FLOAT, ["batch", 256])}
    return save(path, nodes, inputs, ["y"], weights, external)


def unsupported(path: Path) -> Path:
    """Det, an operator of nobody's, and Unique without a name: TensorRT takes none of them."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="fine"),
        helper.make_node("Det", ["a"], ["y"], name="determinant"),
        helper.make_node("Sharpen", ["a"], ["z"], name="custom", domain="acme"),
        helper.make_node("Unique", ["a"], ["u"]),
    ]
    return save(path, nodes, {"x": (TensorProto.FLOAT, [2, 2])}, ["y", "z", "u"])


def double_input(path: Path) -> Path:
    """DOUBLE ``x`` [4], which TensorRT takes as FLOAT."""
    nodes = [helper.make_node("Neg", ["x"], ["n"]), helper.make_node("Cast", ["n"], ["y"], to=1)]
    return save(path, nodes, {"x": (TensorProto.DOUBLE, [4])}, ["y"])


def reshaping(path: Path) -> Path:
    """FLOAT ``x`` [n], given the shape that INT64 ``target`` [2] says."""
    nodes = [helper.make_node("Reshape", ["x", "target"], ["y"])]
    inputs: dict[str, tuple[int, list[int | str]]] = {
        "x": (TensorProto.FLOAT, ["n"]),
        "target": (TensorProto.INT64, [2]),
    }
    return save(path, nodes, inputs, ["y"])
