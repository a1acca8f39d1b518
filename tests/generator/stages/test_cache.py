"""What is kept of a build: damaged, lost, full, shared and made anew."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.harness.needs import needs_rtx
from support.onnx.stage_builds import (
    BUILDER,
    STAGES,
    built,
    forbid,
    samples,
    spec,
    why,
)
from support.programs.command import GenRepo

from tritonsmith_generator.host.cache_dir import cache_folder

pytestmark = needs_rtx


def flip(path: Path) -> None:
    """Another byte in the middle; size and time tell nothing."""
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_damaged_result_is_made_again(gen_repo: GenRepo) -> None:
    spec("precision: fp16, batching: {max_delay_us: 100}")
    built(gen_repo)
    damaged = [
        path
        for pattern in ("cases/*/cases.npz", "conversion/*/*.onnx", "plan/*/model.plan")
        for path in cache_folder("stages").glob(pattern)
    ]
    assert len(damaged) == 3
    whole = {path: path.read_bytes() for path in damaged}
    for path in (*damaged, Path("repository/m/1/model.plan")):  # where it would be found, too
        flip(path)
    spec("precision: fp16, batching: {max_delay_us: 200}")
    ran = why(built(gen_repo))
    assert {ran[stage] for stage in STAGES[:3]} == {"its cached result is damaged"}
    cases, model, plan = damaged
    assert (cases.read_bytes(), model.read_bytes()) == (whole[cases], whole[model])
    newest = Path("repository/m/2/model.plan")
    assert newest.read_bytes() == plan.read_bytes()
    flip(newest)
    (record,) = cache_folder("stages").glob("plan/*/kept.json")
    record.write_text(record.read_text().replace("FP32", "FP16"))  # what it says is no less a part
    spec("precision: fp16, batching: {max_delay_us: 300}")
    assert why(built(gen_repo))["plan"] == "its cached result is damaged"


def test_a_lost_cache_costs_no_plan_that_lies_in_the_repository(
    gen_repo: GenRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec("precision: fp32, batching: {max_delay_us: 100}")
    built(gen_repo)
    plan = Path("repository/m/1/model.plan")
    before = plan.read_bytes()
    cache_folder("stages").rename(cache_folder("elsewhere"))
    spec("precision: fp32, batching: {max_delay_us: 200}")
    forbid(monkeypatch, tmp_path / "forbidden", BUILDER)
    second = built(gen_repo)
    assert set(why(second)) == {"cases", "config.pbtxt"}
    assert why(second)["cases"] == "its cached result is gone"
    assert second["version"] == 1 and plan.read_bytes() == before
    flip(plan)
    spec("precision: fp32, batching: {max_delay_us: 300}")
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert outcome.code != 0 and "Builder was used" in outcome.err  # damage is not taken for it


def test_a_plan_that_is_made_anew_is_another_version(gen_repo: GenRepo) -> None:
    """TensorRT for RTX seldom makes the same bytes twice, and versions are immutable."""
    spec("precision: fp16, batching: {max_delay_us: 100}")
    built(gen_repo)
    plan = Path("repository/m/1/model.plan").read_bytes()
    cache_folder("stages").rename(cache_folder("elsewhere"))
    path = Path("repository/repository.lock.json")
    lock = json.loads(path.read_text())
    lock["models"]["m"]["stages"]["plan"]["tritonsmith"] = "0.1.0 (of old)"
    path.write_text(json.dumps(lock))
    spec("precision: fp16, batching: {max_delay_us: 200}")
    second = built(gen_repo)
    assert why(second)["plan"].startswith("tritonsmith 0.1.0 (of old) -> ")
    newest = Path(f"repository/m/{second['version']}/model.plan").read_bytes()
    assert (second["version"] == 1) == (newest == plan)
    assert Path("repository/m/1/model.plan").read_bytes() == plan


def test_two_builds_at_once_share_what_they_make(gen_repo: GenRepo) -> None:
    samples(0)
    spec("precision: int8, calibration: samples.npz")
    command = [sys.executable, "-m", "tritonsmith_generator", "build", "models.yaml", "--json"]
    running = [
        subprocess.Popen([*command, "-o", to], stdout=subprocess.PIPE) for to in ("one", "two")
    ]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    one, two = (why(json.loads(output)[0]) for output in outputs)
    assert one.keys() | two.keys() == set(STAGES) and one.keys() & two.keys() == {"config.pbtxt"}
    plans = [Path(to, "m/1/model.plan").read_bytes() for to in ("one", "two")]
    assert plans[0] == plans[1]
    entries = [p.name for p in cache_folder("stages").glob("*/*") if p.suffix != ".lock"]
    assert len(entries) == 3 and not [name for name in entries if ".tmp" in name]


def test_the_cache_stays_within_its_limit(
    gen_repo: GenRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entries() -> set[Path]:
        return {p.parent for p in cache_folder("stages").rglob("manifest.json")}

    spec("precision: fp32, batching: {max: 8}")
    built(gen_repo)
    old = entries()
    assert len(old) == 2
    for manifest in cache_folder("stages").rglob("manifest.json"):
        os.utime(manifest, (0, 0))  # used long ago
    cases, plan = sorted(old)
    spec("precision: fp32, batching: {max: 16}")  # the same cases, another plan
    monkeypatch.setenv("TRITONSMITH_CACHE_GB", "0.0006")
    assert built(gen_repo)["status"] == "built"
    assert plan not in entries() and len(entries()) == 2
    assert {p.stem for p in cache_folder("stages").glob("*/*.lock")} == {p.name for p in entries()}
    monkeypatch.setenv("TRITONSMITH_CACHE_GB", "much")
    spec("precision: fp16")
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert outcome.code == 3
    assert "TRITONSMITH_CACHE_GB is 'much': set it to a number of gigabytes" in outcome.err


def test_what_killed_builds_left_is_removed_and_what_is_made_now_is_not(gen_repo: GenRepo) -> None:
    home = cache_folder("stages") / "plan"
    killed, at_work = home / "aa.tmp-killed", home / "bb.tmp-work"
    for folder in (killed, at_work):
        (folder / "content").mkdir(parents=True)
        (folder / "content/model.plan").write_bytes(bytes(1000))
        os.utime(folder, (0, 0))  # an engine build may take longer than anyone would guess
    with (home / "bb.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        spec("precision: fp32")
        built(gen_repo)
    assert not killed.exists() and not (home / "aa.lock").exists()
    assert (at_work / "content/model.plan").exists()
