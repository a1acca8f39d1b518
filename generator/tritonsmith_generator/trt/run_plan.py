"""Runs a plan on the GPU, in the process that built it, with the server's own runner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import ml_dtypes
import numpy as np

from tritonsmith_client.errors import CudaError
from tritonsmith_generator.errors import HostError
from tritonsmith_generator.host.gpu_lock import gpu_turn
from tritonsmith_generator.trt.backend_code import server_code
from tritonsmith_generator.trt.request import Arrays, PlanAnswers, PlanQuestion
from tritonsmith_generator.trt.runtime import logger

__all__ = ["answers"]

_BF16 = "BF16"


@server_code()
def answers(trt: Any, question: PlanQuestion, on_wait: Callable[[], None]) -> PlanAnswers:
    """Each input's outputs. ``on_wait`` is called if another build has the GPU.

    A plan of TensorRT for RTX may be for other GPUs than this machine's: that is no failure.
    Raises HostError for any other failure of TensorRT or CUDA.
    """
    try:
        from tritonsmith_backend.plan_engine import Plan

        # Beside a build, which takes all memory that it can have, there may be none for this.
        with gpu_turn(on_wait):
            try:
                opened = Plan(
                    trt, question.plan, lambda text: None, host_code=True, logger=logger(trt)
                )
            except RuntimeError as exc:
                reason = f"it does not load: {logger(trt).last_error or exc}"
                if question.library == "tensorrt_rtx":
                    return PlanAnswers(skipped=f"{reason} (is it for other GPUs?)")
                raise HostError(reason) from exc
            return PlanAnswers(_run(trt, opened, question))
    except HostError:
        raise
    except (CudaError, RuntimeError) as exc:
        raise HostError(str(exc)) from exc
    except Exception as exc:  # whatever it is: the plan is there, and who waits is to know that
        raise HostError(f"{type(exc).__name__}: {exc}") from exc


def _run(trt: Any, opened: Any, question: PlanQuestion) -> tuple[Arrays | None, ...]:
    from tritonsmith_backend.plan_runner import PlanRunner

    from tritonsmith_generator.trt.cuda_device import Device

    chosen = _profiles(opened, question)
    device = Device()
    found: dict[int, Arrays] = {}
    # One profile after the other: each context takes memory for the largest shapes.
    for profile in sorted({profile for profile in chosen if profile is not None}):
        runner = PlanRunner(trt, opened, device, (profile,))
        try:
            for number, inputs in enumerate(question.inputs):
                if chosen[number] == profile:
                    parts = {name: [_to_plan(array)] for name, array in inputs.items()}
                    outputs = runner.run(parts, list(opened.outputs))
                    found[number] = _from_plan(outputs, opened.outputs)
        finally:
            with suppress(CudaError):  # after a failure everything fails; that one is told
                runner.close()
    return tuple(found.get(number) for number in range(len(question.inputs)))


def _profiles(opened: Any, question: PlanQuestion) -> list[int | None]:
    """Return the profile for each of the inputs; None outside of all."""
    from tritonsmith_backend.plan_shapes import choose_profile

    count = max(1, opened.engine.num_optimization_profiles)
    ranges = {index: opened.ranges(index) for index in range(count)}
    chosen: list[int | None] = []
    for inputs in question.inputs:
        shapes = {n: array.shape for n, array in inputs.items() if n not in opened.on_host}
        try:
            chosen.append(choose_profile(shapes, ranges))
        except ValueError:
            chosen.append(None)
    return chosen


def _to_plan(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.view(np.uint16) if array.dtype == ml_dtypes.bfloat16 else array


def _from_plan(outputs: Arrays, types: Mapping[str, str]) -> Arrays:
    return {
        name: array.view(ml_dtypes.bfloat16) if types[name] == _BF16 else array
        for name, array in outputs.items()
    }
