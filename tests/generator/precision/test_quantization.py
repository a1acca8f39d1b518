"""Quantization's options through the front door: what they change, and what cannot be."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.harness.needs import named, needs
from support.harness.paths import MODEL_REPOSITORY as MODELS
from support.programs.command import GenRepo, Outcome

from tritonsmith_generator.onnx_model import reference
from tritonsmith_generator.onnx_model.case_file import load_cases

SIMPLENET = MODELS / "simplenet.onnx"

rng = np.random.default_rng(5)


def build(gen_repo: GenRepo, folder: Path, options: str) -> Outcome:
    np.savez(folder / "samples.npz", input=rng.random((30, 784), np.float32))  # 8, 8, 8 and 6
    text = f"models: {{m: {{onnx: '{SIMPLENET}', {options}}}}}\n"
    (folder / "models.yaml").write_text(text)
    return gen_repo("models.yaml", "-o", "repository", "--json")


def error_of(outcome: Outcome) -> float:
    assert outcome.code == 0, outcome
    (model,) = json.loads(outcome.out)
    assert model["status"] == "built"
    (note,) = [note for note in model["notes"] if note.startswith("accuracy of")]
    found = re.search(r"relative L2 ([0-9.e+-]+)", note)
    assert found
    return float(found[1])


INT8 = "target: onnxruntime, precision: int8, accuracy: {samples: samples.npz}"


@pytest.mark.parametrize(
    "options",
    [
        "method: minmax",
        "method: percentile",
        "{method: percentile, percentile: 99.9}",
        "method: entropy",
        "method: mse",
        "smooth: 0.7",
        "per_channel: false",
        "max_samples: 8",
    ],
)
def test_every_option_gives_a_model_within_the_limit(
    options: str, gen_repo: GenRepo, tmp_path: Path
) -> None:
    options = options if options.startswith("{") else f"{{{options}}}"
    error = error_of(build(gen_repo, tmp_path, f"{INT8}, quantization: {options}"))
    assert 1e-4 < error < 0.03
    assert gen_repo("check", "repository").code == 0


def test_a_changed_option_makes_another_model(gen_repo: GenRepo, tmp_path: Path) -> None:
    sizes = []
    for number, options in enumerate(("{}", "{per_channel: false}"), start=1):
        error_of(build(gen_repo, tmp_path, f"{INT8}, quantization: {options}"))
        graph = onnx.load(tmp_path / f"repository/m/{number}/model.onnx").graph
        scales = [t for t in graph.initializer if "scale" in t.name and "weight" in t.name]
        sizes.append({int(np.prod(t.dims)) for t in scales})
    assert sizes == [{128, 64, 10}, {1}]


def test_fewer_samples_are_the_first_ones(gen_repo: GenRepo, tmp_path: Path) -> None:
    """The ninth sample and those after it are a hundred times as large."""
    images = rng.random((24, 784), np.float32)
    images[8:] *= 100
    np.savez(tmp_path / "calibration.npz", input=images)
    scales = []
    for number, most in enumerate(("null", "8"), start=1):
        options = f"{INT8}, calibration: calibration.npz, quantization: {{max_samples: {most}}}"
        options += ", accuracy: {samples: samples.npz, limit: 9}"
        build(gen_repo, tmp_path, options.replace(f"{INT8}", INT8.rpartition(", ")[0]))
        graph = onnx.load(tmp_path / f"repository/m/{number}/model.onnx").graph
        (scale,) = [t for t in graph.initializer if t.name == "input_scale"]
        scales.append(float(numpy_helper.to_array(scale)) * 127)
    assert scales[0] == pytest.approx(100, rel=0.05)
    assert scales[1] == pytest.approx(1, rel=0.05)


def test_what_was_calibrated_is_not_judged_by_random_numbers(
    gen_repo: GenRepo, tmp_path: Path
) -> None:
    """Numbers outside the measured ranges are clipped, whatever the model."""
    outcome = build(
        gen_repo, tmp_path, "target: onnxruntime, precision: int8, calibration: samples.npz"
    )
    assert outcome.code == 0, outcome
    assert 1e-4 < error_of(outcome) < 0.03
    recorded = load_cases(tmp_path / "repository/m/cases/1.npz")
    with np.load(tmp_path / "samples.npz") as samples:
        assert np.array_equal(recorded[0].inputs["input"][0], samples["input"][0])


def test_a_failure_names_what_may_help(gen_repo: GenRepo, tmp_path: Path) -> None:
    options = "accuracy: {samples: samples.npz, limit: 1e-6, fallback: false}"
    outcome = build(gen_repo, tmp_path, f"target: onnxruntime, precision: int8, {options}")
    assert outcome.code == 1
    assert (
        "try precision: fp16, quantization.smooth: 0.7 (for transformers) or another "
        "quantization.method, keep layers in FP32, or raise accuracy.limit"
    ) in outcome.out


# what is wrong: (the options, the message)
REFUSED = {
    "an unknown method": (
        "precision: int8, quantization: {method: kl}",
        "quantization.method: Input should be 'minmax', 'percentile', 'entropy' or 'mse'",
    ),
    "a misspelled key": (
        "precision: int8, quantization: {blocksize: 32}",
        "quantization.blocksize: unknown key; did you mean 'block_size'?",
    ),
    "more than all": (
        "precision: int8, quantization: {method: percentile, percentile: 101}",
        "quantization.percentile is 101; it must be 50 to 100",
    ),
    "a percentile without the method": (
        "precision: int8, quantization: {percentile: 99}",
        "quantization.percentile has no effect without quantization.method: percentile",
    ),
    "no samples": (
        "precision: int8, quantization: {max_samples: 0}",
        "quantization.max_samples is 0; 1 is the least",
    ),
    "too smooth": (
        "precision: int8, quantization: {smooth: 70}",
        "quantization.smooth is 70; it must be 0 to 1",
    ),
    "a block size of no GPU": (
        "target: tensorrt_rtx, precision: int4, quantization: {block_size: 20}",
        "quantization.block_size is 20; with target tensorrt_rtx it must be one of 16, 32, 64, 128",
    ),
    "another precision's": (
        "target: tensorrt_rtx, precision: int4, quantization: {method: entropy}",
        "quantization.method has no effect with precision int4; it is for int8",
    ),
    "int4's": (
        "precision: int8, quantization: {block_size: 32}",
        "quantization.block_size has no effect with precision int8; it is for int4",
    ),
}


@pytest.mark.parametrize("kind", named(REFUSED))
def test_what_cannot_be(kind: str, gen_repo: GenRepo, tmp_path: Path) -> None:
    options, message = REFUSED[kind]
    target = "" if "target" in options else "target: onnxruntime, "
    outcome = build(gen_repo, tmp_path, f"{target}{options}, calibration: samples.npz")
    assert (outcome.code, message in outcome.out + outcome.err) == (1, True), outcome
    assert not (tmp_path / "repository").exists()


@needs("modelopt", "tensorrt_rtx")
@pytest.mark.parametrize(("size", "layers"), [(16, 3), (32, 2)])
def test_blocks_have_the_size_that_is_asked_for(
    size: int, layers: int, gen_repo: GenRepo, tmp_path: Path
) -> None:
    """32 does not divide the 784 channels of the first layer, which then stays as it is."""
    options = f"target: tensorrt_rtx, precision: int4, quantization: {{block_size: {size}}}"
    outcome = build(gen_repo, tmp_path, options)
    assert 1e-3 < error_of(outcome) < 0.1
    assert f"{layers} DQ" in outcome.out


def digits() -> tuple[Any, Any, Any, Any]:
    """Images and labels to calibrate with, and others that the training never saw."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    pytest.importorskip("torch", reason="PyTorch is not installed")
    spec = importlib.util.spec_from_file_location("training", MODELS / "train_simplenet.py")
    assert spec is not None and spec.loader is not None
    training = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(training)
    images, labels, order = (tensor.numpy() for tensor in training.digits())
    held_out, train = order[: len(order) // 5], order[len(order) // 5 :]
    return images[train[:256]], labels[train[:256]], images[held_out], labels[held_out]


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_digits_are_told_as_well_as_in_fp32(method: str, gen_repo: GenRepo, tmp_path: Path) -> None:
    images, _, unseen, labels = digits()
    np.savez(tmp_path / "digits.npz", input=images)
    options = f"{INT8.replace('samples.npz', 'digits.npz')}, quantization: {{method: {method}}}"
    assert error_of(build(gen_repo, tmp_path, options)) < 0.02
    right = [
        int((reference.run(model, {"input": unseen})["output"].argmax(1) == labels).sum())
        for model in (SIMPLENET, tmp_path / "repository/m/1/model.onnx")
    ]
    assert len(labels) == 359
    assert abs(right[0] - right[1]) <= 2
