"""Images by digest: the same bytes on every machine and every day."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from tritonsmith_generator.errors import HostError
from tritonsmith_generator.repository.lock import read_lock

__all__ = ["pin"]


def pin(images: Iterable[str], repository: Path) -> dict[str, str]:
    """Each image with its digest, "name:tag@sha256:...", or as it is where none is known.

    The digest is the lock's, if plans were built in that image; else that of the image that the
    Docker Engine has. Nothing is pulled, and no engine is needed.
    """
    wanted = list(images)
    known = _of_the_engine(wanted) | _of_the_lock(repository)
    return {name: f"{name}@{known[name]}" if name in known else name for name in wanted}


def _of_the_lock(repository: Path) -> dict[str, str]:
    tools = [model.tools for model in read_lock(repository).models.values()]
    pairs = {t["image_name"]: t["image"] for t in tools if "image_name" in t and "image" in t}
    return {name: digest.partition("@")[2] for name, digest in pairs.items() if "@" in digest}


def _of_the_engine(images: list[str]) -> dict[str, str]:
    try:
        from docker.errors import ImageNotFound

        from tritonsmith_generator.containers.engine import connect, refusals

        client = connect()
    except (ModuleNotFoundError, HostError):
        return {}
    found: dict[str, str] = {}
    with contextlib.closing(client), refusals("look for images"):
        for name in images:
            with contextlib.suppress(ImageNotFound):
                if digests := client.images.get(name).attrs.get("RepoDigests"):
                    found[name] = digests[0].partition("@")[2]
    return found
