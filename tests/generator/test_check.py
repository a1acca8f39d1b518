"""``gen-repo check``: each thing that can be wrong in a repository is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import bad_models as models
from support.command import GenRepo

from tritonsmith_generator.onnx_model.case_file import Case, write_cases


@pytest.fixture
def repository(built_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built_once, tmp_path / "model_repository")


def edit(old: str, new: str) -> Callable[[Path], object]:
    def change(repository: Path) -> None:
        path = repository / "m/config.pbtxt"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def append(text: str) -> Callable[[Path], object]:
    return lambda repository: edit("dynamic_batching {}", f"dynamic_batching {{}}\n{text}")(
        repository
    )


def other_model(repository: Path) -> None:
    model = models.model([models.relu("z", "y")], [models.tensor("z")])
    (repository / "m/1/model.onnx").write_bytes(model.SerializeToString())


def wrong_cases(repository: Path) -> None:
    doubles = Case({"x": np.zeros((1, 4))}, {"y": np.zeros((1, 4))})
    (repository / "m/cases/1.npz").write_bytes(write_cases([doubles]))


# what is wrong: (how it gets wrong, where it is found, what the message says)
WRONG: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no config": (
        lambda r: (r / "m/config.pbtxt").unlink(),
        "m/config.pbtxt",
        "has no config.pbtxt: Triton takes every folder of a repository for a model",
    ),
    "unreadable config": (edit("backend:", "bakend:"), "m/config.pbtxt", 'named "bakend"'),
    "foreign folder": (lambda r: (r / "notes").mkdir(), "notes/config.pbtxt", "no config.pbtxt"),
    "other name": (
        edit('name: "m"', 'name: "n"'),
        "m/config.pbtxt",
        "name is 'n', the folder",
    ),
    "no version": (
        lambda r: (r / "m/1").rename(r / "m/01"),
        "m",
        "there is no version directory",
    ),
    "file of a version": (
        lambda r: (r / "m/1/model.onnx").unlink(),
        "m/1/model.onnx",
        "the file that the config names is missing",
    ),
    "file per GPU": (
        append('cc_model_filenames { key: "9.0" value: "hopper.onnx" }'),
        "m/1/hopper.onnx",
        "the file that the config names is missing",
    ),
    "what is no compute capability": (
        append('cc_model_filenames { key: "sm_90" value: "model.onnx" }'),
        "m/config.pbtxt",
        "cc_model_filenames has the key 'sm_90', which no GPU matches",
    ),
    "label file": (
        edit('name: "y"', 'name: "y"\n label_filename: "labels.txt"'),
        "m/labels.txt",
        "the file that the config names is missing",
    ),
    "unknown input": (
        edit('name: "x"', 'name: "ghost"'),
        "m/1/model.onnx",
        "the config's input 'ghost' is not in the model; it has: x",
    ),
    "input left out": (other_model, "m/1/model.onnx", "the model's input 'z' is not in the config"),
    "other type": (
        edit("TYPE_FP32", "TYPE_FP16"),
        "m/1/model.onnx",
        "the model has x: FP32[batch, 4], the config says x: FP16[batch, 4]",
    ),
    "other size": (
        edit("dims: [ 4 ]", "dims: [ 5 ]"),
        "m/1/model.onnx",
        "the model has x: FP32[batch, 4], the config says x: FP32[batch, 5]",
    ),
    "batch axis forgotten": (
        edit("max_batch_size: 32", "max_batch_size: 0"),
        "m/1/model.onnx",
        "the config says x: FP32[4]",
    ),
    "size of 0": (
        edit("dims: [ 4 ]", "dims: [ 0 ]"),
        "m/config.pbtxt",
        "has dims [0]: sizes",
    ),
    "batcher without batches": (
        edit("max_batch_size: 32", "max_batch_size: 0"),
        "m/config.pbtxt",
        "dynamic_batching needs a max_batch_size of 1 or more, it is 0",
    ),
    "preferred batch too large": (
        edit("dynamic_batching {}", "dynamic_batching { preferred_batch_size: [ 64 ] }"),
        "m/config.pbtxt",
        "preferred_batch_size 64 is outside 1 to max_batch_size (32)",
    ),
    "profiles without TensorRT": (
        edit("count: 1", 'count: 1 profile: "0"'),
        "m/config.pbtxt",
        "instance_group.profile is for TensorRT plans only",
    ),
    "changed by hand": (append("# mine"), "m/config.pbtxt", "not what gen-repo wrote"),
    "cut short": (
        lambda r: (r / "m/1/model.onnx").write_bytes(b"\x08"),
        "m/1/model.onnx",
        "not a readable ONNX file",
    ),
    "model gone": (
        lambda r: (r / "m").rename(r.parent / "away"),
        "m",
        "the lock lists this model, but its folder is gone",
    ),
    "cases of other types": (wrong_cases, "m/cases/1.npz", "'x' is float64 here, the config says"),
    "cases that are none": (
        lambda r: (r / "m/cases/1.npz").write_bytes(b"no zip"),
        "m/cases/1.npz",
        "not a file of recorded cases",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_found(kind: str, repository: Path, gen_repo: GenRepo) -> None:
    spoil, where, message = WRONG[kind]
    spoil(repository)
    outcome = gen_repo("check", repository, "--json")
    assert outcome.code == 1
    findings = json.loads(outcome.out)["findings"]
    assert any(f["where"] == where and message in f["message"] for f in findings), findings
    shown = gen_repo("check", repository)
    assert shown.code == 1 and f"error {where}: " in shown.out


def test_nothing_is_wrong(repository: Path, gen_repo: GenRepo) -> None:
    outcome = gen_repo("check", repository)
    assert (outcome.code, outcome.out) == (0, f"{repository}: 0 errors, 0 warnings.\n")


def test_a_model_of_someone_else_is_only_a_warning(repository: Path, gen_repo: GenRepo) -> None:
    (repository / "repository.lock.json").unlink()
    outcome = gen_repo("check", repository)
    assert outcome.code == 0
    assert "warning m: not written by gen-repo" in outcome.out


def test_no_repository(gen_repo: GenRepo, tmp_path: Path) -> None:
    outcome = gen_repo("check", tmp_path / "none")
    assert (outcome.code, "no such folder" in outcome.err) == (1, True)


def test_a_lock_of_another_format(repository: Path, gen_repo: GenRepo) -> None:
    lock = repository / "repository.lock.json"
    lock.write_text(json.dumps({**json.loads(lock.read_text()), "format": 99}))
    outcome = gen_repo("check", repository)
    assert (outcome.code, "has format 99, this gen-repo reads up to" in outcome.err) == (1, True)
    lock.write_text("{")
    outcome = gen_repo("check", repository)
    assert (outcome.code, "is not a readable lock" in outcome.err) == (1, True)


def test_inspect_a_repository(repository: Path, gen_repo: GenRepo) -> None:
    (model,) = json.loads(gen_repo("inspect", repository, "--json").out)
    assert model["name"] == "m"
    assert model["target"] == "onnxruntime"
    assert model["versions"] == [1]
    assert model["max_batch_size"] == 32
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}]
    assert model["size"] == (repository / "m/1/model.onnx").stat().st_size
    assert "m  onnxruntime, version 1, max batch 32" in gen_repo("inspect", repository).out


def test_inspect_a_file(gen_repo: GenRepo, tmp_path: Path) -> None:
    path = models.external("w.bin", 64)(tmp_path)
    file = json.loads(gen_repo("inspect", path, "--json").out)
    assert file["opset"] == 18
    assert file["external_data"] == ["w.bin"]
    assert file["size"] == path.stat().st_size + 64
    assert file["outputs"] == [{"name": "y", "datatype": "FP32", "shape": ["batch", 4]}]
    shown = gen_repo("inspect", path).out
    assert "Opset" in shown and "Weights in" in shown and "[batch, 4]" in shown


def test_inspect_what_is_no_model(gen_repo: GenRepo, tmp_path: Path) -> None:
    (tmp_path / "page.onnx").write_text("<html>")
    outcome = gen_repo("inspect", "page.onnx")
    assert (outcome.code, "an HTML or XML page" in outcome.err) == (1, True)
    (tmp_path / "empty").mkdir()
    outcome = gen_repo("inspect", "empty")
    assert (outcome.code, "empty holds no model" in outcome.err) == (1, True)
