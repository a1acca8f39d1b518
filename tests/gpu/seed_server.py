"""Put a tritonserver that is already unpacked where the embedded server would have fetched it.

    python3 tests/gpu/seed_server.py FOLDER

FOLDER holds bin, caches, backends/python and libs, as they lie in nvidia-pytriton's wheel.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tritonsmith_generator.cachefolder import cache_folder, make_once
from tritonsmith_generator.serve import environment


def main() -> None:
    source = Path(sys.argv[1])

    def make(new: Path) -> None:
        home = new / environment._SERVER_FILES
        shutil.copytree(source, home, ignore=shutil.ignore_patterns("libs", "python*"))
        shutil.copytree(source / "libs", new / environment._LIBRARIES)
        version = "{}.{}".format(*sys.version_info[:2])
        shutil.copytree(source / "backends" / "python", home / "backends" / version)

    make_once(cache_folder("server") / environment.WHEEL.replace("==", "-"), make)


if __name__ == "__main__":
    main()
