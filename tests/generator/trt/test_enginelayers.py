"""Proof of precision: the engine inspector's words, of all releases, are counted right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.trt.layers import EngineLayers, engine_layers, prove_precision


def layer(kind: str, *inputs: str, weights: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Name": kind,
        "LayerType": kind,
        "Inputs": [{"Name": "x", "Format/Datatype": text} for text in inputs],
    }
    return found if weights is None else {**found, "Weights": {"Type": weights, "Count": 108}}


def count(*layers: Any) -> EngineLayers:
    return engine_layers(json.dumps({"Layers": layers, "Bindings": ["x", "y"]}))


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("Float", "fp32"),
        ("Row major linear FP32", "fp32"),
        ("Half", "fp16"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Row major linear BFloat16 format", "bf16"),
        ("BF16", "bf16"),
        ("Int8", "int8"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("FP8", "fp8"),
        ("Int4", "int4"),
    ],
)
def test_a_type_is_read_alone_and_within_a_format(text: str, precision: str) -> None:
    assert count(layer("CaskConvolution", text)).precisions == {precision: 1}


def test_a_layer_is_as_precise_as_its_least_precise_operand() -> None:
    assert count(layer("CaskConvolution", "Float", weights="Half")).precisions == {"fp16": 1}
    assert count(layer("Scale", "Half", "Int8")).precisions == {"int8": 1}


def test_moves_and_integers_are_no_evidence() -> None:
    found = count(layer("Reformat", "Half"), layer("Gather", "Int32"), layer("gemm", "Float"))
    assert found.precisions == {"fp32": 1}
    assert found.kinds == {"Reformat": 1, "Gather": 1, "gemm": 1}


def test_layers_without_detail_prove_nothing() -> None:
    found = count("conv1", "relu1")
    assert found == EngineLayers({}, {})
    assert prove_precision(found, "fp16") == (
        "plan: precision fp16 is not proven: the engine inspector tells no layer's data type"
    )


def test_fp16_with_next_to_no_half_layers_is_refused() -> None:
    layers = EngineLayers({}, {"fp32": 52, "fp16": 1})
    with pytest.raises(
        InputError, match=r"fp16 was asked for.*52 in fp32, 1 in fp16.*ask for fp32"
    ):
        prove_precision(layers, "fp16")
    assert prove_precision(EngineLayers({}, {"fp32": 5, "fp16": 50}), "fp16") is None


def test_one_quantized_layer_is_enough_and_none_is_not() -> None:
    assert prove_precision(EngineLayers({}, {"fp16": 99, "int8": 1}), "int8") is None
    with pytest.raises(InputError, match="int8 was asked for"):
        prove_precision(EngineLayers({}, {"fp16": 99}), "int8")


def test_a_graph_that_the_inspector_does_not_open_proves_nothing() -> None:
    found = count(layer("Myelin", "Float"), layer("gemm", "Float"))
    assert found.precisions == {"unknown": 1, "fp32": 1}
    assert prove_precision(found, "fp16") == (
        "plan: precision fp16 is not proven: 1 of 2 layers that compute are graphs compiled as "
        "one, into which TensorRT's inspector does not look (1 compiled as one, 1 in fp32)"
    )


def test_what_the_inspector_shows_is_enough_beside_what_it_does_not() -> None:
    assert prove_precision(EngineLayers({}, {"unknown": 5, "fp16": 1}), "fp16") is None
    assert prove_precision(EngineLayers({}, {"unknown": 50, "fp16": 1}), "fp16") is not None


def test_one_graph_that_is_not_opened_does_not_excuse_fifty_layers() -> None:
    with pytest.raises(InputError, match="fp16 was asked for"):
        prove_precision(EngineLayers({}, {"fp32": 53, "unknown": 1}), "fp16")


def test_full_precision_needs_no_proof() -> None:
    assert prove_precision(EngineLayers({}, {"fp16": 9}), "fp32") is None
    assert prove_precision(EngineLayers({}, {}), "tf32") is None
