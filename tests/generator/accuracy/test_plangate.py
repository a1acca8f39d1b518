"""The accuracy gate on finished plans: what they answer on a GPU decides what is published.

Plans are built by TensorRT for RTX. There is no GPU here: a stand-in answers for them, right or
wrong. tests/gpu has the real ones.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.harness.needs import needs_rtx
from support.harness.paths import SIMPLENET
from support.programs.command import GenRepo
from support.trt.answering_toolchain import AnsweringToolchain

from tritonsmith_generator import ModelResult, Spec, build
from tritonsmith_generator.host.cache_dir import cache_folder
from tritonsmith_generator.trt.layers import EngineLayers

pytestmark = needs_rtx


class World:
    """A folder with a repository, and how often a plan was run for it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.repository = folder, folder / "repository"
        self.diary = folder / "diary.txt"

    def build(self, options: Mapping[str, Any], **answering: Any) -> ModelResult:
        model = {"onnx": str(SIMPLENET), "target": "tensorrt_rtx", **options}
        toolchain = AnsweringToolchain(SIMPLENET, self.diary, **answering)
        spec = Spec.model_validate({"models": {"m": model}})
        (result,) = build(spec, self.folder, self.repository, toolchain=toolchain)
        return result

    def runs(self) -> list[str]:
        return self.diary.read_text().splitlines() if self.diary.exists() else []

    def lock(self) -> Any:
        lock = json.loads((self.repository / "repository.lock.json").read_text())
        return lock["models"]["m"]

    def samples(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        np.savez(self.folder / "s.npz", input=random.random((8, 784), np.float32))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.with_name(tmp_path.name + "-cache")))
    return World(tmp_path)


def ran(result: ModelResult) -> dict[str, str]:
    return {s.stage: "; ".join(s.why) for s in result.stages if s.ran}


@pytest.mark.parametrize("precision", ["tf32", "fp16"])  # TF32 has no pass: the plan alone tells
def test_a_good_plan_is_published_with_its_figures(world: World, precision: str) -> None:
    result = world.build({"precision": precision}, factor=1.001)
    assert result.status == "built", result.error
    (line,) = [note for note in result.notes if note.startswith("plan: accuracy of")]
    limit = {"tf32": "0.005", "fp16": "0.01"}[precision]
    assert f"of 'output': relative L2 1.0e-03 (at most {limit}), largest difference" in line
    found = world.lock()["accuracy"]
    assert found["metrics"]["output"]["relative_l2"] == pytest.approx(1e-3, rel=1e-2)
    assert found["outside"] == 0
    assert world.runs() == ["[[1, 784], [3, 784]]"]  # the cases, once
    assert ran(result)["accuracy"] == "first build"


@pytest.mark.parametrize(
    ("precision", "next_one"), [("tf32", "fp32"), ("fp16", "tf32"), ("int8", "fp16")]
)
def test_a_plan_that_is_off_publishes_nothing_and_names_itself(
    world: World, precision: str, next_one: str
) -> None:
    world.samples(0)
    options = {"precision": precision, "calibration": "s.npz"}
    error = str(world.build(options, factor=1.2).error)
    assert error.startswith(f"the plan on the GPU: {precision} is not accurate enough: output 'o")
    assert "relative_l2 is 0.2, above the limit" in error
    assert f"try precision: {next_one}, " in error and "or raise accuracy.limit" in error
    assert not (world.repository / "m").exists()
    assert not (world.repository / "repository.lock.json").exists()


def test_a_graph_that_is_off_names_itself_and_no_plan_is_built(world: World) -> None:
    accuracy = {"limit": 1e-9, "fallback": False}
    error = str(world.build({"precision": "fp16", "accuracy": accuracy}).error)
    assert error.startswith("the converted graph: fp16 is not accurate enough: output 'output': ")
    assert not world.runs()


def test_what_was_published_stays_when_the_next_plan_is_off(world: World) -> None:
    assert world.build({}).status == "built"
    before = {p: p.read_bytes() for p in world.repository.rglob("*") if p.is_file()}
    assert world.build({"precision": "fp16"}, factor=1.2).status == "failed"
    assert {p: p.read_bytes() for p in world.repository.rglob("*") if p.is_file()} == before


# SimpleNet's graph in INT8 is 0.006 off, with two of its three layers in FP16 0.0026.
QUANTIZED = {"precision": "int8", "calibration": "s.npz"}


def test_a_plan_that_alone_is_off_is_built_again_of_a_graph_that_is_nearer(world: World) -> None:
    world.samples(0)
    result = world.build(QUANTIZED, apart=30)
    assert result.status == "built", result.error
    missed, *notes = result.notes
    assert missed.startswith("plan: output 'output': relative_l2 is 0.17")
    assert "above the limit 0.1; its graph was converted again, with a relative L2 of at" in missed
    assert any(note.startswith("kept in FP32 so that the accuracy gate passes") for note in notes)
    assert world.lock()["accuracy"]["metrics"]["output"]["relative_l2"] < 0.1
    assert len(world.runs()) == 2
    whys = [stage.why for stage in result.stages if stage.stage == "conversion"]
    assert whys[0] == ("first build",)
    assert "".join(whys[1]).startswith("relative L2 of the graph, for the plan's sake unset -> 0.0")
    assert world.build(QUANTIZED, apart=30).status == "unchanged"


def test_what_was_found_for_a_plan_is_not_searched_again(world: World) -> None:
    """Not even where the cache is gone: the plan that is published is of that graph."""
    world.samples(0)
    assert world.build(QUANTIZED, apart=30).status == "built"
    shutil.rmtree(cache_folder("stages"))
    result = world.build({**QUANTIZED, "batching": {"max_delay_us": 7}}, apart=30)
    assert (result.status, set(ran(result))) == ("built", {"cases", "conversion", "config.pbtxt"})
    assert [stage.stage for stage in result.stages].count("conversion") == 1
    assert len(world.runs()) == 2
    world.samples(1)  # what was found was found for others
    result = world.build(QUANTIZED, apart=20)
    assert [stage.stage for stage in result.stages].count("conversion") == 2, result.error


def test_who_wants_all_nodes_converted_gets_no_other_plan(world: World) -> None:
    world.samples(0)
    result = world.build({**QUANTIZED, "accuracy": {"fallback": False}}, apart=30)
    assert "no nodes were found" not in str(result.error)
    assert ", keep layers in FP32, or raise accuracy.limit" in str(result.error), result.error
    assert len(world.runs()) == 1
    assert not world.repository.exists() or not [*world.repository.iterdir()]


@pytest.mark.parametrize(
    ("apart", "factor", "builds"),
    [(30, 1.3, " (1 more built)"), (3000, 1.0, "")],
    ids=["some of it is TensorRT's own", "no graph is near enough"],
)
def test_a_plan_that_no_graph_makes_good_is_told(
    world: World, apart: float, factor: float, builds: str
) -> None:
    world.samples(0)
    options = {**QUANTIZED, "accuracy": {"limit": 0.25}}
    result = world.build(options, apart=apart, factor=factor)
    error = str(result.error)
    assert error.startswith("the plan on the GPU: int8 is not accurate enough: output 'output': ")
    told = "; no nodes were found that make up for it when they are kept in FP32"
    assert f"{told}{builds}; try precision: fp16, " in error
    assert "or keep layers" not in error
    assert not (world.repository / "m").exists()


@pytest.mark.parametrize(
    "options", [{"precision": "tf32"}, {"sparse": True, "accuracy": {"limit": 0.9}}]
)
def test_where_no_node_changes_its_precision_none_is_looked_for(
    world: World, options: Mapping[str, Any]
) -> None:
    error = str(world.build(options, apart=100, factor=1.01).error)
    assert error.startswith("the plan on the GPU: "), error
    assert "no nodes were found" not in error
    assert len(world.runs()) == 1


def test_a_dry_run_converts_no_graph_for_a_plan_that_is_off(world: World) -> None:
    world.samples(0)
    assert world.build(QUANTIZED, apart=3000).status == "failed"  # the plan is in the cache
    model = {"onnx": str(SIMPLENET), "target": "tensorrt_rtx", **QUANTIZED}
    spec = Spec.model_validate({"models": {"m": model}})
    toolchain = AnsweringToolchain(SIMPLENET, world.diary, apart=3000)
    (result,) = build(spec, world.folder, world.repository, toolchain=toolchain, dry_run=True)
    assert result.status == "planned", result.error
    assert ran(result)["conversion"].startswith("relative L2 of the graph, for the plan's sake")
    assert len(world.runs()) == 1


def test_a_precision_that_nobody_can_tell_is_no_pass(world: World) -> None:
    """And it is said again for a plan that is in the cache."""
    hidden = EngineLayers({"Myelin": 2, "gemm": 1}, {"unknown": 2, "fp32": 1})
    for options in ({}, {"batching": {"max_delay_us": 7}}):
        result = world.build({"precision": "fp16", **options}, layers=hidden)
        assert result.status == "built", result.error
        assert result.warnings == (
            "plan: precision fp16 is not proven: 2 of 3 layers that compute are graphs compiled as "
            "one, into which TensorRT's inspector does not look (2 compiled as one, 1 in fp32)",
        )
    shutil.rmtree(cache_folder("stages"))
    shutil.rmtree(world.repository)
    shown = EngineLayers({"gemm": 3}, {"fp16": 2, "fp32": 1})
    result = world.build({"precision": "fp16"}, layers=shown)
    assert (result.status, result.warnings) == ("built", ()), result.error
    assert "plan: layers by precision: 2 in fp16, 1 in fp32" in result.notes
    assert not any("not proven" in note for note in result.notes)


def test_a_limit_is_judged_again_without_building_or_running(world: World) -> None:
    assert world.build({"precision": "tf32"}, factor=1.02).status == "failed"
    assert world.build({"precision": "tf32"}, factor=1.02).status == "failed"
    result = world.build({"precision": "tf32", "accuracy": {"limit": 0.03}}, factor=1.02)
    assert result.status == "built", result.error
    assert set(ran(result)) == {"config.pbtxt"}
    assert len(world.runs()) == 1
    again = world.build({"precision": "tf32", "accuracy": {"limit": 0.01}}, factor=1.02)
    assert again.status == "failed"
    assert len(world.runs()) == 1


def test_other_samples_are_asked_of_the_plan_that_is_there(world: World) -> None:
    options = {"accuracy": {"samples": "s.npz"}}
    world.samples(0)
    assert world.build(options).status == "built"
    assert world.build({**options, "batching": {"max_delay_us": 7}}).status == "built"
    assert len(world.runs()) == 1
    world.samples(1)
    result = world.build(options)
    assert set(ran(result)) == {"cases", "accuracy", "config.pbtxt"}
    assert ran(result)["accuracy"] == "cases: other bytes"
    assert len(world.runs()) == 2
    world.samples(2)
    assert world.build(options, factor=1.2).status == "failed"


def test_without_the_cache_what_is_published_counts(world: World) -> None:
    assert world.build({}).status == "built"
    shutil.rmtree(cache_folder("stages"))
    result = world.build({"batching": {"max_delay_us": 7}})
    assert (result.status, set(ran(result))) == ("built", {"cases", "config.pbtxt"})
    assert len(world.runs()) == 1
    assert "metrics" in world.lock()["accuracy"]


def test_a_plan_that_does_not_run_is_a_failure_that_says_how_to_go_on(world: World) -> None:
    failure = "cuMemAlloc_v2 of the CUDA driver failed: out of memory (CUDA error 2)"
    result = world.build({}, failure=failure)
    error = str(result.error)
    assert error.startswith(f"the plan was built, but it does not run on this GPU: {failure}\n")
    assert "accuracy.plan: false publishes the plan without this comparison" in error
    assert result.error is not None and result.error.exit_code == 3
    assert not (world.repository / "m").exists()
    again = world.build({})  # there is memory now
    assert again.status == "built" and set(ran(again)) == {"accuracy", "config.pbtxt"}


def test_who_does_not_want_it_gets_the_plan_all_the_same(world: World) -> None:
    result = world.build({"accuracy": {"plan": False}}, failure="broken")
    assert result.status == "built", result.error
    note = "plan: its answers were not compared with ONNX Runtime's: accuracy.plan is false"
    assert note in result.notes
    assert not world.runs() and not world.lock()["accuracy"]


def test_tf32_that_was_asked_for_is_judged_as_such(world: World) -> None:
    error = str(world.build({}, factor=1.001).error)
    assert "fp32 is not accurate enough" in error
    assert "report this model: the precision is not at fault, or raise accuracy.limit" in error
    shutil.rmtree(cache_folder("stages"))
    result = world.build({"builder": {"tf32": True}}, factor=1.001)
    assert result.status == "built", result.error


def test_cases_outside_of_all_profiles_are_left_out(world: World) -> None:
    result = world.build({}, rows=1)
    assert result.status == "built", result.error
    assert "plan: 1 of 2 cases were not compared: no profile allows them" in result.notes
    shutil.rmtree(cache_folder("stages"))
    shutil.rmtree(world.repository)
    result = world.build({}, rows=0)
    assert result.status == "built", result.error
    (note,) = [note for note in result.notes if "were not compared" in note]
    assert note.endswith("no profile allows the shapes of any of the samples")


def test_outputs_of_another_shape_are_no_answers(world: World) -> None:
    error = str(world.build({}, cut=1).error)
    assert error.startswith("the plan on the GPU, compared with ONNX Runtime: an output has shape ")
    assert "accuracy.plan: false" in error


def test_weights_that_are_streamed_are_left_to_the_server(world: World) -> None:
    result = world.build({"builder": {"weight_streaming": True}})
    assert result.status == "built", result.error
    (note,) = [note for note in result.notes if "were not compared" in note]
    assert ": builder.weight_streaming: how much of its weights" in note
    assert not world.runs()


def test_a_dry_run_tells_that_it_would_be_run_and_runs_nothing(world: World) -> None:
    model = {"onnx": str(SIMPLENET), "target": "tensorrt_rtx"}
    spec = Spec.model_validate({"models": {"m": model}})
    toolchain = AnsweringToolchain(SIMPLENET, world.diary)
    (result,) = build(spec, world.folder, world.repository, toolchain=toolchain, dry_run=True)
    assert ran(result)["accuracy"] == "its input comes from plan"
    assert not world.runs()


def test_without_a_gpu_the_summary_says_so_once(gen_repo: GenRepo) -> None:
    model = f"{{onnx: '{SIMPLENET}', target: tensorrt_rtx, shapes: [{profile(1)}, {profile(9)}]}}"
    Path("models.yaml").write_text(f"models: {{m: {model}}}\n")
    outcome = gen_repo("models.yaml", "-o", "repository", "--explain")
    assert outcome.code == 0, outcome
    assert outcome.out.count("not compared") == 1
    assert "there is no GPU here; gen-repo check --live does it where one is" in outcome.out
    assert "accuracy:" not in outcome.out and "not proven" not in outcome.out
    Path("models.yaml").write_text(f"models: {{m: {model[:-1]}, precision: fp16}}}}\n")
    told = gen_repo("models.yaml", "-o", "repository").out
    assert "m: plan: precision fp16 is not proven: it takes a GPU to look into the plan\n" in told
    assert "warning" not in told


def profile(smallest: int) -> str:
    return f"{{input: {{min: [{smallest}, 784], opt: [9, 784], max: [16, 784]}}}}"
