"""The Python packages that a build inside an image needs and that the image need not have."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from tritonsmith_generator.containers.engine import Image
from tritonsmith_generator.engine_image.probe import Contents
from tritonsmith_generator.events import Progress
from tritonsmith_generator.host import pip
from tritonsmith_generator.host.cache_dir import cache_folder, make_once

__all__ = ["packages_for"]

_PACKAGES = ("numpy==2.2.6", "ml_dtypes==0.5.4")  # have wheels for Python 3.10 to 3.13
_CUDA = "13"  # where an image does not say what it has


def packages_for(image: Image, contents: Contents, report: Progress) -> Path:
    """Give a folder for the ``sys.path`` of the image's Python; fetched once. Raises HostError."""
    wanted = (*_PACKAGES, *_bindings(image, contents))
    digest = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:12]
    folder = cache_folder("images") / f"python{contents.python}-{contents.machine}-{digest}"

    def make(new: Path) -> None:
        report(f"fetching {', '.join(wanted)} for Python {contents.python}", 0.0)
        pip.install_for(wanted, new, contents.python, contents.machine)
        report("fetched the packages", 1.0)

    return make_once(folder, make)


def _bindings(image: Image, contents: Contents) -> Iterator[str]:
    """TensorRT's bindings alone, for each library in the image that has none there."""
    # CUDA's version is in the name only; the library in the image is linked to its own.
    cuda = image.environment.get("CUDA_VERSION", "").partition(".")[0] or _CUDA
    for release in contents.releases:
        if release.library in contents.bindings:
            continue
        in_name = "" if not release.strongly_typed else f"_cu{cuda}"  # 8.6 had one CUDA only
        yield f"{release.library}{in_name}_bindings=={'.'.join(map(str, release.version[:3]))}.*"
