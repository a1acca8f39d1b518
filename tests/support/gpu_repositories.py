"""Repositories as machines with different GPUs would build them, on a machine without one.

The plans are real ones of TensorRT for RTX, built by gen-repo, which takes the machine's GPU from
``devices.gpus`` and is told another. ``as_tensorrt`` then writes into config and lock what
TensorRT, which needs the GPU itself, would have: its name, its version, and whose plan it is.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tritonsmith_generator import devices
from tritonsmith_generator.lock import FileRecord

TENSORRT = "TensorRT 10.13.3.9"


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, capability: str) -> None:
    """Let this process believe that the machine has such a GPU."""
    gpu = devices.Gpu(0, f"a GPU of {capability}", capability, 24 << 30, "580.95.05")
    monkeypatch.setattr(devices, "gpus", lambda: (gpu,))


def as_tensorrt(
    repository: Path, gpus: str, library: str = TENSORRT, builder: dict[str, Any] | None = None
) -> Path:
    """Make the repository's tensorrt_rtx models TensorRT's, with plans for these GPUs."""

    def change(models: dict[str, Any]) -> None:
        for name, entry in models.items():
            if entry["target"] != "tensorrt_rtx":
                continue
            config = repository / name / "config.pbtxt"
            config.write_text(config.read_text().replace('"tensorrt_rtx"', '"tensorrt"'))
            entry["files"]["config.pbtxt"] = asdict(FileRecord.of(config))
            tools = {**entry["tools"], "tensorrt": library}
            del tools["tensorrt_rtx"], entry["spec"]["target"]
            if builder:
                entry["spec"]["builder"] = builder
            plan = {"file": "model.plan", "key": entry["key"], "artifact": entry["artifact"]}
            entry.update(target="tensorrt", tools=tools, plans={gpus: {**plan, "tools": tools}})

    edit_lock(repository, change)
    return repository


def edit_lock(repository: Path, change: Any) -> None:
    """Call ``change`` with the lock's models, and write them back."""
    path = repository / "repository.lock.json"
    lock = json.loads(path.read_text())
    change(lock["models"])
    path.write_text(json.dumps(lock))
