"""A stand-in of NVIDIA's driver library, compiled where a test needs GPUs that are not there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["HOST_MEMORY", "ON_DEVICE", "THREE_GPUS", "compile_library"]

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

# In the addresses of the memory below, so that who takes one for the host's crashes.
ON_DEVICE = 1 << 62

# The calls that tensors on a GPU need, for one GPU whose memory is the host's and has a limit.
HOST_MEMORY = """
#include <stdlib.h>
#include <string.h>
#define ON_DEVICE (1ULL << 62)
static size_t blocks, limit = 1 << 20;
size_t live(void) { return blocks; }
void set_limit(size_t bytes) { limit = bytes; }
int cuInit(unsigned flags) { return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &blocks; return 0; }
int cuCtxPushCurrent_v2(void *context) { return context == &blocks ? 0 : 201; }
int cuCtxPopCurrent_v2(void **context) { *context = &blocks; return 0; }
int cuCtxSynchronize(void) { return 0; }
int cuMemAlloc_v2(unsigned long long *address, size_t bytes) {
    if (!bytes) return 1;
    if (bytes > limit) return 2;
    *address = (unsigned long long)aligned_alloc(256, (bytes + 255) / 256 * 256) | ON_DEVICE;
    blocks++; return 0;
}
static void *in_host(unsigned long long address) {
    if (!(address & ON_DEVICE)) abort();
    return (void *)(address & ~ON_DEVICE);
}
int cuMemFree_v2(unsigned long long address) { free(in_host(address)); blocks--; return 0; }
int cuMemcpyHtoD_v2(unsigned long long to, const void *from, size_t bytes) {
    memcpy(in_host(to), from, bytes); return 0;
}
int cuMemcpyDtoH_v2(void *to, unsigned long long from, size_t bytes) {
    memcpy(to, in_host(from), bytes); return 0;
}
int cuGetErrorString(int status, const char **text) {
    *text = status == 2 ? "out of memory" : "invalid"; return 0;
}
"""


def compile_library(folder: Path, name: str, source: str, status: int = 0) -> None:
    """Make ``folder/name`` of C source, in which STATUS is a number. Skips without a compiler."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to compile a stand-in driver with")
    (folder / "source.c").write_text(source)
    command = ["gcc", f"-DSTATUS={status}", "-shared", "-fPIC", "-o", str(folder / name)]
    subprocess.run([*command, str(folder / "source.c")], check=True)
