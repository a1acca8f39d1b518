"""Simplify with onnxslim: constants folded, operators fused. Kept only if the answers are equal."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxslim

from tritonsmith_generator.accuracy.metrics import measure
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.onnx_model.onnx_file import signature_of
from tritonsmith_generator.onnx_model.reference import Reference
from tritonsmith_generator.onnx_model.signature import Signature
from tritonsmith_generator.passes import conditions
from tritonsmith_generator.passes.base import Arrays, Condition, PassResult
from tritonsmith_generator.passes.graph.tidy import tidy_up
from tritonsmith_generator.passes.model import is_large, read_model
from tritonsmith_generator.passes.report import Stopwatch
from tritonsmith_generator.passes.samples import Samples

__all__ = ["Simplify"]

# Folding changes the order of sums, not more.
_LIMIT = 1e-5

# Without samples: how many random inputs are compared, and the size of a dynamic axis in them.
_ROUNDS, _AXIS = 2, 3


@dataclass(frozen=True)
class Simplify:
    """``samples`` are what the answers are compared on; random inputs where there are none."""

    samples: Samples | None = None
    name: str = "simplify"
    requires: tuple[Condition, ...] = (conditions.tidy,)
    ensures: tuple[Condition, ...] = (conditions.tidy,)

    def apply(self, model: Path, workdir: Path) -> PassResult:
        watch = Stopwatch(self.name, model)
        file = onnx_file.read(model)
        if is_large(file):
            return watch.result(model, ("skipped: onnxslim needs 4 times a large model's memory",))
        slim = workdir / "slim.onnx"
        try:
            with _quiet():
                onnxslim.slim(str(model), str(slim))
        except Exception as exc:  # onnxslim raises whatever it stumbles over
            return watch.result(model, (f"dropped: onnxslim failed: {' '.join(str(exc).split())}",))
        work = read_model(slim)
        tidy_up(work)
        after = work.write(workdir / "model.onnx")
        slim.unlink()
        if reason := self._differs(model, after, signature_of(file.proto)):
            return watch.result(model, (f"dropped: {reason}",))
        before = len(file.proto.graph.node)
        return watch.result(after, (f"{before} nodes became {len(work.graph.node)}",))

    def _differs(self, before: Path, after: Path, signature: Signature) -> str | None:
        """Return what is different in words; None if the answers are equal."""
        if signature_of(onnx_file.read(after).proto) != signature:
            return "inputs or outputs changed"
        one, other = Reference(before), None
        batches = self.samples.read(signature) if self.samples else _random(signature)
        for batch in batches:
            try:
                want = one(batch)
            except InputError as exc:
                return f"the model itself fails on the samples, so nothing can be compared: {exc}"
            try:
                other = other or Reference(after)
                got = other(batch)
            except InputError as exc:
                return str(exc)
            for name, array in want.items():
                if array.shape != got[name].shape or _far(array, got[name]):
                    return f"output '{name}' changed"
        return None


def _far(want: np.ndarray, got: np.ndarray) -> bool:
    if want.dtype.kind not in "fV":
        return not np.array_equal(want, got)
    found = measure([want], [got])
    return found.non_finite > 0 or not found.relative_l2 <= _LIMIT


def _random(signature: Signature) -> Iterator[Arrays]:
    for seed in range(_ROUNDS):
        rng = np.random.default_rng(seed)
        sizes = {t.name: tuple(_AXIS if d == -1 else d for d in t.dims) for t in signature.inputs}
        yield {
            t.name: (
                rng.standard_normal(sizes[t.name]).astype(t.dtype.numpy)
                if t.dtype.numpy.kind in "fV"
                else rng.integers(0, 2, sizes[t.name]).astype(t.dtype.numpy)
            )
            for t in signature.inputs
        }


@contextmanager
def _quiet() -> Iterator[None]:
    """Onnxslim prints and logs what it did."""
    log = logging.getLogger("onnxslim")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(before)
