"""``gen-repo merge``: plans of several GPUs in one repository, or a message and nothing."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.harness.needs import needs_rtx
from support.harness.paths import GOLDEN
from support.onnx import bad_models as models
from support.onnx.gpu_repositories import as_tensorrt, edit_lock
from support.programs.command import GenRepo

from tritonsmith_generator import merge
from tritonsmith_generator.host.gpus import Gpu
from tritonsmith_generator.onnx_model.case_file import Case, load_cases, write_cases
from tritonsmith_generator.repository.lock import FileRecord, read_lock
from tritonsmith_generator.serve.served_models import (
    container_reason,
    embedded_reason,
    leave_out,
    read_models,
)
from tritonsmith_generator.triton_config.config_pbtxt import parse_config, read_notes, render_config

SPEC = """
models:
  net: {onnx: model.onnx, target: tensorrt_rtx, batching: {max: 4%s}}
  plain: {onnx: model.onnx, target: onnxruntime}
"""

# What the server's Python has.
_MODULES = ("onnxruntime", "tensorrt", "cuda.bindings")

BuildOn = Callable[..., Path]

pytestmark = needs_rtx


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the spec, its model and the repository that it makes."""
    folder = tmp_path_factory.mktemp("template")
    models.saved(models.good())(folder)
    (folder / "models.yaml").write_text(SPEC % "")
    build(folder, folder / "repository")
    return folder


def build(folder: Path, repository: Path) -> None:
    command = [sys.executable, "-m", "tritonsmith_generator", "build", "models.yaml"]
    done = subprocess.run([*command, "-o", repository], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def build_on(template: Path, tmp_path: Path) -> BuildOn:
    """``build_on("8.0")``: the repository that the machine with this GPU builds of the spec."""
    for name in ("model.onnx", "models.yaml"):
        shutil.copy2(template / name, tmp_path)

    def build_or_copy(
        capability: str, gpus: str = "", name: str = "", fresh: bool = False, **options: Any
    ) -> Path:
        repository = tmp_path / (name or f"repo_{capability}")
        if fresh:
            build(tmp_path, repository)
        else:
            shutil.copytree(template / "repository", repository)
        return as_tensorrt(repository, gpus or capability, **options)

    return build_or_copy


@pytest.fixture
def two(build_on: BuildOn) -> tuple[Path, Path]:
    return build_on("8.0"), build_on("9.0")


def merged(gen_repo: GenRepo, *arguments: object) -> dict[str, Any]:
    """The results by model; a plan without a fallback is told of."""
    outcome = gen_repo("merge", *arguments, "--json")
    assert outcome.code == 0, outcome
    return {model["model"]: model for model in json.loads(outcome.out)}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def golden(repository: Path) -> str:
    """The config without its two lines that change: a version and a digest."""
    lines = (repository / "net/config.pbtxt").read_text().splitlines(True)
    return "".join(line for line in lines if not line.startswith(("# Written by", "# Source:")))


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


def other_source(a: Path, b: Path) -> None:
    edit_lock(b, lambda m: m["net"]["sources"]["model.onnx"].update(sha256="0" * 64))


def other_config(a: Path, b: Path) -> None:
    path = b / "plain/config.pbtxt"
    path.write_text(path.read_text().replace("count: 1", "count: 2"))
    edit_lock(b, lambda m: m["plain"]["files"].update({"config.pbtxt": record(path)}))


def record(path: Path) -> dict[str, Any]:
    return vars(FileRecord.of(path))


def other_model(a: Path, b: Path) -> None:
    path = b / "plain/1/model.onnx"
    path.write_bytes(path.read_bytes() + b"\x32\x03new")  # domain: "new"
    edit_lock(b, lambda m: m["plain"]["files"].update({"1/model.onnx": record(path)}))


def cases(change: Callable[[Case], Case | None]) -> Callable[[Path, Path], None]:
    def spoil(a: Path, b: Path) -> None:
        path = b / "net/cases/1.npz"
        changed = [change(case) for case in load_cases(path)]
        path.write_bytes(write_cases([case for case in changed if case is not None]))
        edit_lock(b, lambda m: m["net"]["files"].update({"cases/1.npz": record(path)}))

    return spoil


def scaled(case: Case, inputs: float, outputs: float) -> Case:
    return Case(
        {name: (array * inputs).astype(array.dtype) for name, array in case.inputs.items()},
        {name: (array * outputs).astype(array.dtype) for name, array in case.outputs.items()},
    )


def only_first(case: Case) -> Case | None:
    return case if len(case.inputs["x"]) == 1 else None


def other_signature(a: Path, b: Path) -> None:
    path = b / "net/config.pbtxt"
    path.write_text(path.read_text().replace("TYPE_FP32", "TYPE_FP16", 1))
    edit_lock(b, lambda m: m["net"]["files"].update({"config.pbtxt": record(path)}))


def several_versions(a: Path, b: Path) -> None:
    for repository in (a, b):
        path = repository / "net/config.pbtxt"
        text = path.read_text().replace("num_versions: 1", "num_versions: 2")
        path.write_text(text)
        edit_lock(
            repository, lambda m, p=path: m["net"]["files"].update({"config.pbtxt": record(p)})
        )


def set_spec(**values: Any) -> Callable[[Path, Path], None]:
    return lambda a, b: edit_lock(b, lambda m: m["net"]["spec"].update(values))


def same_gpu(a: Path, b: Path) -> None:
    path = b / "net/1/model.plan"
    path.write_bytes(path.read_bytes() + b"0")
    edit_lock(b, lambda m: m["net"]["files"].update({"1/model.plan": record(path)}))
    as_if(b, gpus="8.0")


def emptied(a: Path, b: Path) -> None:
    shutil.rmtree(b)
    b.mkdir()


def labels(a: Path, b: Path) -> None:
    (a / "plain/labels.txt").write_text("a\n")
    (b / "plain/labels.txt").write_text("b\n")


# what is wrong: (how the second of two repositories gets wrong, what the message says)
WRONG: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "another source": (
        other_source,
        "model 'net': the source 'model.onnx' (SHA-256) is {sha} in {a} and 0000000000000000 in "
        "{b}: build both from the same files",
    ),
    "another precision": (
        set_spec(precision="fp16"),
        "model 'net': 'precision' is not set in {a} and fp16 in {b}: build both from the same spec",
    ),
    "another builder option": (
        set_spec(builder={"strict_nans": True}),
        "'builder.strict_nans' is not set in {a} and True in {b}",
    ),
    "another TensorRT": (
        lambda a, b: as_if(b, "TensorRT 10.9.0"),
        "the library is TensorRT 10.13.3.9 in {a} and TensorRT 10.9.0 in {b}: a server has one",
    ),
    "another target": (
        lambda a, b: edit_lock(b, lambda m: m["net"].update(target="tensorrt_rtx", plans={})),
        "the target is tensorrt in {a} and tensorrt_rtx in {b}: name one target in the spec",
    ),
    "no lock": (
        lambda a, b: (b / "repository.lock.json").unlink(),
        "the lock of {b} does not say what it was built from and for which GPU: build it there",
    ),
    "an older lock": (
        lambda a, b: edit_lock(b, lambda m: m["net"].pop("plans")),
        "the lock of {b} does not say what it was built from and for which GPU",
    ),
    "the same GPU": (
        same_gpu,
        "{a}/net/1/model.plan and {b}/net/1/model.plan are both for 8.0, and TensorRT makes no "
        "plan twice: leave one of the repositories out",
    ),
    "changed by hand": (
        lambda a, b: (b / "net/config.pbtxt").write_text("# mine"),
        "{b}/net/config.pbtxt is gone or is not what gen-repo wrote",
    ),
    "a plan is gone": (
        lambda a, b: (b / "net/1/model.plan").unlink(),
        "{b}/net/1/model.plan is gone or is not what gen-repo wrote",
    ),
    "another config": (
        other_config,
        "model 'plain': 'instance_group' in config.pbtxt is [{{'count': 1}}] in {a} and "
        "[{{'count': 2}}] in {b}: build both from the same spec",
    ),
    "another signature": (
        other_signature,
        "model 'net': the input is x: FP32[batch, 4] in {a} and x: FP16[batch, 4] in {b}",
    ),
    "another ONNX model": (
        other_model,
        "model 'plain': 'model.onnx' in {a} and {b} is not the same file",
    ),
    "fewer cases": (cases(only_first), "the recorded cases of {a} and {b} are 2 and 1"),
    "other inputs": (
        cases(lambda case: scaled(case, 1.001, 1)),
        "the recorded cases of {a} and {b} have other inputs (case 0): build both from the same",
    ),
    "other answers": (
        cases(lambda case: scaled(case, 1, 1.001)),
        "{a} and {b} have other answers (case 0): output 'y': relative_l2 is 0.001, above the "
        "limit 0.0001",
    ),
    "other labels": (labels, "model 'plain': 'labels.txt' in {a} and {b} is not the same file"),
    "a foreign file": (
        lambda a, b: (b / "net/1/notes.txt").touch(),
        "{b}/net/1/notes.txt: gen-repo did not write this file",
    ),
    "several versions served": (several_versions, "model 'net': its version_policy serves several"),
    "no models": (emptied, "{b} holds no model"),
    "no repository": (lambda a, b: shutil.rmtree(b), "{b}: no such folder"),
}


def as_if(repository: Path, library: str = "TensorRT 10.13.3.9", gpus: str = "9.0") -> None:
    def change(entries: dict[str, Any]) -> None:
        (plan,) = entries["net"]["plans"].values()
        plan["tools"]["tensorrt"] = library
        entries["net"]["plans"] = {gpus: plan}

    edit_lock(repository, change)


@pytest.mark.parametrize("kind", WRONG)
def test_what_does_not_agree_is_refused(
    kind: str, two: tuple[Path, Path], gen_repo: GenRepo, tmp_path: Path
) -> None:
    spoil, message = WRONG[kind]
    sha = read_lock(two[0]).models["net"].sources["model.onnx"].sha256[:16]
    spoil(*two)
    outcome = gen_repo("merge", *two, "-o", "out")
    assert outcome.code == 1, outcome
    assert message.format(a=two[0], b=two[1], sha=sha) in outcome.err, outcome.err
    assert not (tmp_path / "out").exists()


def test_the_same_plan_twice_is_one(two: tuple[Path, Path], gen_repo: GenRepo) -> None:
    shutil.rmtree(two[1])
    shutil.copytree(two[0], two[1])
    results = merged(gen_repo, *two, "-o", "out")
    assert results["net"]["gpus"] == ["8.0"]
    assert contents(Path("out/net")) == contents(two[0] / "net")


def test_rounding_of_another_machine_is_no_difference(
    two: tuple[Path, Path], gen_repo: GenRepo
) -> None:
    cases(lambda case: scaled(case, 1 + 1e-7, 1 + 1e-6))(*two)
    assert merged(gen_repo, *two, "-o", "out")["net"]["gpus"] == ["8.0", "9.0"]


def for_triton(repository: Path, release: str) -> None:
    path = repository / "repository.lock.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "triton": release}))


def test_the_release_of_triton_is_one(two: tuple[Path, Path], gen_repo: GenRepo) -> None:
    for_triton(two[0], "26.10")
    merged(gen_repo, *two, "-o", "out")
    assert read_lock(Path("out")).triton == "26.10"
    for_triton(two[1], "25.06")
    outcome = gen_repo("merge", *two, "-o", "other")
    assert (
        f"{two[0]} is for Triton 26.10 and {two[1]} for Triton 25.06: build both for the release"
        in outcome.err
    )
    assert not Path("other").exists()


def test_all_that_is_wrong_is_said_at_once(two: tuple[Path, Path], gen_repo: GenRepo) -> None:
    other_source(*two)
    labels(*two)
    outcome = gen_repo("merge", *two, "-o", "out")
    assert "model 'net': the source" in outcome.err and "model 'plain': 'labels" in outcome.err


def test_version_compatible_plans_may_be_of_several_releases(
    build_on: BuildOn, gen_repo: GenRepo
) -> None:
    builder = {"version_compatible": True}
    a = build_on("8.0", builder=builder)
    b = build_on("9.0", library="TensorRT 10.9.0", builder=builder)
    assert merged(gen_repo, a, b, "-o", "out")["net"]["gpus"] == ["8.0", "9.0"]
    c = build_on("8.9", library="TensorRT 11.0.0", builder=builder)
    assert "the library is TensorRT 10.13.3.9" in gen_repo("merge", a, c, "-o", "other").err


def test_repositories_are_named_once_and_there_are_two(
    two: tuple[Path, Path], gen_repo: GenRepo
) -> None:
    for given in ((two[0],), (two[0], two[0]), ()):
        outcome = gen_repo("merge", *given, "-o", "out")
        assert outcome.code == 2, outcome
    assert "name two or more repositories, each of them once" in gen_repo("merge", two[0]).err


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


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.pbtxt")))
def test_notes_can_be_read_back(name: str) -> None:
    text = "# who wrote it\n# from what\n" + (GOLDEN / f"{name}.pbtxt").read_text()
    header, notes = read_notes(text)
    assert len(notes) >= 5
    assert render_config(parse_config(text, name), notes, header) == text


def test_a_text_of_someone_else_has_no_notes() -> None:
    assert read_notes('# mine\nmax_batch_size:8 name:"x"\n') == ((), {})
