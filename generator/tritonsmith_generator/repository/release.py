"""Which of NVIDIA's releases a repository was made for, and the image that serves it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from tritonsmith_generator.errors import UsageError
from tritonsmith_generator.layout import LOCK_NAME
from tritonsmith_generator.repository.lock import read_lock

__all__ = ["NVIDIA_IMAGE", "ChosenImage", "choose_image", "made_for"]

NVIDIA_IMAGE = "nvcr.io/nvidia/tritonserver:{release}-py3"
_SPEC = "models.yaml"


@dataclass(frozen=True)
class ChosenImage:
    """The image to serve with, and why: for messages."""

    name: str
    reason: str


def made_for(repository: Path) -> tuple[str, Path] | None:
    """Return the release that the spec names, and the file that tells it; None where none does."""
    if repository.is_dir() and (release := read_lock(repository).triton):
        return release, repository / LOCK_NAME
    try:
        spec = yaml.safe_load((repository / _SPEC).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    release = spec.get("triton") if isinstance(spec, dict) else None
    return (str(release), repository / _SPEC) if release else None


def choose_image(repository: Path, release: str | None, image: str | None) -> ChosenImage:
    """Return the named image, NVIDIA's of this release, or of the repository's own release.

    Raises UsageError if both are given, or nothing says which.
    """
    if release is not None and image is not None:
        raise UsageError("--release and --image: name one of the two")
    if image is not None:
        return ChosenImage(image, "as you asked")
    found = made_for(repository)
    if release is not None:
        other = found is not None and found[0] != release
        note = f", though {found[1]} says {found[0]}" if found and other else ""
        return ChosenImage(NVIDIA_IMAGE.format(release=release), f"as you asked{note}")
    if found is None:
        raise UsageError(
            f"which server image? Name --release (such as 26.10) or --image, or write "
            f'triton: "26.10" into {repository / _SPEC}'
        )
    return ChosenImage(NVIDIA_IMAGE.format(release=found[0]), f"as {found[1]} says")
