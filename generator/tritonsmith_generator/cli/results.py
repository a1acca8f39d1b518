"""What a build came to, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.text import Text

if TYPE_CHECKING:
    from tritonsmith_generator.pipeline.build import ModelResult

__all__ = ["print_results"]

_HEADER = ("Model", "Target", "Version", "Status", "Files", "Seconds")
_COLORS = {"failed": "red", "unchanged": "dim"}


def print_results(
    results: Sequence[ModelResult], repository: Path, dry_run: bool, explain: bool
) -> None:
    """Print a table, then what there is to say of each model, then the sum."""
    console = Console(highlight=False)
    console.print(_table(results), soft_wrap=True)
    for result in results:
        for warning in result.warnings:
            console.print(
                f"[yellow]warning[/] {escape(result.name)}: {escape(warning)}", soft_wrap=True
            )
        for note in result.notes:
            console.print(f"[dim]{escape(result.name)}: {escape(note)}[/]", soft_wrap=True)
        for line in _explanation(result) if explain else ():
            console.print(f"{escape(result.name)}: {escape(line)}", soft_wrap=True)
        for change in result.changes if dry_run else ():
            console.print(f"  {change.action:9} {escape(change.path)}")
        if result.error is not None:
            console.print(
                f"[red]failed[/] {escape(result.name)}: {escape(str(result.error))}", soft_wrap=True
            )
    statuses = Counter(result.status for result in results)
    if dry_run:
        console.print(f"Nothing was written to {escape(str(repository))} (dry run).")
    elif statuses["unchanged"] == len(results):
        console.print(f"{escape(str(repository))} is up to date: nothing had to be rebuilt.")
    else:
        summary = ", ".join(f"{count} {status}" for status, count in statuses.items())
        console.print(f"{escape(str(repository))}: {summary}.")


def _explanation(result: ModelResult) -> Iterator[str]:
    ran = "would run" if result.status == "planned" else "ran"
    alone = sum(report.ran for report in result.stages) == 1
    for report in result.stages:
        which = f"{report.stage} only" if report.ran and alone else report.stage
        yield f"{which}: {ran}, {'; '.join(report.why)}" if report.ran else f"{which}: reused"


def _table(results: Sequence[ModelResult]) -> Text:
    """Plain columns: rich's own table takes as long as it takes to look at a hundred models."""
    rows = [_HEADER, *map(_row, results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        " " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    table = Text("\n".join(lines))
    table.stylize("bold", 0, len(lines[0]))
    status = lines[0].index("Status")
    for number, result in enumerate(results, 1):
        begin = number * (len(lines[0]) + 1) + status  # lines are of one length
        table.stylize(_COLORS.get(result.status, "green"), begin, begin + len(result.status))
    return table


def _row(result: ModelResult) -> tuple[str, ...]:
    counts = Counter(change.action for change in result.changes)
    files = ", ".join(f"{count} {action}" for action, count in counts.items())
    version, seconds = str(result.version or ""), f"{result.seconds:.1f}"
    return result.name, result.target, version, result.status, files, seconds
