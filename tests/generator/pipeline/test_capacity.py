"""What a process may use: read from files, as containers of different kinds have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.onnx import bad_models as models

from tritonsmith_generator.host import limits
from tritonsmith_generator.onnx_model.onnx_file import read
from tritonsmith_generator.pipeline.memory_estimate import weights_size

MIB = 1 << 20
MEMINFO = "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_this_machine() -> None:
    assert 1 <= limits.cores() <= (os.cpu_count() or 1)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < limits.free_memory() < total


def test_without_a_limit(tmp_path: Path) -> None:
    assert limits.free_memory(tree(tmp_path, {})) == 8192 * MIB


def test_a_system_without_these_files_has_no_bound(tmp_path: Path) -> None:
    assert limits.free_memory(tmp_path) > 1 << 60
    assert limits.cores(tmp_path) >= 1


def test_groups_of_version_2(tmp_path: Path) -> None:
    """A pod's limit is above the container's own group, which has none; file cache is free."""
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/container\n",
            "sys/fs/cgroup/pod/container/memory.max": "max\n",
            "sys/fs/cgroup/pod/container/memory.current": str(900 * MIB),
            "sys/fs/cgroup/pod/memory.max": str(2048 * MIB),
            "sys/fs/cgroup/pod/memory.current": str(1000 * MIB),
            "sys/fs/cgroup/pod/memory.stat": f"anon 5\ninactive_file {300 * MIB}\n",
            "sys/fs/cgroup/pod/cpu.max": "50000 100000\n",
        },
    )
    assert limits.free_memory(root) == (2048 - 1000 + 300) * MIB
    assert limits.cores(root) == 1  # half a core


def test_groups_of_version_1(tmp_path: Path) -> None:
    """In a container the path is the host's; the limits lie at the top."""
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(1024 * MIB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(600 * MIB),
            "sys/fs/cgroup/memory/memory.stat": f"cache 1\ntotal_inactive_file {100 * MIB}\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    )
    assert limits.free_memory(root) == (1024 - 600 + 100) * MIB
    assert limits.cores(root) == 1


def test_a_group_without_limits(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/\n2:cpu:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(600 * MIB),
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    )
    assert limits.free_memory(root) == 8192 * MIB
    assert limits.cores(root) == limits.cores()


@pytest.mark.parametrize(
    ("value", "count"), [("", 0), ("4", 4), (" 2,1", 2), ("many", 0), ("-1", 0)]
)
def test_the_variable_for_threads(monkeypatch: pytest.MonkeyPatch, value: str, count: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert limits.threads() == count


@pytest.mark.parametrize("name", ["w.bin", f"{'deep/' * 40}{'w' * 60}.bin"])  # over 127 bytes, too
def test_the_size_of_weights_in_other_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    path = models.external(name, 64)(tmp_path)
    assert weights_size(path) == read(path).size > 64


def test_the_size_of_a_model_that_is_not_there(tmp_path: Path) -> None:
    assert weights_size(tmp_path / "gone.onnx") == 0
