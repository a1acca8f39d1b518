"""ONNX Runtime tells nobody which models it loads, neither here nor in the embedded server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.harness.paths import ROOT

MODEL = ROOT / "model_repository" / "simplenet.onnx"
BACKENDS = ROOT / "generator" / "tritonsmith_generator" / "backends" / "common"
BUILD = ["-m", "tritonsmith_generator", "build", str(MODEL), "-o", "repository"]
LOAD = "import tritonsmith_backend.onnx_model as m, sys; m.ort.InferenceSession(sys.argv[1])"
SILENCED = ("ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI", "GITHUB_ACTIONS", "TF_BUILD")


@pytest.mark.parametrize("program", [BUILD, ["-c", LOAD, str(MODEL)]], ids=["build", "backend"])
def test_no_telemetry_is_kept_or_sent(tmp_path: Path, program: list[str]) -> None:
    """It keeps what it will send, and the machine's identifier, in the cache folder."""
    cache = tmp_path / "cache"
    cache.mkdir()
    environ = {name: value for name, value in os.environ.items() if name not in SILENCED}
    environ |= {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(BACKENDS)}
    done = subprocess.run(
        [sys.executable, *program], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not {path.name for path in cache.iterdir()} - {"tritonsmith"}
