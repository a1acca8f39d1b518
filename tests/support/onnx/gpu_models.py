"""Networks of real size with random weights, written without PyTorch: ResNet-50 and an encoder.

They stay within what TensorRT 8.6's parser takes: opset 17, INT32 instead of INT64 inputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]


class _Graph:
    """Collects nodes and weights; each method returns the name of its output."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def weight(self, array: Array) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def normal(self, *shape: int, scale: float) -> str:
        return self.weight(self.random.normal(0, scale, shape).astype(np.float32))

    def save(self, path: Path, inputs: dict[str, Any], output: str, shape: list[Any]) -> Path:
        nodes = [*self.nodes, helper.make_node("Identity", [output], ["y"], name="result")]
        graph = helper.make_graph(
            nodes,
            path.stem,
            [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
            self.weights,
        )
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
        return path


def resnet50(path: Path) -> Path:
    """FLOAT ``x`` [batch, 3, 224, 224] to ``y`` [batch, 1000]; 25.5 million weights."""
    graph = _Graph(seed=50)

    def convolve(x: str, ins: int, outs: int, size: int, stride: int, gain: float = 2.0) -> str:
        weight = graph.normal(outs, ins, size, size, scale=(gain / (ins * size * size)) ** 0.5)
        bias, pad = graph.normal(outs, scale=0.01), size // 2
        shape = {"kernel_shape": [size] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        return graph.op("Conv", x, weight, bias, **shape)

    def block(x: str, ins: int, width: int, stride: int) -> str:
        y = graph.op("Relu", convolve(x, ins, width, 1, 1))
        y = graph.op("Relu", convolve(y, width, width, 3, stride))
        # A small last step keeps sixteen random blocks from blowing the activations up.
        y = convolve(y, width, 4 * width, 1, 1, gain=0.1)
        same = ins == 4 * width and stride == 1
        return graph.op(
            "Relu", graph.op("Add", y, x if same else convolve(x, ins, 4 * width, 1, stride))
        )

    x = graph.op("Relu", convolve("x", 3, 64, 7, 2))
    x = graph.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, (width, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for number in range(count):
            x = block(x, channels, width, 2 if stage and not number else 1)
            channels = 4 * width
    x = graph.op("Flatten", graph.op("GlobalAveragePool", x))
    x = graph.op(
        "Gemm", x, graph.normal(2048, 1000, scale=2048**-0.5), graph.normal(1000, scale=0.1)
    )
    image = {"x": (TensorProto.FLOAT, ["batch", 3, 224, 224])}
    return graph.save(path, image, x, ["batch", 1000])


def encoder(path: Path, layers: int = 4, width: int = 256, heads: int = 4) -> Path:
    """A transformer: INT32 ``ids`` [batch, length] to FLOAT ``y`` [batch, length, width]."""
    graph = _Graph(seed=7)
    size = width // heads
    split = graph.weight(np.array([0, 0, heads, size], np.int64))
    join = graph.weight(np.array([0, 0, width], np.int64))
    scale = graph.weight(np.array(size**-0.5, np.float32))

    def project(x: str, ins: int, outs: int) -> str:
        product = graph.op("MatMul", x, graph.normal(ins, outs, scale=ins**-0.5))
        return graph.op("Add", product, graph.normal(outs, scale=0.02))

    def normalize(x: str) -> str:
        ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
        return graph.op("LayerNormalization", x, graph.weight(ones), graph.weight(zeros), axis=-1)

    def attend(x: str) -> str:
        def head(axes: list[int]) -> str:
            return graph.op(
                "Transpose", graph.op("Reshape", project(x, width, width), split), perm=axes
            )

        query, key, value = head([0, 2, 1, 3]), head([0, 2, 3, 1]), head([0, 2, 1, 3])
        scores = graph.op("Mul", graph.op("MatMul", query, key), scale)
        mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
        joined = graph.op("Reshape", graph.op("Transpose", mixed, perm=[0, 2, 1, 3]), join)
        return project(joined, width, width)

    x = normalize(graph.op("Gather", graph.normal(1000, width, scale=1.0), "ids"))
    for _ in range(layers):
        x = normalize(graph.op("Add", x, attend(x)))
        hidden = graph.op("Relu", project(x, width, 4 * width))
        x = normalize(graph.op("Add", x, project(hidden, 4 * width, width)))
    ids = {"ids": (TensorProto.INT32, ["batch", "length"])}
    return graph.save(path, ids, x, ["batch", "length", width])
