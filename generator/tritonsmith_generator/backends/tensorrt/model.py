"""Triton backend "tensorrt": plans, in the Python backend's stub."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorrt

sys.path.append(str(Path(__file__).resolve().parent.parent / "common"))

from tritonsmith_backend import wire
from tritonsmith_backend.plan_model import PlanModel


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args: Mapping[str, str]) -> None:
        self._model = PlanModel(tensorrt, args, wire.warn)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return wire.execute(self._model, requests)

    def finalize(self) -> None:
        self._model.close()
