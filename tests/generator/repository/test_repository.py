"""Publishing: compared, staged, put in place at once; a failure leaves what was there."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tritonsmith_generator.errors import HostError
from tritonsmith_generator.repository import publish as module
from tritonsmith_generator.repository.changes import compare
from tritonsmith_generator.repository.lock import FileRecord
from tritonsmith_generator.repository.publish import exclusive, publish

OLD = {"config.pbtxt": b"old", "1/model.onnx": b"one"}
NEW = {"config.pbtxt": b"new", "2/model.onnx": b"two"}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    publish(path, "m", OLD)
    return path


def contents(repository: Path) -> dict[str, bytes]:
    folder = repository / "m"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_new_version_keeps_the_old_one_and_foreign_files(repository: Path) -> None:
    (repository / "m/labels.txt").write_text("cat")
    first = (repository / "m/1/model.onnx").stat()
    publish(repository, "m", NEW)
    assert contents(repository) == {**OLD, **NEW, "labels.txt": b"cat"}
    assert (repository / "m/1/model.onnx").stat().st_ino == first.st_ino  # no second copy
    assert [p.name for p in repository.parent.iterdir()] == ["repository"]


def test_the_records_are_those_of_what_lies_there(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "source.plan").write_bytes(b"plan")
    records = publish(repository, "m", {**NEW, "2/model.plan": tmp_path / "source.plan"})
    assert set(records) == {*NEW, "2/model.plan"}
    assert records == {name: FileRecord.of(repository / "m" / name) for name in records}


def test_files_can_be_read_by_the_servers_user(repository: Path) -> None:
    modes = {p.stat().st_mode & 0o777 for p in [repository / "m", *repository.rglob("*")]}
    assert modes <= {0o755, 0o644}


def test_what_happens_to_each_file(repository: Path) -> None:
    owned = {name: FileRecord.of(repository / "m" / name) for name in OLD}
    (repository / "m/mine.txt").write_text("by hand")
    files = {**OLD, "config.pbtxt": b"changed", "2/model.onnx": b"two", "mine.txt": b"ours"}
    actions = {change.path: change.action for change in compare(repository, "m", files, owned)}
    assert actions == {
        "m/config.pbtxt": "replace",
        "m/1/model.onnx": "identical",
        "m/2/model.onnx": "create",
        "m/mine.txt": "conflict",
    }
    (repository / "m/config.pbtxt").write_text("by hand")
    (change,) = compare(repository, "m", {"config.pbtxt": b"changed"}, owned)
    assert (change.action, change.why) == (
        "conflict",
        "the file was changed since gen-repo wrote it",
    )


def test_versions_are_immutable(repository: Path) -> None:
    owned = {name: FileRecord.of(repository / "m" / name) for name in OLD}
    (change,) = compare(repository, "m", {"1/model.onnx": b"other"}, owned)
    assert change.action == "conflict"


# Each of these, while publishing, is where the process is killed: the n-th call to fsync, the
# exchange before and after it happened.
KILLED = [*(f"fsync {n}" for n in range(1, 7)), "before exchange", "after exchange"]
_KILL = """
import os, signal, sys
from pathlib import Path
from tritonsmith_generator.repository import publish as module
where, count = sys.argv[2], 0
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
fsync, exchange = os.fsync, module._exchange
def counted(handle):
    global count
    count += 1
    if where == f"fsync {count}":
        die()
    fsync(handle)
def exchanged(a, b):
    if where == "before exchange":
        die()
    done = exchange(a, b)
    if where == "after exchange":
        die()
    return done
os.fsync, module._exchange = counted, exchanged
with module.exclusive(Path(sys.argv[1])):
    module.publish(Path(sys.argv[1]), "m", {"config.pbtxt": b"new", "2/model.onnx": b"two"})
"""


@pytest.mark.parametrize("where", KILLED)
def test_killed_while_publishing(where: str, repository: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _KILL, str(repository), where])
    assert done.returncode == -9
    assert contents(repository) in (OLD, {**OLD, **NEW})  # one or the other, and nothing between
    assert [p.name for p in repository.iterdir()] == ["m"]
    with exclusive(repository):
        publish(repository, "m", NEW)
    assert contents(repository) == {**OLD, **NEW}
    assert [p.name for p in repository.parent.iterdir()] == ["repository"]  # nothing is left


def test_disk_full(repository: Path) -> None:
    """A file that may not grow (RLIMIT_FSIZE) fails as a full disk does."""
    program = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from tritonsmith_generator.repository.publish import publish\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "publish(Path(sys.argv[1]), 'm', {'config.pbtxt': b'new', '2/model.onnx': bytes(9999)})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(repository)], capture_output=True, text=True
    )
    assert "HostError: cannot write to" in done.stderr
    assert "File too large; nothing in it was changed" in done.stderr
    assert contents(repository) == OLD
    assert [p.name for p in repository.parent.iterdir()] == ["repository"]


def test_without_an_exchange_of_folders(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS and some FUSE file systems have no RENAME_EXCHANGE; none is at hand here."""
    monkeypatch.setattr(module, "_exchange", lambda a, b: False)
    publish(repository, "m", NEW)
    assert contents(repository) == {**OLD, **NEW}
    assert [p.name for p in repository.parent.iterdir()] == ["repository"]


def test_a_model_that_was_set_aside_comes_back(repository: Path) -> None:
    aside = repository.parent / ".repository.staging-x"
    aside.mkdir()
    (repository / "m").rename(aside / "m.aside")
    with exclusive(repository):
        assert contents(repository) == OLD
    assert not aside.exists()


def test_two_runs_at_once(repository: Path) -> None:
    handle = os.open(repository, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(HostError, match="another gen-repo is writing to"), exclusive(repository):
        pass
    os.close(handle)


def test_an_empty_new_repository_is_taken_away_again(tmp_path: Path) -> None:
    with exclusive(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()
