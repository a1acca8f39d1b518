"""A merged repository where no GPU is: what can be served is proven, the rest is named."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from support.harness.needs import needs_rtx
from support.onnx import bad_models as models
from support.onnx.gpu_repositories import as_tensorrt
from support.programs.command import run_gen_repo

from tritonsmith_generator.host.gpus import visible_gpus

SPEC = """
models:
  net: {onnx: model.onnx, target: tensorrt_rtx}
  plain: {onnx: model.onnx, target: onnxruntime}
"""


@needs_rtx
def test_live_check_and_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if visible_gpus():
        pytest.skip("this machine has a GPU, and the plans are not TensorRT's: tests/gpu has them")
    gen_repo = partial(run_gen_repo, monkeypatch, capsys)
    monkeypatch.chdir(tmp_path)
    models.saved(models.good())(tmp_path)
    (tmp_path / "models.yaml").write_text(SPEC)
    for capability in ("8.0", "9.0"):
        assert gen_repo("models.yaml", "-o", capability).code == 0
        as_tensorrt(tmp_path / capability, capability)
    assert gen_repo("merge", "8.0", "9.0").code == 0

    outcome = gen_repo("check", "--live", "model_repository", "--json")
    assert outcome.code == 0, outcome
    live = {model["model"]: model for model in json.loads(outcome.out)["live"]}
    assert live["plain"]["cases"] == 2 and live["plain"]["problem"] is None
    assert "this machine has no NVIDIA GPU" in live["net"]["skipped"]
    plans = [(Path("model_repository/net/1") / f"model_{gpu}.plan") for gpu in ("8_0", "9_0")]
    assert live["net"]["size"] == sum(plan.stat().st_size for plan in plans)

    outcome = gen_repo("deploy", "docker", "model_repository", "--image", "an-image")
    assert outcome.code == 0, outcome
    assert "model_repository" in Path("docker/Dockerfile").read_text()
