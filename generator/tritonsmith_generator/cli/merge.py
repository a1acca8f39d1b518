"""``gen-repo merge``: repositories built on different GPUs become one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tritonsmith_generator.layout import DEFAULT_REPOSITORY

if TYPE_CHECKING:
    from tritonsmith_generator.merging.merge import MergedModel


def merge(
    repositories: Annotated[
        list[Path], typer.Argument(metavar="REPO", help="Repositories of one spec, two or more")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The merged repository: new, or one of them")
    ] = Path(DEFAULT_REPOSITORY),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a config that was changed by hand")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON")] = False,
) -> None:
    """Merge repositories that were built from one spec, each on the machine of another GPU.

    A TensorRT model gets the plan of each GPU; Triton opens the one that fits.
    Models that only one repository has are taken over, other models have to be
    the same. Nothing is written unless everything agrees.
    """
    from tritonsmith_generator.merging.merge import merge as merge_repositories

    merged = merge_repositories(repositories, output, dry_run=dry_run, force=force)
    if as_json:
        print(json.dumps([_as_dict(model) for model in merged], indent=2))
    else:
        _print(merged, output, dry_run)


def _print(merged: tuple[MergedModel, ...], output: Path, dry_run: bool) -> None:
    console = Console(highlight=False)
    table = Table("Model", "Target", "Version", "Status", "Plans for", "From", box=None)
    for model in merged:
        table.add_row(
            escape(model.name),
            escape(model.target),
            str(model.version),
            model.status,
            ", ".join(model.gpus),
            escape(", ".join(map(str, model.repositories))),
        )
    console.print(table)
    for model in merged:
        for note in model.notes:
            console.print(f"[dim]{escape(model.name)}: {escape(note)}[/]", soft_wrap=True)
        for change in model.changes if dry_run else ():
            console.print(f"  {change.action:9} {escape(change.path)}")
    done = "Nothing was written to" if dry_run else "Merged into"
    console.print(f"{done} {escape(str(output))}.")


def _as_dict(model: MergedModel) -> dict[str, Any]:
    return {
        "model": model.name,
        "status": model.status,
        "target": model.target,
        "version": model.version,
        "gpus": list(model.gpus),
        "repositories": list(map(str, model.repositories)),
        "files": {change.path: change.action for change in model.changes},
        "notes": list(model.notes),
    }
