"""Warmup and CUDA graphs of a plan: derived from two profiles, run by the server on this GPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import tritonclient.grpc as grpc
from support.onnx import gpu_models

from tritonsmith_client import Client
from tritonsmith_generator import Server, Spec, build
from tritonsmith_generator.engine.installed import tensorrt_releases

PROFILES = [
    {"ids": {"min": [1, 1], "opt": [4, 16], "max": [8, 32]}},
    {"ids": {"min": [1, 33], "opt": [1, 64], "max": [2, 128]}},
]


def spec(onnx: Path) -> Spec:
    old = not tensorrt_releases()[0].strongly_typed  # 8.6 is tested without cuBLAS, cuDNN
    tactics = {"tactic_sources": ["edge_mask_convolutions", "jit_convolutions"]} if old else {}
    model: dict[str, Any] = {
        "onnx": str(onnx),
        "target": "tensorrt",
        "shapes": PROFILES,
        "builder": tactics,
        "warmup": {"at": ["min", "opt", "max"], "count": 2},
        "cuda_graphs": True,
    }
    return Spec.model_validate({"models": {"encoder": model}})


def test_a_warm_plan_answers_as_onnxruntime_does(tmp_path: Path) -> None:
    onnx = gpu_models.encoder(tmp_path / "encoder.onnx", layers=1, width=64)
    (result,) = build(spec(onnx), tmp_path, tmp_path / "repository")
    assert result.error is None, result.error
    config = (tmp_path / "repository/encoder/config.pbtxt").read_text()
    assert "graph_spec" in config and "model_warmup" in config
    environment = os.environ.get("TRITONSMITH_SERVER_ENV")
    found = Path(environment) if environment else None
    with Server(tmp_path / "repository", server_env=found) as server:
        assert server.skipped == {}
        with grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as statistics:
            (stats,) = statistics.get_inference_statistics("encoder").model_stats
        sizes = {batch.batch_size: batch.compute_infer.count for batch in stats.batch_stats}
        # Twice each, in each instance: 1, 4 and 8 rows, and 1, 1 and 2 of the longer ones.
        assert sizes.keys() == {1, 2, 4, 8}
        assert sizes[1] == 3 * sizes[2] == 3 * sizes[4] == 3 * sizes[8] >= 6
        session = ort.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
        with Client(server.grpc_url) as client:
            for shape in ((3, 16), (2, 100)):
                ids = np.random.default_rng(0).integers(0, 1000, shape).astype(np.int32)
                (wanted,) = session.run(None, {"ids": ids})
                np.testing.assert_allclose(client.model("encoder")(ids)["y"], wanted, atol=1e-3)
