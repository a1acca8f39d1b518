"""CUDA graphs: one for each shape that a profile was made for, as Triton's backend takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from support.harness.needs import needs_rtx
from support.harness.paths import GOLDEN
from support.onnx import bad_models as models
from support.programs.command import GenRepo

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.onnx_file import signature_of
from tritonsmith_generator.onnx_model.shape_tensors import with_shape_tensors
from tritonsmith_generator.pipeline.profile_set import derive_profile_set
from tritonsmith_generator.spec.schema import ModelSpec
from tritonsmith_generator.spec.targets import TARGETS
from tritonsmith_generator.triton_config.config_pbtxt import parse_config, render_config
from tritonsmith_generator.triton_config.model_config import config_for

ONE = {"words": {"min": [1, 2], "opt": [6, 8], "max": [12, 32]}}
OTHER = {"words": {"min": [2, 33], "opt": [2, 64], "max": [4, 128]}}


def config(proto: Any, target: str = "tensorrt", **options: Any) -> tuple[Any, Any]:
    spec = ModelSpec.model_validate({"onnx": "m.onnx", "cuda_graphs": True, **options})
    signature = signature_of(proto)
    profile_set = derive_profile_set(signature, spec)
    profile_set = with_shape_tensors(profile_set, proto.graph, signature, ())
    return config_for("m", TARGETS[target], signature, profile_set, spec)


def specs(proto: Any, **options: Any) -> list[dict[str, Any]]:
    found = MessageToDict(config(proto, **options)[0], preserving_proto_field_name=True)
    cuda = found["optimization"]["cuda"]
    assert cuda["graphs"] is True
    return list(cuda["graph_spec"])


def lower_bound(graph: dict[str, Any]) -> dict[str, Any]:
    return dict(graph.get("graph_lower_bound", graph))


def batches(graphs: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(int(lower_bound(g)["batch_size"]), int(g["batch_size"])) for g in graphs]


def refuse_as_triton_does(graphs: list[dict[str, Any]], largest: int) -> None:
    """The rules of the backend's InitializeGraphSpecs and ValidateGraphSpec."""
    for graph in graphs:
        lower = lower_bound(graph)
        sizes = [int(g.get("batch_size", 0)) for g in (lower, graph)]
        assert sizes == [0, 0] if not largest else 1 <= sizes[0] <= sizes[1] <= largest
        assert set(graph["input"]) == set(lower["input"])
        for name, shape in graph["input"].items():
            below = lower["input"][name].get("dim", [])
            assert len(below) == len(shape.get("dim", []))
            assert all(
                int(low) <= int(d) for low, d in zip(below, shape.get("dim", []), strict=True)
            )


def test_golden() -> None:
    """The whole file as users see it, with two profiles, an instance for each, and warmup."""
    made, notes = config(models.looking_up(), shapes=[ONE, OTHER], batching={"preferred": [3]})
    text = render_config(made, notes, ())
    assert text == (GOLDEN / "cuda_graphs.pbtxt").read_text()
    assert parse_config(text, "golden") == made


def test_every_batch_has_a_graph_and_only_one() -> None:
    graphs = specs(models.looking_up(), shapes=[ONE], batching={"preferred": [3]})
    refuse_as_triton_does(graphs, 12)
    assert batches(graphs) == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 6), (7, 8), (9, 12)]
    dims = {tuple(s["input"]["words"]["dim"]) for g in graphs for s in (g, lower_bound(g))}
    assert dims == {("8",)}, "an axis that isn't the batch was padded"


def test_a_profile_that_begins_later(tmp_path: Path) -> None:
    graphs = specs(models.looking_up(), shapes=[OTHER])
    refuse_as_triton_does(graphs, 4)
    assert batches(graphs) == [(2, 2), (3, 4)]


def test_without_batches_the_shape_is_exact() -> None:
    (graph,) = specs(models.looking_up(), batching=False, shapes=[ONE])
    refuse_as_triton_does([graph], 0)
    assert "graph_lower_bound" not in graph
    assert graph["input"]["words"]["dim"] == ["6", "8"]


@pytest.mark.parametrize("target", ["onnxruntime", pytest.param("tensorrt_rtx", marks=needs_rtx)])
def test_other_targets_are_refused(target: str, gen_repo: GenRepo, tmp_path: Path) -> None:
    models.saved(models.good())(tmp_path)
    text = f"models: {{m: {{onnx: model.onnx, target: {target}, cuda_graphs: true}}}}\n"
    (tmp_path / "models.yaml").write_text(text)
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert (outcome.code, f"needs target tensorrt, this is {target}" in outcome.err) == (1, True)


def test_other_targets_have_none() -> None:
    made, _ = config(models.good(), target="onnxruntime")  # what "auto" is without TensorRT
    assert not made.HasField("optimization")


def test_a_model_that_takes_shapes_from_values_has_none() -> None:
    values = {"min": [1, 1], "opt": [2, 3], "max": [12, 12]}
    with pytest.raises(InputError, match=r"says shapes by its values \(target\)"):
        config(models.reshaping(), shapes=[{"target": {"values": values}}])


def test_off_unless_asked_for() -> None:
    made, _ = config(models.good(), cuda_graphs=False)
    assert not made.HasField("optimization")
