"""Marks for what not everyone has installed: who lacks it has the test skipped, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import pytest

__all__ = ["named", "needs", "needs_modelopt", "needs_rtx"]


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = sorted({module for module in modules if find_spec(module) is None})
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


needs_rtx = needs("tensorrt_rtx")
needs_modelopt = needs("modelopt")


def named(cases: Mapping[str, object]) -> list[Any]:
    """The names of cases, to parametrize with; cases that say ``tensorrt_rtx`` need it."""
    return [
        pytest.param(name, marks=needs_rtx if "tensorrt_rtx" in str(case) else ())
        for name, case in cases.items()
    ]
