"""Whole networks as PyTorch exports them: a CNN, a recurrent net, a vision transformer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.harness.paths import MODEL_REPOSITORY as REPOSITORY

from tritonsmith_generator import Export, export
from tritonsmith_generator.accuracy.gate import LIMITS, Limits, gate
from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.passes import Options, Samples, for_precision, run
from tritonsmith_generator.precision.search import answers

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

Plan = Callable[[Path], int]


def mobilenet() -> Export:
    spec = importlib.util.spec_from_file_location("mobilenet_v2", REPOSITORY / "mobilenet_v2.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.mobilenet_v2()
    assert isinstance(made, Export)
    return made


def recurrent() -> Export:
    class Recurrent(torch.nn.Module):  # type: ignore[misc, name-defined]  # importorskip
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(32, 16, batch_first=True, bidirectional=True)
            self.gru = torch.nn.GRU(32, 16, batch_first=True)
            self.head = torch.nn.Linear(16, 4)

        def forward(self, x: Any) -> Any:
            return self.head(self.gru(self.lstm(x)[0])[0])

    return Export(Recurrent(), {"x": torch.randn(2, 10, 32)}, {"x": {0: "batch"}}, ["y"])


def transformer() -> Export:
    class Vision(torch.nn.Module):  # type: ignore[misc, name-defined]  # importorskip
        def __init__(self) -> None:
            super().__init__()
            self.patches = torch.nn.Conv2d(3, 64, 8, 8)
            self.positions = torch.nn.Parameter(torch.randn(1, 16, 64) * 0.02)
            self.layer = torch.nn.TransformerEncoderLayer(64, 4, 128, 0.0, "gelu", batch_first=True)
            self.head = torch.nn.Linear(64, 10)

        def forward(self, image: Any) -> Any:
            x = self.patches(image).flatten(2).transpose(1, 2) + self.positions
            return self.head(self.layer(self.layer(x)).mean(1))

    return Export(
        Vision().eval(), {"image": torch.randn(2, 3, 32, 32)}, {"image": {0: "batch"}}, ["y"]
    )


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export(request.param(), path)
    return path


@pytest.mark.parametrize("model", [mobilenet, recurrent, transformer], indirect=True)
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_converted_within_limits_and_built(
    model: Path, precision: Any, plan: Plan, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    tensors = onnx_file.signature_of(onnx_file.read(model).proto).inputs
    sizes = {t.name: tuple(8 if d == -1 else d for d in t.dims) for t in tensors}
    samples = {n: rng.standard_normal(s).astype(np.float32) for n, s in sizes.items()}
    np.savez(tmp_path / "s.npz", allow_pickle=False, **samples)
    options = Options(samples=Samples(str(tmp_path / "s.npz")))
    recipe = for_precision(precision, "tensorrt_rtx", "1.7", options)
    result = run(recipe.passes, model, tmp_path)
    got = answers(result.model, [samples], tmp_path)
    limit = LIMITS[precision].relative_l2 or 0
    if "image" in sizes and sizes["image"][-1] == 224:
        limit *= 4  # MobileNetV2's weights are random: each of its 52 layers amplifies rounding
    want = answers(model, [samples], tmp_path)
    gate(want, got, Limits(relative_l2=limit), precision).raise_if_failed()
    assert plan(result.model) > 0
