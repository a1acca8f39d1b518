"""A folder with a model and samples that take their time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.onnx import bad_models as models
from support.onnx import busy_samples


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the model and the samples lie; the cache is its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.with_name(tmp_path.name + "-cache")))
    shutil.copy(busy_samples.__file__, tmp_path)
    models.saved(models.good())(tmp_path)
    return tmp_path
