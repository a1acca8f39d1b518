"""What travels between us and the server's image, without one: tests/docker has the containers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tritonsmith_client.dtypes import DATA_TYPES
from tritonsmith_generator.engine_image.npz import read_arrays, write_arrays
from tritonsmith_generator.trt.request import Arrays

NUMBERS = [dtype for dtype in DATA_TYPES if dtype.wire != "BYTES"]


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)], ids=str)
def test_arrays_of_every_data_type_come_through(tmp_path: Path, shape: tuple[int, ...]) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (*shape, 8), np.uint8)
    row: Arrays = {dtype.wire: bits.sum(-1).astype(dtype.numpy) for dtype in NUMBERS}
    write_arrays(tmp_path / "a.npz", [row, None, {}])
    first, none, empty = read_arrays(tmp_path / "a.npz")
    assert none is None and empty == {}
    assert first is not None and list(first) == list(row)
    for name, array in row.items():
        assert (first[name].dtype, first[name].shape) == (array.dtype, shape)
        assert first[name].tobytes() == array.tobytes()


def test_rows_that_are_views_come_through(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]
    write_arrays(tmp_path / "a.npz", [{"x": array}])
    (row,) = read_arrays(tmp_path / "a.npz")
    assert row is not None and (row["x"] == array).all()
