"""The objects through which TensorRT talks back: error recorder, progress monitor.

Its logger is in ``tensorrt_start``.

Each function takes the imported TensorRT module and subclasses an interface of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

from tritonsmith_generator.trt.request import Progress

__all__ = ["ROOT_PHASE", "error_recorder", "progress_monitor"]

ROOT_PHASE = "Building"
_STEP_INTERVAL = 0.05  # seconds between two reports of one phase's steps; some take microseconds


@cache
def error_recorder(trt: Any) -> Any:
    """Get the recorder of build errors of this process; ``seen`` is a list of (ErrorCodeTRT, text).

    The builder reports to it while it is destroyed, and does not keep it alive: the cache does.
    """

    class Recorder(trt.IErrorRecorder):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)
            self.seen: list[tuple[Any, str]] = []

        def report_error(self, code: Any, text: str) -> bool:
            self.seen.append((code, text))
            return True

        def num_errors(self) -> int:
            return len(self.seen)

        def get_error_code(self, index: int) -> Any:
            return self.seen[index][0]

        def get_error_desc(self, index: int) -> str:
            return self.seen[index][1]

        def has_overflowed(self) -> bool:
            return False

        def clear(self) -> None:
            self.seen.clear()

    return Recorder()


def progress_monitor(trt: Any, emit: Callable[[Progress], None]) -> Any:
    """Return a monitor that passes TensorRT's phases on, below ``ROOT_PHASE``."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, tuple[str, int]] = {}
            self.reported: dict[str, float] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.phases[phase] = (parent or ROOT_PHASE, steps)
            self.tell(phase, 0, "start")

        def step_complete(self, phase: str, step: int) -> bool:
            if time.monotonic() - self.reported[phase] >= _STEP_INTERVAL:
                self.tell(phase, step, "step")
            return True

        def phase_finish(self, phase: str) -> None:
            self.tell(phase, self.phases[phase][1], "finish")

        def tell(self, phase: str, step: int, state: Any) -> None:
            parent, steps = self.phases[phase]
            self.reported[phase] = time.monotonic()
            emit(Progress(phase, parent, step, steps, state))

    return Monitor()
