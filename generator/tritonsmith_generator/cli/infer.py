"""``gen-repo infer``: one request to a model of a running server, and a table of what came back."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tritonsmith_generator.errors import ServerError, UsageError

if TYPE_CHECKING:
    from tritonsmith_client import Result
    from tritonsmith_client._cli.inputs import Summary


def infer(
    model: Annotated[str, typer.Argument(help="The model's name")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="NAME=FILE.npy, NAME=random or NAME=random:2x128 (repeatable); random by default",
        ),
    ] = None,
    url: Annotated[
        str, typer.Option(help="grpc://, grpcs://, http:// or https:// and host:port")
    ] = "grpc://localhost:8001",
    version: Annotated[str, typer.Option(help="The model's version; the newest by default")] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write each output here as NAME.npy")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds until it gives up")] = 60.0,
    seed: Annotated[int, typer.Option(help="Other random inputs for another number")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON")] = False,
) -> None:
    """Call a model on a running server."""
    from tritonsmith_client import Client
    from tritonsmith_client._cli.inputs import read_inputs, summarize

    with _client_errors(url), Client(url, timeout=timeout) as client:
        called = client.model(model, version)
        arrays = read_inputs(called.metadata, inputs or [], seed)
        start = time.perf_counter()
        result = called(arrays)
        seconds = time.perf_counter() - start
    written = _write(result, output) if output is not None else {}
    summaries = [summarize(name, array) for name, array in result.items()]
    if as_json:
        print(json.dumps(_as_json(result, summaries, seconds, written)))
        return
    _show(result, summaries, seconds, written)


@contextmanager
def _client_errors(url: str) -> Iterator[None]:
    """Provide the client's errors as the generator's, with their exit codes."""
    from tritonsmith_client import InputError as ClientInputError
    from tritonsmith_client import TritonError
    from tritonsmith_client._core.hints import command_message

    try:
        yield
    except ClientInputError as exc:
        raise UsageError(str(exc)) from exc
    except TritonError as exc:
        raise ServerError(command_message(exc, url)) from exc


def _write(result: Result, folder: Path) -> dict[str, str]:
    """Return the file of each output.

    Strings are written as fixed-width bytes, without pickling.
    """
    import numpy as np

    paths = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in result.items():
            path = folder / f"{name.replace('/', '_')}.npy"
            np.save(path, array.astype(bytes) if array.dtype.kind == "O" else array)
            paths[name] = str(path)
    except OSError as exc:
        raise UsageError(f"the outputs cannot be written to {folder}: {exc}") from exc
    return paths


def _as_json(
    result: Result, summaries: list[Summary], seconds: float, written: dict[str, str]
) -> dict[str, Any]:
    return {
        "model": result.model_name,
        "version": result.model_version,
        "milliseconds": round(seconds * 1e3, 3),
        "outputs": [
            dataclasses.asdict(s) | ({"file": written[s.name]} if s.name in written else {})
            for s in summaries
        ],
    }


def _show(
    result: Result, summaries: list[Summary], seconds: float, written: dict[str, str]
) -> None:
    title = f"{result.model_name} version {result.model_version}: {seconds * 1e3:.1f} ms"
    table = Table(box=None, pad_edge=False)
    for column in ("output", "dtype", "shape"):
        table.add_column(column, overflow="fold")
    for column in ("min", "mean", "max"):
        table.add_column(column, justify="right")
    table.add_column("first values")
    for s in summaries:
        numbers = ["-" if n is None else f"{n:.4g}" for n in (s.min, s.mean, s.max)]
        first = " ".join(f"{n:.4g}" if isinstance(n, float) else str(n) for n in s.first)
        shape = "x".join(map(str, s.shape)) or "scalar"
        table.add_row(escape(s.name), s.dtype, shape, *numbers, escape(first))
    console = Console(highlight=False)
    console.print(escape(title))
    console.print(table)
    for path in written.values():
        console.print(f"wrote {path}", markup=False)
