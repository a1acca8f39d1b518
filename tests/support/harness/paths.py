"""Where things lie, for tests of whatever folder."""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "CLIENT_MODELS",
    "GOLDEN",
    "MODEL_REPOSITORY",
    "ROOT",
    "SIMPLENET",
    "SPECIAL_MODELS",
    "TESTS",
]

TESTS = Path(__file__).resolve().parents[2]
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"
CLIENT_MODELS = TESTS / "client" / "models"  # those of the server that the client's tests share
SPECIAL_MODELS = TESTS / "client" / "special"  # for tests with a server of their own
MODEL_REPOSITORY = ROOT / "model_repository"  # the demo's
SIMPLENET = MODEL_REPOSITORY / "simplenet.onnx"
