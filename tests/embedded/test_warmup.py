"""Warmup as the real server runs it while it loads a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tritonclient.grpc as grpc
from support.harness.paths import MODEL_REPOSITORY as MODELS

from tritonsmith_generator import build, load_spec
from tritonsmith_generator.serve.server_base import ServerBase

SPEC = """
models:
  text_encoder:
    onnx: {folder}/text_encoder.onnx
    target: onnxruntime
    warmup: {{at: [min, opt, max], count: 2}}
    shapes:
      - input_ids: {{min: [1, 1], opt: [4, 32], max: [8, 64]}}
        attention_mask: {{min: [1, 1], opt: [4, 32], max: [8, 64]}}
      - input_ids: {{min: [1, 65], opt: [1, 100], max: [2, 128]}}
        attention_mask: {{min: [1, 65], opt: [1, 100], max: [2, 128]}}
  simplenet:
    onnx: {folder}/simplenet.onnx
    target: onnxruntime
    warmup: {{data: recorded}}
  cold:
    onnx: {folder}/simplenet.onnx
    target: onnxruntime
"""


def test_all_samples_run_before_the_first_request(
    start_server: Callable[..., ServerBase], tmp_path: Path
) -> None:
    (tmp_path / "models.yaml").write_text(SPEC.format(folder=MODELS))
    results = build(load_spec(tmp_path / "models.yaml"), tmp_path, tmp_path / "repository")
    assert [result.error for result in results] == [None] * 3
    server = start_server(tmp_path / "repository")
    with grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
        found: dict[str, Any] = {}
        for name in ("text_encoder", "simplenet", "cold"):
            (stats,) = client.get_inference_statistics(name).model_stats
            sizes = {b.batch_size: b.compute_infer.count for b in stats.batch_stats}
            found[name] = (stats.inference_count, sizes)
    assert found == {
        # twice each: 1, 4 and 8 rows for the first profile, 1, 1 and 2 for the second
        "text_encoder": (34, {1: 6, 2: 2, 4: 2, 8: 2}),
        "simplenet": (8, {8: 1}),
        "cold": (0, {}),
    }
