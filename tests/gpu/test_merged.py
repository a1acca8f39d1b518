"""Plans of several GPUs in one repository: this GPU opens its own, or the one for all others."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from support.harness.paths import SIMPLENET

from tritonsmith_client import Client
from tritonsmith_generator import Server, Spec, build, merge
from tritonsmith_generator.engine.installed import tensorrt_releases
from tritonsmith_generator.host.gpus import visible_gpus
from tritonsmith_generator.repository.lock import FileRecord

# No GPU that TensorRT supports has it: a plan that is never to be opened here.
ELSEWHERE = "3.0"


def built(folder: Path, **builder: Any) -> Path:
    """SimpleNet's repository, built by this machine's TensorRT for its GPU."""
    if not tensorrt_releases()[0].strongly_typed:  # 8.6 is tested without cuBLAS, cuDNN
        builder["tactic_sources"] = ["edge_mask_convolutions", "jit_convolutions"]
    model = {
        "onnx": str(SIMPLENET),
        "target": "tensorrt",
        "shapes": {"input": {"min": [1, 784], "opt": [8, 784], "max": [64, 784]}},
        "builder": builder,
    }
    (result,) = build(Spec.model_validate({"models": {"net": model}}), folder.parent, folder)
    assert result.error is None, result.error
    return folder


def moved_elsewhere(repository: Path, copy: Path) -> Path:
    """As another machine would have built it: for its GPU, with a plan that is none here."""
    shutil.copytree(repository, copy)
    plan = copy / "net/1/model.plan"
    plan.write_bytes(b"a plan for another GPU")
    path = copy / "repository.lock.json"
    lock = json.loads(path.read_text())
    (entry,) = lock["models"]["net"]["plans"].values()
    lock["models"]["net"]["plans"] = {ELSEWHERE: entry}
    lock["models"]["net"]["files"]["1/model.plan"] = vars(FileRecord.of(plan))
    path.write_text(json.dumps(lock))
    return copy


def serve(repository: Path) -> Server:
    environment = os.environ.get("TRITONSMITH_SERVER_ENV")
    return Server(repository, server_env=Path(environment) if environment else None)


@pytest.mark.parametrize(
    ("builder", "opened"),
    [
        ({}, lambda capability: f"model_{capability.replace('.', '_')}.plan"),
        ({"hardware_compatibility": "ampere_plus"}, lambda _: "model_ampere_plus.plan"),
    ],
)
def test_the_plan_that_fits_is_served(
    builder: dict[str, Any], opened: Callable[[str], str], tmp_path: Path
) -> None:
    here = built(tmp_path / "here", **builder)
    there = moved_elsewhere(here, tmp_path / "there")
    (model,) = merge((there, here), tmp_path / "out")
    plan = tmp_path / "out/net/1" / opened(visible_gpus()[0].compute_capability)
    assert plan.read_bytes() == (here / "net/1/model.plan").read_bytes()
    images = np.random.default_rng(0).random((5, 784), np.float32)
    session = ort.InferenceSession(str(SIMPLENET), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"input": images})
    with serve(tmp_path / "out") as server, Client(server.grpc_url) as client:
        assert server.skipped == {}
        answer = client.model("net")(images)["output"]
    np.testing.assert_allclose(answer, wanted, atol=1e-3)


def test_without_a_plan_for_this_gpu_the_model_is_left_out(tmp_path: Path) -> None:
    here = built(tmp_path / "here")
    there = moved_elsewhere(here, tmp_path / "there")
    merge((there, here), tmp_path / "out")
    config = tmp_path / "out/net/config.pbtxt"
    mine = visible_gpus()[0].compute_capability
    config.write_text(config.read_text().replace(f'key: "{mine}"', 'key: "3.2"'))
    with pytest.raises(Exception, match=rf"3\.0, 3\.2, and this machine has a GPU of {mine}"):
        serve(tmp_path / "out").__enter__()


def test_a_build_knows_its_own_plan_among_the_merged(tmp_path: Path) -> None:
    here = built(tmp_path / "here")
    there = moved_elsewhere(here, tmp_path / "there")
    merge((there, here), tmp_path / "out")
    before = (tmp_path / "out/net/config.pbtxt").read_bytes()
    built(tmp_path / "out")
    assert (tmp_path / "out/net/config.pbtxt").read_bytes() == before
