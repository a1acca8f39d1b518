"""What the tests of the passes share: small graphs on disk, answers, plans."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from support.trt.engine_builds import build_engine

from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.onnx_model.onnx_file import signature_of
from tritonsmith_generator.onnx_model.profiles import ShapeRange
from tritonsmith_generator.passes.base import Pass, PassResult
from tritonsmith_generator.passes.graph.tidy import Tidy
from tritonsmith_generator.precision.emulate import emulate as emulate_model
from tritonsmith_generator.trt.request import EngineRequest

Array = np.ndarray[Any, Any]
Write = Callable[..., Path]
Apply = Callable[[Pass, Path], PassResult]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a model given in ONNX's text form (or as a protobuf), its weights by name."""
    numbers = itertools.count()

    def make(
        model: str | onnx.ModelProto,
        weights: Mapping[str, Array] | None = None,
        opset: int = 18,
        ir_version: int = 8,
    ) -> Path:
        if isinstance(model, str):
            head = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>'
            model = onnx.parser.parse_model(head + model)
        for name, array in (weights or {}).items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        path = tmp_path / f"model{next(numbers)}.onnx"
        onnx.save(model, path)
        return path

    return make


@pytest.fixture
def apply(tmp_path: Path) -> Apply:
    """Tidy a model, then apply a pass to it."""
    numbers = itertools.count()

    def run(step: Pass, model: Path) -> PassResult:
        folders = [tmp_path / f"work{next(numbers)}" for _ in range(2)]
        for folder in folders:
            folder.mkdir()
        tidied = Tidy().apply(model, folders[0]).model
        result = step.apply(tidied, folders[1])
        proto = onnx.load(result.model)
        assert [c.broken(proto) for c in step.ensures] == [None] * len(step.ensures)
        return result

    return run


@pytest.fixture
def emulate(tmp_path: Path) -> Callable[[Path], Path]:
    """The model with BF16 computed by rounding, so that ONNX Runtime can run it."""
    numbers = itertools.count()

    def run(model: Path) -> Path:
        folder = tmp_path / f"emulated{next(numbers)}"
        folder.mkdir()
        return emulate_model(model, folder)

    return run


@pytest.fixture(scope="session")
def plan() -> Callable[[Path], int]:
    """Build a plan with TensorRT for RTX (no GPU needed); its size in bytes."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")

    def build(model: Path) -> int:
        signature = signature_of(onnx_file.read(model).proto)
        profile = {
            tensor.name: ShapeRange(
                *(tuple(n if d == -1 else d for d in tensor.dims) for n in (1, 4, 8))
            )
            for tensor in signature.inputs
        }
        plan = model.with_suffix(".plan")
        request = EngineRequest("tensorrt_rtx", model, plan, (profile,))
        return build_engine(request).plan_bytes

    return build
