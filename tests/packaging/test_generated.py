"""The synchronous client is what its generator makes of the asynchronous one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parents[2] / "client"


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, str(folder / "generate_sync.py"), *arguments]
    return subprocess.run(script, capture_output=True, text=True, timeout=120)


def test_what_is_here_is_up_to_date() -> None:
    done = check(CLIENT, "--check")
    assert done.returncode == 0, done.stderr


def test_a_difference_is_shown_and_mended(tmp_path: Path) -> None:
    copy = tmp_path / "client"
    shutil.copytree(CLIENT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CLIENT.parent / "pyproject.toml", tmp_path)
    target = copy / "tritonsmith_client" / "_sync" / "model.py"
    written = target.read_text("utf-8")
    assert "Generated from client/tritonsmith_client/_async/model.py" in written.partition("\n")[0]
    assert "self._driver" in written
    target.write_text(written.replace("self._driver", "self._drivver", 1), "utf-8")
    done = check(copy, "--check")
    assert done.returncode == 1
    assert "-        self._drivver = driver\n+        self._driver = driver" in done.stderr
    assert check(copy).returncode == 0 and target.read_text("utf-8") == written
