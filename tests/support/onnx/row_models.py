"""Models whose rows depend on each other, and models whose rows only look as if they did."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

_HEAD = '<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 2, "com.microsoft": 1]> g '

# Weights by name, for whichever model has an initializer of that name.
_RANDOM = np.random.default_rng(5)
_WEIGHTS: dict[str, Any] = {
    "w": _RANDOM.standard_normal((4, 3)).astype(np.float32),
    "wide": _RANDOM.standard_normal((512, 64)).astype(np.float32),
    "square": _RANDOM.standard_normal((4, 4)).astype(np.float32),
    "lstm": (_RANDOM.standard_normal((1, 12, 4)) / 2).astype(np.float32),
    "again": (_RANDOM.standard_normal((1, 12, 3)) / 2).astype(np.float32),
    "bytes": _RANDOM.integers(-60, 60, (4, 3)).astype(np.int8),
    "zero": np.array(0, np.int64),
    "first": np.array([0], np.int64),
    "second": np.array([1], np.int64),
    "one": np.array(1, np.int64),
    "half": np.array(0.5, np.float32),
    "little": np.array([0] * 299 + [0.03], np.float32),
    "nothing": np.array(0, np.float32),
    "yes": np.array(True),
    "baked": np.array([1, 2, 2], np.int64),
    "four": np.array([4], np.int64),
    "mixed": np.array([-1, 4], np.int64),
}

_X, _Y = "float[batch,4] x", "float[batch,4] y"

# name: (inputs, outputs, nodes)
DEPENDENT: Mapping[str, tuple[str, str, str]] = {
    "running sum": ("float[n,4] x", "float[n,4] y", "y = CumSum(x, zero)"),
    "running sum of unnamed axes": ("float[?,4] x", "float[?,4] y", "y = CumSum(x, zero)"),
    "backwards": (_X, _Y, "y = CumSum<reverse: int = 1>(x, zero)"),
    "LSTM along axis 0": (
        "float[time,1,4] x",
        "float[time,1,3] y",
        "h = LSTM<hidden_size: int = 3>(x, lstm, again)  y = Squeeze(h, second)",
    ),
    "running state": (
        "float[frames,4] x",
        "float[frames,4] y",
        "i = Expand(nothing, four)  last, y = Scan<num_scan_inputs: int = 1, "
        "body: graph = b (float[4] s, float[4] xi) => (float[4] s2, float[4] yo) "
        "{ h = Mul(s, half)  s2 = Add(h, xi)  yo = Identity(s2) }>(i, x)",
    ),
    "attention": (
        "float[tokens,4] x",
        "float[tokens,4] y",
        "q = MatMul(x, square)  k = Transpose(x)  s = MatMul(q, k)  p = Softmax(s)  "
        "y = MatMul(p, x)",
    ),
    "softmax along axis 0": (_X, _Y, "y = Softmax<axis: int = 0>(x)"),
    "centred": (_X, _Y, "m = ReduceMean<axes: ints = [0]>(x)  y = Sub(x, m)"),
    "one element of many": (
        "float[batch,300] x",
        "float[batch,300] y",
        "s = ReduceSum(x, first)  l = Mul(s, little)  y = Add(x, l)",
    ),
    "integers": (
        _X,
        "int64[batch,4] y",
        "m = ReduceMax<axes: ints = [0]>(x)  b = Less(x, m)  y = Cast<to: int = 7>(b)",
    ),
    "booleans": (_X, "bool[batch,4] y", "m = ReduceMean<axes: ints = [0]>(x)  y = Greater(x, m)"),
    "strings": (
        _X,
        "string[batch,4] y",
        "m = ReduceMean<axes: ints = [0]>(x)  b = Greater(x, m)  i = Cast<to: int = 7>(b)  "
        "y = ai.onnx.ml.LabelEncoder<keys_int64s: ints = [0, 1], "
        'values_strings: strings = ["low", "high"]>(i)',
    ),
    "sorted": (
        _X,
        _Y,
        "n = Shape<end: int = 1>(x)  y, i = TopK<axis: int = 0>(x, n)",
    ),
    "numbered": (
        _X,
        _Y,
        "n = Shape<end: int = 1>(x)  e = Squeeze(n)  r = Range(zero, e, one)  "
        "f = Cast<to: int = 1>(r)  c = Unsqueeze(f, second)  y = Add(x, c)",
    ),
    "mixed by a reshape": (_X, _Y, "t = Transpose(x)  y = Reshape(t, mixed)"),
    "NaN in another row": (
        _X,
        _Y,
        "s = ReduceSum(x, first)  n = Mul(s, nothing)  y = Add(x, n)",
    ),
    "pairs": (_X, "float[batch,batch] y", "t = Transpose(x)  y = MatMul(x, t)"),
    "one number a call": (_X, "float[batch,1] y", "y = ReduceSum(x)"),
    "a batch of 1 baked in": (_X, "float[batch,2,2] y", "y = Reshape(x, baked)"),
}

INDEPENDENT: Mapping[str, tuple[str, str, str]] = {
    "dense": ("float[batch,4] x", "float[batch,3] y", "y = MatMul(x, w)"),
    "rounding of another kernel": (
        "float[batch,512] x",
        "float[batch,64] y",
        "y = MatMul(x, wide)",
    ),
    "NaN in its own row": (_X, _Y, "y = Log(x)"),
    "LSTM along axis 1": (
        "float[batch,time,4] x",
        "float[batch,time,3] y",
        "t = Transpose<perm: ints = [1, 0, 2]>(x)  h = LSTM<hidden_size: int = 3>(t, lstm, again)  "
        "s = Squeeze(h, second)  y = Transpose<perm: ints = [1, 0, 2]>(s)",
    ),
    "unnamed": ("float[?,4] x", "float[?,4] y", "y = Softmax(x)"),
    "one number a row": (
        "float[batch,4] x, int64[batch] n",
        "float[batch] y",
        "s = ReduceSum<keepdims: int = 0>(x, second)  f = Cast<to: int = 1>(n)  y = Mul(s, f)",
    ),
    "classes": (
        _X,
        "string[batch] label, int64[batch] i, float[batch,3] p",
        "p = MatMul(x, w)  i = ArgMax<axis: int = 1, keepdims: int = 0>(p)  "
        "label = ai.onnx.ml.LabelEncoder<keys_int64s: ints = [0, 1, 2], "
        'values_strings: strings = ["a", "b", "c"]>(i)',
    ),
}

# Nearly: rounded in other steps.
NEARLY: Mapping[str, tuple[str, str, str]] = {
    "steps of the whole batch": (
        _X,
        "float[batch,3] y",
        "q, s, z = DynamicQuantizeLinear(x)  i = MatMulInteger(q, bytes, z)  "
        "f = Cast<to: int = 1>(i)  y = Mul(f, s)",
    ),
}

RANDOM: Mapping[str, tuple[str, str, str]] = {
    "draws": (_X, _Y, "r = RandomNormalLike(x)  y = Add(x, r)"),
    "trains": (_X, _Y, "y = Dropout(x, half, yes)"),
}

# Of two tensors with other names for axis 0; called time beside a batch.
NAMES: Mapping[str, tuple[str, str, str]] = {
    "other names": ("float[unk__1,4] x", "float[unk__2,3] y", "y = MatMul(x, w)"),
    "other names, dependent": ("float[a,4] x", "float[b,4] y", "y = CumSum(x, zero)"),
    "time beside batch": ("float[time,batch,4] x", "float[time,batch,4] y", "y = Relu(x)"),
    "recurrent, T beside B": (
        "float[T,B,4] x",
        "float[T,B,3] y",
        "h = LSTM<hidden_size: int = 3>(x, lstm, again)  y = Squeeze(h, second)",
    ),
}


def row_model(parts: tuple[str, str, str]) -> onnx.ModelProto:
    """A model from the texts of its inputs, outputs and nodes."""
    inputs, outputs, nodes = parts
    proto = parser.parse_model(f"{_HEAD}({inputs}) => ({outputs}) {{ {nodes} }}")
    used = {name for node in proto.graph.node for name in node.input}
    used |= {
        name for n in proto.graph.node for a in n.attribute for b in a.g.node for name in b.input
    }
    for name in sorted(used & _WEIGHTS.keys()):
        proto.graph.initializer.append(numpy_helper.from_array(_WEIGHTS[name], name))
    for domain in list(proto.opset_import):
        if domain.domain and not any(n.domain == domain.domain for n in proto.graph.node):
            proto.opset_import.remove(domain)
    return proto


def write_row_models(
    models: Mapping[str, tuple[str, str, str]], folder: Path, **spec: object
) -> Path:
    """Write the models and a spec with all of them, as m0, m1, ...; returns the spec's path."""
    lines = ["models:"]
    options = "".join(f", {key}: {value}" for key, value in spec.items())
    for number, parts in enumerate(models.values()):
        onnx.save(row_model(parts), folder / f"m{number}.onnx")
        lines.append(f"  m{number}: {{onnx: m{number}.onnx, target: onnxruntime{options}}}")
    path = folder / "models.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path
