"""Repositories as machines with different GPUs would build them, on a machine without one.

Built by gen-repo, with real plans of TensorRT for RTX. ``as_tensorrt`` then writes into config and
lock what TensorRT, which needs the GPU itself, would have: its name and version, and whose plan it
is.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tritonsmith_generator.repository.lock import FileRecord

TENSORRT = "TensorRT 10.13.3.9"


def as_tensorrt(
    repository: Path, gpus: str, library: str = TENSORRT, builder: dict[str, Any] | None = None
) -> Path:
    """Make the repository's tensorrt_rtx models TensorRT's, with plans for these GPUs.

    Their keys are then those of another machine than this one.
    """

    def change(models: dict[str, Any]) -> None:
        for model, entry in models.items():
            if entry["target"] != "tensorrt_rtx":
                continue
            config = repository / model / "config.pbtxt"
            config.write_text(config.read_text().replace('"tensorrt_rtx"', '"tensorrt"'))
            plan_file = repository / model / str(entry["version"]) / "model.plan"
            plan_file.write_bytes(plan_file.read_bytes() + gpus.encode())  # no two are alike
            changed = {"config.pbtxt": config, f"{entry['version']}/model.plan": plan_file}
            entry["files"] |= {name: asdict(FileRecord.of(path)) for name, path in changed.items()}
            tools = {**entry["tools"], "tensorrt": library}
            del tools["tensorrt_rtx"], entry["spec"]["target"]
            if builder:
                entry["spec"]["builder"] = builder
            tools["gpu"] = gpus
            keys = {name: f"{entry[name]} on {gpus}" for name in ("key", "artifact")}
            plan = {"file": "model.plan", **keys, "tools": tools}
            entry.update(target="tensorrt", tools=tools, plans={gpus: plan}, **keys)

    edit_lock(repository, change)
    return repository


def edit_lock(repository: Path, change: Any) -> None:
    """Call ``change`` with the lock's models, and write them back."""
    path = repository / "repository.lock.json"
    lock = json.loads(path.read_text())
    change(lock["models"])
    path.write_text(json.dumps(lock))
