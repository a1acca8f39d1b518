"""What files and folders are called."""

from __future__ import annotations

__all__ = ["DEFAULT_REPOSITORY", "LOCK_NAME", "SOURCES"]

DEFAULT_REPOSITORY = "model_repository"
LOCK_NAME = "repository.lock.json"
# What a build starts from ends with one of these.
SOURCES = (".onnx", ".yaml", ".yml")
