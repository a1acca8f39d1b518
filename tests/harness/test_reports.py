"""Long tests have runs of their own, and what is skipped is told in few lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
INNER = """
import pytest
from support.soak import soaked

@pytest.mark.parametrize("number", soaked(range(20), keep=lambda number: number < 2))
def test_numbers(number):
    pass

@pytest.mark.parametrize("number", range(3))
def test_skipped(number):
    pytest.skip("no such thing here")

@pytest.mark.skip(reason="no such thing here")
def test_not_begun():
    pass
"""

Run = Callable[..., tuple[str, set[str]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``run(*options)``: what pytest said at its end, and the numbers that it tested."""
    (tmp_path / "test_inner.py").write_text(INNER)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  soak: long\n")

    def inner(*options: str) -> tuple[str, set[str]]:
        plugins = ("support.skips", "support.soak", "no:xdist", "no:cacheprovider")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-v", *(f"-p{name}" for name in plugins), *options],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, set(re.findall(r"test_numbers\[(\d+)\] PASSED", done.stdout))

    return inner


def test_a_line_for_each_reason(run: Run) -> None:
    said, numbers = run()
    assert numbers == {"0", "1"}
    assert "18 deselected" in said
    assert re.findall("=+ skipped =+\n(.*)\n", said) == ["   4 no such thing here"]


def test_the_parts_of_the_soak_are_all_of_it(run: Run) -> None:
    parts = [run("--soak", f"{number}/2")[1] for number in (1, 2)]
    assert all(parts)
    assert sorted(number for part in parts for number in part) == sorted(map(str, range(2, 20)))
