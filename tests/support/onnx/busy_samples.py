"""Samples that a spec names as ``busy_samples.py:FUNCTION``: their code runs during a build.

Each function does something to the process that builds the model, for real, before it gives its
one sample. Markers lie beside this file, which tests copy into a folder of their own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent

Sample = Iterator[dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]]


def _mark(name: str, text: str = "") -> None:
    new = HERE / f".{name}.new"
    new.write_text(text)
    new.replace(HERE / name)


def _wait_for(path: str) -> None:
    _until((HERE / path).exists, f"{path} did not come")


def _until(met: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 60
    while not met():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.01)


def _sample() -> Sample:
    yield {"x": np.ones((1, 4), np.float32)}


def meets_b() -> Sample:
    _mark("a.here")
    _wait_for("b.here")
    return _sample()


def meets_a() -> Sample:
    _mark("b.here")
    _wait_for("a.here")
    return _sample()


def stays_with_b() -> Sample:
    met = meets_b()
    time.sleep(1)
    return met


def stays_with_a() -> Sample:
    met = meets_a()
    time.sleep(1)
    return met


def waits_until_b_is_built() -> Sample:
    _wait_for("b.done")
    return _sample()


def needs_a_to_be_built() -> Sample:
    assert (HERE / "repository/a/config.pbtxt").exists(), "a is still at work"
    return _sample()


def takes_a_while() -> Sample:
    time.sleep(1)
    return _sample()


def segfaults() -> Sample:
    ctypes.string_at(0)
    return _sample()


def leaves() -> Sample:
    sys.exit(7)


def is_killed() -> Sample:
    os.kill(os.getpid(), signal.SIGKILL)
    return _sample()


def is_killed_beside_b() -> Sample:
    """As memory that b needs, too, would have it; alone there is enough."""
    if not (HERE / "repository/b/config.pbtxt").exists():
        _mark("a.here", str(os.getpid()))
        _wait_for("b.here")
        os.kill(os.getpid(), signal.SIGKILL)
    return _sample()


def outlives_a() -> Sample:
    """Goes on when the end of a's process has been noticed."""
    _mark("b.here")
    _wait_for("a.here")
    process = Path("/proc", (HERE / "a.here").read_text())
    _until(lambda: not process.exists(), "a did not end")
    return _sample()


def hangs_as_a() -> Sample:
    return _hangs("a")


def hangs_as_b() -> Sample:
    return _hangs("b")


def _hangs(name: str) -> Sample:
    if not (HERE / "free").exists():
        _mark(f"{name}.pid", str(os.getpid()))
        time.sleep(600)
    return _sample()


def tells_its_threads() -> Sample:
    _mark("threads", os.environ.get("OMP_NUM_THREADS", ""))
    return _sample()
