"""Arrays that go into the container and come out of it: a ``.npz`` file without pickles."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tritonsmith_client.dtypes import from_numpy, from_wire
from tritonsmith_generator.trt.request import Arrays

__all__ = ["read_arrays", "write_arrays"]

_ABOUT = "about"


def write_arrays(path: Path, rows: Sequence[Arrays | None]) -> None:
    """Write numbers of any of Triton's data types, by name in each row; a row may be None."""
    about: list[dict[str, Any] | None] = []
    files: dict[str, Any] = {}
    for number, row in enumerate(rows):
        if row is None:
            about.append(None)
            continue
        about.append({n: [from_numpy(a.dtype).wire, list(a.shape)] for n, a in row.items()})
        for place, array in enumerate(row.values()):  # as bytes: .npz does not know BF16
            files[f"{number}.{place}"] = np.frombuffer(array.tobytes(), np.uint8)
    files[_ABOUT] = np.array(json.dumps(about))
    np.savez(path, **files)


def read_arrays(path: Path) -> tuple[Arrays | None, ...]:
    """Return what ``write_arrays`` wrote.

    Raises OSError, ValueError or KeyError for anything else.
    """
    with np.load(path, allow_pickle=False) as stored:
        return tuple(
            row if row is None else _row(stored, number, row)
            for number, row in enumerate(json.loads(str(stored[_ABOUT])))
        )


def _row(stored: Any, number: int, about: dict[str, Any]) -> Arrays:
    return {
        name: np.frombuffer(stored[f"{number}.{place}"], from_wire(wire).numpy).reshape(shape)
        for place, (name, (wire, shape)) in enumerate(about.items())
    }
