"""Inputs whose values say shapes: given in the spec or taken from samples, and checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.harness.needs import needs_rtx
from support.onnx import bad_models as models
from support.programs.command import GenRepo, Outcome

from tritonsmith_generator.onnx_model.case_file import case_path, load_cases
from tritonsmith_generator.onnx_model.shape_tensors import shape_inputs, with_shape_tensors
from tritonsmith_generator.pipeline.profile_set import derive_profile_set
from tritonsmith_generator.spec.schema import ModelSpec
from tritonsmith_generator.spec.targets import TARGETS
from tritonsmith_generator.triton_config.config_pbtxt import parse_config
from tritonsmith_generator.triton_config.model_config import config_for

X = "x: {min: [1], opt: [6], max: [12]}"
TARGET = "target: {values: {min: [1, 1], opt: [2, 3], max: [12, 12]}}"


def build(gen_repo: GenRepo, folder: Path, options: str) -> Outcome:
    models.saved(models.reshaping())(folder)
    (folder / "models.yaml").write_text(f"models: {{m: {{onnx: model.onnx, {options}}}}}\n")
    return gen_repo("models.yaml", "-o", "repository")


def recorded(folder: Path) -> list[list[int]]:
    cases = load_cases(case_path(folder / "repository/m", 1))
    return [case.inputs["target"].tolist() for case in cases]


@needs_rtx
def test_values_of_the_spec_reach_plan_cases_and_warmup(gen_repo: GenRepo, tmp_path: Path) -> None:
    outcome = build(gen_repo, tmp_path, f"target: tensorrt_rtx, shapes: {{{X}, {TARGET}}}")
    assert outcome.code == 0, outcome
    assert recorded(tmp_path) == [[1, 1], [2, 3]]
    assert (tmp_path / "repository/m/1/model.plan").stat().st_size > 10_000
    config = parse_config((tmp_path / "repository/m/config.pbtxt").read_text(), "config")
    (sample,) = config.model_warmup
    assert (sample.batch_size, list(sample.inputs["x"].dims)) == (1, [6])
    file = tmp_path / "repository/m/warmup" / sample.inputs["target"].input_data_file
    assert np.frombuffer(file.read_bytes(), np.int64).tolist() == [2, 3]


@pytest.mark.parametrize("target", ["onnxruntime", pytest.param("tensorrt_rtx", marks=needs_rtx)])
def test_values_are_taken_from_samples(target: str, gen_repo: GenRepo, tmp_path: Path) -> None:
    np.savez(
        tmp_path / "samples.npz",
        x=np.zeros((3, 6), np.float32),
        target=np.array([[2, 3], [6, 1], [1, 6]]),
    )
    options = f"target: {target}, shapes: {{{X}}}, accuracy: {{samples: samples.npz}}"
    outcome = build(gen_repo, tmp_path, options)
    assert outcome.code == 0, outcome
    assert recorded(tmp_path) == [[2, 3], [6, 1], [1, 6]]


# what is wrong: (the options, the message)
REFUSED = {
    "nothing known": (
        f"shapes: {{{X}}}",
        "the values of the input target: INT64[2] say shapes to node 'reshape' (Reshape), and "
        "profile 0 does not know them: give shapes.target.values ({min: [..., ...], ",
    ),
    "too few": (
        "shapes: {target: {values: {min: 1, opt: [2, 3], max: [3, 4]}}}",
        "shapes.target.values, target: INT64[2]: min is [1], 1 values; the input has 2",
    ),
    "out of order": (
        "shapes: {target: {values: {min: [1, 4], opt: [2, 3], max: [12, 12]}}}",
        "value 1 has min, opt and max 4, 3 and 12; they must be min <= opt <= max",
    ),
    "floats": (
        "shapes: {x: {values: {min: [1], opt: [1], max: [1]}}}",
        "shapes.x.values, x: FP32[n]: only the values of an integer input can say shapes",
    ),
    "one end": (
        "shapes: {target: {values: {min: [1, 1], opt: [1, 1]}}}",
        "models.m.shapes.target.values: the key 'max' is missing",
    ),
    "a known profile and another": (
        f"shapes: [{{{X}, {TARGET}}}, {{{X}}}]",
        "and profile 1 does not know them",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("target", ["onnxruntime", pytest.param("tensorrt_rtx", marks=needs_rtx)])
def test_what_is_missing_or_wrong_is_said_before_the_build(
    kind: str, target: str, gen_repo: GenRepo, tmp_path: Path
) -> None:
    options, message = REFUSED[kind]
    outcome = build(gen_repo, tmp_path, f"target: {target}, {options}")
    assert (outcome.code, message in outcome.err) == (1, True), outcome
    assert not (tmp_path / "repository").exists()


def test_triton_s_tensorrt_backend_is_told(tmp_path: Path) -> None:
    """It refuses a shape tensor that isn't marked, and every other backend one that is."""
    from tritonsmith_generator.onnx_model.onnx_file import signature_of

    proto = models.reshaping()
    signature = signature_of(proto)
    values = {"min": [1, 1], "opt": [2, 3], "max": [12, 12]}
    spec = ModelSpec.model_validate({"onnx": "m", "shapes": {"target": {"values": values}}})
    profile_set = with_shape_tensors(
        derive_profile_set(signature, spec), proto.graph, signature, ()
    )
    assert list(shape_inputs(proto.graph, signature)) == ["target"]
    marked = {
        name: [
            tensor.is_shape_tensor
            for tensor in config_for("m", target, signature, profile_set, spec)[0].input
        ]
        for name, target in TARGETS.items()
    }
    assert marked == {
        "tensorrt": [False, True],
        "tensorrt_rtx": [False, False],
        "onnxruntime": [False, False],
    }
