"""Timing caches: one file per GPU and TensorRT, and no build loses what another one timed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.trt import timing

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.host.gpus import Gpu
from tritonsmith_generator.trt.availability import Release
from tritonsmith_generator.trt.timing_cache import (
    merge_timing_cache,
    timing_cache_path,
    use_timing_cache,
)

H200 = Gpu(0, "NVIDIA H200", "9.0", 150_000_000_000, "580.95.05")
L4 = Gpu(1, "NVIDIA L4", "8.9", 23_000_000_000, "580.95.05")


def test_a_file_for_each_gpu_and_release(tmp_path: Path) -> None:
    old, new = Release("tensorrt", (8, 6, 0)), Release("tensorrt", (10, 13, 3, 9))
    paths = [
        timing_cache_path(tmp_path, release, gpu) for release in (old, new) for gpu in (H200, L4)
    ]
    assert len(set(paths)) == 4
    assert paths[0] == tmp_path / "tensorrt-8.6.0-nvidia-h200-sm9.0.timing"
    assert timing_cache_path(tmp_path, Release("tensorrt_rtx", (1, 7)), L4) is None


def test_what_was_timed_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "h200.timing"
    merge_timing_cache(timing.Config("conv1"), path)
    merge_timing_cache(timing.Config("conv2"), path)
    config = timing.Config()
    use_timing_cache(config, path)
    assert config.cache.words == {"conv1", "conv2"}


def test_the_first_build_starts_with_an_empty_cache(tmp_path: Path) -> None:
    config = timing.Config()
    use_timing_cache(config, tmp_path / "absent.timing")
    assert config.cache.words == set()


def test_a_file_of_another_gpu_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "other.timing"
    path.write_text("foreign")
    for function in (use_timing_cache, merge_timing_cache):
        with pytest.raises(InputError, match=r"other.timing is no timing cache of this GPU"):
            function(timing.Config("mine"), path)
    assert path.read_text() == "foreign"


def test_builds_side_by_side_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "shared.timing"
    command = [sys.executable, timing.__file__, str(path)]
    builds = [subprocess.Popen([*command, name]) for name in "abc"]
    assert [build.wait(60) for build in builds] == [0, 0, 0]
    wanted = {f"{name}-{number}" for name in "abc" for number in range(40)}
    assert set(path.read_text().split()) == wanted
    assert sorted(p.name for p in tmp_path.iterdir()) == [".shared.timing.lock", "shared.timing"]
