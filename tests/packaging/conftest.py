"""The repository's root, and its distributions, built once for all tests here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built straight from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    _run(root, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def wheel_of_sdist(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    _run(root, "-m", "build", "--no-isolation", "--outdir", str(folder))
    return next(folder.glob("*.whl"))


def _run(root: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
