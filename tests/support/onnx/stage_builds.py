"""Builds whose stages are looked at: what was made, why, and nothing that was forbidden."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.harness.paths import SIMPLENET
from support.programs.command import GenRepo

from tritonsmith_generator.host.cache_dir import cache_folder

STAGES = ("cases", "conversion", "plan", "config.pbtxt")


def spec(options: str, source: object = SIMPLENET) -> None:
    Path("models.yaml").write_text(
        f"models: {{m: {{onnx: '{source}', target: tensorrt_rtx, {options}}}}}\n"
    )


def samples(seed: int, name: str = "samples.npz") -> None:
    np.savez(name, input=np.random.default_rng(seed).random((32, 784), np.float32))


def built(gen_repo: GenRepo, *options: str, to: str = "repository") -> dict[str, Any]:
    outcome = gen_repo("models.yaml", "-o", to, "--json", *options)
    assert outcome.code == 0, outcome
    (model,) = json.loads(outcome.out)
    return dict(model)


def why(model: Mapping[str, Any]) -> dict[str, str]:
    """The stages that ran, with their reasons."""
    return {s["stage"]: "; ".join(s["why"]) for s in model["stages"] if s["ran"]}


def kept_files() -> dict[Path, tuple[int, int]]:
    """Inode and time of all results in the cache; a look at an entry touches its manifest."""
    files = (p for p in cache_folder("stages").rglob("*") if p.is_file())
    return {
        p: (p.stat().st_ino, p.stat().st_mtime_ns)
        for p in files
        if p.suffix != ".lock" and p.name != "manifest.json"
    }


FORBIDDEN = """
import sys
sys.path.remove({folder!r})
del sys.modules[__name__]
import {module} as real
sys.path.insert(0, {folder!r})

def refuse(*_, **__):
    raise RuntimeError("{module}.{member} was used")

real.{member} = refuse
"""


def forbid(monkeypatch: pytest.MonkeyPatch, folder: Path, *members: str) -> None:
    """In every process that is started from now on, to call one of these is an error."""
    folder.mkdir()
    for module, member in (name.split(".") for name in members):
        text = FORBIDDEN.format(folder=str(folder), module=module, member=member)
        (folder / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))


SESSION, BUILDER = "onnxruntime.InferenceSession", "tensorrt_rtx.Builder"
