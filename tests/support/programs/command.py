"""The command line as a test calls it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tritonsmith_generator.cli import run


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code and what it printed."""

    code: int
    out: str
    err: str


GenRepo = Callable[..., Outcome]


def run_gen_repo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> Outcome:
    """Run ``gen-repo ARGUMENTS`` in this process."""
    monkeypatch.setattr(sys, "argv", ["gen-repo", *map(str, arguments)])
    capsys.readouterr()
    code = 0
    try:
        run()
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    captured = capsys.readouterr()
    return Outcome(code, captured.out, captured.err)
