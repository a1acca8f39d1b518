"""Options of the builder, as TensorRT for RTX takes or refuses them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.harness.needs import needs_rtx
from support.onnx import engine_models as models
from support.trt.engine_builds import (
    assert_refused,
    batches,
    build_engine,
    request,
)

from tritonsmith_generator.errors import HostError, InputError
from tritonsmith_generator.host.gpus import visible_gpus
from tritonsmith_generator.trt.request import EngineOptions

pytestmark = needs_rtx


def test_the_lean_runtime_that_rtx_has_not(tmp_path: Path) -> None:
    build = request(
        models.two_layers(tmp_path / "m.onnx"), tmp_path, batches(1, 4, 8), version_compatible=True
    )
    assert_refused(build, HostError, "'version_compatible'", "add exclude_lean_runtime: true")
    options = replace(build.options, exclude_lean_runtime=True)
    assert build_engine(replace(build, options=options)).plan_bytes > 1_000_000


def test_too_small_a_workspace_says_so(tmp_path: Path) -> None:
    onnx = models.LIGHT / "light_squeezenet.onnx"
    build = request(onnx, tmp_path, memory_pools={"workspace": 1 << 20})
    assert_refused(build, InputError, "workspace 1048576 bytes", "raise the limit")


def test_an_option_of_other_releases_names_them(tmp_path: Path) -> None:
    onnx = models.two_layers(tmp_path / "m.onnx")
    build = request(onnx, tmp_path, batches(1, 4, 8), hardware_compatibility="ampere_plus")
    assert_refused(
        build,
        InputError,
        "option 'hardware_compatibility' is not in TensorRT for RTX 1.",
        "It needs TensorRT 8.6 and newer",
    )


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"memory_pools": {"scratch": 1}}, ["'memory_pools' is 'scratch'", "workspace"]),
        ({"compute_capabilities": ("9.0",)}, ["'9.0'", "8.6", "8.9", "12.0"]),
        ({"compute_capabilities": ("current",)}, ["'current'", "builds for: 7.5, 8.0"]),
        ({"runtime_platform": "windows_amd64"}, ["'runtime_platform'", "needs TensorRT 10.2"]),
        ({"tactic_sources": ("cublas",)}, ["'cublas'", "edge_mask_convolutions"]),
        ({"tiling_optimization_level": "utmost"}, ["'utmost'", "moderate"]),
        ({"dla_core": 0}, ["'dla_core'", "TensorRT 8.6"]),
    ],
)
def test_a_wrong_value_names_the_right_ones(
    tmp_path: Path, options: dict[str, Any], texts: list[str]
) -> None:
    onnx = models.two_layers(tmp_path / "m.onnx")
    assert_refused(request(onnx, tmp_path, batches(1, 4, 8), **options), InputError, *texts)


def test_many_options_at_once(tmp_path: Path) -> None:
    build = request(
        models.two_layers(tmp_path / "m.onnx"),
        tmp_path,
        batches(1, 4, 8),
        precision="tf32",
        memory_pools={"workspace": 1 << 30, "tactic_shared_memory": 48 << 10},
        optimization_level=2,
        max_num_tactics=4,
        max_aux_streams=1,
        avg_timing_iterations=2,
        tiling_optimization_level="fast",
        l2_limit_for_tiling=1 << 20,
        sparse_weights=True,
        strict_nans=True,
        weight_streaming=True,
        refit_individual=False,
        compute_capabilities=("8.6", "8.9"),
    )
    assert build_engine(build).plan_bytes > 500_000


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"optimization_level": 9}, "'optimization_level' is 9; it must be 0 to 5"),
        ({"max_num_tactics": 0}, "'max_num_tactics' is 0; it must be 1 or more"),
        ({"memory_pools": {"workspace": -1}}, "workspace -1 bytes"),
    ],
)
def test_a_number_that_tensorrt_would_ignore(
    tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    onnx = models.two_layers(tmp_path / "m.onnx")
    assert_refused(request(onnx, tmp_path, batches(1, 4, 8), **options), InputError, text)


@pytest.mark.skipif(bool(visible_gpus()), reason="this machine has a GPU")
@pytest.mark.parametrize("option", ["refit", "refit_identical", "strip_plan"])
def test_an_option_that_needs_a_gpu_to_build(tmp_path: Path, option: str) -> None:
    onnx = models.two_layers(tmp_path / "m.onnx")
    build = request(onnx, tmp_path, batches(1, 4, 8), **{option: True})
    assert_refused(build, HostError, f"option '{option}' needs a GPU during the build")


def test_a_compute_capability_reaches_tensorrt(tmp_path: Path) -> None:
    onnx = models.two_layers(tmp_path / "m.onnx")
    turing = request(onnx, tmp_path, batches(1, 4, 8), compute_capabilities=("7.5",))
    # It has no FP32 matrix product in RTX.
    assert_refused(turing, InputError, "SM75", "compute capability 7.5", "another precision")
    newer = request(onnx, tmp_path, batches(1, 4, 8), compute_capabilities=("8.6", "12.0"))
    assert build_engine(newer).plan_bytes > 1_000_000


def test_plugin_that_is_missing_or_no_library(tmp_path: Path) -> None:
    build = request(models.two_layers(tmp_path / "m.onnx"), tmp_path, batches(1, 4, 8))
    plugin = tmp_path / "libmine.so"
    with_plugin = replace(build, options=EngineOptions(plugins=(plugin,)))
    assert_refused(with_plugin, InputError, f"there is no plugin library {plugin}")
    plugin.write_text("not a library")
    assert_refused(with_plugin, InputError, f"plugin library {plugin} does not load")
