"""Work folders go away with their process, however it ends, and with no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tritonsmith_generator.errors import HostError, InputError
from tritonsmith_generator.host.work_dir import remove_abandoned, work_folder

STAY = """
import sys
from tritonsmith_generator.host.work_dir import work_folder
with work_folder() as folder:
    (folder / "weights").write_bytes(b"w")
    print(folder, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tritonsmith/work"


def start() -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", STAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


@pytest.mark.parametrize("by", ["the next one", "hand"])
def test_what_a_killed_process_left_is_removed(home: Path, by: str) -> None:
    killed, left = start()
    living, kept = start()
    killed.kill()
    killed.communicate()
    assert (left / "weights").exists()
    if by == "hand":
        remove_abandoned()
    else:
        with work_folder():
            pass
    assert [path.name for path in home.iterdir()] == [kept.name]
    assert (kept / "weights").exists()
    living.communicate("\n")
    assert living.returncode == 0
    assert list(home.iterdir()) == []


def test_another_file_is_not_put_down_to_the_folder(home: Path, tmp_path: Path) -> None:
    lost = tmp_path / "lost"
    with pytest.raises(InputError, match=f"^the build: {lost}: No such file"), work_folder():
        lost.read_bytes()
    with pytest.raises(HostError, match=f"^cannot work in {home}"), work_folder() as folder:
        (folder / "lost").read_bytes()


def test_gone_after_an_error(home: Path) -> None:
    with pytest.raises(ZeroDivisionError), work_folder() as folder:
        folder.joinpath("x").touch()
        _ = 1 / 0
    assert list(home.iterdir()) == []


def test_a_disk_that_is_full_is_told(home: Path) -> None:
    said = "cannot work in .*/work: No space left on device; XDG_CACHE_HOME names another place"
    with pytest.raises(HostError, match=said), work_folder():
        Path("/dev/full").write_text("x")


def test_nothing_to_remove(home: Path) -> None:
    remove_abandoned()
    assert not home.exists()
