"""A plugin for tests that take long and repeat what others prove in short: run on their own."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

__all__ = ["by_turns", "soaked"]


def soaked(rows: Iterable[Any], keep: Callable[[Any], bool]) -> list[Any]:
    """Rows to parametrize with; those that are not to be kept wait for the soak."""
    return [row if keep(row) else _marked(row) for row in rows]


def by_turns(
    ways: Sequence[tuple[Any, ...]], cases: Iterable[tuple[Any, ...]], each: int = 1
) -> list[Any]:
    """Every case in every way, to parametrize with. Of a case's ways, which take turns, all but so
    many wait for the soak."""
    rows = []
    for number, case in enumerate(cases):
        for turn, way in enumerate(ways):
            kept = (turn - number * each) % len(ways) < each
            rows.append((*way, *case) if kept else _marked((*way, *case)))
    return rows


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
