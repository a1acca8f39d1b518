"""A plugin for tests that take long and repeat what others prove in short: run on their own."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest

__all__ = ["soaked"]


def soaked(rows: Iterable[Any], keep: Callable[[Any], bool]) -> list[Any]:
    """Rows to parametrize with; those that are not to be kept wait for the soak."""
    return [row if keep(row) else _marked(row) for row in rows]


def _marked(row: Any) -> Any:
    values = row if isinstance(row, tuple) else (row,)
    return pytest.param(*values, marks=pytest.mark.soak)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak",
        metavar="K/N",
        help="only the tests that are left out otherwise, of N parts the K-th; 1/1 is all of them",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    part = config.getoption("--soak")
    wanted = [item for item in items if _belongs(item, part)]
    if left_out := [item for item in items if item not in set(wanted)]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = wanted


def _belongs(item: pytest.Item, part: str | None) -> bool:
    soak = item.get_closest_marker("soak") is not None
    if part is None or not soak:
        return soak == (part is not None)
    number, count = map(int, part.split("/"))
    return zlib.crc32(item.nodeid.encode()) % count == number - 1
