"""The GPU suite: skipped without a GPU and TensorRT; its figures end up in tables."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tritonsmith_generator.engine.installed import tensorrt_releases
from tritonsmith_generator.host.gpus import visible_gpus

_HERE = Path(__file__).parent
_FIGURES = pytest.StashKey[list[dict[str, Any]]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = None
    if not visible_gpus():
        reason = "this machine has no NVIDIA GPU"
    elif importlib.util.find_spec("tensorrt") is None:
        reason = "tensorrt is not installed"
    elif importlib.util.find_spec("cuda") is None:
        reason = "cuda-python is not installed"
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            # NVIDIA's module of old releases uses what Python has since deprecated.
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[..., None]:
    """``figure(model="resnet50", ...)`` keeps one row of measured values."""
    rows = request.config.stash.setdefault(_FIGURES, [])

    def keep(**values: Any) -> None:
        rows.append({"test": request.node.name, **values})

    return keep


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One table per set of columns; all rows also go to $TRITONSMITH_GPU_FIGURES as JSON."""
    rows = config.stash.get(_FIGURES, [])
    tables: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        tables.setdefault(tuple(key for key in row if key != "test"), []).append(row)
    for columns, members in tables.items():
        cells = [columns, *(tuple(_cell(row[key]) for key in columns) for row in members)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        terminalreporter.write_line("")
        for line in cells:
            padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
            terminalreporter.write_line("| " + " | ".join(padded) + " |")
    if rows and (path := os.environ.get("TRITONSMITH_GPU_FIGURES")):
        gpu = visible_gpus()[0]
        about = {
            "gpu": gpu.name,
            "driver": gpu.driver,
            "library": str(tensorrt_releases()[0]),
        }
        Path(path).write_text(json.dumps({**about, "rows": rows}, indent=1))


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
