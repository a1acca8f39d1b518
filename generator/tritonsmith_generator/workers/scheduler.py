"""Which task may start now, and on which GPU: decisions alone, nothing is run here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tritonsmith_generator.host.gpus import Gpu

__all__ = ["Running", "Task", "gpu_for", "may_start", "same_gpus", "waits_for_gpu"]

_MOST_A_GPU, _GPU_MEMORY_A_TASK = 8, 8 << 30  # bytes


@dataclass(frozen=True)
class Task:
    """A piece of work for a process of its own.

    Attributes:
        request: what the function is called with.
        memory: bytes that it will hold at most, estimated.
        on_gpu: whether it builds on a GPU.
        spoils: whether its process is no good for another task: it runs code of the user's.
        alone: whether it may run only while no other does.
        prepare: a function and its argument, called before the request has even been read.
    """

    name: str
    request: Any = None
    memory: int = 0
    on_gpu: bool = False
    spoils: bool = False
    alone: bool = False
    prepare: tuple[Callable[[Any], object], Any] | None = None


@dataclass(frozen=True)
class Running:
    """A task at work, the bytes that its process holds now, and the GPU that it was given."""

    task: Task
    memory: int = 0
    gpu: Gpu | None = None


def may_start(task: Task, running: Sequence[Running], jobs: int, free_memory: int) -> bool:
    """Whether the task fits beside those that run.

    What they will still take is set aside for them. A task for which there is never enough memory
    runs when no other does.
    """
    if not running:
        return True
    if task.alone or any(r.task.alone for r in running) or len(running) >= jobs:
        return False
    promised = sum(max(0, r.task.memory - r.memory) for r in running)
    return task.memory <= free_memory - promised


def gpu_for(task: Task, running: Sequence[Running], gpus: Sequence[Gpu]) -> Gpu | None:
    """Give the GPU that has the fewest tasks; None for a task that needs none, or where none is."""
    if not task.on_gpu or not gpus:
        return None
    busy = _tasks_by_gpu(running)
    return min(gpus, key=lambda gpu: (busy[gpu.index], gpu.index))


def waits_for_gpu(task: Task, running: Sequence[Running], gpus: Sequence[Gpu]) -> bool:
    """Whether each GPU has as many tasks as it may have.

    One of them builds, others convert their models and wait for their turn. Each of those holds
    a CUDA context, in memory that the one that builds can't have.
    """
    gpu, busy = gpu_for(task, running, gpus), _tasks_by_gpu(running)
    if gpu is None:
        return False
    return busy[gpu.index] >= min(_MOST_A_GPU, max(1, gpu.memory // _GPU_MEMORY_A_TASK))


def _tasks_by_gpu(running: Sequence[Running]) -> Counter[int]:
    return Counter(r.gpu.index for r in running if r.gpu is not None)


def same_gpus(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Those that are of the first one's kind: a plan that one of them built is right for all.

    Plans are built for the first GPU; one that another kind has tuned would be another plan.
    """
    return tuple(
        gpu
        for gpu in gpus
        if (gpu.name, gpu.compute_capability) == (gpus[0].name, gpus[0].compute_capability)
    )
