"""A server for tests that are about something else than its end, and what it answers."""

from __future__ import annotations

import contextlib
import os
import signal

import numpy as np
import tritonclient.grpc as grpc

from tritonsmith_generator.serve import Server

__all__ = ["BriefServer", "added"]


class BriefServer(Server):
    """It is killed where others are asked to stop, which takes Triton 3 seconds and more."""

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.is_running:
                os.kill(self.pid, signal.SIGKILL)
        super().stop()


def added(server: Server, model: str = "add_sub", output: str = "sum") -> list[float]:
    inputs = []
    for name in "ab":
        inputs.append(grpc.InferInput(name, (1, 4), "FP32"))
        inputs[-1].set_data_from_numpy(np.full((1, 4), 2, np.float32))
    with grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
        found: list[float] = client.infer(model, inputs).as_numpy(output)[0].tolist()
        return found
