"""What is merged is merged again, built into, checked and served."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from support.harness.needs import needs_rtx
from support.onnx import bad_models as models
from support.onnx.gpu_repositories import edit_lock
from support.onnx.merges import SPEC, BuildOn, contents, golden, merged
from support.programs.command import GenRepo

from tritonsmith_generator.host.gpus import Gpu
from tritonsmith_generator.repository.lock import read_lock
from tritonsmith_generator.serve.served_models import (
    container_reason,
    embedded_reason,
    leave_out,
    read_models,
)
from tritonsmith_generator.triton_config.config_pbtxt import parse_config

pytestmark = needs_rtx

# What the server's Python has.
_MODULES = ("onnxruntime", "tensorrt", "cuda.bindings")


def test_a_third_gpu_is_merged_into_what_is_merged(
    two: tuple[Path, Path], build_on: BuildOn, gen_repo: GenRepo, tmp_path: Path
) -> None:
    merged(gen_repo, *two, "-o", "out")
    third = build_on("10.0")
    outcome = gen_repo("merge", third, two[0], "-o", "out")
    assert "out/net also has a plan for 9.0, which would no longer be served: name out" in (
        outcome.err
    )
    results = merged(gen_repo, "out", third, "-o", "out")
    assert (results["net"]["version"], results["net"]["gpus"]) == (2, ["8.0", "9.0", "10.0"])
    assert results["plain"]["status"] == "unchanged"
    assert 'default_model_filename: "model_10_0.plan"' in golden(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out/net/1").iterdir()) == [
        "model_8_0.plan",
        "model_9_0.plan",
    ]
    assert len(list((tmp_path / "out/net/2").iterdir())) == 3
    assert gen_repo("check", "out").out == "out: 0 errors, 0 warnings.\n"


def test_into_the_first(two: tuple[Path, Path], gen_repo: GenRepo) -> None:
    results = merged(gen_repo, *two, "-o", two[0])
    assert results["net"]["version"] == 2  # version 1 stays what it was
    assert (two[0] / "net/1/model.plan").exists()
    assert gen_repo("check", two[0]).out == f"{two[0]}: 0 errors, 0 warnings.\n"
    assert merged(gen_repo, *two, "-o", two[0])["net"]["status"] == "unchanged"


def test_a_config_changed_by_hand_is_not_lost(two: tuple[Path, Path], gen_repo: GenRepo) -> None:
    merged(gen_repo, *two, "-o", "out")
    config = Path("out/net/config.pbtxt")
    by_hand = config.read_text() + "# mine\n"
    config.write_text(by_hand)
    outcome = gen_repo("merge", *two, "-o", "out")
    assert "out/net/config.pbtxt" not in outcome.out
    assert (outcome.code, "net/config.pbtxt: the file was changed" in outcome.err) == (1, True)
    assert config.read_text() == by_hand
    assert merged(gen_repo, *two, "-o", "out", "--force")["net"]["status"] == "merged"
    assert "# mine" not in config.read_text()


def test_another_gen_repo_at_work_there(two: tuple[Path, Path], gen_repo: GenRepo) -> None:
    handle = os.open(two[0], os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    outcome = gen_repo("merge", *two, "-o", two[0])
    os.close(handle)
    assert (outcome.code, "another gen-repo is writing to" in outcome.err) == (3, True)
    assert not (two[0] / "net/2").exists()


def test_a_pinned_version_is_immutable(
    build_on: BuildOn, gen_repo: GenRepo, tmp_path: Path
) -> None:
    (tmp_path / "models.yaml").write_text(SPEC.replace("%s}", "}, version: 7"))
    a, b = build_on("8.0", fresh=True), build_on("9.0", fresh=True)
    outcome = gen_repo("merge", a, b, "-o", a)
    assert f"{a}/net/7/model.plan is none of the files that are merged" in outcome.err
    assert "versions are immutable: merge into another folder (-o)" in outcome.err
    assert merged(gen_repo, a, b, "-o", "out")["net"]["version"] == 7
    assert Path("out/net/cases/7.npz").exists()


def test_another_build_is_another_version(
    two: tuple[Path, Path], build_on: BuildOn, gen_repo: GenRepo, tmp_path: Path
) -> None:
    merged(gen_repo, *two, "-o", "out")
    models.saved(models.shaped(("batch", 6)))(tmp_path)
    new = [build_on(gpu, name=f"new_{gpu}", fresh=True) for gpu in ("8.0", "9.0")]
    results = merged(gen_repo, *new, "-o", "out")
    assert {name: model["version"] for name, model in results.items()} == {"net": 2, "plain": 2}
    assert gen_repo("check", "out").code == 0


def test_a_plan_that_no_gpu_opens_is_found(two: tuple[Path, Path], gen_repo: GenRepo) -> None:
    merged(gen_repo, *two, "-o", "out")
    Path("out/net/1/model.plan").touch()
    outcome = gen_repo("check", "out")
    assert (outcome.code, outcome.out.splitlines()) == (
        0,
        [
            "warning net/1/model.plan: no GPU opens this plan: the config names model_8_0.plan, "
            "model_9_0.plan",
            "out: 0 errors, 1 warning.",
        ],
    )


def left_out(*capabilities: str) -> dict[str, str]:
    """What the embedded server leaves out on a machine with these GPUs, and why."""
    gpus = [
        Gpu(index, "a GPU", capability, 24 << 30, "580.95.05")
        for index, capability in enumerate(capabilities)
    ]
    models = read_models(Path("out"))
    embedded = leave_out(models, embedded_reason(gpus, _MODULES))
    assert leave_out(models, container_reason(True, gpus)) == embedded
    return embedded


def test_a_gpu_without_a_plan_is_named_before_the_server_starts(
    two: tuple[Path, Path], build_on: BuildOn, gen_repo: GenRepo
) -> None:
    merged(gen_repo, *two, "-o", "out")
    assert left_out("9.0") == left_out("9.0", "8.0") == {}
    why = (
        "it has plans for compute capability 8.0, 9.0, and this machine has a GPU of 8.9: build "
        "one here, and add it with gen-repo merge"
    )
    assert left_out("9.0", "8.9") == {"net": why}
    config = Path("out/net/config.pbtxt")
    text = config.read_text()
    config.write_text(text.replace("count: 1\n  }", "count: 1 gpus: [ 0 ]\n  }", 1))
    assert left_out("9.0", "8.9") == {}
    config.write_text(text)
    portable = build_on("8.0", "ampere_plus", "portable")
    merged(gen_repo, "out", portable, "-o", "out")
    assert left_out("8.9") == {}


def built_here(gen_repo: GenRepo, repository: str) -> dict[str, Any]:
    """``gen-repo build`` of net: its result."""
    outcome = gen_repo("models.yaml", "-o", repository, "--only", "net", "--json")
    (result,) = json.loads(outcome.out)
    return dict(result)


def move_to(gen_repo: GenRepo, gpu: str) -> None:
    """Make this machine the one that built the merged repository's plan for this GPU."""
    assert built_here(gen_repo, "reference")["status"] in ("built", "unchanged")
    mine = read_lock(Path("reference")).models["net"]

    def change(entries: dict[str, Any]) -> None:
        for gpus, plan in entries["net"]["plans"].items():
            keys = (mine.key, mine.artifact) if gpus == gpu else (gpus, gpus)
            plan.update(key=keys[0], artifact=keys[1])

    edit_lock(Path("out"), change)


def test_a_build_keeps_the_plans_of_other_gpus(
    two: tuple[Path, Path], gen_repo: GenRepo, tmp_path: Path
) -> None:
    merged(gen_repo, *two, "-o", "out")
    before = contents(tmp_path / "out/net")
    refused = built_here(gen_repo, "out")
    assert refused["status"] == "failed"
    assert "holds plans that were merged from several GPUs (8.0, 9.0)" in refused["error"]
    assert "(GPU: none)" in refused["error"] and "gen-repo merge FOLDER" in refused["error"]
    for gpu in ("8.0", "9.0"):
        move_to(gen_repo, gpu)
        assert built_here(gen_repo, "out")["status"] == "unchanged"
    assert contents(tmp_path / "out/net") == before

    (tmp_path / "models.yaml").write_text(SPEC % ", max_delay_us: 300")
    result = built_here(gen_repo, "out")
    assert (result["status"], result["version"]) == ("built", 1), result
    assert result["files"]["net/config.pbtxt"] == "replace"
    assert result["files"]["net/1/model_8_0.plan"] == "identical"
    assert built_here(gen_repo, "out")["status"] == "unchanged"
    config = parse_config((tmp_path / "out/net/config.pbtxt").read_text(), "config")
    assert dict(config.cc_model_filenames) == {"8.0": "model_8_0.plan", "9.0": "model_9_0.plan"}
    assert config.dynamic_batching.max_queue_delay_microseconds == 300

    (tmp_path / "models.yaml").write_text(SPEC % "0")  # 40 rows: another plan
    assert "the model, its spec or the tools" in built_here(gen_repo, "out")["error"]


def test_a_build_does_not_make_up_for_a_lost_plan(
    two: tuple[Path, Path], gen_repo: GenRepo
) -> None:
    merged(gen_repo, *two, "-o", "out")
    move_to(gen_repo, "9.0")
    Path("out/net/1/model_8_0.plan").unlink()
    result = built_here(gen_repo, "out")
    assert "out/net/1/model_8_0.plan is gone or was changed" in result["error"]
    assert "merge it again" in result["error"]
