"""Requests that the server joins to batches: each answer has to be that of its own rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np

from tritonsmith_client import Client, TritonError
from tritonsmith_generator.onnx_model.case_file import Case
from tritonsmith_generator.onnx_model.reference import Arrays

__all__ = ["Joined", "ask_at_once"]

# Requests under way at once, and how long the server is given to join some of them.
_AT_ONCE, _SECONDS = 16, 2.0
# The server counts a run after its answers have left.
_COUNTED, _PAUSE = 0.5, 0.02


@dataclass(frozen=True)
class Joined:
    """The largest batch that the server made of several requests; 0 if it made none."""

    largest: int = 0
    problem: str = ""


@dataclass(frozen=True)
class _Request:
    """Some rows of a case: the reference's answer for them and the server's own to the case."""

    case: Case
    own: Arrays


def ask_at_once(
    client: Client,
    model: str,
    cases: Sequence[tuple[Case, Arrays]],
    largest: int,
    problem_of: Callable[[Arrays, Case], str | None],
) -> Joined:
    """Send rows of the cases at once, until the server has run some of them as one batch.

    Each case comes with the server's own answer to it. An answer is wrong if it is near neither to
    the reference nor to that: precision is judged elsewhere, and here whose answer it is.
    """
    handle = client.model(model)
    size = 1
    requests = _requests(cases, size)
    if isinstance(_answer(handle, requests[0]), str):  # a plan may take no batch as small as that
        size = min(_rows(case) for case, _ in cases)
        requests = _requests(cases, size)
    if 2 * size > largest:
        return Joined()
    before, deadline = _batches(client, model), time.monotonic() + _SECONDS
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while time.monotonic() < deadline:
            sent = list(islice(cycle(requests), 2 * _AT_ONCE))
            answers = list(pool.map(partial(_answer, handle), sent))
            for request, answer in zip(sent, answers, strict=True):
                problem = _problem(answer, request, problem_of)
                if problem:
                    return Joined(problem=f"one of {len(sent)} requests at once: {problem}")
            found = _joined(client, model, before, size)
            if found:
                return Joined(found)
    return Joined()


def _problem(
    answer: Arrays | str, request: _Request, problem_of: Callable[[Arrays, Case], str | None]
) -> str | None:
    if isinstance(answer, str):
        return answer
    problem = problem_of(answer, request.case)
    return problem and problem_of(answer, Case(request.case.inputs, request.own)) and problem


def _requests(cases: Sequence[tuple[Case, Arrays]], size: int) -> list[_Request]:
    """Those of one shape, or the server could not join them."""
    usual = max((case for case, _ in cases), key=_rows)
    shapes = [a.shape[1:] for a in usual.inputs.values()]
    alike = [(c, own) for c, own in cases if [a.shape[1:] for a in c.inputs.values()] == shapes]
    return [
        _Request(
            Case(_part(case.inputs, start, size), _part(case.outputs, start, size)),
            _part(own, start, size),
        )
        for case, own in alike
        for start in range(0, _rows(case) - size + 1, size)
    ]


def _part(arrays: Arrays, start: int, size: int) -> Arrays:
    return {name: array[start : start + size] for name, array in arrays.items()}


def _rows(case: Case) -> int:
    return min(len(array) for array in case.inputs.values())


def _answer(handle: Callable[[Arrays], Any], request: _Request) -> Arrays | str:
    try:
        answer = handle(request.case.inputs)
    except TritonError as exc:
        return exc.message
    return {name: np.asarray(answer[name]) for name in request.case.outputs}


def _joined(client: Client, model: str, before: dict[int, int], size: int) -> int:
    """Return the largest new batch of more rows than a request has; 0 if there is none."""
    deadline = time.monotonic() + _COUNTED
    while time.monotonic() < deadline:
        after = _batches(client, model)
        found = [rows for rows, runs in after.items() if rows > size and runs > before.get(rows, 0)]
        if found:
            return max(found)
        time.sleep(_PAUSE)
    return 0


def _batches(client: Client, model: str) -> dict[int, int]:
    """Return the runs so far by rows of a batch, over all versions."""
    runs: dict[int, int] = {}
    for statistics in client.statistics(model):
        for rows, duration in statistics.batches.items():
            runs[rows] = runs.get(rows, 0) + duration.count
    return runs
