"""Every builder option, from models.yaml to TensorRT's own config, or to words that say why not."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.harness.needs import needs_rtx
from support.harness.paths import SIMPLENET
from support.programs.command import GenRepo
from support.trt.builder_readback import read_back

from tritonsmith_generator import load_spec
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.host.gpus import visible_gpus
from tritonsmith_generator.trt.availability import Release, check_options
from tritonsmith_generator.trt.request import EngineOptions
from tritonsmith_generator.workers.process import run_isolated

pytestmark = needs_rtx


# option: (its value in the spec, TensorRT's name for it, what TensorRT's config says then)
HEEDED: dict[str, tuple[Any, str, Any]] = {
    "tf32": (True, "BuilderFlag.TF32", True),
    "memory_pools": ({"workspace": "64MiB"}, "MemoryPoolType.WORKSPACE", 64 << 20),
    "optimization_level": (1, "IBuilderConfig.builder_optimization_level", 1),
    "refit_individual": (True, "BuilderFlag.REFIT_INDIVIDUAL", True),
    "weight_streaming": (True, "BuilderFlag.WEIGHT_STREAMING", True),
    "sparse_weights": (True, "BuilderFlag.SPARSE_WEIGHTS", True),
    "strict_nans": (True, "BuilderFlag.STRICT_NANS", True),
    "max_num_tactics": (3, "IBuilderConfig.max_num_tactics", 3),
    "max_aux_streams": (2, "IBuilderConfig.max_aux_streams", 2),
    "avg_timing_iterations": (5, "IBuilderConfig.avg_timing_iterations", 5),
    "tiling_optimization_level": (
        "moderate",
        "IBuilderConfig.tiling_optimization_level",
        "MODERATE",
    ),
    "l2_limit_for_tiling": (1 << 20, "IBuilderConfig.l2_limit_for_tiling", 1 << 20),
    "tactic_sources": (["jit_convolutions"], "IBuilderConfig.tactic_sources", ["JIT_CONVOLUTIONS"]),
    "compute_capabilities": (
        ["8.6", "8.9"],
        "IBuilderConfig.compute_capabilities",
        ["SM86", "SM89"],
    ),
}

# option: (its value in the spec, the exit code, the words)
REFUSED: dict[str, tuple[Any, int, str]] = {
    "hardware_compatibility": ("ampere_plus", 1, "It needs TensorRT 8.6 and newer"),
    "runtime_platform": ("windows_amd64", 1, "It needs TensorRT 10.2 and newer"),
    "dla_core": (0, 1, "It needs TensorRT 8.6 and newer"),
    "gpu_fallback": (True, 1, "It needs TensorRT 8.6 and newer"),
    "refit": (True, 3, "option 'refit' needs a GPU during the build"),
    "refit_identical": (True, 3, "option 'refit_identical' needs a GPU during the build"),
    "strip_plan": (True, 3, "option 'strip_plan' needs a GPU during the build"),
    "version_compatible": (True, 3, "add exclude_lean_runtime: true"),
    "plugins": (["libmine.so"], 1, "there is no plugin library"),
    "precision": ("fp16", 1, "'precision' is a key of the model itself"),
    "timing_cache": ("gpu.cache", 1, "the timing cache is kept by gen-repo"),
}
# With version_compatible, tested below.
TOGETHER = {"exclude_lean_runtime"}


def write(folder: Path, builder: dict[str, Any], **options: Any) -> Path:
    model = {"onnx": str(SIMPLENET), "target": "tensorrt_rtx", "builder": builder, **options}
    path = folder / "models.yaml"
    path.write_text(yaml.safe_dump({"models": {"m": model}}))
    return path


def test_every_option_has_a_test() -> None:
    assert {field.name for field in fields(EngineOptions)} == {*HEEDED, *REFUSED, *TOGETHER}


@pytest.mark.parametrize("option", HEEDED)
def test_an_option_of_the_spec_is_in_tensorrt_s_config(option: str, tmp_path: Path) -> None:
    value, name, expected = HEEDED[option]
    said = load_spec(write(tmp_path, {option: value})).models["m"].builder
    given = EngineOptions.of(said, "fp32")
    found = [
        run_isolated(read_back, ("tensorrt_rtx", options, (name,)), lambda _: None)[0]
        for options in (given, EngineOptions())
    ]
    assert found[0] == expected
    assert found[1] != expected


@pytest.mark.skipif(bool(visible_gpus()), reason="this machine has a GPU")
@pytest.mark.parametrize("option", REFUSED)
def test_an_option_that_cannot_be_says_why(option: str, gen_repo: GenRepo, tmp_path: Path) -> None:
    value, code, words = REFUSED[option]
    outcome = gen_repo(write(tmp_path, {option: value}), "-o", "repository")
    assert (outcome.code, words in outcome.err) == (code, True), outcome
    assert not (tmp_path / "repository").exists()


def test_all_at_once_build_a_plan(gen_repo: GenRepo, tmp_path: Path) -> None:
    builder = {option: value for option, (value, _, _) in HEEDED.items()}
    more = {"version_compatible": True, "exclude_lean_runtime": True}
    outcome = gen_repo(write(tmp_path, {**builder, **more}), "-o", "repository")
    assert outcome.code == 0, outcome
    assert (tmp_path / "repository/m/1/model.plan").stat().st_size > 100_000


@pytest.mark.parametrize(
    ("builder", "words"),
    [
        ({"memory_pools": {"dla_local_dram": "1GiB"}}, "It needs TensorRT 8.6 and newer"),
        ({"memory_pools": {"scratch": 1}}, "tactic_dram"),
        ({"memory_pools": {"workspace": "4Gigs"}}, "such as 4GiB or 512MiB, not 4Gigs"),
        ({"memory_pools": {"workspace": -1}}, "gives workspace -1 bytes; 0 is the least"),
        ({"optimization_level": 6}, "'optimization_level' is 6; it must be 0 to 5"),
        ({"tactic_sources": ["cublas"]}, "TensorRT for RTX 1."),
    ],
)
def test_wrong_values_name_the_right_ones(
    builder: dict[str, Any], words: str, gen_repo: GenRepo, tmp_path: Path
) -> None:
    outcome = gen_repo(write(tmp_path, builder), "-o", "repository")
    assert (outcome.code, words in outcome.err) == (1, True), outcome


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_precision_is_said_in_one_place(precision: str, gen_repo: GenRepo, tmp_path: Path) -> None:
    """Not in silence where it is the builder's default, nor where both say the same."""
    path = write(tmp_path, {"precision": precision}, precision="fp16")
    outcome = gen_repo(path, "-o", "repository", "--dry-run")
    assert (outcome.code, "'precision' is a key of the model itself" in outcome.err) == (1, True)


def test_a_typo_is_not_told_to_be_what_is_refused(gen_repo: GenRepo, tmp_path: Path) -> None:
    outcome = gen_repo(write(tmp_path, {"precison": "fp16"}), "-o", "repository")
    assert outcome.code == 1 and "builder.precison: unknown key" in outcome.err, outcome
    assert "'precision'" not in outcome.err and "optimization_level" in outcome.err, outcome


def test_a_wrong_option_is_said_before_samples_are_read(gen_repo: GenRepo, tmp_path: Path) -> None:
    """Calibration takes minutes."""
    (tmp_path / "samples.py").write_text("def load():\n    raise SystemExit('samples were read')\n")
    options = {"precision": "int8", "accuracy": {"samples": f"{tmp_path}/samples.py:load"}}
    outcome = gen_repo(write(tmp_path, {"optimization_level": 9}, **options), "-o", "repository")
    assert (outcome.code, "it must be 0 to 5" in outcome.err) == (1, True), outcome


# release: options that it has not, and the words
OTHERS = [
    ("8.6.0", {"strict_nans": True}, "It needs TensorRT 10.6 and newer or TensorRT for RTX 1.4"),
    ("8.6.0", {"weight_streaming": True}, "It needs TensorRT 10.0 and newer"),
    ("10.0.1", {"max_num_tactics": 3}, "It needs TensorRT 10.4 and newer"),
    ("10.3", {"tiling_optimization_level": "fast"}, "It needs TensorRT 10.8 and newer"),
    ("11.4", {"compute_capabilities": ("8.6",)}, "It needs TensorRT for RTX 1.4 and newer"),
    ("8.6.0", {"memory_pools": {"tactic_shared_memory": 1}}, "It needs TensorRT 10.0 and newer"),
]


@pytest.mark.parametrize(("version", "options", "words"), OTHERS)
def test_other_releases_name_what_has_it(version: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        check_options(Release.parse("tensorrt", version), EngineOptions(**options))
    assert f"is not in TensorRT {version}" in str(caught.value)
    assert words in str(caught.value)
