"""Opset up-conversion and tidying: the graphs that need them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model import onnx_file, reference
from tritonsmith_generator.passes.graph.opset import Opset
from tritonsmith_generator.passes.graph.tidy import Tidy
from tritonsmith_generator.passes.half.half import Bf16

Write = Callable[..., Path]
Apply = Callable[..., Any]

X = np.random.default_rng(1).standard_normal((4, 8)).astype(np.float32)


def same(one: Path, other: Path, **inputs: Any) -> None:
    want, got = reference.run(one, inputs), reference.run(other, inputs)
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6)


def test_old_operators_become_new_ones_in_bodies_too(write: Write, apply: Apply) -> None:
    graph = """g (float[b,8] x, bool c) => (float[b,8] y) {
        y = If(c) <
            then_branch = t () => (float[b,8] a) { i = Softmax<axis = 0>(x)  a = Mul(i, i) },
            else_branch = e () => (float[b,8] a) {
                i = ReduceSum<axes = [1]>(x)  j = Squeeze<axes = [1]>(i)
                k = Unsqueeze<axes = [1]>(j)  a = Sub(x, k) }> }"""
    model = write(graph, opset=11)
    result = apply(Opset(22), model)
    assert result.report.notes == ("opset 11 became 22",)
    for c in (True, False):
        same(model, result.model, x=X, c=np.array(c))


def test_a_new_opset_is_left_alone(write: Write, apply: Apply) -> None:
    result = apply(Opset(17), write("g (float[b,8] x) => (float[b,8] y) { y = Relu(x) }"))
    assert (result.report.changed, result.report.notes) == (False, ())


def test_what_cannot_be_converted_is_said(write: Write, apply: Apply) -> None:
    graph = "g (float[b,8] x) => (float[b,8] y) { y = Dropout<is_test = 0>(x) }"
    model = write(graph, opset=6)
    with pytest.raises(InputError, match="opset 6 cannot be converted to 22: .*export the model"):
        apply(Opset(22), model)


def test_light_squeezenet_goes_from_opset_9_to_bf16(
    apply: Apply, emulate: Callable[[Path], Path]
) -> None:
    model = Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx"
    raised = apply(Opset(22), model)
    x = np.random.default_rng(0).random((1, 3, 224, 224), np.float32)
    name = onnx_file.signature_of(onnx_file.read(model).proto).inputs[0].name
    same(model, raised.model, **{name: x})
    lowered = apply(Bf16(), raised.model)
    assert lowered.report.kept == {}
    want = reference.run(model, {name: x})
    for output, array in reference.run(emulate(lowered.model), {name: x}).items():
        assert np.linalg.norm(array - want[output]) < 0.03 * np.linalg.norm(want[output])


def test_nodes_are_sorted_and_named_and_equal(write: Write, tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]> g (float[b,8] x) => (float[b,8] y) {
        h = Relu(x)  i = Neg(h)  y = Add(i, h) }"""
    )
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in proto.graph.node][::-1]
    for node in nodes:
        node.name = "same"
    sorted_model = write(proto)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    folder = tmp_path / "tidy"
    folder.mkdir()
    result = Tidy().apply(write(proto), folder)
    assert result.report.notes == (
        "2 nodes were moved into topological order",
        "2 nodes without a name of their own were named",
    )
    same(sorted_model, result.model, x=X)
    tidied = onnx_file.read(result.model).proto
    assert [c.broken(proto) for c in Tidy().ensures] != [None]
    assert [c.broken(tidied) for c in Tidy().ensures] == [None]


def test_a_body_that_reads_a_later_tensor_is_sorted(write: Write, tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]> g (float[b,8] x, bool c) => (float[b,8] y) {
        h = Relu(x)
        y = If(c) <then_branch = t () => (float[b,8] a) { a = Neg(h) },
                   else_branch = e () => (float[b,8] a) { a = Abs(h) }> }"""
    )
    proto.graph.node.insert(0, proto.graph.node.pop(1))
    folder = tmp_path / "tidy"
    folder.mkdir()
    result = Tidy().apply(write(proto), folder)
    onnx.checker.check_model(str(result.model))
    assert reference.run(result.model, {"x": X, "c": np.array(True)})["y"].max() <= 0


def test_a_cycle_is_refused(write: Write, tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]> g (float[b,8] x) => (float[b,8] y) {
        h = Add(x, i)  i = Relu(h)  y = Neg(i) }"""
    )
    with pytest.raises(InputError, match="cycle"):
        Tidy().apply(write(proto), tmp_path)
