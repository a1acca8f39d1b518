"""A stand-in of NVIDIA's driver library, compiled where a test needs GPUs that are not there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["THREE_GPUS", "compile_library"]

# Two of a kind, and one of another; CUDA_VISIBLE_DEVICES may name one of them, as CUDA allows.
THREE_GPUS = """
#include <stdlib.h>
#include <string.h>
static int first(void) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    return visible ? visible[4] - '0' : 0;
}
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = getenv("CUDA_VISIBLE_DEVICES") ? 1 : 3; return 0; }
int cuDeviceGet(int *device, int index) { *device = first() + index; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    strncpy(name, device < 2 ? "NVIDIA L4" : "NVIDIA H200", size); return 0;
}
int cuDeviceTotalMem_v2(unsigned long *bytes, int device) { *bytes = 23034000000UL; return 0; }
int cuDeviceGetUuid(char *uuid, int device) {
    for (int n = 0; n < 16; n++) uuid[n] = 16 * device + n;
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = device < 2 ? (attribute == 75 ? 8 : 9) : (attribute == 75 ? 9 : 0); return 0;
}
"""


def compile_library(folder: Path, name: str, source: str, status: int = 0) -> None:
    """Make ``folder/name`` of C source, in which STATUS is a number. Skips without a compiler."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to compile a stand-in driver with")
    (folder / "source.c").write_text(source)
    command = ["gcc", f"-DSTATUS={status}", "-shared", "-fPIC", "-o", str(folder / name)]
    subprocess.run([*command, str(folder / "source.c")], check=True)
