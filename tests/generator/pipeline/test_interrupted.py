"""Builds that crash, are killed or are stopped: other models go on, and nothing stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from support.programs.command import GenRepo
from support.programs.parallel_builds import (
    GEN_REPO,
    as_json,
    assert_gone,
    left_over,
    statuses,
    stop,
    wait_for,
    write_spec,
)

from tritonsmith_generator import Event, build, load_spec
from tritonsmith_generator.errors import HostError


def test_a_crash_is_one_models_failure(gen_repo: GenRepo, folder: Path) -> None:
    write_spec(folder, {"first": "segfaults", "second": "leaves", "third": None})
    code, results = as_json(gen_repo, "--jobs", 2)
    assert code == 3  # the machine's fault, as far as anybody knows
    assert statuses(results) == {"first": "failed", "second": "failed", "third": "built"}
    assert "the build of first was ended by SIGSEGV" in results[0]["error"]
    assert "in phase 'precheck: " in results[0]["error"]
    assert "busy_samples.py" in results[0]["error"]  # the line that called the native code
    assert "the build of second left with exit code 7" in results[1]["error"]
    assert [p.name for p in (folder / "repository").iterdir() if p.is_dir()] == ["third"]
    assert left_over(folder) == []
    summary = gen_repo("models.yaml", "-o", "repository")
    assert "failed first: the build of first was ended by SIGSEGV" in summary.out
    assert "2 failed, 1 unchanged" in summary.out


def test_what_was_killed_beside_others_is_built_alone(gen_repo: GenRepo, folder: Path) -> None:
    write_spec(folder, {"a": "is_killed_beside_b", "b": "outlives_a"})
    code, results = as_json(gen_repo, "--jobs", 2)
    assert (code, statuses(results)) == (0, {"a": "built", "b": "built"}), results


def test_what_is_killed_each_time_has_failed(gen_repo: GenRepo, folder: Path) -> None:
    write_spec(folder, {"a": "is_killed", "b": None})
    code, results = as_json(gen_repo, "--jobs", 2)
    assert (code, statuses(results)) == (3, {"a": "failed", "b": "built"})
    assert "SIGKILL (Killed)" in results[0]["error"]
    assert "memory ran out" in results[0]["error"]


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_nothing_outlives_the_command(folder: Path, number: signal.Signals, status: int) -> None:
    write_spec(folder, {"a": "hangs_as_a", "b": "hangs_as_b"})
    command = [*GEN_REPO, "build", "models.yaml", "-o", "repository", "--jobs", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as parent:
        pids = [int(wait_for(folder / f"{name}.pid")) for name in ("a", "b")]
        parent.send_signal(number)
        try:
            _, said = parent.communicate(timeout=30)
        finally:
            parent.kill()
    assert parent.returncode == status
    assert_gone(*pids)
    if number == signal.SIGINT:
        assert "nothing is half-written" in said
        assert left_over(folder) == []
        assert not (folder / "repository").exists()
    (folder / "free").touch()
    again = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert statuses(json.loads(again.stdout)) == {"a": "built", "b": "built"}, again
    assert left_over(folder) == []


def test_a_build_that_lost_its_parent_keeps_others_out(folder: Path) -> None:
    """It may still be writing: the lock is held until it has ended."""
    write_spec(folder, {"a": "hangs_as_a", "b": "hangs_as_b"})
    command = [*GEN_REPO, "build", "models.yaml", "-o", "repository", "--jobs", "2"]
    with subprocess.Popen(command) as parent:
        pids = [int(wait_for(folder / f"{name}.pid")) for name in ("a", "b")]
        for pid in pids:
            stop(pid)  # they cannot notice; the one that was forked ends with its parent
        parent.kill()
    (folder / "free").touch()
    try:
        refused = subprocess.run(command, capture_output=True, text=True)
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    assert refused.returncode == 3
    assert "another gen-repo is writing to repository" in refused.stderr
    assert_gone(*pids)
    assert subprocess.run(command, capture_output=True).returncode == 0


# Loaded by every interpreter: the first process of a build that makes sure of a file's bytes, which
# is while it publishes, is killed then.
KILL_ONE = """
import os, signal, sys
if "workers.main" in " ".join(sys.orig_argv):
    def fsync(handle, real=os.fsync):
        try:
            os.close(os.open(os.environ["KILLED_ONE"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return real(handle)
        os.kill(os.getpid(), signal.SIGKILL)
    os.fsync = fsync
"""


def test_killed_while_it_publishes(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    write_spec(folder, {"a": None, "b": None})
    elsewhere = tmp_path_factory.mktemp("site")
    (elsewhere / "sitecustomize.py").write_text(KILL_ONE)
    path = os.pathsep.join([str(elsewhere), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "KILLED_ONE": str(elsewhere / "killed")}
    command = [*GEN_REPO, "build", "models.yaml", "-o", "repository", "--jobs", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (elsewhere / "killed").exists()
    assert done.returncode in (0, 3)  # built alone after it, if it was not the last one anyway
    assert left_over(folder) == []
    homes = [p.name for p in (folder / "repository").iterdir() if p.is_dir()]
    built = [
        name for name, status in statuses(json.loads(done.stdout)).items() if status == "built"
    ]
    assert sorted(homes) == built
    assert (
        sorted(json.loads((folder / "repository/repository.lock.json").read_text())["models"])
        == built
    )


def test_a_handler_that_raises_ends_the_build(folder: Path) -> None:
    spec = load_spec(write_spec(folder, {"a": "hangs_as_a", "b": "meets_a"}))

    def stop(event: Event) -> None:
        if event.model == "b":
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        build(spec, folder, folder / "repository", jobs=2, on_event=stop)
    assert left_over(folder) == []
    assert not (folder / "repository").exists()


def test_torch_code_that_crashes_is_one_models_failure(gen_repo: GenRepo, folder: Path) -> None:
    pytest.importorskip("torch")
    (folder / "module.py").write_text("import ctypes\ndef crash():\n    ctypes.string_at(0)\n")
    (folder / "models.yaml").write_text(
        "defaults: {target: onnxruntime}\n"
        "models: {a: {torch: 'module.py:crash'}, b: {onnx: model.onnx}}\n"
    )
    code, results = as_json(gen_repo)
    assert (code, statuses(results)) == (3, {"a": "failed", "b": "built"})
    assert "SIGSEGV" in results[0]["error"]
    assert "module.py" in results[0]["error"]


def test_stopped_from_another_thread(folder: Path) -> None:
    from tritonsmith_generator.workers.process import stop_running

    spec = load_spec(write_spec(folder, {"a": "hangs_as_a", "b": None, "c": None}))
    caught: list[BaseException] = []

    def call() -> None:
        try:
            build(spec, folder, folder / "repository", jobs=1)
        except HostError as exc:
            caught.append(exc)

    thread = threading.Thread(target=call)
    thread.start()
    pid = int(wait_for(folder / "a.pid"))
    stop_running()
    thread.join(30)
    assert_gone(pid)
    assert len(caught) == 1  # the others were not begun
    assert not (folder / "repository").exists()
