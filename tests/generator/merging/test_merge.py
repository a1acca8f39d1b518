"""``gen-repo merge``: plans of several GPUs in one repository, or a message and nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from support.harness.needs import needs_rtx
from support.harness.paths import GOLDEN
from support.onnx.gpu_repositories import edit_lock
from support.onnx.merges import BuildOn, contents, golden, merged, record, set_spec
from support.programs.command import GenRepo

from tritonsmith_generator import merge
from tritonsmith_generator.repository.lock import read_lock

pytestmark = needs_rtx


def test_each_gpu_gets_its_plan(two: tuple[Path, Path], gen_repo: GenRepo, tmp_path: Path) -> None:
    before = [contents(repository) for repository in two]
    results = merged(gen_repo, *two, "-o", "out")
    out = tmp_path / "out"
    assert contents(out).keys() == {
        "repository.lock.json",
        *(f"net/{name}" for name in ("1/model_8_0.plan", "1/model_9_0.plan", "cases/1.npz")),
        *(f"plain/{name}" for name in ("1/model.onnx", "cases/1.npz")),
        *(f"{name}/config.pbtxt" for name in ("net", "plain")),
    }
    for repository, name in zip(two, ("model_8_0.plan", "model_9_0.plan"), strict=True):
        plan = repository / "net/1/model.plan"
        assert (out / "net/1" / name).read_bytes() == plan.read_bytes()
    assert golden(out) == (GOLDEN / "merged.pbtxt").read_text()
    assert results["net"]["gpus"] == ["8.0", "9.0"]
    assert "no plan for other GPUs than 8.0, 9.0" in results["net"]["notes"][0]
    assert gen_repo("check", "out").out == "out: 0 errors, 0 warnings.\n"
    assert [contents(repository) for repository in two] == before
    again = merged(gen_repo, *two, "-o", "out")
    assert {name: model["status"] for name, model in again.items()} == {
        "net": "unchanged",
        "plain": "unchanged",
    }


def test_a_hardware_compatible_plan_is_the_fallback(
    two: tuple[Path, Path], build_on: BuildOn, gen_repo: GenRepo, tmp_path: Path
) -> None:
    level = {"hardware_compatibility": "ampere_plus", "optimization_level": 5}
    portable = build_on("8.0", "ampere_plus", "portable", builder=level)
    results = merged(gen_repo, *two, portable, "-o", "out")
    assert results["net"]["gpus"] == ["8.0", "9.0", "ampere_plus"]
    assert results["net"]["notes"] == []
    assert golden(tmp_path / "out") == (GOLDEN / "merged_portable.pbtxt").read_text()
    (net, plain) = json.loads(gen_repo("inspect", "out", "--json").out)
    assert net["plans"] == {"8.0": "model_8_0.plan", "9.0": "model_9_0.plan"}
    assert (net["file"], plain["plans"]) == ("model_ampere_plus.plan", {})
    shown = gen_repo("inspect", "out").out
    assert "8.0 model_8_0.plan, 9.0 model_9_0.plan, others model_ampere_plus.plan" in shown
    assert gen_repo("check", "out").code == 0


def test_the_table_and_the_python_api(two: tuple[Path, Path], gen_repo: GenRepo) -> None:
    outcome = gen_repo("merge", *two, "--dry-run", "-o", "out")
    assert "planned" in outcome.out and "8.0, 9.0" in outcome.out
    assert "create    net/1/model_9_0.plan" in outcome.out
    assert "Nothing was written to out." in outcome.out and not Path("out").exists()
    net, plain = merge(two, Path("out"))
    assert (net.status, net.version, net.gpus) == ("merged", 1, ("8.0", "9.0"))
    assert (plain.status, plain.repositories) == ("merged", two)
    assert "Merged into model_repository." in gen_repo("merge", *two).out  # the default


def test_what_only_one_has_is_taken_over(
    two: tuple[Path, Path], gen_repo: GenRepo, tmp_path: Path
) -> None:
    shutil.rmtree(two[1] / "net")
    edit_lock(two[1], lambda entries: entries.pop("net"))
    own = two[1] / "by_hand"  # nobody's lock knows this one
    (own / "1").mkdir(parents=True)
    (own / "1/model.py").write_text("# a Python model\n")
    (own / "config.pbtxt").write_text('backend: "python"\n')
    (two[0] / "net/labels.txt").write_text("a\nb\n")
    results = merged(gen_repo, *two, "-o", "out")
    assert results["net"]["status"] == results["by_hand"]["status"] == "copied"
    out = tmp_path / "out"
    assert contents(out / "net") == contents(two[0] / "net")
    assert contents(out / "by_hand") == contents(own)
    assert read_lock(out).models["net"].plans == read_lock(two[0]).models["net"].plans
    assert set(read_lock(out).models) == {"net", "plain"}
    assert "labels.txt" not in read_lock(out).models["net"].files


def test_a_plan_for_rtx_needs_no_merging(
    build_on: BuildOn, gen_repo: GenRepo, tmp_path: Path
) -> None:
    """Left as they were built: one plan is for all compute capabilities that the spec lists."""
    for name in ("a", "b"):
        assert gen_repo("models.yaml", "-o", name).code == 0
    (tmp_path / "b/net/1/model.plan").write_bytes(b"of another run")
    path = tmp_path / "b/net/1/model.plan"
    edit_lock(tmp_path / "b", lambda m: m["net"]["files"].update({"1/model.plan": record(path)}))
    results = merged(gen_repo, "a", "b", "-o", "out")
    assert "a tensorrt_rtx plan is for several GPUs by itself" in results["net"]["notes"][0]
    assert contents(tmp_path / "out/net") == contents(tmp_path / "a/net")
    set_spec(builder={"compute_capabilities": ["8.9"]})(tmp_path / "a", tmp_path / "b")
    outcome = gen_repo("merge", "a", "b", "-o", "other")
    assert "'builder.compute_capabilities' is not set in a and ['8.9'] in b" in outcome.err
    assert "write them into one spec, and nothing has to be merged" in outcome.err


def test_the_merged_config_keeps_its_comments(
    two: tuple[Path, Path], gen_repo: GenRepo, tmp_path: Path
) -> None:
    """Also where it is merged once more: they are in the lock."""
    merged(gen_repo, *two, "-o", "out")
    merged(gen_repo, "out", two[1], "-o", "again")
    text = (tmp_path / "again/net/config.pbtxt").read_text()
    built = (two[0] / "net/config.pbtxt").read_text()
    said = [line for line in built.splitlines() if line.lstrip().startswith("#")]
    assert len(said) >= 6 and set(said) <= set(text.splitlines())
    assert text == (tmp_path / "out/net/config.pbtxt").read_text()
