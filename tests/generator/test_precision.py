"""Precision through the front door: converted, measured, compiled, and refused where it fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support import bad_models as models
from support.command import GenRepo, Outcome
from support.needs import named, needs_modelopt, needs_rtx

from tritonsmith_generator.accuracy.gate import Limits
from tritonsmith_generator.onnx_model.case_file import case_path, load_cases
from tritonsmith_generator.repository.lock import read_lock

MODELS = Path(__file__).parents[2] / "model_repository"


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "samples.npz"
    np.savez(path, input=np.random.default_rng(0).random((32, 784), np.float32))
    return path


def spec(tmp_path: Path, options: str, source: Path = MODELS / "simplenet.onnx") -> None:
    (tmp_path / "models.yaml").write_text(f"models: {{m: {{onnx: '{source}', {options}}}}}\n")


def built(outcome: Outcome) -> dict[str, Any]:
    assert outcome.code == 0, outcome
    (model,) = json.loads(outcome.out)
    return dict(model)


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "int8"])
def test_plans_of_every_precision(
    precision: str, gen_repo: GenRepo, tmp_path: Path, samples: Path
) -> None:
    spec(tmp_path, f"target: tensorrt_rtx, precision: {precision}, calibration: samples.npz")
    model = built(gen_repo("models.yaml", "-o", "repository", "--json"))
    notes = " ".join(model["notes"])
    assert "plan: " in notes
    if precision not in ("fp32", "tf32"):
        measured = r"largest difference \S+, cosine (0\.999|1\.000)\d+, top-1 \S+%"
        allowed = r"relative L2 \S+ \(at most \S+\)"
        assert re.search(f"accuracy of 'output': {allowed}, {measured}", notes), notes
        assert "lowered" in notes
    assert (tmp_path / "repository/m/1/model.plan").stat().st_size > 100_000
    assert gen_repo("check", "repository").code == 0


@needs_rtx
def test_half_is_not_fp32_under_another_name(
    gen_repo: GenRepo, tmp_path: Path, samples: Path
) -> None:
    """TensorRT for RTX takes any graph without a word: only the size tells, and only here.

    Inputs and outputs stay FP32, so that clients need not know.
    """
    sizes = {}
    for precision in ("fp32", "fp16", "bf16"):
        spec(tmp_path, f"target: tensorrt_rtx, precision: {precision}")
        built(gen_repo("models.yaml", "-o", precision, "--json"))
        sizes[precision] = (tmp_path / precision / "m/1/model.plan").stat().st_size
        config = (tmp_path / precision / "m/config.pbtxt").read_text()
        assert config.count("data_type: TYPE_FP32\n    #") == 2, config
    assert max(sizes["fp16"], sizes["bf16"]) < 0.9 * sizes["fp32"], sizes


@needs_rtx
def test_neither_torch_nor_tools_that_were_found_wanting_are_needed(
    tmp_path: Path, samples: Path
) -> None:
    """A converter that makes invalid graphs, one that needs torch, a builder that ignores FP16."""
    for name in ("torch", "modelopt", "onnxconverter_common", "polygraphy"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} is not wanted here')\n")
    source = MODELS / "simplenet.onnx"
    lines = [
        f"  {p}: {{onnx: '{source}', precision: {p}, accuracy: {{samples: samples.npz}}}}\n"
        for p in ("fp32", "tf32", "fp16", "bf16", "int8")
    ]
    text = "defaults: {target: tensorrt_rtx, simplify: true}\nmodels:\n" + "".join(lines)
    (tmp_path / "models.yaml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "tritonsmith_generator", "models.yaml", "-o", "repository"],
        cwd=tmp_path,
        env={
            **os.environ,
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 built" in done.stdout


@needs_rtx
@pytest.mark.parametrize(
    ("precision", "capability", "fits"),
    [
        ("fp32", "7.5", False),  # TensorRT for RTX has no FP32 matrix product there
        ("bf16", "7.5", False),
        ("fp16", "7.5", True),
        ("int8", "7.5", True),
        ("bf16", "8.0", True),
        pytest.param("fp8", "8.6", False, marks=needs_modelopt),
        pytest.param("fp8", "8.9", True, marks=needs_modelopt),
        pytest.param("int4", "7.5", False, marks=needs_modelopt),
        pytest.param("int4", "8.0", True, marks=needs_modelopt),
    ],
)
def test_which_gpu_takes_what_is_known_without_one(
    precision: str, capability: str, fits: bool, gen_repo: GenRepo, tmp_path: Path, samples: Path
) -> None:
    spec(
        tmp_path,
        f"target: tensorrt_rtx, precision: {precision}, accuracy: {{samples: samples.npz}}, "
        f"builder: {{compute_capabilities: ['{capability}']}}",
    )
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert outcome.code == (0 if fits else 1), outcome
    assert (f"was to run on compute capability {capability}" in outcome.err) == (not fits)
    assert (tmp_path / "repository").exists() == fits


def test_the_graph_that_onnx_runtime_serves_is_lowered(
    gen_repo: GenRepo, tmp_path: Path, samples: Path
) -> None:
    for number, precision in enumerate(("fp32", "fp16", "int8"), start=1):
        spec(
            tmp_path,
            f"target: onnxruntime, precision: {precision}, accuracy: {{samples: samples.npz}}",
        )
        assert built(gen_repo("models.yaml", "-o", "repository", "--json"))["version"] == number
    sizes, operators = [], []
    for version in (1, 2, 3):
        path = tmp_path / f"repository/m/{version}/model.onnx"
        sizes.append(path.stat().st_size)
        operators.append({node.op_type for node in onnx.load(path).graph.node})
    assert sizes[1] < 0.6 * sizes[0]
    assert "QuantizeLinear" in operators[2] and "QuantizeLinear" not in operators[1]
    assert gen_repo("check", "repository").code == 0


def test_the_users_samples_become_the_cases(
    gen_repo: GenRepo, tmp_path: Path, samples: Path
) -> None:
    spec(tmp_path, "target: onnxruntime, accuracy: {samples: samples.npz}")
    built(gen_repo("models.yaml", "-o", "repository", "--json"))
    cases = load_cases(case_path(tmp_path / "repository/m", 1))
    recorded = np.concatenate([case.inputs["input"] for case in cases])
    assert np.array_equal(recorded, np.load(samples)["input"])
    np.savez(samples, input=np.zeros((1, 784), np.float32))
    assert built(gen_repo("models.yaml", "-o", "repository", "--json"))["status"] == "built"


def overflowing(large: float = 1e5) -> onnx.ModelProto:
    """Between the first two layers the values are beyond FP16's largest number."""
    names = ("large", "small", "plain")
    weights = [
        numpy_helper.from_array(np.full((4, 4), value, np.float32), name)
        for name, value in zip(names, (large, 1 / large, 0.1), strict=True)
    ]
    tensors = ("x", "h", "g", "y")
    nodes = [
        helper.make_node("MatMul", [tensors[i], name], [tensors[i + 1]], f"by_{name}")
        for i, name in enumerate(names)
    ]
    return models.model(nodes, weights=weights)


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


def test_a_single_file_that_needs_samples(gen_repo: GenRepo, tmp_path: Path) -> None:
    source = models.saved(overflowing(2.0))(tmp_path)
    command = [source, "--target", "onnxruntime", "--precision", "int8", "-o", "repository"]
    refused = gen_repo(*command)
    assert refused.code == 1 and "--samples for a single ONNX file" in refused.err, refused
    gone = gen_repo(*command, "--samples", "gone.npz")
    assert gone.code == 1 and f"samples '{tmp_path}/gone.npz': no such" in gone.err, gone
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize("given", ["data/samples.npz", "made.py:samples", "made:samples"])
def test_a_single_file_is_calibrated_with_the_samples_of_the_option(
    given: str, gen_repo: GenRepo, tmp_path: Path
) -> None:
    """Their path starts where the command is called, not where the model lies."""
    for folder in ("elsewhere", "data"):
        (tmp_path / folder).mkdir()
    source = models.saved(overflowing(2.0))(tmp_path / "elsewhere")
    inputs = np.random.default_rng(0).random((8, 4), np.float32)
    np.savez(tmp_path / "data/samples.npz", x=inputs)
    code = "import numpy as np\ndef samples():\n    yield dict(np.load('data/samples.npz'))\n"
    (tmp_path / "made.py").write_text(code)
    command = [source, "--target", "onnxruntime", "--precision", "int8", "-o", "repository"]
    outcome = gen_repo(*command, "--samples", given)
    assert outcome.code == 0, outcome
    (case,) = load_cases(case_path(tmp_path / "repository/model", 1))
    assert np.array_equal(case.inputs["x"], inputs)
    graph = onnx.load(tmp_path / "repository/model/1/model.onnx").graph
    assert "QuantizeLinear" in {node.op_type for node in graph.node}
    assert "up to date" in gen_repo(*command, "--samples", given).out


# what is wrong: (the spec's part, the message)
REFUSED = {
    "int8 without samples": ("target: onnxruntime, precision: int8", "samples"),
    "bf16 in ONNX Runtime": ("target: onnxruntime, precision: bf16", "has no precision bf16"),
    "keep without a pass": ("target: onnxruntime, keep: ['layers*']", "keep has no effect"),
    "samples that are not there": (
        "target: onnxruntime, accuracy: {samples: none.npz}",
        "samples 'none.npz': no such file or folder; correct accuracy.samples or calibration in ",
    ),
    "calibration that is not there": (
        "target: onnxruntime, precision: int8, calibration: 'none/'",
        "samples 'none': no such file or folder; correct ",
    ),
    "samples that are a single array": (
        "target: onnxruntime, accuracy: {samples: array.npz}",
        "array.npz holds an array without the name of its input, as .npy files do",
    ),
    "samples that are something else": (
        "target: onnxruntime, accuracy: {samples: text.npz}",
        "text.npz: not a readable .npz file",
    ),
    "an option of another release": (
        "target: tensorrt_rtx, builder: {timing_cache: here}",
        "the timing cache is kept by gen-repo",
    ),
    "an unknown option": (
        "target: tensorrt_rtx, builder: {optimisation_level: 3}",
        "builder.optimisation_level: unknown key; did you mean 'optimization_level'?",
    ),
    "an option that RTX ignores": (
        "target: tensorrt_rtx, builder: {hardware_compatibility: ampere_plus}",
        "hardware_compatibility",
    ),
}


@pytest.mark.parametrize("kind", named(REFUSED))
def test_what_cannot_be(kind: str, gen_repo: GenRepo, tmp_path: Path) -> None:
    options, message = REFUSED[kind]
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.zeros((1, 784), np.float32))
    (tmp_path / "text.npz").write_text("no samples")
    spec(tmp_path, options)
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert (outcome.code, message in outcome.err) == (1, True), outcome
    assert not (tmp_path / "repository").exists()


@needs_rtx
def test_builder_options_reach_the_plan(gen_repo: GenRepo, tmp_path: Path) -> None:
    """Too little workspace: the build fails, and says so."""
    spec(tmp_path, "target: tensorrt_rtx, builder: {memory_pools: {workspace: 0}}")
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert outcome.code != 0
    assert "workspace" in outcome.err
