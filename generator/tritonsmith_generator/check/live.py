"""Proof: a real server loads the repository and answers the recorded cases, over both protocols.

Each answer is compared, tensor by tensor, with ONNX Runtime's own answer, recorded at build time.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tritonsmith_client import Client, TritonError
from tritonsmith_generator.accuracy.gate import Limits, gate, limits_for
from tritonsmith_generator.check.joined import ask_at_once
from tritonsmith_generator.check.wire_shapes import wire_case
from tritonsmith_generator.onnx_model.case_file import (
    Case,
    case_path,
    largest_difference,
    load_cases,
)
from tritonsmith_generator.onnx_model.reference import Arrays
from tritonsmith_generator.repository.inspect import (
    InspectedModel,
    inspect_model,
    model_folders,
    read_config,
)
from tritonsmith_generator.repository.lock import LockedModel, read_lock
from tritonsmith_generator.serve import Server

__all__ = ["LiveCheck", "prove"]

PROTOCOLS = ("grpc", "http")
# Latency is the median of so many calls at most, or of those that begin in so many seconds, after
# the cases themselves have warmed the model up.
_CALLS, _FEWEST_CALLS, _SECONDS = 21, 3, 2.0
# How far answers may be off where a batch decides on steps of 8 bits: the limit of INT8.
_STEPS = Limits(relative_l2=0.1)
_NOT_COMPARED = "the answers were compared with nothing"
_NOT_JOINED = (
    "the server ran each of many requests at once by itself: that answers are right in batches of "
    "several requests was not seen"
)


@dataclass(frozen=True)
class LiveCheck:
    """How one model did.

    Attributes:
        latency: milliseconds per protocol ("grpc", "http"), of the smallest case; empty if unknown.
        difference: the largest absolute difference from the reference; None if nothing was asked.
        problem: what is wrong, in words.
        skipped: why the server could not load it on this machine.
        batch: rows of the largest batch that the server made of several requests; 0 if it made
            none, None if it need not.
        note: what was not proven.
    """

    model: InspectedModel
    cases: int = 0
    latency: Mapping[str, float] | None = None
    difference: float | None = None
    problem: str | None = None
    skipped: str | None = None
    batch: int | None = None
    note: str | None = None


def prove(
    repository: Path,
    *,
    server_env: Path | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> tuple[LiveCheck, ...]:
    """Serve the repository with the embedded server and replay every case.

    Rows of the cases are sent at once, too, where the server may join them to batches.

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
    config = read_config(folder)
    cases = tuple(wire_case(case, config) for case in load_cases(path))
    replayed, own = _replay(model, cases, locked, clients)
    batches = config.HasField("dynamic_batching") and config.max_batch_size > 1
    if replayed.problem or replayed.note or not batches:
        return replayed
    coarse = locked is not None and "coarse" in locked.rows
    joined = ask_at_once(
        clients["grpc"],
        model.name,
        list(zip(cases, own, strict=True)),
        config.max_batch_size,
        partial(_problem, locked=locked, limits=_STEPS if coarse else None),
    )
    unseen = None if joined.largest or joined.problem else _NOT_JOINED
    return replace(replayed, problem=joined.problem or None, batch=joined.largest, note=unseen)


def _replay(
    model: InspectedModel,
    cases: Sequence[Case],
    locked: LockedModel | None,
    clients: Mapping[str, Client],
) -> tuple[LiveCheck, Sequence[Arrays]]:
    """Ask every case over both protocols. Also returns the server's own answers."""
    random = locked.rows.get("random") if locked is not None else None
    worst, latency, own = 0.0, dict[str, float](), list[Arrays]()
    for protocol, client in clients.items():
        handle = client.model(model.name)
        own.clear()
        for number, case in enumerate(cases):
            try:
                answer = handle(case.inputs)
            except TritonError as exc:
                problem = f"case {number} over {protocol}: {exc.message}"
                return LiveCheck(model, len(cases), problem=problem), own
            own.append({name: np.asarray(answer[name]) for name in case.outputs})
            if random:  # there is nothing to compare with
                continue
            worst = max(worst, largest_difference(own[-1], case.outputs))
            if wrong := _problem(own[-1], case, locked):
                problem = f"case {number} over {protocol}: {wrong}"
                return LiveCheck(model, len(cases), difference=worst, problem=problem), own
        smallest = min(cases, key=lambda case: sum(a.size for a in case.inputs.values()))
        latency[protocol] = _median_ms(partial(handle, smallest.inputs))
    if random:
        return LiveCheck(model, len(cases), latency, note=f"{_NOT_COMPARED}: {random}"), own
    return LiveCheck(model, len(cases), latency, worst), own


def _problem(
    got: Arrays, case: Case, locked: LockedModel | None, limits: Limits | None = None
) -> str | None:
    """Say what is wrong with an answer. ``limits`` are taken in the place of the lock's."""
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
    limits = limits or limits_for(precision, locked.limit if locked is not None else Limits())
    numbers = {name: array for name, array in case.outputs.items() if array.dtype.kind not in "OSU"}
    if not numbers:
        return None
    failures = gate([numbers], [{name: got[name] for name in numbers}], limits, precision).failures
    return "; ".join(map(str, failures)) or None


def _median_ms(call: Callable[[], Any]) -> float:
    times, began = list[float](), perf_counter()
    while len(times) < _FEWEST_CALLS or (len(times) < _CALLS and perf_counter() - began < _SECONDS):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return statistics.median(times) * 1e3
