"""Proof: a real server loads the repository and answers the recorded cases, over both protocols.

Each answer is compared, tensor by tensor, with ONNX Runtime's own answer, recorded at build time.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tritonsmith_client import Client, TritonError
from tritonsmith_generator.accuracy.gate import Limits, gate, limits_for
from tritonsmith_generator.onnx_model.case_file import (
    Case,
    case_path,
    largest_difference,
    load_cases,
)
from tritonsmith_generator.onnx_model.reference import Arrays
from tritonsmith_generator.repository.inspect import InspectedModel, inspect_model, model_folders
from tritonsmith_generator.repository.lock import LockedModel, read_lock
from tritonsmith_generator.serve import Server

__all__ = ["LiveCheck", "prove"]

PROTOCOLS = ("grpc", "http")
# Latency is the median of so many calls, after the cases themselves have warmed the model up.
_CALLS = 21


@dataclass(frozen=True)
class LiveCheck:
    """How one model did.

    Attributes:
        latency: milliseconds per protocol ("grpc", "http"), of the smallest case; empty if unknown.
        difference: the largest absolute difference from the reference; None if nothing was asked.
        problem: what is wrong, in words.
        skipped: why the server could not load it on this machine.
    """

    model: InspectedModel
    cases: int = 0
    latency: Mapping[str, float] | None = None
    difference: float | None = None
    problem: str | None = None
    skipped: str | None = None


def prove(
    repository: Path,
    *,
    server_env: Path | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> tuple[LiveCheck, ...]:
    """Serve the repository with the embedded server and replay every case.

    Raises HostError or ServerError where the server doesn't start or a model doesn't load.
    """
    lock = read_lock(repository)
    models = [inspect_model(folder) for folder in model_folders(repository)]
    on_progress("starting tritonserver")
    server = Server(
        repository,
        server_env=server_env,
        on_progress=lambda step, fraction: on_progress(f"{step} ({fraction:.0%})"),
    )
    with server:
        clients = {
            "grpc": Client(server.grpc_url, shared_memory="off"),
            "http": Client(server.http_url, shared_memory="off"),
        }
        try:
            results = []
            for model in models:
                on_progress(f"asking {model.name}")
                if model.name in server.skipped:
                    results.append(LiveCheck(model, skipped=server.skipped[model.name]))
                else:
                    folder, locked = repository / model.name, lock.models.get(model.name)
                    results.append(_prove_model(folder, model, locked, clients))
            return tuple(results)
        finally:
            for client in clients.values():
                client.close()


def _prove_model(
    folder: Path,
    model: InspectedModel,
    locked: LockedModel | None,
    clients: Mapping[str, Client],
) -> LiveCheck:
    path = case_path(folder, model.versions[-1])
    if not path.exists():
        return LiveCheck(model, problem=f"no recorded cases ({path.name} is missing): build again")
    cases = load_cases(path)
    worst = 0.0
    latency = {}
    for protocol, client in clients.items():
        handle = client.model(model.name)
        for number, case in enumerate(cases):
            try:
                answer = handle(case.inputs)
            except TritonError as exc:
                return LiveCheck(
                    model, len(cases), problem=f"case {number} over {protocol}: {exc.message}"
                )
            got = {name: np.asarray(answer[name]) for name in case.outputs}
            worst = max(worst, largest_difference(got, case.outputs))
            problem = _problem(got, case, locked)
            if problem:
                where = f"case {number} over {protocol}"
                return LiveCheck(model, len(cases), difference=worst, problem=f"{where}: {problem}")
        smallest = min(cases, key=lambda case: sum(a.size for a in case.inputs.values()))
        latency[protocol] = _median_ms(partial(handle, smallest.inputs))
    return LiveCheck(model, len(cases), latency, worst)


def _problem(got: Arrays, case: Case, locked: LockedModel | None) -> str | None:
    for name, want in case.outputs.items():
        have = got[name]
        if have.dtype != want.dtype or have.shape != want.shape:
            return (
                f"output '{name}' is {have.dtype}{list(have.shape)}, the reference is "
                f"{want.dtype}{list(want.shape)}"
            )
        if want.dtype.kind in "OSU" and not np.array_equal(have, want):
            return f"output '{name}' holds other strings than ONNX Runtime's answer"
    precision = locked.precision if locked is not None else "fp32"
    limits = limits_for(precision, locked.limit if locked is not None else Limits())
    numbers = {name: array for name, array in case.outputs.items() if array.dtype.kind not in "OSU"}
    if not numbers:
        return None
    failures = gate([numbers], [{name: got[name] for name in numbers}], limits, precision).failures
    return "; ".join(map(str, failures)) or None


def _median_ms(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(_CALLS):
        began = perf_counter()
        call()
        times.append(perf_counter() - began)
    return statistics.median(times) * 1e3
