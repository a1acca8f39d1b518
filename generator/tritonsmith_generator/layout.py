"""What files and folders are called, and where our own are."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DEFAULT_REPOSITORY", "LOCK_NAME", "PACKAGE", "SOURCES"]

PACKAGE = Path(__file__).parent  # this package, which also runs inside images

DEFAULT_REPOSITORY = "model_repository"
LOCK_NAME = "repository.lock.json"
# What a build starts from ends with one of these.
SOURCES = (".onnx", ".yaml", ".yml")
