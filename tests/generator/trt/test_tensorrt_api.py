"""Every TensorRT name that we use exists in the releases that we say have it.

NVIDIA's own Python bindings are imported over empty stand-ins for its libraries: nothing runs,
but the names are exact, without a GPU and without gigabytes of kernels.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
from typing import Any

import pytest
from support.harness.paths import ROOT
from support.trt import tensorrt_names

from tritonsmith_generator.trt.availability import AVAILABLE, OPTIONS, Release, has

CACHE = ROOT / ".cache" / "tensorrt-bindings"
BINDINGS = ("10.13.3.9", "10.16.1.11", "11.4.0.106")


@pytest.fixture(scope="module", params=[*BINDINGS, "rtx"])
def release_and_names(request: Any) -> tuple[Release, frozenset[str]]:
    if request.param == "rtx":
        if importlib.util.find_spec("tensorrt_rtx") is None:
            pytest.skip("tensorrt_rtx is not installed")
        version = importlib.metadata.version("tensorrt_rtx")
        return Release.parse("tensorrt_rtx", version), tensorrt_names.names_of_installed(
            "tensorrt_rtx"
        )
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        names = tensorrt_names.names_of_bindings(request.param, CACHE)
    except FileNotFoundError as exc:
        pytest.skip(f"no stand-in libraries: {exc}")
    except subprocess.TimeoutExpired:
        pytest.skip(f"pip did not fetch NVIDIA's bindings {request.param} in time")
    except subprocess.CalledProcessError as exc:
        if "pip" not in exc.cmd:
            raise
        pytest.skip(f"pip cannot fetch NVIDIA's bindings {request.param}: {exc.stderr[-300:]}")
    return Release.parse("tensorrt", request.param), names


def test_the_walk_finds_names_in_every_file() -> None:
    found = list(tensorrt_names.uses())
    assert {use.where.partition(":")[0] for use in found} >= {
        "builder.py",
        "config.py",
        "callbacks.py",
        "plan_engine.py",
    }
    names = {use.name for use in found}
    assert "BuilderFlag.TF32" in names
    assert "OnnxParser.parse_from_file" in names
    assert "ICudaEngine.num_io_tensors" in names


def test_names_that_we_use_exist(release_and_names: tuple[Release, frozenset[str]]) -> None:
    release, names = release_and_names
    missing = [
        f"{use.name} ({use.where})"
        for use in tensorrt_names.uses()
        if use.name not in names and not use.guarded and has(release, use.name)
    ]
    assert missing == []


def test_options_name_what_exists(release_and_names: tuple[Release, frozenset[str]]) -> None:
    release, names = release_and_names
    wanted = [(option.name, option.enum) for option in OPTIONS.values()]
    missing = [
        name
        for pair in wanted
        for name in pair
        if name and name not in names and has(release, name)
    ]
    assert missing == []


def test_the_table_of_releases_is_true(
    release_and_names: tuple[Release, frozenset[str]],
) -> None:
    """Both ways for TensorRT; TensorRT for RTX has names that it ignores, and we refuse."""
    release, names = release_and_names
    wrong = [
        name
        for name, available in AVAILABLE.items()
        if available.has(release) != (name in names)
        and (release.library == "tensorrt" or name not in names)
    ]
    assert wrong == []
