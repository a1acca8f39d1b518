"""A child process that crashes, hangs, prints or refuses never takes the caller with it."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from support.harness.paths import TESTS
from support.programs import worker_functions as functions
from support.programs.processes import is_gone

from tritonsmith_generator.errors import HostError, InputError
from tritonsmith_generator.workers.process import (
    child,
    early_child,
    new_child,
    run_isolated,
    stop_running,
)


def ignore(_: object) -> None:
    pass


def assert_gone(*pids: int) -> None:
    deadline = time.monotonic() + 10
    while not all(map(is_gone, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [pid for pid in pids if not is_gone(pid)] == []


def test_result_and_events_arrive_in_order() -> None:
    events: list[str] = []
    assert run_isolated(functions.double, [1, 2, 3], events.append) == [2, 4, 6]
    assert events == ["doubling 1", "doubling 2", "doubling 3"]


def test_it_is_another_process_that_ends() -> None:
    pid = run_isolated(functions.process_id, None, ignore)
    assert pid != os.getpid()
    assert_gone(pid)


def test_one_process_does_several_pieces_of_work() -> None:
    with child() as process:
        process.prepare(functions.remember, "a")
        process.prepare(functions.refuse_to_prepare, "b")  # what really needs it will say so
        pid = process.run(functions.process_id, None, ignore)
        with pytest.raises(InputError, match="no such thing"):
            process.run(functions.refuse, "no such thing", ignore)
        assert process.run(functions.remembered, None, ignore) == (pid, ["a"])
        for _ in range(2):  # a process that crashed is gone, and says so each time
            with pytest.raises(HostError, match="left with exit code 7"):
                process.run(functions.leave, 7, ignore)
    assert_gone(pid)


def test_a_fork_is_a_child_like_others() -> None:
    with child() as process:
        process.prepare(functions.fork_and_ask, None)
        _, (another, said) = process.run(functions.remembered, None, ignore)
    assert another == "True"
    assert "left with exit code 7" in said


def test_a_fork_ends_with_its_parent_whatever_it_does(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with child() as process:
        process.prepare(functions.start_a_fork_that_hears_nothing, str(note))
        process.run(functions.process_id, None, ignore)
        deadline = time.monotonic() + 20
        while not note.exists() or not note.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pid = int(note.read_text())
        assert not is_gone(pid)
    assert_gone(pid)


def test_an_early_child_is_the_first_one() -> None:
    with early_child() as early:
        early.prepare(functions.remember, "early")
        with closing(new_child({"GIVEN": "late"}, ())) as first:
            assert first is early
            assert first.run(functions.remembered, None, ignore)[1] == ["early"]
            assert first.run(functions.variable, "GIVEN", ignore) == "late"
        with closing(new_child({}, ())) as second:
            assert second is not early
    with early_child() as unused:
        pid = unused.run(functions.process_id, None, ignore)
    assert_gone(pid)


def test_the_child_is_fresh_and_finds_what_the_parent_finds() -> None:
    path, has_pytest = run_isolated(functions.path_and_modules, None, ignore)
    assert path == sys.path
    assert not has_pytest


def test_segfault_names_signal_phase_and_last_words() -> None:
    with pytest.raises(HostError) as caught:
        run_isolated(functions.segfault, None, ignore, what="the engine build of x.onnx")
    text = str(caught.value)
    assert text.startswith("the engine build of x.onnx was ended by SIGSEGV (Segmentation fault)")
    assert "in phase 'timing the kernels'" in text
    assert "another version" in text
    assert "worker_functions.py" in text  # the line of ours that called the native code


def test_abort_shows_what_the_library_said() -> None:
    with pytest.raises(HostError, match=r"SIGABRT .* before its first step(.|\n)*std::bad_alloc"):
        run_isolated(functions.abort, None, ignore)


def test_kill_is_explained_as_lack_of_memory() -> None:
    with pytest.raises(HostError, match=r"SIGKILL .*memory ran out(.|\n)*printed nothing"):
        run_isolated(functions.die_like_out_of_memory, None, ignore)


def test_leaving_without_a_result_is_an_error() -> None:
    with pytest.raises(HostError, match="left with exit code 7"):
        run_isolated(functions.leave, 7, ignore)


def test_noise_is_captured_and_never_blocks(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_isolated(functions.print_megabytes, 8, ignore) == "done"
    assert capfd.readouterr() == ("", "")


def test_our_error_arrives_with_class_and_text() -> None:
    with pytest.raises(InputError) as caught:
        run_isolated(functions.refuse, "input 'x' has rank 3\nit needs 4", ignore)
    assert type(caught.value) is InputError
    assert str(caught.value) == "input 'x' has rank 3\nit needs 4"


def test_a_bug_arrives_with_the_traceback_of_the_child() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run_isolated(functions.divide_by_zero, None, ignore)
    assert "in divide_by_zero" in str(caught.value.__cause__)


def test_an_error_that_cannot_travel_is_told() -> None:
    with pytest.raises(RuntimeError, match="UnpicklableError: holds a lock"):
        run_isolated(functions.raise_unpicklable, None, ignore)


def test_timeout_kills_the_whole_group() -> None:
    pids: list[tuple[int, int]] = []
    with child() as process:
        process.run(functions.process_id, None, ignore)  # its start is none of the 2 s
        with pytest.raises(HostError, match=r"took longer than 2 s and was stopped in phase"):
            process.run(functions.hang_with_a_child, None, pids.append, timeout=2)
        assert_gone(*pids[0])


def test_an_error_in_the_event_handler_ends_the_child() -> None:
    pids: list[int] = []

    def stop(event: tuple[int, int]) -> None:
        pids.extend(event)
        raise KeyError("handler")

    with pytest.raises(KeyError, match="handler"):
        run_isolated(functions.hang_with_a_child, None, stop)
    assert_gone(*pids)


def test_events_from_many_threads_arrive_whole() -> None:
    events: list[tuple[int, int]] = []
    assert run_isolated(functions.emit_from_threads, 4, events.append) == 800
    assert sorted(events) == [(number, step) for number in range(4) for step in range(200)]


def test_what_other_threads_run_can_be_stopped() -> None:
    pids: list[int] = []
    started = threading.Event()

    def note(event: tuple[int, int]) -> None:
        pids.extend(event)
        started.set()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_isolated, functions.hang_with_a_child, None, note)
        assert started.wait(20)
        stop_running()
        with pytest.raises(HostError, match="SIGKILL"):
            running.result(20)
    assert_gone(*pids)


def test_no_descriptor_is_left_open() -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()  # what other tests left open is closed before it is counted
    before = open_files()
    run_isolated(functions.double, [1], ignore)
    with pytest.raises(HostError):
        run_isolated(functions.segfault, None, ignore)
    assert open_files() <= before


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_nothing_outlives_the_parent(number: signal.Signals, status: int) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from support.programs import worker_functions
from tritonsmith_generator.workers.process import run_isolated
try:
    run_isolated(worker_functions.hang_with_a_child, None, lambda pids: print(*pids, flush=True))
except KeyboardInterrupt:
    sys.exit(130)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = json.loads("[" + parent.stdout.readline().decode().replace(" ", ",") + "]")
        assert len(pids) == 2
        parent.send_signal(number)
        assert parent.wait(10) == status
    assert_gone(*pids)
