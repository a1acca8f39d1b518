"""``gen-repo inspect``: what is in an ONNX file or a model repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from tritonsmith_generator.onnx_model.signature import Signature
    from tritonsmith_generator.repository.inspect import InspectedFile, InspectedModel


def inspect(
    path: Annotated[Path, typer.Argument(help="An ONNX file or a model repository")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Show signature, opset, size, target and version."""
    from tritonsmith_generator.errors import InputError
    from tritonsmith_generator.repository.inspect import inspect_file, inspect_model, model_folders

    if not path.is_dir():
        file = inspect_file(path)
        print(json.dumps(_file_as_dict(file), indent=2)) if as_json else _print_file(file)
        return
    models = [inspect_model(folder) for folder in model_folders(path)]
    if not models:
        raise InputError(f"{path} holds no model; make one with: gen-repo build MODEL.onnx")
    if as_json:
        print(json.dumps([_model_as_dict(model) for model in models], indent=2))
    else:
        _print_models(models)


def _print_file(file: InspectedFile) -> None:
    console = Console(highlight=False)
    facts = Table(box=None, show_header=False)
    facts.add_row("File", escape(str(file.path)))
    facts.add_row("Size", _size(file.size))
    facts.add_row("Opset", f"{file.opset} (IR version {file.ir_version})")
    facts.add_row("Made by", escape(file.producer or "unknown"))
    facts.add_row("Nodes", str(file.nodes))
    if file.external:
        facts.add_row("Weights in", escape(", ".join(file.external)))
    console.print(facts)
    console.print(_tensors(file.signature))
    for warning in file.warnings:
        console.print(f"[yellow]warning[/] {escape(warning)}", soft_wrap=True)


def _tensors(signature: Signature) -> Table:
    table = Table("", "Name", "Type", "Shape", box=None)
    for what, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor in tensors:
            shape = ", ".join(map(str, tensor.shape))
            table.add_row(what, escape(tensor.name), str(tensor.dtype), escape(f"[{shape}]"))
    return table


def _print_models(models: list[InspectedModel]) -> None:
    console = Console(highlight=False)
    for model in models:
        versions = ", ".join(map(str, model.versions)) or "none"
        console.print(
            f"[bold]{escape(model.name)}[/]  {escape(model.target)}, version {versions}, "
            f"max batch {model.max_batch_size}, {_size(model.size)}",
            soft_wrap=True,
        )
        if model.plans:
            by_gpu = ", ".join(f"{gpu} {file}" for gpu, file in model.plans.items())
            console.print(
                escape(f"  by compute capability: {by_gpu}, others {model.filename}"),
                soft_wrap=True,
            )
        console.print(_tensors(model.signature))


def _size(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _signature_as_dict(signature: Signature) -> dict[str, Any]:
    return {
        what: [{"name": t.name, "datatype": t.dtype.wire, "shape": list(t.shape)} for t in tensors]
        for what, tensors in (("inputs", signature.inputs), ("outputs", signature.outputs))
    }


def _file_as_dict(file: InspectedFile) -> dict[str, Any]:
    return {
        "path": str(file.path),
        "size": file.size,
        "opset": file.opset,
        "ir_version": file.ir_version,
        "producer": file.producer,
        "nodes": file.nodes,
        "external_data": list(file.external),
        **_signature_as_dict(file.signature),
        "warnings": list(file.warnings),
    }


def _model_as_dict(model: InspectedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "target": model.target,
        "versions": list(model.versions),
        "max_batch_size": model.max_batch_size,
        "size": model.size,
        "file": model.filename,
        "plans": dict(model.plans),
        **_signature_as_dict(model.signature),
    }
