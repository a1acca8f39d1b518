"""The graph that the later stages work on: the source, or what conversion made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tritonsmith_generator.host.digest import sha256
from tritonsmith_generator.onnx_model.onnx_file import OnnxFile
from tritonsmith_generator.stages.job import Job
from tritonsmith_generator.stages.stage import Kept

__all__ = ["Graph", "Tell", "converted_graph", "source_graph"]

Tell = Callable[[str, str, float | None], None]


@dataclass(frozen=True)
class Graph:
    """An ONNX model on the disk, and what the passes did to it, in sentences.

    ``digests`` has "sha256:..." of the model file and of its weight files, by their names relative
    to the model file's folder. ``error`` is the largest relative L2 error of an output in ONNX
    Runtime; 0 for the model as it is given.
    """

    model: Path
    digests: Mapping[str, str]
    notes: tuple[str, ...] = ()
    error: float = 0.0

    @property
    def weights(self) -> Mapping[str, Path]:
        """The weight files by name."""
        names = [name for name in self.digests if name != self.model.name]
        return {name: self.model.parent / name for name in names}


def source_graph(job: Job, file: OnnxFile) -> Graph:
    """Return the model as it is given, or tidied."""
    names = [str(path.relative_to(file.path.parent)) for path in file.files]
    if file.path == job.source:
        return Graph(file.path, {name: f"sha256:{job.sources[name].sha256}" for name in names})
    return Graph(file.path, {name: f"sha256:{sha256(file.path.parent / name)}" for name in names})


def converted_graph(kept: Kept, source: Graph) -> Graph:
    """Return the result of the conversion stage, from ``source``."""
    notes, name = tuple(kept.about["notes"]), kept.about["model"]
    if name is None:  # the precision changes nothing in this graph
        return replace(source, notes=notes)
    return Graph(kept.folder / name, kept.files, notes, kept.about["relative_l2"])
