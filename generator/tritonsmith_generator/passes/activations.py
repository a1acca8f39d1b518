"""What a model computes inside: any of its tensors, for given inputs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx

from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.onnx_model.reference import Reference
from tritonsmith_generator.passes.base import Arrays

__all__ = ["tensors_of"]


@contextmanager
def tensors_of(
    model: Path, names: Sequence[str], workdir: Path
) -> Iterator[Callable[[Arrays], Arrays]]:
    """Return a function from a model's inputs to these FP32 tensors of it, inputs included."""
    file = onnx_file.read(model)
    inputs = {value.name for value in file.proto.graph.input}
    inner = [name for name in names if name not in inputs]
    with tempfile.TemporaryDirectory(dir=workdir) as folder:
        path = Path(folder) / "measured.onnx"
        for weights in file.external:
            _link(model.parent / weights, path.parent / weights)
        del file.proto.graph.output[:]
        file.proto.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in inner
        )
        path.write_bytes(file.proto.SerializeToString())
        ask = Reference(path) if inner else None

        def tensors(given: Arrays) -> Arrays:
            found = ask(given, inner) if ask else {}
            return {name: found[name] if name in found else given[name] for name in names}

        yield tensors


def _link(source: Path, target: Path) -> None:
    """Link the same file under another name; copy it where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
