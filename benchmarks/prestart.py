"""What it gains that a build's process starts early, and as a fork.

    python benchmarks/prestart.py [MODEL.onnx] [--rounds 15] [--library tensorrt_rtx]

``gen-repo build`` of one model into a new repository, with a new cache, three ways in turns: as it
is; with the process started anew instead of forked; and with nothing started before it is needed.
Medians of the wall times are compared, as ratios to the last.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

SIMPLENET = Path(__file__).parents[1] / "model_repository" / "simplenet.onnx"

_RUN = "import sys\nfrom tritonsmith_generator.__main__ import main\nsys.exit(main())"
_STARTED_ANEW = """
import tritonsmith_generator.workers.process as workers
real = workers.Child
workers.Child = lambda environment=None, held=(), fork=False: real(environment, held, False)
"""
_NOT_AHEAD = """
from contextlib import nullcontext
import tritonsmith_generator.engine.prestart as prestart
prestart.early_build = lambda arguments: nullcontext()
from tritonsmith_generator.pipeline.incremental import Update
Update.compiles = lambda update, target: False
"""
WAYS: Mapping[str, str] = {
    "as it is": _RUN,
    "started anew": _STARTED_ANEW + _RUN,
    "nothing ahead": _STARTED_ANEW + _NOT_AHEAD + _RUN,
}


def seconds(program: str, model: Path, library: str) -> float:
    """The wall time of one build."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["build", str(model), "--target", library, "-o", f"{folder}/repository"]
        environment = os.environ | {"XDG_CACHE_HOME": f"{folder}/cache"}
        command = [sys.executable, "-c", program, *arguments]
        began = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        took = time.perf_counter() - began
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, default=SIMPLENET)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--library", default="tensorrt_rtx")
    given = parser.parse_args()
    for program in WAYS.values():  # fills the file cache and compiles
        seconds(program, given.model, given.library)
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(given.rounds):
        for name, program in WAYS.items():
            times[name].append(seconds(program, given.model, given.library))
    slowest = median(times["nothing ahead"])
    for name, found in times.items():
        print(f"{name:>14}: {median(found):.2f} s, {median(found) / slowest:.2f} of nothing ahead")


if __name__ == "__main__":
    main()
