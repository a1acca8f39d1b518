"""Sort the nodes, name each of them, and drop graph inputs that are weights (IR version 3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from pathlib import Path

import onnx
from onnx import inliner

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.passes import conditions
from tritonsmith_generator.passes.base import Condition, PassResult
from tritonsmith_generator.passes.model import Model, read_model
from tritonsmith_generator.passes.report import Stopwatch

__all__ = ["Tidy", "tidy_up"]


@dataclass(frozen=True)
class Tidy:
    """Needed by every pass that names nodes. Inlines local functions."""

    name: str = "tidy"
    requires: tuple[Condition, ...] = ()
    ensures: tuple[Condition, ...] = (conditions.tidy,)

    def apply(self, model: Path, workdir: Path) -> PassResult:
        watch = Stopwatch(self.name, model)
        weight_inputs = _count_weight_inputs(model)
        work = read_model(model)
        notes = tidy_up(work)
        if weight_inputs:
            notes += (f"{weight_inputs} weights were listed as graph inputs: no longer",)
        return watch.result(work.write(workdir / "model.onnx") if notes else model, notes)


def _count_weight_inputs(model: Path) -> int:
    graph = onnx_file.read(model).proto.graph
    return len({v.name for v in graph.input} & {i.name for i in graph.initializer})


def tidy_up(work: Model) -> tuple[str, ...]:
    """Change the model in place; one sentence for each kind of change."""
    return tuple(_tidied(work))


def _tidied(work: Model) -> Iterator[str]:
    if work.proto.functions:
        count = len(work.proto.functions)
        work.proto = inliner.inline_local_functions(work.proto)
        yield f"{count} local functions were inlined"
    moved = sum(_sort(graph) for graph in onnx_file.graphs(work.graph))
    if moved:
        yield f"{moved} nodes were moved into topological order"
    renamed = _rename(work.graph)
    if renamed:
        yield f"{renamed} nodes without a name of their own were named"


def _sort(graph: onnx.GraphProto) -> int:
    """Sort the nodes, keeping the order of those that don't depend on each other."""
    maker = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    reads = [{maker[name] for name in _read_by(node) if name in maker} for node in graph.node]
    if all(all(other < index for other in needed) for index, needed in enumerate(reads)):
        return 0
    order = _order(graph, reads)
    nodes = [onnx.NodeProto.FromString(graph.node[i].SerializeToString()) for i in order]
    del graph.node[:]
    graph.node.extend(nodes)
    return sum(index != i for index, i in enumerate(order))


def _order(graph: onnx.GraphProto, reads: list[set[int]]) -> list[int]:
    """Of the nodes that are ready the first in the old order comes first."""
    sorter = TopologicalSorter(dict(enumerate(reads)))
    try:
        sorter.prepare()
    except CycleError as exc:
        name = graph.node[exc.args[1][0]].name
        raise InputError(f"the graph has a cycle through node '{name}': export it again") from exc
    order: list[int] = []
    ready: list[int] = []
    while sorter.is_active():
        for index in sorter.get_ready():
            heappush(ready, index)
        order.append(heappop(ready))
        sorter.done(order[-1])
    return order


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, those that its sub-graphs read from outside included."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for other in inner.node:
                yield from _read_by(other)
            yield from (value.name for value in inner.output)


def _rename(main: onnx.GraphProto) -> int:
    taken = {node.name for graph in onnx_file.graphs(main) for node in graph.node}
    seen: set[str] = set()
    renamed = 0
    for graph in onnx_file.graphs(main):
        for node in graph.node:
            if not node.name or node.name in seen:
                node.name = _free(node.name or node.op_type, taken)
                renamed += 1
            seen.add(node.name)
            taken.add(node.name)
    return renamed


def _free(stem: str, taken: set[str]) -> str:
    number = 1
    while f"{stem}_{number}" in taken:
        number += 1
    return f"{stem}_{number}"
