"""Accuracy is measured: what is refused, what is kept in FP32 instead, and what is said of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.harness.needs import needs_rtx
from support.onnx import bad_models as models
from support.onnx.precision_builds import built, overflowing, spec
from support.programs.command import GenRepo

from tritonsmith_generator.accuracy.gate import Limits
from tritonsmith_generator.repository.lock import read_lock


def test_a_failed_gate_publishes_nothing_and_names_what_to_try(
    gen_repo: GenRepo, tmp_path: Path
) -> None:
    source = models.saved(overflowing())(tmp_path)
    spec(tmp_path, "target: onnxruntime, precision: fp16, accuracy: {fallback: false}", source)
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert outcome.code == 1
    assert "fp16 is not accurate enough: output 'y'" in outcome.err
    assert "try precision: " in outcome.err
    assert not (tmp_path / "repository").exists()


def nearly_a_tie() -> onnx.ModelProto:
    """Of two classes the second is ahead by less than FP16 can tell."""
    columns = np.random.default_rng(0).random((4, 1)) + 0.5
    weights = np.concatenate([columns, columns * (1 + 1e-6)], axis=1, dtype=np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "m")
    tensors = [models.tensor("x")], [models.tensor("y", shape=("batch", 2))]
    return models.model([node], *tensors, weights=[numpy_helper.from_array(weights, "w")])


def test_the_limit_of_the_precision_itself_is_not_so_low(gen_repo: GenRepo, tmp_path: Path) -> None:
    """It lets pass what each limit below refuses."""
    source = models.saved(nearly_a_tie())(tmp_path)
    spec(tmp_path, "target: onnxruntime, precision: fp16, accuracy: {fallback: false}", source)
    assert gen_repo("models.yaml", "-o", "repository").code == 0


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("1e-7", r"relative_l2 is \S+, above the limit 1e-07; .*, or raise accuracy.limit\n"),
        ("{relative_l2: 1e-7}", r"relative_l2 is \S+, above the limit 1e-07; "),
        ("{max_abs: 1e-7}", r"max_abs is .* the limit 1e-07; .* or raise accuracy.limit.max_abs\n"),
        ("{cosine: 1}", r"cosine is .*, below the limit 1; .*, or lower accuracy.limit.cosine\n"),
        ("{top1: 0.9}", r"top1 is .*, below the limit 0.9; .*, or lower accuracy.limit.top1\n"),
    ],
)
def test_each_limit_of_the_spec_is_kept(
    limit: str, message: str, gen_repo: GenRepo, tmp_path: Path
) -> None:
    source = models.saved(nearly_a_tie())(tmp_path)
    accuracy = f"{{fallback: false, limit: {limit}}}"
    spec(tmp_path, f"target: onnxruntime, precision: fp16, accuracy: {accuracy}", source)
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert (outcome.code, (tmp_path / "repository").exists()) == (1, False), outcome
    assert re.search(message, outcome.err), outcome.err


def test_the_summary_and_the_lock_say_what_was_allowed(gen_repo: GenRepo, tmp_path: Path) -> None:
    options = "target: onnxruntime, precision: fp16, accuracy: {limit: {max_abs: 3, top1: 0.5}}"
    spec(tmp_path, options)
    printed = gen_repo("models.yaml", "-o", "repository").out
    assert re.search(
        r"m: accuracy of 'output': relative L2 \S+ \(at most 0\.01\), largest difference \S+ "
        r"\(at most 3\), cosine \S+, top-1 \S+% \(at least 0\.5\)\n",
        printed,
    ), printed
    lock = tmp_path / "repository/repository.lock.json"
    assert read_lock(lock.parent).models["m"].limit == Limits(max_abs=3, top1=0.5)
    old = json.loads(lock.read_text())
    old["models"]["m"]["limit"] = 0.5  # as before there were limits of other metrics
    lock.write_text(json.dumps(old))
    assert read_lock(lock.parent).models["m"].limit == Limits(relative_l2=0.5)


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_weights_that_were_not_trained_for_sparsity(
    precision: str, gen_repo: GenRepo, tmp_path: Path
) -> None:
    """What pruning lost is not put down to the precision."""
    spec(tmp_path, f"target: tensorrt_rtx, sparse: true, precision: {precision}")
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert (outcome.code, (tmp_path / "repository").exists()) == (1, False), outcome
    assert f"{precision} with 2:4 sparsity is not accurate enough" in outcome.err
    assert "; leave sparse out" in outcome.err

    spec(
        tmp_path,
        f"target: tensorrt_rtx, sparse: true, precision: {precision}, accuracy: {{limit: 1}}",
    )
    notes = " ".join(built(gen_repo("models.yaml", "-o", "repository", "--json"))["notes"])
    assert "sparse: " in notes


@pytest.mark.parametrize(
    ("precision", "better", "proto"),
    [("fp16", "fp32", nearly_a_tie()), ("int8", "fp16", overflowing(2.0))],
)
def test_where_no_part_of_the_nodes_is_enough_the_next_precision_is_named(
    precision: str, better: str, proto: onnx.ModelProto, gen_repo: GenRepo, tmp_path: Path
) -> None:
    """To keep every node would be that precision under another name."""
    np.savez(tmp_path / "samples.npz", x=np.random.default_rng(0).random((8, 4), np.float32))
    source = models.saved(proto)(tmp_path)
    options = f"target: onnxruntime, precision: {precision}, accuracy: {{samples: samples.npz, "
    spec(tmp_path, options + "limit: {max_abs: 1e-9}}", source)
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert (outcome.code, (tmp_path / "repository").exists()) == (1, False), outcome
    nodes = len(proto.graph.node)
    others = r"nor is any of \d+ others that keep some nodes as they are, and " if nodes > 1 else ""
    said = f"; {others}to keep all nodes would leave nothing of {precision}; "
    assert re.search(rf"{said}try precision: {better}, .*or raise accuracy", outcome.err), outcome
    assert "keep layers in FP32" not in outcome.err  # that is what was tried

    spec(tmp_path, options + "limit: {max_abs: 1e-9}, fallback: false}", source)
    refused = gen_repo("models.yaml", "-o", "repository").err
    assert "would leave nothing" not in refused and "keep layers in FP32" in refused


@needs_rtx
def test_infinity_asks_for_a_precision_that_the_target_has(
    gen_repo: GenRepo, tmp_path: Path
) -> None:
    """BF16 has the range, but not in ONNX Runtime."""
    source = models.saved(overflowing())(tmp_path)
    for target, better in (("onnxruntime", "fp32"), ("tensorrt_rtx", "bf16")):
        spec(tmp_path, f"target: {target}, precision: fp16, accuracy: {{fallback: false}}", source)
        outcome = gen_repo("models.yaml", "-o", "repository")
        assert f"; try precision: {better}, or keep layers in FP32\n" in outcome.err, outcome


def test_the_fallback_keeps_what_overflows_in_fp32(gen_repo: GenRepo, tmp_path: Path) -> None:
    source = models.saved(overflowing())(tmp_path)
    spec(tmp_path, "target: onnxruntime, precision: fp16", source)
    notes = built(gen_repo("models.yaml", "-o", "repository", "--json"))["notes"]
    (kept,) = [note for note in notes if note.startswith("kept in FP32 so that")]
    # by_large stays in FP32 by itself: its weights are beyond FP16.
    assert "by_small" in kept and "by_plain" not in kept


def test_layers_that_the_user_keeps_in_fp32(gen_repo: GenRepo, tmp_path: Path) -> None:
    source = models.saved(overflowing())(tmp_path)
    options = "target: onnxruntime, precision: fp16, accuracy: {fallback: false}"
    spec(tmp_path, f"{options}, keep: [by_large, by_small]", source)
    notes = built(gen_repo("models.yaml", "-o", "repository", "--json"))["notes"]
    assert not any(note.startswith("kept in FP32 so that") for note in notes)
    assert any("2 nodes left as they were" in note for note in notes), notes


@needs_rtx
def test_a_pass_that_had_nothing_to_do_says_nothing(gen_repo: GenRepo, tmp_path: Path) -> None:
    """Tidy and opset change nothing in this graph; in the other one a node has no name."""
    proto = overflowing(2.0)
    proto.opset_import[0].version = 19
    options = "target: tensorrt_rtx, precision: int8, calibration: samples.npz"
    np.savez(tmp_path / "samples.npz", x=np.random.default_rng(0).random((8, 4), np.float32))
    for name, said in (("by_plain", {"int8", "fp16"}), ("", {"tidy", "int8", "fp16"})):
        proto.graph.node[-1].name = name
        spec(tmp_path, options, models.saved(proto)(tmp_path))
        notes = built(gen_repo("models.yaml", "-o", "repository", "--json"))["notes"]
        passes = [note for note in notes if not note.startswith(("accuracy", "kept", "plan"))]
        assert {note.partition(":")[0] for note in passes} == said, notes
        assert "nothing to do" not in " ".join(notes)
