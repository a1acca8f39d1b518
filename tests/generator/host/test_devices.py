"""GPUs are found through the driver's library: a stand-in of it, compiled here, plays two GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from support.trt.stand_in_driver import compile_library

from tritonsmith_generator.engine.installed import tensorrt_releases
from tritonsmith_generator.trt.availability import Release

DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return STATUS; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int index) { *device = 40 + index; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    strncpy(name, device == 40 ? "NVIDIA L4" : "NVIDIA H200", size); return 0;
}
int cuDeviceTotalMem_v2(unsigned long *bytes, int device) {
    *bytes = device == 40 ? 23034000000UL : 150754000000UL; return 0;
}
int cuDeviceGetUuid(char *uuid, int device) {
    for (int n = 0; n < 16; n++) uuid[n] = 16 * (device - 40) + n;
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? (device == 40 ? 8 : 9) : (device == 40 ? 9 : 0); return 0;
}
"""
MANAGEMENT = """
#include <string.h>
int nvmlInit_v2(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    strncpy(text, "580.95.05", size); return 0;
}
"""
ASK = """
import dataclasses, json
from tritonsmith_generator.host.gpus import visible_gpus
print(json.dumps([dataclasses.asdict(gpu) for gpu in visible_gpus()]))
"""


def ask(folder: Path) -> list[dict[str, object]]:
    """What ``visible_gpus`` says in a new process that finds its libraries in this folder."""
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
    )
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def test_two_gpus_in_cudas_order(tmp_path: Path) -> None:
    compile_library(tmp_path, "libcuda.so.1", DRIVER)
    compile_library(tmp_path, "libnvidia-ml.so.1", MANAGEMENT)
    common = {"driver": "580.95.05"}
    assert ask(tmp_path) == [
        {
            "index": 0,
            "name": "NVIDIA L4",
            "compute_capability": "8.9",
            "memory": 23034000000,
            "uuid": "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f",
            **common,
        },
        {
            "index": 1,
            "name": "NVIDIA H200",
            "compute_capability": "9.0",
            "memory": 150754000000,
            "uuid": "GPU-10111213-1415-1617-1819-1a1b1c1d1e1f",
            **common,
        },
    ]


@pytest.mark.parametrize("status", [100, 999])  # no device; unknown error
def test_a_driver_that_does_not_start_means_no_gpu(tmp_path: Path, status: int) -> None:
    compile_library(tmp_path, "libcuda.so.1", DRIVER, status)
    assert ask(tmp_path) == []


def test_a_library_that_is_none_means_no_gpu(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("not a library")
    assert ask(tmp_path) == []


def test_a_driver_of_another_kind_means_no_gpu(tmp_path: Path) -> None:
    compile_library(tmp_path, "libcuda.so.1", "int cuInit(unsigned flags) { return 0; }")
    assert ask(tmp_path) == []


def test_installed_libraries_are_found_without_importing_them() -> None:
    try:
        installed = metadata.version("tensorrt_rtx")
    except metadata.PackageNotFoundError:
        pytest.skip("tensorrt_rtx is not installed")
    assert Release.parse("tensorrt_rtx", installed) in tensorrt_releases()
    script = (
        "import sys; from tritonsmith_generator.engine.installed import *; tensorrt_releases(); "
    )
    script += "print([name for name in sys.modules if name.startswith('tensorrt')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
