"""Precision through the front door: converted, measured, compiled, and refused where it fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.harness.needs import named, needs_modelopt, needs_rtx
from support.harness.paths import MODEL_REPOSITORY as MODELS
from support.onnx import bad_models as models
from support.onnx.precision_builds import built, overflowing, save_samples, spec
from support.programs.command import GenRepo

from tritonsmith_generator.onnx_model.case_file import case_path, load_cases

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8")


@pytest.fixture(scope="module")
def every_precision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which each model is named for its precision, and what was said of them.

    It needs neither torch nor tools that were found wanting: a converter that makes invalid graphs,
    one that needs torch, a builder that ignores FP16.
    """
    folder = tmp_path_factory.mktemp("precisions")
    for name in ("torch", "modelopt", "onnxconverter_common", "polygraphy"):
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} is not wanted here')\n")
    save_samples(folder / "samples.npz")
    source = MODELS / "simplenet.onnx"
    lines = [
        f"  {p}: {{onnx: '{source}', precision: {p}, calibration: samples.npz}}\n"
        for p in PRECISIONS
    ]
    text = "defaults: {target: tensorrt_rtx, simplify: true}\nmodels:\n" + "".join(lines)
    (folder / "models.yaml").write_text(text)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tritonsmith_generator",
            "models.yaml",
            "-o",
            "repository",
            "--json",
        ],
        cwd=folder,
        env={
            **os.environ,
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "said.json").write_text(done.stdout)
    return folder / "repository"


@needs_rtx
@pytest.mark.parametrize("precision", PRECISIONS)
def test_plans_of_every_precision(precision: str, every_precision: Path) -> None:
    said = json.loads(every_precision.with_name("said.json").read_text())
    (model,) = (model for model in said if model["model"] == precision)
    assert model["status"] == "built"
    notes = " ".join(model["notes"])
    assert "plan: " in notes
    if precision not in ("fp32", "tf32"):
        measured = r"largest difference \S+, cosine (0\.999|1\.000)\d+, top-1 \S+%"
        allowed = r"relative L2 \S+ \(at most \S+\)"
        assert re.search(f"accuracy of 'output': {allowed}, {measured}", notes), notes
        assert "lowered" in notes
    assert (every_precision / precision / "1/model.plan").stat().st_size > 100_000


@needs_rtx
def test_a_repository_of_every_precision_is_in_order(
    gen_repo: GenRepo, every_precision: Path
) -> None:
    assert gen_repo("check", every_precision).code == 0


@needs_rtx
def test_half_is_not_fp32_under_another_name(every_precision: Path) -> None:
    """TensorRT for RTX takes any graph without a word: only the size tells, and only here.

    Inputs and outputs stay FP32, so that clients need not know.
    """
    sizes = {}
    for precision in ("fp32", "fp16", "bf16"):
        sizes[precision] = (every_precision / precision / "1/model.plan").stat().st_size
        config = (every_precision / precision / "config.pbtxt").read_text()
        assert config.count("data_type: TYPE_FP32\n    #") == 2, config
    assert max(sizes["fp16"], sizes["bf16"]) < 0.9 * sizes["fp32"], sizes


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
