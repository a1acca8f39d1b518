"""Every kind of bad ONNX file: one clear message, exit code 1, nothing left behind."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper
from onnxruntime.datasets import get_example
from support.harness.needs import named, needs_rtx
from support.onnx import bad_models as bad
from support.programs.command import GenRepo

from tritonsmith_client import dtypes

ORT, TRT = "onnxruntime", "tensorrt_rtx"

# what it is: (how it is made, the target, what the message must say)
BAD: dict[str, tuple[bad.Maker, str, str]] = {
    "missing file": (lambda folder: folder / "none.onnx", ORT, "no such model file"),
    "folder": (lambda folder: folder, ORT, "cannot read the model file: Is a directory"),
    "empty": (bad.raw(b""), ORT, "the file is empty (0 bytes)"),
    "html": (bad.raw(b"  <!DOCTYPE html><html>Sign in</html>"), ORT, "an HTML or XML page"),
    "text": (bad.raw(b"just some text, no model at all"), ORT, "not a readable ONNX file"),
    "zip": (bad.raw(b"PK\x03\x04" + bytes(64)), ORT, "this is a zip archive"),
    "git lfs pointer": (
        bad.raw(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n"),
        ORT,
        "run 'git lfs pull'",
    ),
    "truncated": (bad.truncated, ORT, "truncated, corrupt or something else"),
    "random bytes": (bad.raw(bytes(range(255, 0, -1)) * 9), ORT, "not a readable ONNX file"),
    "no graph": (bad.saved(onnx.ModelProto(ir_version=8)), ORT, "no graph with nodes"),
    "weights missing": (bad.external("w.bin", None), ORT, "'w.bin' is missing next to the model"),
    "weights too short": (
        bad.external("w.bin", 10),
        ORT,
        "'w.bin' is too short (10 bytes, 'w' ends at 64)",
    ),
    "weights outside": (bad.external("../../passwd", None), ORT, "lies outside the model's folder"),
    "custom domain": (
        bad.saved(bad.model([helper.make_node("Acme", ["x"], ["y"], "n", domain="acme")])),
        ORT,
        "node 'n' (Acme) is of the custom domain 'acme'",
    ),
    "custom domain for TensorRT": (
        bad.saved(bad.model([helper.make_node("Acme", ["x"], ["y"], "n", domain="acme")])),
        TRT,
        "TensorRT needs a plugin",
    ),
    "unknown operator": (
        bad.saved(bad.model([helper.make_node("Frobnicate", ["x"], ["y"], "n")])),
        ORT,
        "node 'n' (Frobnicate): ONNX has no operator 'Frobnicate'",
    ),
    "operator that TensorRT lacks": (
        bad.saved(
            bad.model(
                [helper.make_node("Det", ["x"], ["y"], "determinant")],
                [bad.tensor("x", shape=("batch", 4, 4))],
                [bad.tensor("y", shape=("batch",))],
            )
        ),
        TRT,
        "determinant",
    ),
    "sequence output": (bad.saved(bad.sequence_output()), ORT, "'y' is a sequence: only tensors"),
    "no opset": (bad.saved(bad.without_opset()), ORT, "declares no opset"),
    "classical model with a sequence of maps": (
        lambda folder: Path(get_example("logreg_iris.onnx")),
        ORT,
        "output 'probabilities' is a sequence: only tensors",
    ),
    "opset of the future": (
        bad.saved(bad.model([bad.relu()], opset_imports=[helper.make_opsetid("", 40)])),
        ORT,
        "opset 40 is newer than 25",
    ),
    "IR version of the future": (
        bad.saved(bad.model([bad.relu()], ir_version=99)),
        ORT,
        "IR version 99 is newer",
    ),
    "contradicting shapes": (bad.saved(bad.contradiction()), ORT, "contradict each other"),
    "string input for TensorRT": (
        bad.saved(bad.typed(T.STRING)),
        TRT,
        "input 'x' has type STRING, which TensorRT has not",
    ),
    "int16 input for TensorRT": (
        bad.saved(bad.typed(T.INT16)),
        TRT,
        "input 'x' has type INT16, which TensorRT has not",
    ),
    "uint32 input for TensorRT": (
        bad.saved(bad.typed(T.UINT32)),
        TRT,
        "input 'x' has type UINT32, which TensorRT has not",
    ),
    "complex input": (
        bad.saved(bad.typed(T.COMPLEX64)),
        ORT,
        "input 'x' has type COMPLEX64, which Triton has not",
    ),
    "input without a shape": (bad.saved(bad.shapeless()), ORT, "input 'x' has no shape"),
    "dimension of 0": (
        bad.saved(bad.model([bad.relu()], [bad.tensor("x", shape=(0, 4))])),
        ORT,
        "input 'x': dimension 0 is 0",
    ),
    "tensor made twice": (
        bad.saved(bad.model([bad.relu(), bad.relu(name="again")])),
        ORT,
        "the tensor 'y' is produced more than once",
    ),
    "two inputs of one name": (
        bad.saved(bad.model([bad.relu()], [bad.tensor("x"), bad.tensor("x")])),
        ORT,
        "2 graph inputs are named 'x'",
    ),
    "input from nowhere": (
        bad.saved(bad.model([bad.relu("ghost")])),
        ORT,
        "node 'relu' (Relu) reads 'ghost', which nothing produces",
    ),
    "cycle": (
        bad.saved(bad.cycle()),
        ORT,
        "the graph has a cycle",
    ),
    "no outputs": (bad.saved(bad.model([bad.relu()], outputs=[])), ORT, "the graph has no outputs"),
    "scalar input": (
        bad.saved(bad.shaped(())),
        ORT,
        "input 'x' is a scalar",
    ),
}


@pytest.mark.parametrize("kind", named(BAD))
def test_one_clear_message_and_nothing_left(kind: str, gen_repo: GenRepo, tmp_path: Path) -> None:
    make, target, message = BAD[kind]
    folder = tmp_path / "models"
    folder.mkdir()
    path = make(folder)
    before = sorted(tmp_path.rglob("*"))
    arguments = ["build", path] if path.is_dir() else [path]
    outcome = gen_repo(*arguments, "--target", target, "--name", "m")
    if path.is_dir():  # a folder is taken for a spec, so the options don't belong to it
        outcome = gen_repo("build", _spec(tmp_path, path), "-o", tmp_path / "repository")
        (tmp_path / "models.yaml").unlink()
    assert outcome.code == 1
    assert message in outcome.out + outcome.err
    assert "Traceback" not in outcome.out + outcome.err
    assert sorted(tmp_path.rglob("*")) == before


def _spec(folder: Path, source: Path) -> Path:
    path = folder / "models.yaml"
    path.write_text(json.dumps({"models": {"m": {"onnx": str(source)}, "n": {"onnx": "gone"}}}))
    return path


SHAPES = {
    "unknown input": ("z=1x4:2x4:4x4", "the model has no input 'z'; it has: x"),
    "min above opt": ("x=3x4:2x4:4x4", "on axis 0 min, opt and max are 3, 2 and 4"),
    "opt above max": ("x=1x4:9x4:4x4", "on axis 0 min, opt and max are 1, 9 and 4"),
    "wrong rank": (
        "x=1x4x4:2x4x4:4x4x4",
        "min is [1, 4, 4], of rank 3; the input has rank 2",
    ),
    "wrong fixed axis": ("x=1x5:2x5:4x5", "with 5 on axis 1; the model fixes that axis at 4"),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_profiles_that_do_not_fit(kind: str, gen_repo: GenRepo, tmp_path: Path) -> None:
    shape, message = SHAPES[kind]
    bad.saved(bad.good())(tmp_path)
    outcome = gen_repo("model.onnx", "--shape", shape)
    assert (outcome.code, message in outcome.err) == (1, True), outcome
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx"]


def test_profile_without_an_input_that_has_no_default(gen_repo: GenRepo, tmp_path: Path) -> None:
    """An input that the shapes leave out gets the default range, and the config shows it."""
    proto = bad.model(
        [helper.make_node("Add", ["x", "z"], ["y"], "add")], [bad.tensor("x"), bad.tensor("z")]
    )
    bad.saved(proto)(tmp_path)
    outcome = gen_repo("model.onnx", "--shape", "x=1x4:2x4:16x4")
    assert outcome.code == 0, outcome
    config = (tmp_path / "model_repository/model/config.pbtxt").read_text()
    assert "max_batch_size: 16" in config  # the smaller of 16 and the default 32


# what it is: (the model, the target, what the warning must say)
DOUBTFUL = {
    "double": (bad.typed(T.DOUBLE), TRT, "input 'x' is DOUBLE: TensorRT serves it as FP32"),
    "dynamic axis that is not 0": (
        bad.shaped((4, "n")),
        ORT,
        "dynamic on axis 1 but not on axis 0: Triton cannot batch it",
    ),
    "unsorted": (bad.unsorted(), ORT, "the nodes are not in topological order"),
    "repeated node names": (bad.repeated_names(), ORT, "several nodes are named 'same'"),
    "NaN in a weight": (bad.nan_weight(), ORT, "weight 'w' holds NaN"),
    "INT8 of 8 bits": (bad.eight_bit_weight(), ORT, "weight 'q' takes all 8 bits of INT8"),
    "unused input": (
        bad.model([bad.relu()], [bad.tensor("x"), bad.tensor("idle")]),
        ORT,
        "input 'idle' is used by no node",
    ),
}


@pytest.mark.parametrize("kind", named(DOUBTFUL))
def test_what_is_only_doubtful_is_built_with_a_warning(
    kind: str, gen_repo: GenRepo, tmp_path: Path
) -> None:
    proto, target, message = DOUBTFUL[kind]
    bad.saved(proto)(tmp_path)
    outcome = gen_repo("model.onnx", "--target", target)
    assert outcome.code == 0, outcome
    assert message in outcome.out
    assert gen_repo("check", "model_repository").code == 0


@pytest.mark.parametrize("number", [T.INT64, T.UINT8, T.BOOL, T.FLOAT16, T.BFLOAT16, T.INT8])
def test_types_that_are_kept(number: int, gen_repo: GenRepo, tmp_path: Path) -> None:
    """Nothing to complain about: the config has the model's own type."""
    bad.saved(bad.typed(number))(tmp_path)
    outcome = gen_repo("model.onnx", "--target", ORT)
    assert outcome.code == 0, outcome
    config = (tmp_path / "model_repository/model/config.pbtxt").read_text()
    assert config.count(f"data_type: {dtypes.from_onnx(number).config}\n") == 2


@needs_rtx
def test_a_model_without_standard_operators(gen_repo: GenRepo, tmp_path: Path) -> None:
    """It declares no opset of theirs, and needs none: ONNX Runtime serves it, TensorRT does not."""
    node = helper.make_node(
        "LinearRegressor", ["x"], ["y"], "r", domain="ai.onnx.ml", coefficients=[1.0, 2, 3, 4]
    )
    opsets = [helper.make_opsetid("ai.onnx.ml", 1)]
    outputs = [bad.tensor("y", shape=("batch", 1))]
    path = bad.saved(bad.model([node], outputs=outputs, opset_imports=opsets))(tmp_path)
    outcome = gen_repo(path, "--target", ORT, "-o", "repository")
    assert outcome.code == 0, outcome
    assert gen_repo("check", "repository").code == 0
    outcome = gen_repo(path, "--target", TRT, "-o", "plans")
    assert "(LinearRegressor) is of the custom domain 'ai.onnx.ml'" in outcome.err


def test_a_flipped_bit_is_found_by_its_digest(gen_repo: GenRepo, tmp_path: Path) -> None:
    path = bad.saved(bad.nan_weight())(tmp_path)
    content = bytearray(path.read_bytes())
    digest = sha256(content).hexdigest()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    outcome = gen_repo("model.onnx", "--sha256", digest)
    assert outcome.code == 1
    assert f"the spec wants {digest}: another file, or a damaged copy" in outcome.err
