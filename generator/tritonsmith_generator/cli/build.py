"""``gen-repo build``: a spec or an ONNX file becomes a model repository."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tritonsmith_generator.cli.debug import show_traceback
from tritonsmith_generator.cli.progress import Display
from tritonsmith_generator.errors import InputError, UsageError
from tritonsmith_generator.layout import DEFAULT_REPOSITORY

if TYPE_CHECKING:
    from tritonsmith_generator.pipeline.build import ModelResult
    from tritonsmith_generator.spec.schema import Spec

_SHAPE = re.compile(r"(?P<name>.+)=(?P<min>[\dx]+):(?P<opt>[\dx]+):(?P<max>[\dx]+)")


def build(
    source: Annotated[Path, typer.Argument(help="models.yaml, or one ONNX file")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The model repository \\[default: model_repository]"),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Build this model of the spec only (repeatable)")
    ] = None,
    name: Annotated[str | None, typer.Option(help="ONNX file: the model's name")] = None,
    target: Annotated[
        str | None,
        typer.Option(help="ONNX file: auto, onnxruntime, tensorrt or tensorrt_rtx"),
    ] = None,
    precision: Annotated[str | None, typer.Option(help="ONNX file: fp32, fp16, ...")] = None,
    max_batch: Annotated[int | None, typer.Option(help="ONNX file: the largest batch")] = None,
    batching: Annotated[
        bool, typer.Option(help="ONNX file: whether a dynamic axis 0 is the batch")
    ] = True,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            help="ONNX file: NAME=MIN:OPT:MAX, e.g. x=1x3x224x224:8x3x224x224:64x3x224x224"
        ),
    ] = None,
    samples: Annotated[
        str | None,
        typer.Option(
            help="ONNX file: inputs to measure ranges (int8, fp8) and to compare answers with: "
            "a .npz file, a folder of .npy files or package.module:function"
        ),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help="ONNX file: the SHA-256 that the file must have")
    ] = None,
    in_release: Annotated[
        str | None,
        typer.Option(help="Compile plans inside NVIDIA's server image of this release, e.g. 26.10"),
    ] = None,
    in_image: Annotated[
        str | None, typer.Option(help="Compile plans inside this server image")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that were changed by hand")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            help="Build so many models at once, memory and GPUs allowing \\[default: one a core]",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say of each stage why it ran, or would run")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON")] = False,
) -> None:
    """Build a model repository. Models that are up to date are left alone."""
    repository = output or _default_repository(source)
    given = {
        "target": target,
        "precision": precision,
        "batching": _batching(batching, max_batch),
        "shapes": _shapes(shape or []),
        "accuracy": _samples(samples, source.parent),
        "sha256": sha256,
    }
    for_one = {key: value for key, value in given.items() if value is not None}
    from tritonsmith_generator.cli.toolchain_option import choose_toolchain
    from tritonsmith_generator.pipeline.build import build as build_repository

    spec = _spec(source, name, for_one)
    if in_release and spec.triton is None:
        spec = spec.model_copy(update={"triton": in_release})
    with Display(len(set(only or spec.models))) as display:
        results = build_repository(
            spec,
            source.parent,
            repository,
            only=only or (),
            dry_run=dry_run,
            force=force,
            jobs=jobs,
            on_event=display.show,
            toolchain=choose_toolchain(in_release, in_image, spec.triton, display.show),
        )
    failed = [result.error for result in results if result.error is not None]
    if failed and len(results) == 1 and not as_json:
        raise failed[0]
    if as_json:
        print(json.dumps([_as_dict(result) for result in results], indent=2))
    else:
        from tritonsmith_generator.cli.results import print_results  # with rich

        print_results(results, repository, dry_run, explain)
    for error in failed:
        show_traceback(error)
    if failed:
        raise typer.Exit(max(error.exit_code for error in failed))


def _spec(source: Path, name: str | None, for_one: Mapping[str, Any]) -> Spec:
    if source.suffix == ".onnx":
        return _spec_of_one(name or source.stem, source, for_one)
    if for_one or name:
        raise UsageError(
            "--name, --target, --precision, --max-batch, --no-batching, --shape, --samples and "
            "--sha256 are for a single ONNX file; with a spec, write them into the spec"
        )
    from tritonsmith_generator.spec.loader import load_spec

    return load_spec(source)


def _spec_of_one(name: str, source: Path, given: Mapping[str, Any]) -> Spec:
    from pydantic import ValidationError

    from tritonsmith_generator.spec.schema import Spec

    model = {"onnx": str(source.resolve()), **given}
    try:
        return Spec.model_validate({"models": {name: model}})
    except ValidationError as exc:
        error = exc.errors()[0]
        where = ".".join(map(str, error["loc"][2:])) or "--name"
        message = error["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {message} (given: {error['input']!r})") from exc


def _default_repository(source: Path) -> Path:
    """Write no spec over another; it may lie in the repository: Triton ignores files there."""
    is_spec = source.suffix != ".onnx"
    lies_in_one = source.resolve().parent.name == DEFAULT_REPOSITORY
    return source.parent if is_spec and lies_in_one else Path(DEFAULT_REPOSITORY)


def _batching(batching: bool, max_batch: int | None) -> bool | dict[str, int] | None:
    if not batching:
        return False
    return None if max_batch is None else {"max": max_batch}


def _shapes(texts: list[str]) -> dict[str, dict[str, list[int]]] | None:
    shapes = {}
    for text in texts:
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise UsageError(f"--shape {text}: write NAME=MIN:OPT:MAX, e.g. x=1x784:8x784:64x784")
        shapes[match["name"]] = {
            end: [int(size) for size in match[end].split("x")] for end in ("min", "opt", "max")
        }
    return shapes or None


def _samples(given: str | None, folder: Path) -> dict[str, str] | None:
    """For the spec, whose paths start at the model's folder; those of a command start here."""
    if given is None:
        return None
    a_path = Path(given).exists() or ":" not in given or ".py:" in given
    return {"samples": os.path.relpath(given, folder) if a_path else given}


def _as_dict(result: ModelResult) -> dict[str, Any]:
    return {
        "model": result.name,
        "status": result.status,
        "target": result.target,
        "version": result.version,
        "files": {change.path: change.action for change in result.changes},
        "warnings": list(result.warnings),
        "notes": list(result.notes),
        "stages": [asdict(report) for report in result.stages],
        "seconds": round(result.seconds, 3),
        "error": None if result.error is None else str(result.error),
    }
