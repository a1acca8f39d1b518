"""``gen-repo check``: does a repository hold together, and does a real server answer rightly?"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tritonsmith_generator.errors import InputError, ServerError

if TYPE_CHECKING:
    from tritonsmith_generator.check.live import LiveCheck
    from tritonsmith_generator.check.repository import Finding


def check(
    repository: Annotated[
        Path, typer.Argument(help="The model repository, or a folder with a compose file")
    ],
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Also serve it, replay the recorded cases over gRPC and HTTP, and stop"
        ),
    ] = False,
    server_env: Annotated[
        Path | None, typer.Option(help="Python environment for the embedded server's models")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Check configs, files, versions, names, signatures and the lock; with --live, the answers.

    A folder with a compose file is checked for what it opens to strangers.
    """
    from tritonsmith_generator.check.compose import check_compose, compose_file
    from tritonsmith_generator.check.repository import check_repository

    compose = compose_file(repository)
    findings = check_repository(repository) if compose is None else check_compose(compose)
    live = live and compose is None
    broken = any(finding.severity == "error" for finding in findings)
    checks = _prove(repository, server_env) if live and not broken else ()
    if as_json:
        print(json.dumps({"findings": [asdict(f) for f in findings], **_live(checks)}, indent=2))
    else:
        _print(findings, checks, repository)
    if broken:
        raise typer.Exit(InputError.exit_code)
    if any(model.problem for model in checks):
        raise typer.Exit(ServerError.exit_code)


def _prove(repository: Path, server_env: Path | None) -> tuple[LiveCheck, ...]:
    from tritonsmith_generator.check.live import prove

    console = Console(stderr=True)
    if not console.is_terminal:
        return prove(repository, server_env=server_env, on_progress=_Lines())
    with console.status("starting") as status:
        return prove(
            repository,
            server_env=server_env,
            on_progress=lambda text: status.update(escape(text)),
        )


class _Lines:
    """Progress where there is no terminal: a line when something else begins."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, text: str) -> None:
        doing = text.split(" (")[0]
        if doing != self._last:
            print(doing, file=sys.stderr)
            self._last = doing


def _print(findings: tuple[Finding, ...], checks: tuple[LiveCheck, ...], repository: Path) -> None:
    console = Console(highlight=False)
    print_findings(findings, console)
    if checks:
        console.print(_table(checks))
        for model in checks:
            if model.problem:
                console.print(
                    f"[red]wrong[/] {escape(model.model.name)}: {escape(model.problem)}",
                    soft_wrap=True,
                )
            if model.skipped:
                console.print(
                    f"[dim]not served[/] {escape(model.model.name)}: {escape(model.skipped)}",
                    soft_wrap=True,
                )
            if model.note:
                console.print(
                    f"[dim]not proven[/] {escape(model.model.name)}: {escape(model.note)}",
                    soft_wrap=True,
                )
    counts = Counter(finding.severity for finding in findings)
    told = [f"{counts[s]} {s}{'' if counts[s] == 1 else 's'}" for s in ("error", "warning")]
    console.print(f"{escape(str(repository))}: {', '.join(told)}.")


def print_findings(findings: tuple[Finding, ...], console: Console) -> None:
    """Print a line for each."""
    colors = {"error": "red", "warning": "yellow"}
    for finding in findings:
        console.print(
            f"[{colors[finding.severity]}]{finding.severity}[/] {escape(finding.where)}: "
            f"{escape(finding.message)}",
            soft_wrap=True,
        )


def _table(checks: tuple[LiveCheck, ...]) -> Table:
    table = Table(box=None)
    for heading in ("Model", "Target", "Size", "Version", "gRPC ms", "HTTP ms", "Max diff"):
        numeric = heading in ("Size", "Version", "gRPC ms", "HTTP ms", "Max diff")
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=True)
    for result in checks:
        latency = result.latency or {}
        table.add_row(
            escape(result.model.name),
            escape(result.model.target),
            f"{result.model.size / 1e6:.2f} MB",
            str(result.model.versions[-1]) if result.model.versions else "",
            *(f"{latency[p]:.2f}" if p in latency else "-" for p in ("grpc", "http")),
            "-" if result.difference is None else f"{result.difference:.1e}",
        )
    return table


def _live(checks: tuple[LiveCheck, ...]) -> dict[str, Any]:
    if not checks:
        return {}
    return {
        "live": [
            {
                "model": result.model.name,
                "target": result.model.target,
                "version": result.model.versions[-1] if result.model.versions else None,
                "size": result.model.size,
                "cases": result.cases,
                "latency_ms": dict(result.latency or {}),
                "max_difference": result.difference,
                "problem": result.problem,
                "skipped": result.skipped,
                "batch": result.batch,
                "note": result.note,
            }
            for result in checks
        ]
    }
