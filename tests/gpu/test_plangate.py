"""The accuracy gate on finished plans, with the GPU's own answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.harness.paths import SIMPLENET
from support.onnx import gpu_models

from tritonsmith_generator import ModelResult, Spec, build
from tritonsmith_generator.accuracy.gate import limits_for
from tritonsmith_generator.engine.installed import tensorrt_releases
from tritonsmith_generator.host.cache_dir import cache_folder

Ends = dict[str, tuple[int, list[Any]]]
TWO_PROFILES = [
    {"ids": {"min": [1, 1], "opt": [8, 16], "max": [32, 32]}},
    {"ids": {"min": [1, 33], "opt": [1, 64], "max": [4, 128]}},
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that another test has built and run would be neither here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def built(folder: Path, model: dict[str, Any]) -> ModelResult:
    # TensorRT 8.6 is tested without cuBLAS and cuDNN, which its other tactics would call.
    old = not tensorrt_releases()[0].strongly_typed
    tactics = {"tactic_sources": ["edge_mask_convolutions", "jit_convolutions"]} if old else {}
    given = {"target": "tensorrt", **model, "builder": {**tactics, **model.get("builder", {})}}
    spec = Spec.model_validate({"models": {"m": given}})
    (result,) = build(spec, folder, folder / "repository")
    return result


def measured(folder: Path) -> Any:
    lock = json.loads((folder / "repository/repository.lock.json").read_text())
    return lock["models"]["m"]["accuracy"]


def stage(result: ModelResult, name: str) -> Any:
    return next(stage for stage in result.stages if stage.stage == name)


def save(folder: Path, nodes: list[tuple[str, str, str]], ends: Ends) -> str:
    """Of the ends, those that no node writes are inputs."""
    made = {name for _, _, outputs in nodes for name in outputs.split()}
    values = [helper.make_tensor_value_info(name, *end) for name, end in ends.items()]
    graph = helper.make_graph(
        [helper.make_node(op, ins.split(), outs.split()) for op, ins, outs in nodes],
        "m",
        [value for value in values if value.name not in made],
        [value for value in values if value.name in made],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "m.onnx")
    return "m.onnx"


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("simplenet", "fp32"),
        ("simplenet", "tf32"),
        ("simplenet", "int8"),
        ("simplenet", "fp16"),
        ("encoder", "fp16"),
        ("encoder", "int8"),
    ],
)
def test_a_good_plan_passes(
    tmp_path: Path, name: str, precision: Any, figure: Callable[..., None]
) -> None:
    old = not tensorrt_releases()[0].strongly_typed
    if old and (name, precision) == ("simplenet", "fp16"):
        pytest.skip("TensorRT 8.6 finds FP32 kernels quicker here, which is refused: test_served")
    random = np.random.default_rng(0)
    if name == "simplenet":
        model: dict[str, Any] = {"onnx": str(SIMPLENET)}
        np.savez(tmp_path / "s.npz", input=random.random((16, 784), np.float32))
    else:
        gpu_models.encoder(tmp_path / "encoder.onnx", layers=2, width=64)
        model = {"onnx": "encoder.onnx", "shapes": TWO_PROFILES}
        np.savez(tmp_path / "s.npz", ids=random.integers(0, 1000, (16, 24)).astype(np.int32))
    sampled = {"accuracy": {"samples": "s.npz"}} if precision == "int8" else {}
    result = built(tmp_path, {**model, "precision": precision, **sampled})
    assert result.error is None, result.error
    assert any(note.startswith("plan: accuracy of '") for note in result.notes), result.notes
    found = measured(tmp_path)
    (metrics,) = found["metrics"].values()
    limit = limits_for(precision).relative_l2
    assert limit is not None
    # What ran is the plan, and not the graph once more: on the GPU nothing is bit for bit the same.
    assert 0 < metrics["relative_l2"] < limit
    assert found["outside"] == 0
    plan, accuracy = stage(result, "plan"), stage(result, "accuracy")
    figure(
        gate_on_plan=name,
        precision=precision,
        relative_l2=metrics["relative_l2"],
        plan_stage_s=plan.seconds,
        accuracy_stage_s=accuracy.seconds,
        ratio=accuracy.seconds / plan.seconds,
    )


def test_a_plan_beyond_its_limit_publishes_nothing(tmp_path: Path) -> None:
    """TF32 has no pass: ONNX Runtime could not have seen it."""
    model = {"onnx": str(SIMPLENET), "precision": "tf32"}
    result = built(tmp_path, {**model, "accuracy": {"limit": 1e-12}})
    error = str(result.error)
    assert error.startswith("the plan on the GPU: tf32 is not accurate enough: output 'output'")
    assert "try precision: fp32" in error
    assert not (tmp_path / "repository" / "m").exists()
    assert not (tmp_path / "repository" / "repository.lock.json").exists()
    again = built(tmp_path, model)  # the plan is there, and so is what it answered
    assert again.error is None, again.error
    assert not stage(again, "plan").ran and not stage(again, "accuracy").ran


def test_other_samples_are_asked_of_the_plan_that_is_there(tmp_path: Path) -> None:
    model = {"onnx": str(SIMPLENET), "accuracy": {"samples": "s.npz"}}
    for seed in (0, 1):
        images = np.random.default_rng(seed).random((8, 784), np.float32)
        np.savez(tmp_path / "s.npz", input=images)
        result = built(tmp_path, model)
        assert result.error is None, result.error
        assert stage(result, "accuracy").ran
        assert stage(result, "plan").ran == (seed == 0)
    assert "metrics" in measured(tmp_path)
    assert len([*(cache_folder("stages") / "plan").glob("*/model.plan")]) == 1


def test_types_and_an_output_whose_shape_follows_from_data(tmp_path: Path) -> None:
    ends: Ends = {
        "x": (TensorProto.FLOAT, ["n"]),
        "half": (TensorProto.FLOAT16, ["n"]),
        "count": (TensorProto.INT64, ["n"]),
        "sum": (TensorProto.FLOAT16, ["n"]),
        "total": (TensorProto.INT64, ["n"]),
        "where": (TensorProto.INT64, [1, "k"]),
    }
    nodes = [
        ("Add", "half half", "sum"),
        ("Add", "count count", "total"),
        ("Relu", "x", "positive"),
        ("NonZero", "positive", "where"),
    ]
    path = save(tmp_path, nodes, ends)
    shapes = {name: {"min": [1], "opt": [16], "max": [64]} for name in ("x", "half", "count")}
    result = built(tmp_path, {"onnx": path, "batching": False, "shapes": shapes})
    assert result.error is None, result.error
    assert set(measured(tmp_path)["metrics"]) == {"sum", "total", "where"}


def test_values_that_say_shapes(tmp_path: Path) -> None:
    ends: Ends = {
        "x": (TensorProto.FLOAT, ["n", 12]),
        "to": (TensorProto.INT64, [2]),
        "y": (TensorProto.FLOAT, ["a", "b"]),
    }
    path = save(tmp_path, [("Reshape", "x to", "y")], ends)
    shapes = {
        "x": {"min": [1, 12], "opt": [2, 12], "max": [4, 12]},
        "to": {"values": {"min": [1, 12], "opt": [2, 12], "max": [4, 12]}},
    }
    result = built(tmp_path, {"onnx": path, "batching": False, "shapes": shapes})
    assert result.error is None, result.error
    assert "metrics" in measured(tmp_path)
