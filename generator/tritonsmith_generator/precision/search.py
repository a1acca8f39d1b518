"""When a precision isn't accurate enough: which nodes have to be left alone, found by bisection."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from tritonsmith_generator.accuracy.gate import Limits, gate
from tritonsmith_generator.accuracy.report import GateReport
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.onnx_model.reference import Reference
from tritonsmith_generator.passes.base import Array, Arrays
from tritonsmith_generator.passes.manager import PassesReport, run
from tritonsmith_generator.passes.recipe import Executor, Options, Recipe, for_precision
from tritonsmith_generator.precision.bisection import Part, find
from tritonsmith_generator.precision.emulate import emulate
from tritonsmith_generator.spec.builder_options import Precision

__all__ = ["Converted", "Search", "answers", "convert"]

# Conversions that one search may cost.
TRIALS = 32

# The operators that a quantizer touches; FP16 and BF16 touch all.
_QUANTIZED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True)
class Search:
    """What is searched for: a conversion of ``model`` that passes the gate on the samples."""

    model: Path
    samples: Sequence[Arrays]
    precision: Precision
    library: Executor
    version: str
    limits: Limits
    options: Options = Options()

    @property
    def exact(self) -> bool:
        """As for ``Reference``."""
        return self.library != "onnxruntime"


@dataclass(frozen=True)
class Converted:
    """A conversion and the gate's verdict on it.

    ``folder`` holds the converted model, unless the precision changes nothing in the graph.
    ``kept`` are the nodes that the search left alone so that the gate passes, beside those of the
    options (see there for what they are computed in); ``searched`` says whether it was searched
    for such nodes, ``trials`` is the number of conversions that were tried.
    """

    passes: PassesReport
    gate: GateReport
    folder: Path
    kept: Part = ()
    searched: bool = False
    trials: int = 1


def answers(
    model: Path, samples: Sequence[Arrays], workdir: Path, exact: bool = True
) -> list[dict[str, Array]]:
    """ONNX Runtime's outputs for each sample, BF16 and FP8 emulated where the model has them.

    ``exact`` is as for ``Reference``: what TensorRT runs does not depend on this machine's CPU.
    """
    reference = Reference(emulate(model, workdir), exact)
    return [reference(sample) for sample in samples]


def convert(
    search: Search,
    workdir: Path,
    fallback: bool = True,
    on_trial: Callable[[int, int], None] = lambda trial, kept: None,
) -> Converted:
    """Convert the model; where the gate fails, find nodes to leave alone until it passes.

    The result fails the gate only where ``fallback`` is off, where no node changes its precision,
    so that none can be left alone (sparse FP32), and where no part of the nodes is enough. To
    leave all of them alone is not tried: nothing of the precision would be left.
    ``on_trial`` gets the number of each conversion and how many nodes it keeps.
    Raises InputError when the model cannot be converted at all.
    """
    wanted = answers(search.model, search.samples, workdir, search.exact)
    base = run(_recipe(search).prepare, search.model, workdir)
    tried: list[Converted] = []
    numbers = count()  # of the trials that cannot be converted as well

    def attempt(kept: Part) -> bool:
        number = next(numbers)
        on_trial(number, len(kept))
        folder = workdir / f"trial{number:02d}"
        folder.mkdir()
        tried.append(_attempt(search, base, kept, wanted, folder))
        return tried[-1].gate.passed

    if attempt(()) or not fallback or not _recipe(search).lower:
        return tried[0]
    holds = _or_not(attempt)

    def error(part: Part) -> float:
        before = len(tried)
        if part:
            holds(part)
        converted = not part or len(tried) > before
        return tried[-1].gate.error if converted else math.inf

    kept = find(_candidates(search, tried[0].passes, base.model), error, holds, TRIALS - 1)
    best = tried[0] if kept is None else next(one for one in tried if one.kept == kept)
    for one in tried:
        if one is not best:
            shutil.rmtree(one.folder)
    return replace(best, searched=True, trials=len(tried))


def _recipe(search: Search, kept: Part = ()) -> Recipe:
    options = replace(search.options, keep=(*search.options.keep, *kept))
    return for_precision(search.precision, search.library, search.version, options)


def _attempt(
    search: Search,
    base: PassesReport,
    kept: Part,
    wanted: Sequence[Arrays],
    folder: Path,
) -> Converted:
    done = run(_recipe(search, kept).lower, base.model, folder)
    got = answers(done.model, search.samples, folder, search.exact)
    verdict = gate(wanted, got, search.limits, search.precision)
    passes = PassesReport(done.model, (*base.reports, *done.reports))
    return Converted(passes, verdict, folder, kept)


def _or_not(attempt: Callable[[Part], bool]) -> Callable[[Part], bool]:
    """Tell whether something is left to convert: to keep everything is not a solution."""

    def passes(kept: Part) -> bool:
        try:
            return attempt(kept)
        except InputError:
            return False

    return passes


def _candidates(search: Search, done: PassesReport, base: Path) -> Part:
    """Return the nodes that were converted, in the graph's order."""
    left_alone = {name for report in done.reports for name in report.kept}
    quantized = search.precision in ("int8", "fp8", "int4")
    return tuple(
        node.name
        for graph in onnx_file.graphs(onnx_file.read(base).proto.graph)
        for node in graph.node
        if node.name not in left_alone
        and (node.op_type in _QUANTIZED if quantized else node.op_type != "Constant")
    )
