"""A spec of one model in some precision, and models that some precisions spoil."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from support.harness.paths import MODEL_REPOSITORY as MODELS
from support.onnx import bad_models as models
from support.programs.command import Outcome


def spec(tmp_path: Path, options: str, source: Path = MODELS / "simplenet.onnx") -> None:
    (tmp_path / "models.yaml").write_text(f"models: {{m: {{onnx: '{source}', {options}}}}}\n")


def save_samples(path: Path) -> Path:
    np.savez(path, input=np.random.default_rng(0).random((32, 784), np.float32))
    return path


def built(outcome: Outcome) -> dict[str, Any]:
    assert outcome.code == 0, outcome
    (model,) = json.loads(outcome.out)
    return dict(model)


def overflowing(large: float = 1e5) -> onnx.ModelProto:
    """Between the first two layers the values are beyond FP16's largest number."""
    names = ("large", "small", "plain")
    weights = [
        numpy_helper.from_array(np.full((4, 4), value, np.float32), name)
        for name, value in zip(names, (large, 1 / large, 0.1), strict=True)
    ]
    tensors = ("x", "h", "g", "y")
    nodes = [
        helper.make_node("MatMul", [tensors[i], name], [tensors[i + 1]], f"by_{name}")
        for i, name in enumerate(names)
    ]
    return models.model(nodes, weights=weights)
