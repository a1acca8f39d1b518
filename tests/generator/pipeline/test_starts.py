"""Which processes a build starts, when, and with how many threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.programs.parallel_builds import (
    GEN_REPO,
    assert_gone,
    write_spec,
)

from tritonsmith_generator import build, load_spec
from tritonsmith_generator.host import limits


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
