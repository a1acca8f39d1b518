"""A build of several models in processes that the tests watch."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.programs.command import GenRepo
from support.programs.processes import is_gone

GEN_REPO = [sys.executable, "-m", "tritonsmith_generator"]


def write_spec(folder: Path, samples: Mapping[str, str | None]) -> Path:
    """A spec in which each model has these samples: a function of busy_samples, or none."""
    lines = ["defaults: {target: onnxruntime}", "models:"]
    for name, function in samples.items():
        given = f", accuracy: {{samples: busy_samples.py:{function}}}" if function else ""
        lines.append(f"  {name}: {{onnx: model.onnx{given}}}")
    path = folder / "models.yaml"
    path.write_text("\n".join(lines))
    return path


def as_json(gen_repo: GenRepo, *options: object) -> tuple[int, list[dict[str, Any]]]:
    outcome = gen_repo("models.yaml", "-o", "repository", "--json", *options)
    return outcome.code, json.loads(outcome.out)


def statuses(results: list[dict[str, Any]]) -> dict[str, str]:
    return {result["model"]: result["status"] for result in results}


def left_over(folder: Path) -> list[str]:
    """Work folders in the cache and staging folders beside the repository."""
    work = (folder.with_name(folder.name + "-cache") / "tritonsmith/work").glob("*")
    return [*map(str, work), *map(str, folder.glob(".repository.staging-*"))]


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not come"
        time.sleep(0.02)
    return path.read_text()


def assert_gone(*pids: int) -> None:
    deadline = time.monotonic() + 20
    while left := [pid for pid in pids if not is_gone(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.02)


def stop(pid: int) -> None:
    """Stop a process and wait until each of its threads has."""
    os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task")
    while not all("\nState:\tT" in (t / "status").read_text() for t in threads.iterdir()):
        time.sleep(0.01)
