"""Put what is already on this machine where the embedded server would have fetched it.

    python3 tests/gpu/seed_server.py FOLDER

FOLDER holds tritonserver: bin, caches, backends/python and libs, as they lie in nvidia-pytriton's
wheel. The packages of the server's Python are those of the Python that runs this.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tritonsmith_generator.host import pip
from tritonsmith_generator.host.cache_dir import cache_folder, make_once
from tritonsmith_generator.serve.embedded import environment
from tritonsmith_generator.serve.embedded.interpreter import find_interpreter


def server(source: Path) -> None:
    def make(new: Path) -> None:
        home = new / environment._SERVER_FILES
        shutil.copytree(source, home, ignore=shutil.ignore_patterns("libs", "python*"))
        shutil.copytree(source / "libs", new / environment._LIBRARIES)
        version = "{}.{}".format(*sys.version_info[:2])
        shutil.copytree(source / "backends" / "python", home / "backends" / version)

    make_once(cache_folder("server") / environment.WHEEL.replace("==", "-"), make)


def packages() -> None:
    def link(requirements: Sequence[str], target: Path, python: Path, version: str) -> None:
        """Links to our own packages, instead of wheels that pip would fetch."""
        found = importlib.util.find_spec("numpy")
        assert found is not None and found.origin is not None
        for package in Path(found.origin).parents[1].iterdir():
            (target / package.name).symlink_to(package)

    pip.install = link
    environment._packages(find_interpreter(), (), lambda text, done: None)


if __name__ == "__main__":
    server(Path(sys.argv[1]))
    packages()
