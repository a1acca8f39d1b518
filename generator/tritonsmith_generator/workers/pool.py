"""Run a function for many tasks in processes side by side, bounded by cores, memory and GPUs.

Nothing here has threads: one loop listens to all processes, so events, results and Ctrl-C arrive
in the thread that called.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from tritonsmith_generator.errors import HostError
from tritonsmith_generator.events import Event, OnEvent
from tritonsmith_generator.host.gpus import Gpu
from tritonsmith_generator.host.limits import cores, free_memory
from tritonsmith_generator.workers.channel import ready
from tritonsmith_generator.workers.crash import CrashError
from tritonsmith_generator.workers.process import Child, Function, new_child
from tritonsmith_generator.workers.scheduler import Running, Task, gpu_for, may_start, waits_for_gpu

__all__ = ["Ended", "Limits", "run_side_by_side"]

# Seconds after which it is looked again whether there is memory now for what waits for it.
_LOOK_AGAIN = 1.0
# Bytes: a process that holds more after its task does not get another one. Its allocator would
# give little of it back.
_SLIM = 512 << 20
_GB = 1e9
# The names under which libraries look for how many threads they may start.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Limits:
    """What the processes may use together.

    Attributes:
        jobs: how many run at once, at most.
        gpus: those that tasks are spread over.
        free_memory: says how many bytes are free now.
    """

    jobs: int
    gpus: tuple[Gpu, ...] = ()
    free_memory: Callable[[], int] = free_memory


@dataclass(frozen=True)
class Ended:
    """How a task ended, after how many seconds: with a value or with an error."""

    task: Task
    seconds: float
    value: Any = None
    error: Exception | None = None


def run_side_by_side(
    function: Function[Any, Event, Any],
    tasks: Iterable[Task],
    limits: Limits,
    on_event: OnEvent,
    held: Sequence[int] = (),
) -> Generator[Ended, None, None]:
    """Call ``function(task.request, emit)`` for each task and yield what came of it as it comes.

    Tasks start in their order. A process that ended cleanly takes the next task, so that small
    ones don't pay for its start. Whatever ends the iteration, Ctrl-C included, no process is left.

    Args:
        held: descriptors that every process holds open, such as a lock's.
    """
    crew = _Crew(function, tasks, limits, on_event, held)
    try:
        yield from crew.work()
    finally:
        crew.close()


@dataclass(frozen=True)
class _Work:
    task: Task
    gpu: Gpu | None
    began: float
    used: bool  # whether the process has done another task before


class _Crew:
    def __init__(
        self,
        function: Function[Any, Event, Any],
        tasks: Iterable[Task],
        limits: Limits,
        on_event: OnEvent,
        held: Sequence[int],
    ) -> None:
        self._function, self._limits, self._on_event, self._held = function, limits, on_event, held
        self._waiting = deque(tasks)
        self._told: Task | None = None
        self._looked = 0.0
        self._active: dict[Child, _Work] = {}
        self._spare: list[Child] = []
        self._dying: list[Child] = []
        self._threads = _threads(min(limits.jobs, len(self._waiting)))

    def work(self) -> Iterator[Ended]:
        yield from self._fill()
        while self._active:
            speaking = ready([*self._active], _LOOK_AGAIN if self._waiting else None)
            before = len(self._active)
            ended = [end for child in speaking for end in self._hear(child)]
            # Not after each event: there are thousands, and to look takes time.
            if len(self._active) < before or perf_counter() - self._looked > _LOOK_AGAIN:
                ended += self._fill()
            yield from ended

    def close(self) -> None:
        left = [*self._active, *self._spare, *self._dying]
        for child in left:
            child.kill()
        for child in left:
            child.close()

    def _fill(self) -> list[Ended]:
        """Start what may start now; what could not be started has ended."""
        self._looked = perf_counter()
        while self._waiting and self._dying:  # what waits needs their memory
            self._dying.pop().close()
        ended = []
        while (task := self._next()) is not None and self._may_start(task):
            self._waiting.remove(task)
            try:
                self._start(task)
            except HostError as exc:
                ended.append(Ended(task, 0.0, error=exc))
        while self._spare:
            self._end(self._spare.pop())
        return ended

    def _next(self) -> Task | None:
        """Get the first task that has not to wait for a GPU: those behind it need not wait, too."""
        if len(self._active) >= self._limits.jobs:
            return None
        running, gpus = self._running(), self._limits.gpus
        return next((t for t in self._waiting if not waits_for_gpu(t, running, gpus)), None)

    def _may_start(self, task: Task) -> bool:
        running, free = self._running(), self._limits.free_memory()
        if may_start(task, running, self._limits.jobs, free):
            return True
        if task is not self._told:
            self._told = task
            why = f"for memory: it needs {task.memory / _GB:.1f} GB, {free / _GB:.1f} GB are free"
            self._on_event(Event(task.name, "waiting", "to run alone" if task.alone else why))
        return False

    def _running(self) -> list[Running]:
        return [Running(w.task, child.memory(), w.gpu) for child, w in self._active.items()]

    def _start(self, task: Task) -> None:
        gpu = gpu_for(task, self._running(), self._limits.gpus)
        used = bool(self._spare) and not task.alone and gpu is None
        child = self._spare.pop() if used else new_child(self._environment(gpu), self._held)
        self._active[child] = _Work(task, gpu, perf_counter(), used)
        if task.prepare is not None:
            child.prepare(*task.prepare)
        child.submit(self._function, task.request, f"the build of {task.name}")

    def _environment(self, gpu: Gpu | None) -> Mapping[str, str]:
        if gpu is None or len(self._limits.gpus) == 1:
            return self._threads
        return {**self._threads, "CUDA_VISIBLE_DEVICES": gpu.uuid}

    def _end(self, child: Child) -> None:
        """End the process meanwhile: the system takes part of a second to free its memory."""
        child.kill()
        self._dying.append(child)

    def _hear(self, child: Child) -> list[Ended]:
        """Pass an event on; the end of a task is the one thing to return."""
        try:
            kind, value = child.receive()
        except CrashError as exc:
            if child.stopped:
                raise
            return self._lost(child, exc)
        if kind == "event":
            self._on_event(value)
            return []
        work = self._active.pop(child)
        if work.task.spoils or work.gpu is not None or child.memory() > _SLIM:
            self._end(child)
        else:
            self._spare.append(child)
        took = perf_counter() - work.began
        if kind == "error":
            return [Ended(work.task, took, error=value)]
        return [Ended(work.task, took, value)]

    def _lost(self, child: Child, error: CrashError) -> list[Ended]:
        """Try a task whose process died once more, alone, if it may have been another's fault."""
        work = self._active.pop(child)
        child.close()
        crowded = error.code == -signal.SIGKILL and bool(self._active)
        if not work.task.alone and (crowded or work.used):
            self._waiting.append(replace(work.task, alone=True))
            return []
        return [Ended(work.task, perf_counter() - work.began, error=error)]


def _threads(at_once: int) -> Mapping[str, str]:
    """Variables that leave each of so many processes its share of the cores."""
    if at_once < 2:
        return {}
    share = str(max(1, cores() // at_once))
    return {name: share for name in _THREADS if name not in os.environ}
