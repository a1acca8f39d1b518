"""`tritonsmith bench`: run the load test, print its figures, draw its bars."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tritonsmith_client import Client, InputError
from tritonsmith_client._cli.inputs import read_inputs
from tritonsmith_client._cli.load_test import Load, Report, run_load


def run_bench(options: argparse.Namespace) -> None:
    if options.plot is not None and not os.access(options.plot.parent, os.W_OK):
        raise InputError(
            f"the plot cannot be written to {options.plot}: name a folder that is there and is "
            "yours to write"
        )
    with Client(options.url, timeout=options.timeout) as client:
        metadata = client.model(options.model, options.version).metadata
    inputs = read_inputs(metadata, options.input, options.seed)
    settings = {"timeout": options.timeout, "shared_memory": options.shared_memory}
    loads = [
        Load(
            options.url,
            options.model,
            inputs,
            options.version,
            int(concurrency),
            rate,
            options.seconds,
            processes=options.processes,
            options=settings,
        )
        for concurrency in options.concurrency
        for rate in options.rate
    ]
    reports = [run_load(load) for load in loads]
    figures = [_figures(*pair) for pair in zip(loads, reports, strict=True)]
    if options.json:
        print(json.dumps(figures if len(figures) > 1 else figures[0]))
    elif len(figures) > 1:
        print_table([tuple(figures[0]), *(tuple(_cells(f).values()) for f in figures)])
    else:
        for name, cell in _cells(figures[0]).items():
            print(f"{name:>12}  {cell}")
        _bars(reports[0])
    if options.plot is not None:  # last: if it fails, the figures are there
        _plot(options.plot, options.model, reports)


def _plot(path: Path, model: str, reports: Sequence[Report]) -> None:
    from tritonsmith_client._cli.plot import curves_svg, histogram_svg

    if len(reports) > 1:
        picture = curves_svg(reports, f"{model}: latency over answers a second")
    else:
        throughput = reports[0].throughput
        picture = histogram_svg(reports[0], f"{model}: {throughput:.0f} answers a second")
    try:
        path.write_text(picture)
    except OSError as exc:
        raise InputError(f"the plot cannot be written to {path}: {exc}") from exc


def _figures(load: Load, report: Report) -> dict[str, Any]:
    shares = {f"p{share}_ms": round(report.percentile(share), 3) for share in (50, 90, 99)}
    return {
        "concurrency": load.concurrency,
        "rate": load.rate,
        "per_second": round(report.throughput, 2),
        **shares,
        "answers": len(report.latencies),
        "errors": dict(report.errors),
        "seconds": round(report.seconds, 2),
    }


def _cells(figures: dict[str, Any]) -> dict[str, str]:
    cells = {name: _cell(value) for name, value in figures.items()}
    return cells if figures["rate"] else cells | {"rate": "unlimited"}


def _cell(value: Any) -> str:
    if isinstance(value, dict):  # how often each error occurred
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _bars(report: Report) -> None:
    bars = report.histogram(12)
    most = max((count for _, count in bars), default=0)
    for bound, count in bars:
        print(f"{bound:>9.2f} ms  {'#' * round(50 * count / most)}")


def print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip())
