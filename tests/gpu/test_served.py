"""The main job on a GPU: built with gen-repo's API for TensorRT, served, called, compared."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from support.harness.paths import SIMPLENET
from support.onnx import gpu_models

from tritonsmith_client import Client
from tritonsmith_generator import Server, Spec, build
from tritonsmith_generator.accuracy.gate import limits_for
from tritonsmith_generator.engine.installed import tensorrt_releases

PRECISIONS = ("fp32", "fp16", "int8")
# What TensorRT 8.6 does not do: it finds FP32 kernels quicker for three small layers, which the
# proof of precision refuses (tested below).
NOT_ON_8_6 = {("simplenet", "fp16")}
SHAPES: dict[str, Any] = {
    "simplenet": {"input": {"min": [1, 784], "opt": [8, 784], "max": [64, 784]}},
    "resnet50": {"x": {"min": [1, 3, 224, 224], "opt": [8, 3, 224, 224], "max": [32, 3, 224, 224]}},
    "encoder": [  # two profiles
        {"ids": {"min": [1, 1], "opt": [8, 16], "max": [32, 32]}},
        {"ids": {"min": [1, 33], "opt": [1, 256], "max": [4, 512]}},
    ],
}
_random = np.random.default_rng(0)
INPUTS: dict[str, dict[str, Any]] = {
    "simplenet": {"input": _random.random((5, 784), np.float32)},
    "resnet50": {"x": _random.standard_normal((8, 3, 224, 224), np.float32)},
    "encoder": {"ids": _random.integers(0, 1000, (4, 200)).astype(np.int32)},
}


def spec(folder: Path) -> Spec:
    """Each model in each precision; calibrated on what it is asked later."""
    # TensorRT 8.6 is tested without cuBLAS and cuDNN, which its other tactics would call.
    old = not tensorrt_releases()[0].strongly_typed
    tactics = {"tactic_sources": ["edge_mask_convolutions", "jit_convolutions"]} if old else {}
    models = {}
    for name, shapes in SHAPES.items():
        np.savez(folder / f"{name}.npz", **INPUTS[name])
        for precision in PRECISIONS:
            if old and (name, precision) in NOT_ON_8_6:
                continue
            models[f"{name}_{precision}"] = {
                "onnx": str(SIMPLENET) if name == "simplenet" else f"{name}.onnx",
                "target": "tensorrt",
                "precision": precision,
                "shapes": shapes,
                "calibration": f"{name}.npz",
                "accuracy": {"samples": f"{name}.npz"},
                "builder": tactics,
            }
    return Spec.model_validate({"models": models})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    gpu_models.resnet50(folder / "resnet50.onnx")
    gpu_models.encoder(folder / "encoder.onnx")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    results = build(spec(folder), folder, folder / "repository")
    assert [(result.name, result.error) for result in results if result.error] == []
    environment = os.environ.get("TRITONSMITH_SERVER_ENV")
    with Server(folder / "repository", server_env=Path(environment) if environment else None) as up:
        yield up


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", INPUTS)
def test_answers_are_those_of_onnxruntime(
    server: Server, folder: Path, name: str, precision: str, figure: Any
) -> None:
    old = not tensorrt_releases()[0].strongly_typed
    if old and (name, precision) in NOT_ON_8_6:
        pytest.skip(f"TensorRT 8.6 has no {precision} plan of {name}: see NOT_ON_8_6")
    model_name = f"{name}_{precision}"
    assert model_name in server.models, server.skipped
    onnx = SIMPLENET if name == "simplenet" else folder / f"{name}.onnx"
    session = ort.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    wanted = session.run(None, INPUTS[name])
    times = []
    with Client(server.grpc_url) as client:
        model = client.model(model_name)
        for _ in range(20):
            began = time.perf_counter()
            answer = model(**INPUTS[name])
            times.append(time.perf_counter() - began)
    for output, expected in zip(session.get_outputs(), wanted, strict=True):
        got = answer[output.name]
        error = float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
        figure(
            served=name,
            precision=precision,
            shape=list(next(iter(INPUTS[name].values())).shape),
            relative_l2=error,
            grpc_ms=1e3 * sorted(times)[len(times) // 2],
        )
        allowed = limits_for(precision).relative_l2
        assert allowed is not None and error < allowed


def test_a_second_build_has_nothing_to_do(server: Server, folder: Path) -> None:
    results = build(spec(folder), folder, folder / "repository")
    assert {result.status for result in results} == {"unchanged"}


def test_fp16_that_would_be_fp32_is_refused(folder: Path) -> None:
    """TensorRT 8.6 takes FP16 as a permission; the plan's own layers tell whether it was used."""
    if tensorrt_releases()[0].strongly_typed:
        pytest.skip("strongly typed: the graph decides, and TensorRT has no choice")
    models = spec(folder).models
    half = models["simplenet_fp32"].model_copy(update={"precision": "fp16"})
    (result,) = build(Spec(models={"half": half}), folder, folder / "refused")
    assert "precision fp16 was asked for, but the engine's layers compute otherwise" in str(
        result.error
    )
    assert not (folder / "refused").exists()
