"""``gen-repo build``: what is out of date is built, the rest is left alone."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.harness.needs import needs_rtx
from support.onnx import bad_models as models
from support.programs.command import GenRepo

from tritonsmith_generator.onnx_model.case_file import case_path, largest_difference, load_cases
from tritonsmith_generator.onnx_model.reference import run

SPEC = "models: {m: {onnx: model.onnx, target: onnxruntime, batching: {max: %s}}}\n"


def linear(value: float) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.full((4, 4), value, np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], "m")
    return models.model([node], weights=[weight])


def built(gen_repo: GenRepo, *options: str) -> dict[str, Any]:
    outcome = gen_repo("models.yaml", "-o", "repository", "--json", *options)
    assert outcome.code == 0, outcome
    (model,) = json.loads(outcome.out)
    return dict(model)


@pytest.fixture
def source(gen_repo: GenRepo, tmp_path: Path) -> Path:
    (tmp_path / "models.yaml").write_text(SPEC % 4)
    return models.saved(linear(1.0))(tmp_path)


def test_only_what_changed_is_rebuilt(gen_repo: GenRepo, source: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    assert built(gen_repo)["status"] == "built"
    before = {p: p.stat() for p in repository.rglob("*") if p.is_file()}
    assert built(gen_repo)["status"] == "unchanged"
    assert {p: p.stat().st_mtime_ns for p in before} == {
        p: s.st_mtime_ns for p, s in before.items()
    }

    (tmp_path / "models.yaml").write_text(SPEC % 8)
    second = built(gen_repo)
    assert second["version"] == 1  # the model is the same, its config is not
    assert second["files"]["m/config.pbtxt"] == "replace"
    assert second["files"]["m/1/model.onnx"] == "identical"

    models.saved(linear(2.0))(tmp_path)
    third = built(gen_repo)
    assert third["version"] == 2
    assert third["files"]["m/2/model.onnx"] == "create"
    assert (repository / "m/1/model.onnx").exists()
    assert gen_repo("check", "repository").code == 0


def test_a_build_with_nothing_to_do_imports_nothing_heavy(
    gen_repo: GenRepo, source: Path, tmp_path: Path
) -> None:
    """Together they take longer than to look at a hundred models."""
    built(gen_repo)
    for name in ("numpy", "onnx", "onnxruntime", "tritonclient", "tensorrt", "tensorrt_rtx"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('{name} is imported')\n")
    command = [sys.executable, "-m", "tritonsmith_generator", "models.yaml", "-o", "repository"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, "up to date" in done.stdout) == (0, True), done.stderr


def test_an_untouched_copy_of_the_source_is_the_same_source(
    gen_repo: GenRepo, source: Path
) -> None:
    built(gen_repo)
    source.write_bytes(source.read_bytes())  # other time, same bytes: as after a git clone
    assert built(gen_repo)["status"] == "unchanged"


def test_a_copied_repository_is_up_to_date(gen_repo: GenRepo, source: Path, tmp_path: Path) -> None:
    built(gen_repo)
    for path in (tmp_path / "repository").rglob("*"):
        os.utime(path, (0, 0))
    assert built(gen_repo)["status"] == "unchanged"


def test_a_lost_lock_rebuilds_nothing(gen_repo: GenRepo, source: Path, tmp_path: Path) -> None:
    built(gen_repo)
    (tmp_path / "repository/repository.lock.json").unlink()
    again = built(gen_repo)
    assert again["version"] == 1
    assert set(again["files"].values()) == {"identical"}


def test_where_a_repository_goes_by_default(gen_repo: GenRepo, tmp_path: Path) -> None:
    """A spec in a folder called model_repository describes that one; a model there does not."""
    elsewhere = tmp_path / "elsewhere/model_repository"
    elsewhere.mkdir(parents=True)
    models.saved(linear(1.0))(elsewhere)
    (elsewhere / "models.yaml").write_text(SPEC % 4)
    assert gen_repo(elsewhere / "model.onnx", "--target", "onnxruntime").code == 0
    assert [p.name for p in (tmp_path / "model_repository").iterdir() if p.is_dir()] == ["model"]
    assert gen_repo(elsewhere / "models.yaml").code == 0
    assert [p.name for p in elsewhere.iterdir() if p.is_dir()] == ["m"]


def test_dry_run_writes_nothing(gen_repo: GenRepo, source: Path, tmp_path: Path) -> None:
    plan = built(gen_repo, "--dry-run")
    assert plan["status"] == "planned"
    assert set(plan["files"].values()) == {"create"}
    assert not (tmp_path / "repository").exists()
    outcome = gen_repo("models.yaml", "-o", "repository", "--dry-run")
    assert "create    m/config.pbtxt" in outcome.out
    assert "Nothing was written to repository (dry run)." in outcome.out


def test_a_config_changed_by_hand_is_not_lost(
    gen_repo: GenRepo, source: Path, tmp_path: Path
) -> None:
    built(gen_repo)
    config = tmp_path / "repository/m/config.pbtxt"
    by_hand = config.read_text() + "# mine\n"
    config.write_text(by_hand)
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert outcome.code == 1
    assert "m/config.pbtxt: the file was changed since gen-repo wrote it" in outcome.err
    assert config.read_text() == by_hand
    assert built(gen_repo, "--force")["status"] == "built"
    assert "# mine" not in config.read_text()


def test_a_pinned_version_that_exists(gen_repo: GenRepo, source: Path, tmp_path: Path) -> None:
    spec = tmp_path / "models.yaml"
    spec.write_text("models: {m: {onnx: model.onnx, target: onnxruntime, version: 7}}\n")
    assert built(gen_repo)["version"] == 7
    models.saved(linear(2.0))(tmp_path)
    outcome = gen_repo("models.yaml", "-o", "repository", "--force")
    assert outcome.code == 1
    assert "m/7/model.onnx holds other bytes, and versions are immutable" in outcome.err


def test_one_failure_does_not_stop_the_others(
    gen_repo: GenRepo, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "models.yaml").write_text(
        "defaults: {target: onnxruntime}\n"
        "models:\n  gone: {onnx: gone.onnx}\n  m: {onnx: model.onnx}\n"
    )
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert outcome.code == 1
    assert "failed gone: " in outcome.out and "no such model file" in outcome.out
    assert (tmp_path / "repository/m/1/model.onnx").exists()
    assert not (tmp_path / "repository/gone").exists()


def test_only_some_models(gen_repo: GenRepo, source: Path) -> None:
    outcome = gen_repo("models.yaml", "-o", "repository", "--only", "n")
    assert outcome.code == 1
    assert "the spec has no model 'n'; it has: m" in outcome.err


def test_options_of_one_file_are_refused_with_a_spec(gen_repo: GenRepo, source: Path) -> None:
    outcome = gen_repo("models.yaml", "--target", "onnxruntime")
    assert outcome.code == 2
    assert "with a spec, write them into the spec" in outcome.err


def test_weights_in_other_files_come_along(gen_repo: GenRepo, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "weights").mkdir(parents=True)
    models.external("weights/w.bin", 64)(source)
    outcome = gen_repo(source / "model.onnx", "--target", "onnxruntime", "-o", "repository")
    assert outcome.code == 0, outcome
    copied = tmp_path / "repository/model/1"
    assert (copied / "weights/w.bin").read_bytes() == bytes(64)
    x = np.ones((2, 4), np.float32)
    assert np.array_equal(run(copied / "model.onnx", {"x": x})["y"], np.zeros((2, 4)))
    (source / "weights/w.bin").write_bytes(np.ones(16, np.float32).tobytes())
    again = gen_repo(source / "model.onnx", "--target", "onnxruntime", "-o", "repository")
    assert "built" in again.out  # a changed weight file is a changed model
    assert (tmp_path / "repository/model/2/weights/w.bin").exists()


def test_cases_are_what_onnx_runtime_answers(gen_repo: GenRepo, tmp_path: Path) -> None:
    models.saved(linear(3.0))(tmp_path)
    gen_repo("model.onnx", "--target", "onnxruntime", "--shape", "x=1x4:2x4:8x4")
    folder = tmp_path / "model_repository/model"
    cases = load_cases(case_path(folder, 1))
    assert [case.inputs["x"].shape for case in cases] == [(1, 4), (3, 4)]
    for case in cases:
        assert np.array_equal(case.outputs["y"], run(folder / "1/model.onnx", case.inputs)["y"])


@needs_rtx
def test_two_profiles_reach_the_config_of_a_plan(gen_repo: GenRepo, tmp_path: Path) -> None:
    models.saved(linear(1.0))(tmp_path)
    (tmp_path / "models.yaml").write_text(
        "models:\n  m:\n    onnx: model.onnx\n    target: tensorrt_rtx\n    shapes:\n"
        "      - x: {min: [1, 4], opt: [1, 4], max: [2, 4]}\n"
        "      - x: {min: [1, 4], opt: [8, 4], max: [16, 4]}\n"
    )
    model = built(gen_repo)
    assert model["files"]["m/1/model.plan"] == "create"
    config = (tmp_path / "repository/m/config.pbtxt").read_text()
    assert 'profile: [ "0", "1" ]' in config
    assert "max_batch_size: 16" in config
    assert (tmp_path / "repository/m/1/model.plan").stat().st_size > 10_000
    assert built(gen_repo)["status"] == "unchanged"


@needs_rtx
def test_a_plan_is_compiled_once(gen_repo: GenRepo, source: Path, tmp_path: Path) -> None:
    """Another batching delay or another repository needs no other plan."""
    spec = "models: {m: {onnx: model.onnx, target: tensorrt_rtx, batching: {max_delay_us: %d}}}\n"
    (tmp_path / "models.yaml").write_text(spec % 100)
    first = gen_repo("models.yaml", "-o", "repository")
    assert "m: compiling the plan" in first.err
    plan = (tmp_path / "repository/m/1/model.plan").read_bytes()
    (tmp_path / "models.yaml").write_text(spec % 200)
    assert "compiling" not in gen_repo("models.yaml", "-o", "repository").err
    assert "compiling" not in gen_repo("models.yaml", "-o", "elsewhere").err
    assert (tmp_path / "elsewhere/m/1/model.plan").read_bytes() == plan
    assert (
        "max_queue_delay_microseconds: 200" in (tmp_path / "repository/m/config.pbtxt").read_text()
    )


def test_errors_of_the_command_line(gen_repo: GenRepo) -> None:
    assert gen_repo("build").code == 2
    assert gen_repo("frobnicate").code == 2
    outcome = gen_repo("model.onnx", "--shape", "x=1")
    assert (outcome.code, "write NAME=MIN:OPT:MAX" in outcome.err) == (2, True)


def test_axes_of_two_names_are_no_batch(gen_repo: GenRepo, tmp_path: Path) -> None:
    node = onnx.helper.make_node("MatMul", ["x", "z"], ["y"], "m")
    shapes = [models.tensor("x", shape=("rows", "k")), models.tensor("z", shape=("k", "columns"))]
    models.saved(models.model([node], shapes, [models.tensor("y", shape=("rows", "columns"))]))(
        tmp_path
    )
    outcome = gen_repo(
        "model.onnx", "--target", "onnxruntime",
        "--shape", "x=1x2:2x2:4x2", "--shape", "z=2x1:2x3:2x3",
    )  # fmt: skip
    assert outcome.code == 0, outcome
    config = (tmp_path / "model_repository/model/config.pbtxt").read_text()
    assert "max_batch_size: 0" in config
    assert "axis 0 is not the same axis in all tensors ('rows' in 'y' and 'k' in 'z')" in config


@pytest.mark.parametrize(
    ("got", "want", "difference"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.5),
        ([math.nan, math.inf], [math.nan, math.inf], 0.0),
        ([math.nan, 1.0], [1.0, 1.0], math.inf),
        ([math.inf, 1.0], [-math.inf, 1.0], math.inf),
        ([1.0], [1.0, 2.0], math.inf),
        ([1], [1.0], math.inf),  # another dtype
        ([b"a"], [b"b"], math.inf),
        ([True, False], [True, True], math.inf),
        ([], [], 0.0),
    ],
)
def test_largest_difference(got: list[Any], want: list[Any], difference: float) -> None:
    assert largest_difference({"y": np.array(got)}, {"y": np.array(want)}) == difference


def test_a_missing_output_is_a_difference() -> None:
    assert largest_difference({}, {"y": np.zeros(1)}) == math.inf
