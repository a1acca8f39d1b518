"""Rules that a reviewer would otherwise have to remember."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# In two parts, so that this file keeps the rule too.
REGISTRIES = [
    "pypi" + ".org",
    "pypi" + ".nvidia.com",
    "python" + "hosted.org",
    "files" + ".pypi",
    "deb" + ".debian.org",
]


@pytest.mark.parametrize("folder", ["client", "generator", "templates"])
def test_a_source_root_cannot_be_imported_by_its_folder(root: Path, folder: str) -> None:
    # From the top of the checkout, `import client` would work and mean something else.
    command = [sys.executable, "-m", "ruff", "check", "--stdin-filename", "tests/sample.py", "-"]
    source = f"import {folder}\n\nprint({folder})\n"
    done = subprocess.run(command, cwd=root, input=source, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"TID251 `{folder}` is banned" in done.stdout


def test_no_committed_file_names_a_registry_or_a_folder_of_this_machine(root: Path) -> None:
    if not (root / ".git").exists():
        pytest.skip("this is no git checkout: which files are committed is not known")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True, text=True
    ).stdout.split("\0")
    files = [path for path in (root / name for name in listed if name) if path.is_file()]
    assert len(files) > 20
    banned = [*REGISTRIES, f"{root}/", f"{Path.home()}/"]
    found = [
        f"{path.relative_to(root)}: {text}"
        for path in files
        for text in banned
        if text.encode() in path.read_bytes()
    ]
    assert found == []
