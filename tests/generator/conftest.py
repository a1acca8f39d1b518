"""What the generator's tests share."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from support.command import GenRepo, run_gen_repo


@pytest.fixture
def gen_repo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> GenRepo:
    """Run ``gen-repo ARGUMENTS`` in an empty folder, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.with_name(tmp_path.name + "-cache")))

    return partial(run_gen_repo, monkeypatch, capsys)
