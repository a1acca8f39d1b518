"""Models are built side by side in processes; what happens to one does not stop the others."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from support.programs.command import GenRepo
from support.programs.parallel_builds import (
    GEN_REPO,
    as_json,
    left_over,
    statuses,
    write_spec,
)
from support.trt.broken_toolchain import BROKEN

from tritonsmith_generator import Event, build, load_spec
from tritonsmith_generator.errors import UsageError


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


def test_a_dry_run_goes_the_same_way(gen_repo: GenRepo, folder: Path) -> None:
    write_spec(folder, {"a": "meets_b", "b": "meets_a", "c": "segfaults"})
    code, results = as_json(gen_repo, "--jobs", 2, "--dry-run")
    assert statuses(results) == {"a": "planned", "b": "planned", "c": "failed"}
    assert code == 3
    assert not (folder / "repository").exists()


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
