"""Processes side by side: which share a process, what memory allows, and what a crash means."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from support.programs import task_functions as functions

from tritonsmith_generator.errors import HostError
from tritonsmith_generator.events import Event, ignore
from tritonsmith_generator.host.gpus import Gpu
from tritonsmith_generator.workers.pool import Ended, Limits, run_side_by_side
from tritonsmith_generator.workers.scheduler import Task

GB = 10**9
# Seconds for which a task waits for one that should come, and for one that should not.
COMES, COMES_NOT = 30.0, 1.0


def run(function: Any, tasks: Iterable[Task], limits: Limits, **options: Any) -> list[Ended]:
    ended = list(run_side_by_side(function, tasks, limits, options.pop("on_event", ignore)))
    return sorted(ended, key=lambda end: end.task.name)


def values(ended: list[Ended]) -> list[Any]:
    assert [end.error for end in ended] == [None] * len(ended)
    return [end.value for end in ended]


@pytest.mark.parametrize(("free", "together"), [(20 * GB, True), (15 * GB, False)])
def test_memory_decides_what_runs_together(tmp_path: Path, free: int, together: bool) -> None:
    events: list[Event] = []
    seconds = COMES if together else COMES_NOT
    tasks = [Task(a, (tmp_path, a, b, seconds), memory=10 * GB) for a, b in ("ab", "ba")]
    limits = Limits(2, free_memory=lambda: free)
    met = values(run(functions.overlaps, tasks, limits, on_event=events.append))
    assert met == [together, together]
    waited = [str(event) for event in events if event.stage == "waiting"]
    assert waited == (
        [] if together else ["waiting: for memory: it needs 10.0 GB, 15.0 GB are free"]
    )


def test_more_than_there_ever_is_runs_alone(tmp_path: Path) -> None:
    tasks = [
        Task("a", (tmp_path, "a", "b", COMES_NOT)),
        Task("b", (tmp_path, "b", "a", COMES_NOT), memory=99 * GB),
    ]
    assert values(run(functions.overlaps, tasks, Limits(2, free_memory=lambda: GB))) == [False] * 2


def test_a_process_takes_one_task_after_the_other() -> None:
    tasks = [Task(str(number)) for number in range(4)]
    first, *others = values(run(functions.process_id, tasks, Limits(1)))
    assert first != os.getpid()
    assert others == [first] * 3


def test_code_of_the_user_gets_a_process_of_its_own() -> None:
    tasks = [Task(str(number), spoils=True) for number in range(3)]
    assert len(set(values(run(functions.process_id, tasks, Limits(1))))) == 3


def test_a_process_that_holds_much_memory_is_not_used_again() -> None:
    tasks = [Task("a", 600 << 20), Task("b", 0)]
    first, second = values(run(functions.takes_memory, tasks, Limits(1)))
    assert first != second


def test_an_error_leaves_the_process_as_it_was() -> None:
    failed, other = run(functions.refuses, [Task("a", "one"), Task("b", "two")], Limits(1))
    assert isinstance(failed.error, ValueError) and str(failed.error) == "one"
    assert "in refuses" in str(failed.error.__cause__)  # the traceback of the process
    assert str(other.error) == "two"


def test_a_crash_that_an_earlier_task_may_have_caused_is_tried_again() -> None:
    tasks = [Task(name, name) for name in ("a", "b", "c")]
    assert values(run(functions.crashes_after_another, tasks, Limits(1))) == ["a", "b", "c"]


def test_what_was_killed_beside_others_comes_again_when_they_have_ended(tmp_path: Path) -> None:
    tasks = [Task(name, (tmp_path, name)) for name in ("a", "b")]
    events: list[Event] = []

    def note(event: Event) -> None:
        events.append(event)
        (tmp_path / "told").touch()

    ended = run(functions.is_killed_beside, tasks, Limits(2), on_event=note)
    assert values(ended) == [False, False]
    assert (tmp_path / "again").exists()
    assert [str(event) for event in events] == ["waiting: to run alone"]


def test_where_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing real forbids root a process without harm to others."""

    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("subprocess.Popen", refuse)
    ended = run(functions.process_id, [Task("a"), Task("b")], Limits(2))
    assert [type(end.error) for end in ended] == [HostError, HostError]
    assert "no process could be started (Resource temporarily unavailable)" in str(ended[0].error)


def test_each_of_several_gpus_gets_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus = tuple(Gpu(n, "NVIDIA H200", "9.0", 150 * GB, "580", f"GPU-{n}") for n in range(2))
    names = ("CUDA_VISIBLE_DEVICES",)
    tasks = [Task("a", names, on_gpu=True), Task("b", names, on_gpu=True), Task("c", names)]
    seen = values(run(functions.environment, tasks, Limits(3, gpus)))
    assert [each["CUDA_VISIBLE_DEVICES"] for each in seen] == ["GPU-0", "GPU-1", None]
    seen = values(run(functions.environment, tasks[:1], Limits(1, gpus[:1])))
    assert seen == [{"CUDA_VISIBLE_DEVICES": None}]  # one GPU is found without being named


def test_what_needs_no_gpu_overtakes_what_waits_for_one(tmp_path: Path) -> None:
    small = (Gpu(0, "NVIDIA T4", "7.5", 4 * GB, "580", "GPU-0"),)  # for one task at a time
    tasks = [Task(a, (tmp_path, a, b, COMES), on_gpu=a in "ab") for a, b in ("ac", "ba", "ca")]
    assert values(run(functions.overlaps, tasks, Limits(2, small))) == [True, False, True]


def test_a_descriptor_is_held_by_each_process(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        ended = run_side_by_side(
            functions.counts_descriptors, [Task("a", tmp_path)], Limits(1), ignore, [handle]
        )
        assert values(list(ended)) == [1]
    finally:
        os.close(handle)
