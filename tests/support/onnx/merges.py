"""Repositories as machines with several GPUs build them, and what becomes of them merged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.onnx.gpu_repositories import edit_lock
from support.programs.command import GenRepo

from tritonsmith_generator.repository.lock import FileRecord

SPEC = """
models:
  net: {onnx: model.onnx, target: tensorrt_rtx, batching: {max: 4%s}}
  plain: {onnx: model.onnx, target: onnxruntime}
"""

BuildOn = Callable[..., Path]


def build(folder: Path, repository: Path) -> None:
    command = [sys.executable, "-m", "tritonsmith_generator", "build", "models.yaml"]
    done = subprocess.run([*command, "-o", repository], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def merged(gen_repo: GenRepo, *arguments: object) -> dict[str, Any]:
    """The results by model; a plan without a fallback is told of."""
    outcome = gen_repo("merge", *arguments, "--json")
    assert outcome.code == 0, outcome
    return {model["model"]: model for model in json.loads(outcome.out)}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def golden(repository: Path) -> str:
    """The config without its two lines that change: a version and a digest."""
    lines = (repository / "net/config.pbtxt").read_text().splitlines(True)
    return "".join(line for line in lines if not line.startswith(("# Written by", "# Source:")))


def record(path: Path) -> dict[str, Any]:
    return vars(FileRecord.of(path))


def set_spec(**values: Any) -> Callable[[Path, Path], None]:
    return lambda a, b: edit_lock(b, lambda m: m["net"]["spec"].update(values))
