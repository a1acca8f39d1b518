"""Arrays of every data type, with the values that break codecs."""

from __future__ import annotations

from typing import Any

import numpy as np

from tritonsmith_client.dtypes import DataType


def sample(dtype: DataType, shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, Any]:
    """Random bits for numbers; for BYTES also empty strings, NULs and what is no UTF-8."""
    generator = np.random.default_rng(seed)
    count = int(np.prod(shape))
    if dtype.wire == "BYTES":
        words = [b"", b"\0", b"ab\0", b"\xff\xfe", "größe".encode(), b"x" * 300]
        array = np.empty(count, object)
        array[:] = [words[n] for n in generator.integers(0, len(words), count)]
        return array.reshape(shape)
    if dtype.wire == "BOOL":
        return generator.integers(0, 2, shape).astype(bool)
    if dtype.numpy.kind in "iu":
        raw = generator.integers(0, 256, count * dtype.numpy.itemsize, np.uint8)
        return raw.view(dtype.numpy).reshape(shape)
    return (generator.standard_normal(shape) * 100).astype(dtype.numpy)
