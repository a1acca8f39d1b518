"""Models are built side by side in processes; what happens to one does not stop the others."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.onnx import bad_models as models
from support.onnx import busy_samples
from support.programs.command import GenRepo
from support.programs.processes import is_gone
from support.trt.broken_toolchain import BROKEN

from tritonsmith_generator import Event, build, load_spec
from tritonsmith_generator.errors import HostError, UsageError
from tritonsmith_generator.host import limits

GEN_REPO = [sys.executable, "-m", "tritonsmith_generator"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the model and the samples lie; the cache is its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.with_name(tmp_path.name + "-cache")))
    shutil.copy(busy_samples.__file__, tmp_path)
    models.saved(models.good())(tmp_path)
    return tmp_path


def write_spec(folder: Path, samples: Mapping[str, str | None]) -> Path:
    """A spec in which each model has these samples: a function of busy_samples, or none."""
    lines = ["defaults: {target: onnxruntime}", "models:"]
    for name, function in samples.items():
        given = f", accuracy: {{samples: busy_samples.py:{function}}}" if function else ""
        lines.append(f"  {name}: {{onnx: model.onnx{given}}}")
    path = folder / "models.yaml"
    path.write_text("\n".join(lines))
    return path


def as_json(gen_repo: GenRepo, *options: object) -> tuple[int, list[dict[str, Any]]]:
    outcome = gen_repo("models.yaml", "-o", "repository", "--json", *options)
    return outcome.code, json.loads(outcome.out)


def statuses(results: list[dict[str, Any]]) -> dict[str, str]:
    return {result["model"]: result["status"] for result in results}


def left_over(folder: Path) -> list[str]:
    """Work folders in the cache and staging folders beside the repository."""
    work = (folder.with_name(folder.name + "-cache") / "tritonsmith/work").glob("*")
    return [*map(str, work), *map(str, folder.glob(".repository.staging-*"))]


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not come"
        time.sleep(0.02)
    return path.read_text()


def assert_gone(*pids: int) -> None:
    deadline = time.monotonic() + 20
    while left := [pid for pid in pids if not is_gone(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.02)


def stop(pid: int) -> None:
    """Stop a process and wait until each of its threads has."""
    os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task")
    while not all("\nState:\tT" in (t / "status").read_text() for t in threads.iterdir()):
        time.sleep(0.01)


def test_two_models_are_built_at_the_same_time(gen_repo: GenRepo, folder: Path) -> None:
    write_spec(folder, {"a": "meets_b", "b": "meets_a"})  # each waits for the other
    outcome = gen_repo("models.yaml", "-o", "repository", "--jobs", 2)
    assert outcome.code == 0, outcome
    assert "repository: 2 built." in outcome.out
    assert "of 2 models done)" in outcome.err
    assert left_over(folder) == []


def test_jobs_limits_how_many(gen_repo: GenRepo, folder: Path) -> None:
    write_spec(folder, {"a": "takes_a_while", "b": "needs_a_to_be_built"})
    code, results = as_json(gen_repo, "-j", 1)
    assert (code, statuses(results)) == (0, {"a": "built", "b": "built"}), results


def test_jobs_of_nonsense(gen_repo: GenRepo, folder: Path) -> None:
    spec = write_spec(folder, {"a": None})
    assert gen_repo("models.yaml", "--jobs", 0).code == 2
    with pytest.raises(UsageError, match="jobs: 0 given; .* 1 or more"):
        build(load_spec(spec), folder, folder / "repository", jobs=0)
    assert not (folder / "repository").exists()


def test_results_come_in_the_specs_order(folder: Path) -> None:
    spec = load_spec(write_spec(folder, {"a": "waits_until_b_is_built", "b": None}))
    events: list[Event] = []

    def note(event: Event) -> None:
        events.append(event)
        if (event.model, event.stage) == ("b", "done"):
            (folder / "b.done").touch()

    results = build(spec, folder, folder / "repository", jobs=2, on_event=note)
    assert [result.name for result in results] == ["a", "b"]
    assert [e.model for e in events if e.stage == "done"] == ["b", "a"]
    assert [e.detail for e in events if e.stage == "done"] == ["built", "built"]
    stages = [e.stage for e in events if e.model == "b"]
    assert list(dict.fromkeys(stages)) == ["precheck", "cases", "publish", "done"]


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


def test_events_come_to_the_thread_that_called(folder: Path) -> None:
    spec = load_spec(write_spec(folder, {"a": "meets_b", "b": "meets_a"}))
    came = set[int]()
    outcome: list[Any] = []

    def call() -> None:
        outcome.extend(
            build(
                spec,
                folder,
                folder / "repository",
                jobs=2,
                on_event=lambda _: came.add(threading.get_ident()),
            )
        )

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(120)
    assert [result.status for result in outcome] == ["built", "built"]
    assert came == {thread.ident}


def test_a_script_needs_no_main_guard(folder: Path) -> None:
    write_spec(folder, {"a": "meets_b", "b": "meets_a"})
    (folder / "script.py").write_text(
        "from pathlib import Path\n"
        "from tritonsmith_generator import build, load_spec\n"
        "print('begin')\n"
        "results = build(load_spec(Path('models.yaml')), Path(), Path('repository'), jobs=2)\n"
        "print([result.status for result in results])\n"
    )
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True)
    assert done.stdout == "begin\n['built', 'built']\n", done.stderr


def test_a_dry_run_goes_the_same_way(gen_repo: GenRepo, folder: Path) -> None:
    write_spec(folder, {"a": "meets_b", "b": "meets_a", "c": "segfaults"})
    code, results = as_json(gen_repo, "--jobs", 2, "--dry-run")
    assert statuses(results) == {"a": "planned", "b": "planned", "c": "failed"}
    assert code == 3
    assert not (folder / "repository").exists()


def test_nothing_to_do_starts_nothing(folder: Path) -> None:
    """Neither a process nor the libraries that models are built with."""
    write_spec(folder, {"a": None, "b": None})
    command = [*GEN_REPO, "build", "models.yaml", "-o", "repository", "--json"]
    assert subprocess.run(command, capture_output=True).returncode == 0
    script = (
        "import subprocess, sys\n"
        "from pathlib import Path\n"
        "from tritonsmith_generator import build, load_spec\n"
        "def refuse(*_, **__):\n"
        "    raise AssertionError('a process was started')\n"
        "subprocess.Popen = refuse\n"
        "results = build(load_spec(Path('models.yaml')), Path(), Path('repository'))\n"
        "heavy = [name for name in ('onnxruntime', 'multiprocessing') if name in sys.modules]\n"
        "print([result.status for result in results], heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "['unchanged', 'unchanged'] []\n", done.stderr


# Loaded by every interpreter: each process notes that it was started, or forked; forks come before
# the command line's parser is there.
NOTE_STARTS = """
import os, sys
def note():
    with open(os.environ["STARTS"], "a") as file:
        print(os.getpid(), "late" if "typer" in sys.modules else "", file=file)
note()
os.register_at_fork(after_in_child=note)
"""


def starts(folder: Path, elsewhere: Path, *arguments: str) -> tuple[int, list[int]]:
    """A build's exit code and the processes that it was made of, its own the first."""
    (elsewhere / "sitecustomize.py").write_text(NOTE_STARTS)
    path = os.pathsep.join([str(elsewhere), os.environ.get("PYTHONPATH", "")])
    noted = elsewhere / "starts"
    noted.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": path, "STARTS": str(noted)}
    command = [*GEN_REPO, "build", *arguments, "-o", "repository"]
    done = subprocess.run(command, capture_output=True, env=environment)
    said = noted.read_text().splitlines()
    assert not [line for line in said if "late" in line]
    return done.returncode, [int(line) for line in said]


def test_a_process_boots_early_only_where_there_is_something_to_build(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("site")
    spec = write_spec(folder, {"a": None})
    good = spec.read_text()
    spec.write_text(good.replace("onnx:", "onxx:"))
    code, wrong = starts(folder, elsewhere, "models.yaml")
    assert (code, len(wrong)) in ((1, 1), (1, 2))  # it may have ended before it noted its start
    assert_gone(*wrong)
    assert not (folder / "repository").exists()
    assert starts(folder, elsewhere, "missing.yaml")[1][1:] == []
    spec.write_text(good)
    code, first = starts(folder, elsewhere, "models.yaml")
    assert (code, len(first)) == (0, 2)
    code, nothing_to_do = starts(folder, elsewhere, "models.yaml")
    assert (code, len(nothing_to_do)) == (0, 1)
    code, dry = starts(folder, elsewhere, "models.yaml", "--dry-run", "--force")
    assert (code, len(dry)) == (0, 1)


REFUSE_TO_FORK = """
import errno, os
def fork():
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
os.fork = fork
"""


def test_a_process_that_cannot_start_early_starts_later(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("site")
    (elsewhere / "sitecustomize.py").write_text(REFUSE_TO_FORK)
    write_spec(folder, {"a": None})
    done = subprocess.run(
        [*GEN_REPO, "build", "models.yaml", "-o", "repository"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(elsewhere)},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_keeps_its_class_its_code_and_its_traceback(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"")
    command = [*GEN_REPO, "build", "model.onnx", "-o", "repository"]
    plain = subprocess.run(command, capture_output=True, text=True)
    assert (plain.returncode, "Traceback" in plain.stderr) == (1, False)
    assert plain.stderr.startswith("gen-repo: ")
    debug = subprocess.run([*command, "--debug"], capture_output=True, text=True)
    assert "in update\n" in debug.stderr  # of the process that built it
    assert "InputError: " in debug.stderr


def test_tracebacks_of_several_models(gen_repo: GenRepo, folder: Path) -> None:
    write_spec(folder, {"a": None, "b": None})
    (folder / "model.onnx").write_bytes(b"")
    outcome = gen_repo("models.yaml", "-o", "repository", "--debug")
    assert outcome.err.count("in update\n") == 2
    assert "Traceback" not in gen_repo("models.yaml", "-o", "repository").err


def test_a_bug_in_one_model_is_told_and_the_others_are_built(folder: Path) -> None:
    spec = load_spec(write_spec(folder, {"a": None, "b": None}))
    compiled = spec.models["a"].model_copy(update={"target": "tensorrt_rtx"})
    spec = spec.model_copy(update={"models": {**spec.models, "a": compiled}})
    failed, built = build(spec, folder, folder / "repository", toolchain=BROKEN)
    assert (failed.status, built.status) == ("failed", "built")
    text = str(failed.error)
    assert "by zero. That is a bug in gen-repo" in text
    assert text.startswith("ZeroDivisionError: ")
    assert "broken_toolchain.py" in text


@pytest.mark.parametrize("given", [None, "3"])
def test_cores_are_shared(folder: Path, monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    spec = load_spec(write_spec(folder, {"a": "tells_its_threads", "b": None}))
    build(spec, folder, folder / "repository", jobs=2)
    share = str(max(1, limits.cores() // 2))
    assert (folder / "threads").read_text() == (given or share)


def test_onnx_runtime_starts_as_many_threads_as_it_may(folder: Path) -> None:
    script = (
        "import os\nfrom pathlib import Path\n"
        "from tritonsmith_generator.onnx_model.reference import Reference\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "reference = Reference(Path('model.onnx'))\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    counts = {}
    for number in ("1", "4"):
        environment = {**os.environ, "OMP_NUM_THREADS": number}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        counts[number] = int(done.stdout)
    assert counts["4"] - counts["1"] == 3


def test_one_display_for_all(folder: Path) -> None:
    write_spec(folder, {"alpha": "stays_with_b", "beta": "stays_with_a"})
    command = [*GEN_REPO, "build", "models.yaml", "-o", "repository", "--jobs", "2"]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
        assert process.stdout is not None
        summary = process.stdout.read().decode()
    os.close(ours)
    assert process.returncode == 0
    before, *frames, after = shown.decode().split(" of 2 models done")
    assert before.endswith("0") and frames[-1].endswith("2")
    assert any("alpha" in frame and "beta" in frame for frame in frames)  # a row for each at once
    assert "alpha" not in after and "beta" not in after
    assert "repository: 2 built." in summary


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the other side is closed
        return b""


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
