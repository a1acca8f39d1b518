"""``gen-repo export``: a PyTorch module becomes an ONNX file that was compared with torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tritonsmith_generator.errors import UsageError

if TYPE_CHECKING:
    from tritonsmith_generator.torch_export.values import Exported

_AXIS = re.compile(r"(?P<name>[^:]+):(?P<axis>\d+)=(?P<symbol>[A-Za-z_]\w*)")


def export(
    factory: Annotated[
        str, typer.Argument(help="package.module:factory or file.py:factory", show_default=False)
    ],
    output: Annotated[
        Path | None, typer.Argument(help="The .onnx file; FACTORY.onnx by default")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="Example input, as image=FP32[1,3,224,224] (repeatable)"),
    ] = None,
    dynamic: Annotated[
        list[str] | None,
        typer.Option(help="A dynamic axis and its name, as image:0=batch (repeatable)"),
    ] = None,
    outputs: Annotated[
        list[str] | None, typer.Option("--output-name", help="Name of an output (repeatable)")
    ] = None,
    opset: Annotated[
        int | None, typer.Option(help="ONNX opset; 18 by default, 17 with --legacy")
    ] = None,
    legacy: Annotated[
        bool,
        typer.Option(
            "--legacy", help="torch's tracing exporter, whose graphs TensorRT 8.6 can read"
        ),
    ] = False,
    tolerance: Annotated[
        float, typer.Option(help="Allowed difference from torch, relative to the largest value")
    ] = 1e-3,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists")] = False,
) -> None:
    """Export a PyTorch module to ONNX and compare it with torch's own output."""
    from tritonsmith_generator.torch_export.export import export as export_model

    console = Console(highlight=False)
    path = output or Path(f"{factory.rpartition(':')[2]}.onnx")
    with console.status(f"exporting {factory}"):
        exported = export_model(
            factory,
            path,
            inputs=_examples(inputs) if inputs else None,
            dynamic=_axes(dynamic) if dynamic else None,
            outputs=outputs or None,
            opset=opset,
            legacy=legacy,
            tolerance=tolerance,
            force=force,
        )
    _show(console, exported)


def _examples(texts: list[str]) -> dict[str, str]:
    examples = {}
    for text in texts:
        name, equals, tensor = text.partition("=")
        if not (name and equals and tensor):
            raise UsageError(f"--input {text}: write it as image=FP32[1,3,224,224]")
        examples[name] = tensor
    return examples


def _axes(texts: list[str]) -> dict[str, dict[int, str]]:
    axes: dict[str, dict[int, str]] = {}
    for text in texts:
        match = _AXIS.fullmatch(text)
        if match is None:
            raise UsageError(f"--dynamic {text}: write it as image:0=batch")
        axes.setdefault(match["name"], {})[int(match["axis"])] = match["symbol"]
    return axes


def _show(console: Console, exported: Exported) -> None:
    table = Table("Output", "Sizes", "Largest difference from torch", box=None)
    for check in exported.checks:
        sizes = ", ".join(f"{name}={size}" for name, size in check.sizes.items())
        table.add_row(escape(check.output), sizes or "fixed", f"{check.max_difference:.2g}")
    console.print(table)
    for warning in exported.warnings:
        console.print(f"[yellow]torch warns[/] {escape(warning)}", soft_wrap=True)
    size = sum(path.stat().st_size for path in exported.files)
    written = f"{exported.path}: {size / 1e6:.2f} MB, opset {exported.opset}."
    console.print(escape(written), soft_wrap=True)
    if not any(check.sizes for check in exported.checks):
        console.print("Every axis is fixed; --dynamic NAME:0=batch makes a batch dynamic.")
