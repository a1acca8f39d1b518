"""The one table of tensor data types, used by the client and the generator.

Each row gives a type's name in every place where it appears: on the wire (KServe v2), in
``config.pbtxt`` (``model_config.proto``), in ONNX (the number of ``TensorProto.DataType``),
in TensorRT (``tensorrt.DataType``) and in numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

__all__ = ["DATA_TYPES", "DataType", "from_config", "from_numpy", "from_onnx", "from_wire"]


@dataclass(frozen=True)
class DataType:
    """A tensor data type that Triton knows.

    Attributes:
        wire: name in requests and responses, e.g. ``"FP32"``; ``"BYTES"`` for strings.
        config: name in ``config.pbtxt``, e.g. ``"TYPE_FP32"``; ``"TYPE_STRING"`` for strings.
        numpy: the numpy dtype; ``object`` (elements are ``bytes``) for strings.
        onnx: the number in ``onnx.TensorProto.DataType``.
        tensorrt: the name in ``tensorrt.DataType``, or None where TensorRT has no such type.
    """

    wire: str
    config: str
    numpy: np.dtype
    onnx: int
    tensorrt: str | None

    @property
    def itemsize(self) -> int | None:
        """Bytes per element; None for BYTES, whose elements vary in length."""
        return None if self.wire == "BYTES" else self.numpy.itemsize

    def __str__(self) -> str:
        return self.wire


def _row(wire: str, dtype: DTypeLike, onnx: int, tensorrt: str | None) -> DataType:
    config = "TYPE_STRING" if wire == "BYTES" else f"TYPE_{wire}"
    return DataType(wire, config, np.dtype(dtype), onnx, tensorrt)


# Order and names: DataType in Triton's model_config.proto. Numbers: TensorProto in onnx.proto.
DATA_TYPES: tuple[DataType, ...] = (
    _row("BOOL", np.bool_, 9, "BOOL"),
    _row("UINT8", np.uint8, 2, "UINT8"),
    _row("UINT16", np.uint16, 4, None),
    _row("UINT32", np.uint32, 12, None),
    _row("UINT64", np.uint64, 13, None),
    _row("INT8", np.int8, 3, "INT8"),
    _row("INT16", np.int16, 5, None),
    _row("INT32", np.int32, 6, "INT32"),
    _row("INT64", np.int64, 7, "INT64"),
    _row("FP16", np.float16, 10, "HALF"),
    _row("FP32", np.float32, 1, "FLOAT"),
    _row("FP64", np.float64, 11, None),
    _row("BYTES", np.object_, 8, None),
    _row("BF16", ml_dtypes.bfloat16, 16, "BF16"),
)

_BY_WIRE = {row.wire: row for row in DATA_TYPES}
_BY_CONFIG = {row.config: row for row in DATA_TYPES}
_BY_ONNX = {row.onnx: row for row in DATA_TYPES}
_BY_NUMPY = {row.numpy: row for row in DATA_TYPES}


def from_wire(name: str) -> DataType:
    """Return the type with this name on the wire. Raises KeyError for an unknown name."""
    return _BY_WIRE[name]


def from_config(name: str) -> DataType:
    """Return the type with this name in ``config.pbtxt``. Raises KeyError for an unknown name."""
    return _BY_CONFIG[name]


def from_onnx(number: int) -> DataType:
    """Return the type with this ``TensorProto.DataType`` number.

    Raises KeyError where Triton has none.
    """
    return _BY_ONNX[number]


def from_numpy(dtype: DTypeLike) -> DataType:
    """Return the type that holds this numpy dtype; any string or object dtype is BYTES.

    Byte order is ignored: the wire is little-endian and arrays are converted when sent.
    Raises KeyError for a dtype that Triton has not, such as complex64.
    """
    found = np.dtype(dtype)
    if found.kind in "OSU":
        return _BY_WIRE["BYTES"]
    return _BY_NUMPY[found.newbyteorder("=")]
