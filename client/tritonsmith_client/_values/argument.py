"""An argument of a public function: its name, and what it may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tritonsmith_client._values.validators import Check, RefusedError, shown
from tritonsmith_client.errors import InputError

__all__ = ["Argument", "check_instance"]

V = TypeVar("V")


@dataclass(frozen=True)
class Argument(Generic[V]):
    """An argument's name and check; it lies beside what takes the argument.

    Checks run where arguments come in, once, so that a call has nothing left to check.
    """

    name: str
    check: Check[V]

    def __call__(self, value: Any, where: str = "", *, model: str | None = None) -> V:
        """Give the value in the form in which it is used.

        Args:
            where: for messages: what was called, if not a model.
            model: the name of the model that it is about, if it is about one.

        Raises:
            InputError: it has no meaning, or would not arrive as it is.
        """
        try:
            return self.check(value)
        except RefusedError as refused:
            what = refused.what or f"{self.name} is {shown(value)}"
            place = where or f"model '{model}'"
            raise InputError(
                f"{place}: {what}", model=model, hint=f"it must be {refused.allowed}"
            ) from None


def check_instance(kind: type, option: str, value: Any, where: str) -> None:
    """Raise InputError for a value of another class."""
    if not isinstance(value, kind):
        raise InputError(f"{where}: {option} is {shown(value)}; it must be a {kind.__name__}")
