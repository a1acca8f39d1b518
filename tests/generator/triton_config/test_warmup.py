"""Warmup: derived from the profiles, with values that the model can be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from support.harness.needs import needs_rtx
from support.onnx import bad_models as models
from support.programs.command import GenRepo, Outcome
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import deserialize_bytes_tensor

from tritonsmith_generator.onnx_model.case_file import case_path, load_cases
from tritonsmith_generator.triton_config.config_pbtxt import parse_config

SHAPES = "shapes: {words: {min: [1, 2], opt: [4, 8], max: [16, 32]}}"
TWO = (
    "shapes: [{words: {min: [1, 2], opt: [4, 8], max: [16, 32]}}, "
    "{words: {min: [1, 33], opt: [2, 64], max: [4, 128]}}]"
)


def build(gen_repo: GenRepo, folder: Path, options: str, proto: Any = None) -> Outcome:
    models.saved(proto or models.looking_up())(folder)
    (folder / "models.yaml").write_text(f"models: {{m: {{onnx: model.onnx, {options}}}}}\n")
    return gen_repo("models.yaml", "-o", "repository")


def config(folder: Path) -> ModelConfig:
    return parse_config((folder / "repository/m/config.pbtxt").read_text(), "config.pbtxt")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "repository/m/warmup").glob("*")}


@pytest.mark.parametrize(
    ("options", "samples"),
    [
        pytest.param("target: tensorrt_rtx", 1, marks=needs_rtx),
        pytest.param("target: tensorrt_rtx, warmup: false", 0, marks=needs_rtx),
        ("target: onnxruntime", 0),
        ("target: onnxruntime, warmup: true", 1),
        ("target: onnxruntime, warmup: true, config: {model_warmup: []}", 0),
        pytest.param("target: tensorrt_rtx, config: {max_batch_size: 2}", 0, marks=needs_rtx),
    ],
)
def test_plans_are_warmed_up_unless_the_spec_says_otherwise(
    options: str, samples: int, gen_repo: GenRepo, tmp_path: Path
) -> None:
    assert build(gen_repo, tmp_path, options).code == 0
    assert len(config(tmp_path).model_warmup) == samples


def test_each_profile_and_end_has_a_sample(gen_repo: GenRepo, tmp_path: Path) -> None:
    options = f"target: onnxruntime, warmup: {{at: [min, opt]}}, {TWO}"
    assert build(gen_repo, tmp_path, options).code == 0
    found = [
        (sample.name, sample.batch_size, list(sample.inputs["words"].dims))
        for sample in config(tmp_path).model_warmup
    ]
    assert found == [
        ("profile 0, min", 1, [2]),
        ("profile 0, opt", 4, [8]),
        ("profile 1, min", 1, [33]),
        ("profile 1, opt", 2, [64]),
    ]
    assert gen_repo("check", "repository").code == 0


def test_integers_are_ones_that_the_model_was_asked_before(
    gen_repo: GenRepo, tmp_path: Path
) -> None:
    """Random bytes, or zeros for what is divided by, can end the server."""
    np.savez(
        tmp_path / "samples.npz",
        words=np.full((3, 5), 7),
        factor=np.full((3, 1), 0.5, np.float32),
    )
    options = f"target: onnxruntime, warmup: {{at: [max]}}, {SHAPES}"
    assert build(gen_repo, tmp_path, f"{options}, accuracy: {{samples: samples.npz}}").code == 0
    (sample,) = config(tmp_path).model_warmup
    assert sample.inputs["factor"].zero_data
    stored = files(tmp_path)
    assert list(stored) == [sample.inputs["words"].input_data_file]
    words = np.frombuffer(stored[sample.inputs["words"].input_data_file], np.int64)
    assert words.tolist() == [7] * 32


def test_floats_can_be_recorded_ones_too(gen_repo: GenRepo, tmp_path: Path) -> None:
    options = f"target: onnxruntime, warmup: {{data: recorded}}, {SHAPES}"
    assert build(gen_repo, tmp_path, options).code == 0
    (sample,) = config(tmp_path).model_warmup
    stored = files(tmp_path)[sample.inputs["factor"].input_data_file]
    recorded = load_cases(case_path(tmp_path / "repository/m", 1))[-1].inputs["factor"]
    assert np.array_equal(np.frombuffer(stored, np.float32), recorded[0])


def test_strings_are_stored_as_triton_sends_them(gen_repo: GenRepo, tmp_path: Path) -> None:
    proto = models.typed(TensorProto.STRING)
    assert build(gen_repo, tmp_path, "target: onnxruntime, warmup: true", proto).code == 0
    ((_, stored),) = files(tmp_path).items()
    assert len(deserialize_bytes_tensor(stored)) == 4


@needs_rtx
def test_inputs_with_an_axis_of_one_name_are_as_large(gen_repo: GenRepo, tmp_path: Path) -> None:
    """The batch of 'factor' is that of 'words', or TensorRT would be asked for 16 times 32 rows."""
    assert build(gen_repo, tmp_path, f"target: tensorrt_rtx, {SHAPES}").code == 0
    (sample,) = config(tmp_path).model_warmup
    assert (sample.batch_size, config(tmp_path).max_batch_size) == (4, 16)
    assert {name: len(stored) for name, stored in files(tmp_path).items()} == {"0-words-8": 8 * 8}


def test_what_contradicts_the_profiles_is_refused(gen_repo: GenRepo, tmp_path: Path) -> None:
    outcome = build(
        gen_repo, tmp_path, "target: onnxruntime, warmup: true, config: {max_batch_size: 2}"
    )
    assert outcome.code == 1
    assert "config.max_batch_size says something else" in outcome.err
    assert not (tmp_path / "repository").exists()
