"""What keeps repositories from being merged: each is named, and nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.harness.needs import needs_rtx
from support.onnx.gpu_repositories import edit_lock
from support.onnx.merges import BuildOn, contents, merged, record, set_spec
from support.programs.command import GenRepo

from tritonsmith_generator.onnx_model.case_file import Case, load_cases, write_cases
from tritonsmith_generator.repository.lock import read_lock

pytestmark = needs_rtx


def other_source(a: Path, b: Path) -> None:
    edit_lock(b, lambda m: m["net"]["sources"]["model.onnx"].update(sha256="0" * 64))


def other_config(a: Path, b: Path) -> None:
    path = b / "plain/config.pbtxt"
    path.write_text(path.read_text().replace("count: 1", "count: 2"))
    edit_lock(b, lambda m: m["plain"]["files"].update({"config.pbtxt": record(path)}))


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
