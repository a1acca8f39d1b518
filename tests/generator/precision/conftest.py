"""Samples for the model that is converted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "samples.npz"
    np.savez(path, input=np.random.default_rng(0).random((32, 784), np.float32))
    return path
