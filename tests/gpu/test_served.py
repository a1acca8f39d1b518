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
from support import gpu_models

from tritonsmith_client import Client
from tritonsmith_generator import Server, build, load_spec

SIMPLENET = Path(__file__).parents[2] / "model_repository" / "simplenet.onnx"
SPEC = f"""
defaults: {{target: tensorrt}}
models:
  simplenet: {{onnx: {SIMPLENET}}}
  resnet50:
    onnx: resnet50.onnx
    shapes: {{x: {{min: [1, 3, 224, 224], opt: [8, 3, 224, 224], max: [32, 3, 224, 224]}}}}
  encoder:
    onnx: encoder.onnx
    shapes:
      - {{ids: {{min: [1, 1], opt: [8, 16], max: [32, 32]}}}}
      - {{ids: {{min: [1, 33], opt: [1, 256], max: [4, 512]}}}}
"""
_random = np.random.default_rng(0)
INPUTS: dict[str, dict[str, Any]] = {
    "simplenet": {"input": _random.random((5, 784), np.float32)},
    "resnet50": {"x": _random.standard_normal((8, 3, 224, 224), np.float32)},
    "encoder": {"ids": _random.integers(0, 1000, (4, 200)).astype(np.int32)},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    gpu_models.resnet50(folder / "resnet50.onnx")
    gpu_models.encoder(folder / "encoder.onnx")
    (folder / "models.yaml").write_text(SPEC)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    results = build(load_spec(folder / "models.yaml"), folder, folder / "repository")
    assert [(result.name, result.error) for result in results if result.error] == []
    environment = os.environ.get("TRITONSMITH_SERVER_ENV")
    with Server(folder / "repository", server_env=Path(environment) if environment else None) as up:
        yield up


@pytest.mark.parametrize("name", INPUTS)
def test_answers_are_those_of_onnxruntime(
    server: Server, folder: Path, name: str, figure: Any
) -> None:
    assert name in server.models, server.skipped
    onnx = SIMPLENET if name == "simplenet" else folder / f"{name}.onnx"
    session = ort.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    wanted = session.run(None, INPUTS[name])
    times = []
    with Client(server.grpc_url) as client:
        model = client.model(name)
        for _ in range(20):
            began = time.perf_counter()
            answer = model(**INPUTS[name])
            times.append(time.perf_counter() - began)
    for output, expected in zip(session.get_outputs(), wanted, strict=True):
        got = answer[output.name]
        error = float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
        figure(
            served=name,
            shape=list(next(iter(INPUTS[name].values())).shape),
            relative_l2=error,
            grpc_ms=1e3 * sorted(times)[len(times) // 2],
        )
        assert error < 1e-3


def test_a_second_build_has_nothing_to_do(server: Server, folder: Path) -> None:
    results = build(load_spec(folder / "models.yaml"), folder, folder / "repository")
    assert {result.status for result in results} == {"unchanged"}
