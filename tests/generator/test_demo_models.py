"""Every model of the demo in every precision: converted, gated in ONNX Runtime, compiled for RTX.

FP8 and INT4 need NVIDIA ModelOpt and are left out without it; MobileNetV2 is exported where
PyTorch is installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from support.command import GenRepo
from support.needs import needs

from tritonsmith_generator import Spec, build, export
from tritonsmith_generator.onnx_model.case_file import case_path, load_cases
from tritonsmith_generator.spec.builder_options import Precision

MODELS = Path(__file__).parents[2] / "model_repository"
ON_ONNXRUNTIME = ("fp32", "fp16", "int8")
# Constant weights let their activations grow beyond FP16's largest number, which the gate sees.
OVERFLOWING = dict.fromkeys(("light_resnet50", "light_squeezenet"), "NaN or infinite")
# They have convolutions only, or make the weight of their one Gemm as they run.
WITHOUT_LAYERS = dict.fromkeys(
    ("light_densenet121", "light_resnet50", "light_squeezenet"), "nothing can be quantized to INT4"
)
# What is refused, and why
REFUSED = {
    ("tensorrt_rtx", "fp16"): OVERFLOWING,
    ("tensorrt_rtx", "int8"): OVERFLOWING,
    ("tensorrt_rtx", "fp8"): OVERFLOWING,
    ("tensorrt_rtx", "int4"): WITHOUT_LAYERS,
    ("onnxruntime", "fp16"): OVERFLOWING,
}
NEEDS = {"fp8": ("modelopt",), "int4": ("modelopt",)}

ModelSpecs = dict[str, dict[str, Any]]


def combinations() -> Iterator[Any]:
    for precision in get_args(Precision):
        needed = needs("tensorrt_rtx", *NEEDS.get(precision, ()))
        yield pytest.param("tensorrt_rtx", precision, marks=[needed, pytest.mark.soak])
        if precision in ON_ONNXRUNTIME:
            soak = () if precision == "fp16" else pytest.mark.soak
            yield pytest.param("onnxruntime", precision, marks=soak)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> ModelSpecs:
    """The specs of models.yaml, each source once, with inputs to calibrate with."""
    folder = tmp_path_factory.mktemp("demo")
    specs: ModelSpecs = {}
    for name, spec in yaml.safe_load((MODELS / "models.yaml").read_text())["models"].items():
        if not spec["onnx"].startswith("package:"):
            spec["onnx"] = str(MODELS / spec["onnx"])
        specs.setdefault(spec["onnx"], {}).update({**spec, "name": name})
    if find_spec("torch") and find_spec("onnxscript"):
        onnx = folder / "mobilenet_v2.onnx"
        export(f"{MODELS / 'mobilenet_v2.py'}:mobilenet_v2", onnx)
        # Its random weights amplify rounding, by more in one release of PyTorch than in another.
        lenient = {"accuracy": {"limit": 0.5}}
        specs[str(onnx)] = {"name": "mobilenet_v2", "onnx": str(onnx), **lenient}
    models = {spec.pop("name"): {**spec, "target": "onnxruntime"} for spec in specs.values()}
    results = build(Spec.model_validate({"models": models}), folder, folder / "repository")
    assert [result.error for result in results if result.error] == []
    for name, spec in models.items():
        recorded = load_cases(case_path(folder / "repository" / name, 1))[-1]
        np.savez(folder / f"{name}.npz", allow_pickle=False, **recorded.inputs)
        spec["calibration"] = str(folder / f"{name}.npz")
    return models


@pytest.mark.parametrize(("library", "precision"), list(combinations()))
def test_every_model_in_every_precision(
    library: str, precision: str, demo: ModelSpecs, gen_repo: GenRepo, tmp_path: Path
) -> None:
    models = {
        name: {
            **spec,
            "target": library,
            "precision": precision,
            # Otherwise nodes would be kept in FP32 where the gate fails.
            "accuracy": {**spec.get("accuracy", {}), "fallback": False},
        }
        for name, spec in demo.items()
    }
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": models}))
    built = {m["model"]: m for m in json.loads(gen_repo("models.yaml", "--json").out)}
    assert set(built) == set(demo) >= {"simplenet_rtx", "text_encoder", "light_densenet121"}
    errors = {name: model["error"] for name, model in built.items() if model["error"]}
    refused = REFUSED.get((library, precision), {})
    assert set(errors) == set(refused), errors
    file = "model.onnx" if library == "onnxruntime" else "model.plan"
    for name, model in built.items():
        if name in refused:
            assert refused[name] in errors[name]
            assert re.search("(try|use) precision", errors[name])
            assert not (tmp_path / "model_repository" / name).exists()
        else:
            assert (tmp_path / "model_repository" / name / "1" / file).stat().st_size > 1000
            # Nothing is converted for these two: what is measured is the original.
            converted = precision not in ("fp32", "tf32")
            assert ("accuracy of" in " ".join(model["notes"])) == converted, name
    assert gen_repo("check", "model_repository").code == 0
