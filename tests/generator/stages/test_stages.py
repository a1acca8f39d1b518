"""Stages: what is in the cache is used again, what is not says why, and no damage is trusted."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import helper
from support.harness.needs import needs_rtx
from support.onnx import bad_models as models
from support.onnx.stage_builds import (
    BUILDER,
    SESSION,
    STAGES,
    built,
    forbid,
    kept_files,
    samples,
    spec,
    why,
)
from support.programs.command import GenRepo

from tritonsmith_generator import build, load_spec
from tritonsmith_generator.host.cache_dir import cache_folder

pytestmark = needs_rtx


def test_a_change_of_batching_runs_no_pass_and_builds_no_plan(
    gen_repo: GenRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples(0)
    options = "precision: int8, calibration: samples.npz, batching: {max: 8, max_delay_us: %d}"
    spec(options % 100)
    assert why(built(gen_repo)) == dict.fromkeys(STAGES, "first build")
    before = kept_files()
    plan = Path("repository/m/1/model.plan").read_bytes()

    forbid(monkeypatch, tmp_path / "forbidden", SESSION, BUILDER)
    spec(options % 500)
    second = built(gen_repo)
    assert why(second) == {"config.pbtxt": "batching.max_delay_us 100 -> 500"}
    assert any(note.startswith("int8: ") for note in second["notes"])
    assert kept_files() == before
    assert second["version"] == 1
    assert Path("repository/m/1/model.plan").read_bytes() == plan
    assert "max_queue_delay_microseconds: 500" in Path("repository/m/config.pbtxt").read_text()

    spec((options % 500).replace("int8", "fp16"))  # what is forbidden would have been noticed
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert outcome.code != 0 and "Builder was used" in outcome.err
    assert kept_files() == before


def test_each_change_runs_what_follows_from_it(gen_repo: GenRepo) -> None:
    """And nothing else; what was there before is found again."""
    samples(0)
    samples(1, "cases.npz")
    options = (
        "precision: %s, calibration: samples.npz, batching: {max: %d}, "
        "accuracy: {samples: cases.npz, limit: %s}"
    )
    spec(options % ("fp16", 8, 0.1))
    built(gen_repo)
    spec(options % ("int8", 8, 0.1))
    ran = why(built(gen_repo))
    assert ran["conversion"] == ran["config.pbtxt"] == "precision fp16 -> int8"
    assert ran["plan"].endswith(": other bytes; precision fp16 -> int8")
    assert "cases" not in ran

    spec(options % ("int8", 8, 0.2))  # the same graph passes the gate: it needs no other plan
    changed = "accuracy.limit.relative_l2 0.1 -> 0.2"
    assert why(built(gen_repo)) == {"conversion": changed, "config.pbtxt": changed}

    spec(options % ("int8", 16, 0.2))
    assert why(built(gen_repo)) == {
        "plan": "profile 0 input 1x784:8x784:8x784 -> 1x784:8x784:16x784",
        "config.pbtxt": "batching.max 8 -> 16",
    }

    samples(2)
    ran = why(built(gen_repo))
    assert set(ran) == {"conversion", "plan", "config.pbtxt"}
    assert ran["conversion"].endswith("samples.npz: other bytes")
    samples(3, "cases.npz")
    ran = why(built(gen_repo))
    assert ran["cases"].endswith("cases.npz: other bytes")
    assert ran["conversion"] == "cases: other bytes"

    samples(1, "cases.npz")
    samples(0)
    spec(options % ("fp16", 8, 0.1))
    assert set(why(built(gen_repo))) == {"config.pbtxt"}
    assert gen_repo("check", "repository").code == 0


@pytest.mark.parametrize("where", ["calibrate.py:samples", "calibrate:samples"])
def test_a_function_that_makes_samples_is_read_again(where: str, gen_repo: GenRepo) -> None:
    code = (
        "import numpy as np\n"
        "def samples():\n"
        "    yield {'input': np.random.default_rng(%d).random((8, 784), np.float32)}\n"
    )
    Path("calibrate.py").write_text(code % 0)
    samples(1)
    spec(f"precision: int8, calibration: '{where}', accuracy: {{samples: samples.npz}}")
    built(gen_repo)
    Path("calibrate.py").write_text(code % 1)
    ran = why(built(gen_repo))
    assert ran["config.pbtxt"].endswith("calibrate.py: other bytes")
    assert ran["conversion"].endswith("calibrate.py: other bytes") and "cases" not in ran


def test_explained_in_words(gen_repo: GenRepo) -> None:
    samples(0)
    spec("precision: fp16")
    dry = gen_repo("models.yaml", "-o", "repository", "--explain", "--dry-run")
    assert "m: cases: would run, first build" in dry.out
    assert "m: plan: would run, its input comes from conversion" in dry.out
    assert not cache_folder("stages").exists() and not Path("repository").exists()
    first = gen_repo("models.yaml", "-o", "repository", "--explain")
    assert "m: conversion: ran, first build" in first.out
    again = gen_repo("models.yaml", "-o", "repository", "--explain")
    assert [line for line in again.out.splitlines() if line.startswith("m: ")] == [
        f"m: {stage}: reused" for stage in STAGES
    ]
    spec("precision: fp16, batching: {max_delay_us: 500}")
    for option, ran in (("--dry-run", "would run"), ("--explain", "ran")):
        told = gen_repo("models.yaml", "-o", "repository", "--explain", option).out
        assert f"m: config.pbtxt only: {ran}, batching.max_delay_us unset -> 500" in told
        assert "m: plan: reused" in told
    spec(
        "precision: fp16, batching: false, "
        "shapes: {input: {min: [1, 784], opt: [2, 784], max: [2, 784]}}"
    )
    told = gen_repo("models.yaml", "-o", "repository", "--explain", "--dry-run").out
    assert "batching off" not in told and "batching unset -> off" in told
    assert "batching.max_delay_us 500 -> unset" in told
    assert "shapes.0.input.opt unset -> [2, 784]" in told
    assert "explain" not in gen_repo("models.yaml", "-o", "repository", "--dry-run").out


def test_the_python_api_says_it_too(gen_repo: GenRepo, tmp_path: Path) -> None:
    spec("precision: fp32")
    for ran in (True, False):
        (result,) = build(load_spec(Path("models.yaml")), Path(), tmp_path / "repository")
        assert [(s.stage, s.ran) for s in result.stages] == [
            (stage, ran) for stage in ("cases", "plan", "config.pbtxt")
        ]


def relock(**changes: str) -> None:
    """As if another machine had built it: the lock says other tools; the cache is another one."""
    path = Path("repository/repository.lock.json")
    lock = json.loads(path.read_text())
    model = lock["models"]["m"]
    model["key"] = model["artifact"] = "another"
    for name, value in changes.items():
        model["tools"][name] = value
        for inputs in model["stages"].values():
            for known in {name, name.upper()} & set(inputs):
                inputs[known] = value
    path.write_text(json.dumps(lock))
    cache_folder("stages").rename(cache_folder("elsewhere"))


def test_other_tools_and_another_gpu_are_named(gen_repo: GenRepo) -> None:
    spec("precision: fp16")
    built(gen_repo)
    relock(onnx="1.22.0", gpu="8.6")
    ran = why(built(gen_repo, "--dry-run"))
    newer = f"onnx 1.22.0 -> {onnx.__version__}"
    assert ran["cases"] == ran["conversion"] == newer
    assert ran["config.pbtxt"] == f"{newer}; GPU 8.6 -> none"
    ran = why(built(gen_repo))
    assert "GPU 8.6 -> none" in ran["plan"] and newer not in ran["plan"]


def test_locks_of_other_formats(gen_repo: GenRepo) -> None:
    spec("precision: fp32")
    built(gen_repo)
    path = Path("repository/repository.lock.json")
    lock = json.loads(path.read_text())
    old = {**lock, "format": 1, "models": {"m": {**lock["models"]["m"], "key": "old"}}}
    del old["models"]["m"]["stages"]
    path.write_text(json.dumps(old))
    cache_folder("stages").rename(cache_folder("elsewhere"))
    told = why(built(gen_repo, "--dry-run"))
    assert set(told.values()) == {"built by an earlier gen-repo, which did not record why"}
    path.write_text(json.dumps({**lock, "format": 99}))
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert outcome.code == 1
    assert (
        "has format 99, this gen-repo reads up to 2: use the gen-repo that wrote it" in outcome.err
    )


def determinants(count: int) -> Path:
    """ONNX Runtime takes Det; TensorRT for RTX does not."""
    nodes = [helper.make_node("MatMul", ["x", "x"], ["p"], "fine")]
    nodes += [helper.make_node("Det", ["p"], [f"d{n}"], f"det_{n}") for n in range(count)]
    inputs = [models.tensor("x", shape=(3, 2, 2))]
    outputs = [models.tensor(f"d{n}", shape=(3,)) for n in range(count)]
    return models.saved(models.model(nodes, inputs, outputs))(Path.cwd())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_unsupported_nodes_are_told_before_any_time_is_spent(
    precision: str, gen_repo: GenRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec(f"precision: {precision}", determinants(12))
    forbid(monkeypatch, tmp_path / "forbidden", SESSION)
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert outcome.code == 1
    assert "TensorRT for RTX" in outcome.err and "cannot take model.onnx" in outcome.err
    for number in range(10):
        assert f"node {number + 1} 'det_{number}' (Det): " in outcome.err
    assert "det_10" not in outcome.err and "and 2 more" in outcome.err
    assert "use target onnxruntime" in outcome.err
    assert not Path("repository").exists()
    assert kept_files() == {}


def test_wrong_cases_end_the_engine_build(gen_repo: GenRepo) -> None:
    """They are asked for while it runs; the reason is theirs, not that the build was ended."""
    nodes = [helper.make_node("Softmax", ["x"], ["y"], "across", axis=0)]
    source = models.saved(models.model(nodes))(Path.cwd())
    spec("precision: fp32, batching: {max: 8}", source)
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert outcome.code == 1
    assert "of its largest element with the rows beside it" in outcome.err
    assert "SIGKILL" not in outcome.err
    assert not Path("repository").exists()
