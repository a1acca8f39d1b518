"""What a call gives: outputs by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tritonsmith_client._values.metadata import Parameter
from tritonsmith_client.dtypes import DataType
from tritonsmith_client.errors import ResponseError, UnknownOutputError

__all__ = ["Class", "Result"]


@dataclass(frozen=True)
class Class:
    """One entry of a classification; label is empty where the model has no labels."""

    score: float
    index: int
    label: str


class Result(Mapping[str, "np.ndarray[Any, Any]"]):
    """The outputs of one request by name, in the order in which the server sent them.

    Arrays are as the server described them, writable, and yours alone. BYTES outputs are object
    arrays of ``bytes``.

    Attributes:
        model_name, model_version, id: as the server said.
        parameters: what the server added to the response.
    """

    __slots__ = ("_outputs", "elsewhere", "id", "model_name", "model_version", "parameters")

    def __init__(
        self,
        outputs: dict[str, np.ndarray[Any, Any]],
        model_name: str = "",
        model_version: str = "",
        id: str = "",
        parameters: Mapping[str, Parameter] | None = None,
        elsewhere: Mapping[str, tuple[DataType, tuple[int, ...]]] | None = None,
    ) -> None:
        self._outputs = outputs
        self.elsewhere = {} if elsewhere is None else elsewhere  # in shared memory, if at all
        self.model_name = model_name
        self.model_version = model_version
        self.id = id
        self.parameters: Mapping[str, Parameter] = {} if parameters is None else parameters

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        try:
            return self._outputs[name]
        except KeyError:
            given = ", ".join(f"'{n}'" for n in self._outputs) or "none"
            raise UnknownOutputError(
                f"the result of model '{self.model_name}' has no output '{name}'; it has: {given}",
                model=self.model_name,
                tensor=name,
            ) from None

    def add(self, name: str, output: np.ndarray[Any, Any]) -> None:
        """Completes a result that nobody has seen yet."""
        self._outputs[name] = output

    def holding(self, outputs: dict[str, np.ndarray[Any, Any]]) -> Result:
        """Return the same result with other outputs."""
        return Result(
            outputs, self.model_name, self.model_version, self.id, self.parameters, self.elsewhere
        )

    def classes(self, name: str) -> list[list[Class]]:
        """Return a classification that was asked for with ``using(classes=k)``: k entries a row.

        Raises:
            ResponseError: the output is no classification.
        """
        array = self[name]
        try:
            rows = array.reshape(-1, array.shape[-1]).tolist() if array.size else []
            return [[_class(entry) for entry in row] for row in rows]
        except (ValueError, AttributeError, IndexError) as exc:
            raise ResponseError(
                f"output '{name}' of model '{self.model_name}' is no classification",
                model=self.model_name,
                tensor=name,
                hint="ask for one with using(classes=3)",
            ) from exc

    def torch(self) -> dict[str, Any]:
        """Give the outputs as torch tensors, without copies; those with strings are left out."""
        from tritonsmith_client._values.interop import to_torch

        return to_torch(self)

    def frame(self) -> Any:
        """Return the outputs as a pandas DataFrame with a row for each item of the batch."""
        from tritonsmith_client._values.interop import to_frame

        return to_frame(self)

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        shown = ", ".join(f"{n}: {a.dtype}{list(a.shape)}" for n, a in self._outputs.items())
        return f"Result({self.model_name} version {self.model_version}: {shown})"


def _class(entry: bytes) -> Class:
    score, index, *label = entry.decode().split(":", 2)
    return Class(float(score), int(index), label[0] if label else "")
