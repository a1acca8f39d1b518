"""Runs beside a container, as a program of its own, and removes it if its owner dies.

python -m tritonsmith_generator.containers.reaper CONTAINER

The owner keeps this program's standard input open, and writes "done" once it has removed the
container itself. If the input ends without that, the owner was killed.
"""

from __future__ import annotations

import contextlib
import sys


def _main(container: str) -> None:
    if sys.stdin.read().strip() == "done":
        return
    import docker  # seconds of work and megabytes that the usual end does not need

    with contextlib.suppress(docker.errors.NotFound):
        docker.from_env().containers.get(container).remove(force=True, v=True)


if __name__ == "__main__":
    _main(sys.argv[1])
