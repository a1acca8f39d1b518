"""Samples for the model that is converted."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.onnx.precision_builds import save_samples


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return save_samples(tmp_path / "samples.npz")
