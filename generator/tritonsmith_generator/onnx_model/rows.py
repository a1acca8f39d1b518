"""Rows: whether axis 0 is a batch, asked of ONNX Runtime and not of names.

Each row is asked alone, in other company and in another order. Its answer has to stay what it was:
the largest element of each row is judged, for every output, and NaN equals NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.case_file import Case
from tritonsmith_generator.onnx_model.onnx_file import graphs
from tritonsmith_generator.onnx_model.reference import Arrays, Reference

__all__ = [
    "LARGEST_ASKED",
    "Rows",
    "check_rows",
    "random_answers",
    "refuse_dependent",
    "refused_batch",
    "rows_of",
]

Array = np.ndarray[Any, Any]

# Rows of the batch that all others are compared with, and of the larger one.
_ROWS, LARGEST_ASKED = 3, 5

_DYNAMIC = "DynamicQuantize"  # what such operators' names begin with
_QUANTIZED = ("QuantizeLinear", "QLinear", "QAttention", "MatMulInteger", "ConvInteger", _DYNAMIC)


@dataclass(frozen=True)
class Rows:
    """What was found, each in words for a sentence; all empty where rows are independent.

    Attributes:
        depend: how a row's answer depends on the other rows, or why axis 0 is not the batch.
        poisoned: what a NaN in another row does.
        unknown: why it was not checked.
        coarse: why answers may be off by a little where they are in other company.
        slightly: how far they were, where that is no reason against batches.
        random: why the same inputs get other answers each time.
    """

    depend: str = ""
    poisoned: str = ""
    unknown: str = ""
    coarse: str = ""
    slightly: str = ""
    random: str = ""


@dataclass(frozen=True)
class _Tolerance:
    """How far a row's answer may be off.

    It is a share of its largest element, and for integers, booleans and strings of its elements.
    """

    numbers: float
    others: float


_RANDOM = "the model gives another answer to the same inputs each time"
_COMPANY, _PLACE = "with the rows beside it", "with its place in a batch, or the batch's size"

# In a batch of the same size, at the same place in it, the same kernel does the same.
_SAME = _Tolerance(1e-4, 0.0)
# Another size or place may mean another kernel, whose rounding turns a value here and there.
_OTHER = _Tolerance(1e-2, 1e-3)
# Steps of 8 bits: rounding turns a whole one. A dynamic one has its size from the whole batch.
_STEPS, _DYNAMIC_STEPS = _Tolerance(0.1, 0.1), _Tolerance(0.25, 0.25)


@dataclass(frozen=True)
class _Question:
    """A batch of rows by number.

    ``same`` are the places where a row has the place that it has in the first batch, of the same
    size.
    """

    rows: tuple[int, ...]
    same: tuple[int, ...] = ()


def check_rows(
    reference: Reference, proto: onnx.ModelProto, case: Case, smallest: int, largest: int
) -> Rows:
    """Ask about the rows of ``case``, in batches from ``smallest`` to ``largest``."""
    count = _count(case.inputs)
    rows = min(count, largest, max(_ROWS, smallest))
    if rows < smallest or (largest > 1 and len(_distinct(case.inputs, rows)) < 2):
        return Rows(unknown="there are no different rows to ask with")
    operators = _operators(proto)
    dynamic = any(name.startswith(_DYNAMIC) for name in operators)
    quantized = any(part in name for name in operators for part in _QUANTIZED)
    same, other = (_SAME, _STEPS) if quantized else (_SAME, _OTHER)
    if dynamic:
        same = other = _DYNAMIC_STEPS
    try:
        asked = _Asked(reference, case, rows)
    except InputError:
        return Rows(depend=refused_batch(count, rows))
    worst = _Worst()
    for question in _questions(rows, smallest, largest):
        broken = asked.judge(question, same, other, worst)
        if broken:
            hint = next((f"; {words}" for words in _training(proto)), "")
            return asked.random() or Rows(depend=broken + hint)
    # What is dynamic takes its steps from NaN as well; a loop may never end on it.
    alone = rows < 2 or dynamic or "Loop" in operators
    return Rows(
        poisoned="" if alone else asked.poison(),
        coarse="it computes in steps of 8 bits" if quantized else "",
        slightly=worst.words if quantized and worst.share > _SAME.numbers else "",
    )


def rows_of(cases: Sequence[Arrays]) -> Arrays | None:
    """Join rows of inputs that have the same shapes but for axis 0; None without different ones."""
    shapes = [{n: a.shape[1:] for n, a in inputs.items()} for inputs in cases]
    alike = [inputs for inputs, shape in zip(cases, shapes, strict=True) if shape == shapes[0]]
    if not alike or any(not a.ndim for inputs in alike for a in inputs.values()):
        return None
    joined = {n: np.concatenate([i[n] for i in alike]) for n in alike[0]}
    different = sorted(_distinct(joined, _count(joined)).values())[:_ROWS]
    return {n: a[different] for n, a in joined.items()} if len(different) > 1 else None


def random_answers(reference: Reference, proto: onnx.ModelProto, inputs: Arrays) -> str:
    """Say why the same inputs get other answers each time; empty where they don't.

    Only a graph that looks random is asked: an answer more for each other one would be for nothing.
    """
    nodes = (*_training(proto), *_drawing(proto))
    if not nodes or _equal(reference(inputs), reference(inputs)):
        return ""
    return f"{_RANDOM}: {nodes[0]}"


def refused_batch(taken: int, refused: int) -> str:
    """Say that the model runs with so many rows and not with so many others."""
    return f"ONNX Runtime runs it with a batch of {taken}, and fails with one of {refused}"


def refuse_dependent(asked: int, rows: Rows) -> None:
    """Raise InputError, with what was measured, if rows depend on each other.

    ``asked`` is the batch that the user wants.
    """
    if rows.depend:
        raise InputError(
            f"batching.max is {asked}, but axis 0 is no batch axis and batches would get wrong "
            f"answers: {rows.depend}; leave batching.max (--max-batch) out, and the model is "
            "served with full shapes"
        )


class _Asked:
    """The first batch with its answers, and what others are compared with it."""

    def __init__(self, reference: Reference, case: Case, rows: int) -> None:
        self._reference, self._names = reference, list(case.outputs)
        self._inputs = {name: array[:rows] for name, array in case.inputs.items()}
        whole = rows == _count(case.inputs)
        self._answers = case.outputs if whole else self._ask(self._inputs)
        self._rows = rows

    def judge(self, question: _Question, same: _Tolerance, other: _Tolerance, worst: _Worst) -> str:
        """Say what is wrong with the answer; empty if nothing is."""
        size, rows = len(question.rows), list(question.rows)
        try:
            got = self._ask({name: array[rows] for name, array in self._inputs.items()})
        except InputError:
            return refused_batch(self._rows, size)
        found = _Worst()
        for name, want in self._answers.items():
            broken = _other_shape(name, want, self._rows, got[name], size)
            if broken:
                return broken
            for place, row in enumerate(rows):
                strict = place in question.same
                one, answer = want[row : row + 1], got[name][place : place + 1]
                apart = _difference(one, answer, want, same if strict else other)
                for best in (found, worst):
                    best.add(name, apart, _COMPANY if strict else _PLACE)
        return found.words if found.excess > 1 else ""

    def random(self) -> Rows | None:
        """Whether the first batch itself gets other answers each time."""
        if _equal(self._ask(self._inputs), self._ask(self._inputs)):
            return None
        return Rows(random=_RANDOM)

    def poison(self) -> str:
        """Say what NaN in all rows but one does to that one; empty where it does nothing."""
        kept = self._rows // 2
        floats = {n for n, a in self._inputs.items() if a.dtype.kind in "fV"}
        others = [row for row in range(self._rows) if row != kept]
        inputs = {name: array.copy() for name, array in self._inputs.items()}
        for name in floats:
            inputs[name][others] = np.nan
        try:
            got = self._ask(inputs)
        except InputError:  # refusing NaN is no dependence
            return ""
        for name, want in self._answers.items():
            if got[name].shape != want.shape:
                return f"output '{name}' has another shape where other rows hold NaN"
            one, answer = want[kept : kept + 1], got[name][kept : kept + 1]
            if _difference(one, answer, want, _OTHER).excess > 1:
                return f"output '{name}': NaN in one row spoils the answers for the others"
        return ""

    def _ask(self, inputs: Arrays) -> Arrays:
        return self._reference(inputs, self._names)


def _other_shape(name: str, want: Array, rows: int, got: Array, size: int) -> str:
    for array, count in ((want, rows), (got, size)):
        if array.shape[:1] != (count,):
            return (
                f"output '{name}' has shape {list(array.shape)} for a batch of {count}, so its "
                "axis 0 is not the batch"
            )
    if got.shape[1:] != want.shape[1:]:
        return (
            f"output '{name}': the answer for a row has shape {list(want.shape[1:])} or "
            f"{list(got.shape[1:])} {_COMPANY}"
        )
    return ""


class _Worst:
    """The largest difference so far, by how many times it is what is allowed."""

    def __init__(self) -> None:
        self.excess = self.share = 0.0
        self.words = ""

    def add(self, output: str, found: _Difference, where: str) -> None:
        if found.excess > self.excess:
            self.excess, self.share = found.excess, found.share
            self.words = f"output '{output}': the answer for a row changes {found.words} {where}"


@dataclass(frozen=True)
class _Difference:
    """A share of a row's largest element, or (``counted``) of its elements."""

    share: float
    allowed: float
    counted: bool = False

    @property
    def excess(self) -> float:
        return self.share / self.allowed if self.allowed else np.inf if self.share else 0.0

    @property
    def words(self) -> str:
        if not np.isfinite(self.share):
            return "between numbers and NaN or infinity"
        if self.counted:
            return f"in {100 * self.share:.3g} % of its elements"
        return f"by {100 * self.share:.3g} % of its largest element"


def _questions(rows: int, smallest: int, largest: int) -> Iterator[_Question]:
    """Yield what is asked after the first batch of ``rows``."""
    first, last = 0, rows - 1
    yield _Question((first,) * rows, same=(first,))
    if rows == 1:
        return
    yield _Question((last,) * rows, same=(last,))
    backwards = tuple(range(rows))[::-1]
    yield _Question((backwards * 2)[: max(rows, min(LARGEST_ASKED, largest))])
    for row in range(rows if smallest < rows else 0):
        others = [other for other in range(rows) if other != row]
        yield _Question((row, *others)[:smallest])


def _difference(want: Array, got: Array, output: Array, allowed: _Tolerance) -> _Difference:
    """Compare a row with what it was; ``output`` has all rows of that."""
    if want.dtype.kind in "fV":
        return _Difference(_relative(want, got, output), allowed.numbers)
    differ = want != got
    if want.dtype.kind in "iu" and allowed.others:
        a, b = want.astype(np.float64), got.astype(np.float64)
        differ = np.abs(a - b) > allowed.numbers * np.max(np.abs(a), initial=0.0)
    return _Difference(float(np.mean(differ)) if differ.size else 0.0, allowed.others, True)


def _relative(want: Array, got: Array, output: Array) -> float:
    a, b = want.astype(np.float64), got.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if not (same | (np.isfinite(a) & np.isfinite(b))).all():
        return np.inf
    # A row that is nearly nothing beside the others holds their rounding.
    scale = max(_largest(a), 1e-6 * _largest(output.astype(np.float64)))
    return _largest(np.where(same, 0.0, a) - np.where(same, 0.0, b)) / (scale or 1.0)


def _largest(array: Array) -> float:
    return float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array)))


def _equal(a: Arrays, b: Arrays) -> bool:
    return all(a[n].shape == b[n].shape and _same_bits(a[n], b[n]) for n in a)


def _same_bits(a: Array, b: Array) -> bool:
    if a.dtype.kind == "O":
        return bool(np.array_equal(a, b))
    return a.tobytes() == b.tobytes()


def _count(inputs: Arrays) -> int:
    return min((array.shape[0] if array.ndim else 0 for array in inputs.values()), default=0)


def _distinct(inputs: Arrays, rows: int) -> dict[Any, int]:
    """Return the different ones of the first ``rows``, each with its number."""
    return {tuple(_row_key(a[row : row + 1]) for a in inputs.values()): row for row in range(rows)}


def _row_key(row: Array) -> Any:
    return tuple(row.ravel()) if row.dtype.kind == "O" else row.tobytes()


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in graphs(proto.graph):
        yield from graph.node
    for function in proto.functions:
        yield from function.node


def _operators(proto: onnx.ModelProto) -> frozenset[str]:
    return frozenset(node.op_type for node in _nodes(proto))


_DRAWING = frozenset(
    {
        *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"),
        "RandomUniformLike",
    }
)


def _drawing(proto: onnx.ModelProto) -> Iterator[str]:
    for node in _nodes(proto):
        if node.op_type in _DRAWING:
            yield f"{_named(node)} draws other random numbers"


def _training(proto: onnx.ModelProto) -> Iterator[str]:
    for node in _nodes(proto):
        mode = any(a.name == "training_mode" and a.i for a in node.attribute)
        if mode or (node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]):
            yield f"{_named(node)} is in training mode: export the model after model.eval()"


def _named(node: onnx.NodeProto) -> str:
    return f"node '{node.name or node.output[0]}' ({node.op_type})"
