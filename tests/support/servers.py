"""A server for tests that are about something else than its end."""

from __future__ import annotations

import contextlib
import os
import signal

from tritonsmith_generator.serve import Server

__all__ = ["BriefServer"]


class BriefServer(Server):
    """It is killed where others are asked to stop, which takes Triton 3 seconds and more."""

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.is_running:
                os.kill(self.pid, signal.SIGKILL)
        super().stop()
