"""Which task may start beside which, and on which GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tritonsmith_generator.host.gpus import Gpu
from tritonsmith_generator.workers.scheduler import (
    Running,
    Task,
    gpu_for,
    may_start,
    same_gpus,
    waits_for_gpu,
)

GB = 10**9


def gpu(index: int, name: str = "NVIDIA H200", capability: str = "9.0") -> Gpu:
    return Gpu(index, name, capability, 150 * GB, "580.95.05", f"GPU-{index}")


def task(memory: float = 1, on_gpu: bool = False, alone: bool = False) -> Task:
    return Task("m", memory=int(memory * GB), on_gpu=on_gpu, alone=alone)


def running(memory: float = 1, holds: float = 0, alone: bool = False) -> Running:
    return Running(task(memory, alone=alone), int(holds * GB))


@pytest.mark.parametrize(
    ("needs", "beside", "free", "starts"),
    [
        (1, [], 8, True),
        (4, [running(4)], 8, True),  # 4 are promised to the other one, 4 are left
        (4.1, [running(4)], 8, False),
        (6, [running(4, holds=3)], 7, True),  # the other one has most of its memory already
        (6.1, [running(4, holds=3)], 7, False),
        (6, [running(4, holds=5)], 6, True),  # it took more than was thought: the rest is free
        (100, [], 8, True),  # it will never fit, so it runs when nothing else does
        (100, [running(1)], 8, False),
        (1, [running(100)], 8, False),
        (1, [running(1), running(1)], 8, False),  # two at once, at most
    ],
)
def test_memory_and_jobs(needs: float, beside: list[Running], free: float, starts: bool) -> None:
    assert may_start(task(needs), beside, 2, int(free * GB)) is starts


def test_a_task_that_runs_alone() -> None:
    alone = task(0, alone=True)
    assert may_start(alone, [], 2, 8 * GB)
    assert not may_start(alone, [running(0)], 2, 8 * GB)
    assert not may_start(task(0), [running(0, alone=True)], 2, 8 * GB)


def test_gpus_take_turns() -> None:
    gpus = [gpu(0), gpu(1), gpu(2)]
    work: list[Running] = []
    for _ in range(5):
        work.append(Running(task(), gpu=gpu_for(task(on_gpu=True), work, gpus)))
    assert [r.gpu and r.gpu.index for r in work] == [0, 1, 2, 0, 1]
    del work[1]
    chosen = gpu_for(task(on_gpu=True), work, gpus)
    assert chosen is not None and chosen.index == 1


@pytest.mark.parametrize(("memory", "most"), [(4, 1), (24, 2), (150, 8)])
def test_a_gpu_takes_as_many_as_its_memory_allows(memory: int, most: int) -> None:
    gpus = [replace(gpu(n), memory=memory * GB) for n in range(2)]
    work = [Running(task(), gpu=gpus[n % 2]) for n in range(2 * most)]
    assert waits_for_gpu(task(on_gpu=True), work, gpus)
    assert not waits_for_gpu(task(on_gpu=True), work[1:], gpus)
    assert not waits_for_gpu(task(), work, gpus)


def test_a_task_without_a_gpu() -> None:
    assert gpu_for(task(), [], [gpu(0)]) is None
    assert gpu_for(task(on_gpu=True), [], []) is None
    assert not waits_for_gpu(task(on_gpu=True), [], [])


def test_only_gpus_of_the_first_ones_kind_are_used() -> None:
    """A plan that was tuned for another kind would be another plan."""
    first = gpu(0, "NVIDIA L4", "8.9")
    other = gpu(1, "NVIDIA H200", "9.0")
    sibling = gpu(2, "NVIDIA L40", "8.9")  # the same capability, other kernels are fast on it
    again = gpu(3, "NVIDIA L4", "8.9")
    assert same_gpus([first, other, sibling, again]) == (first, again)
    assert same_gpus([]) == ()
