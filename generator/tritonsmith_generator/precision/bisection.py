"""Searches for a small part of a list that is enough, each step a costly trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Part", "find", "largest_shares", "smallest"]

Part = tuple[str, ...]


def find(
    candidates: Sequence[str],
    error: Callable[[Part], float],
    passes: Callable[[Part], bool],
    trials: int,
) -> Part | None:
    """Give a small part for which ``passes`` holds; None if none was found. See the two functions.

    Many candidates may add a little to the error, or few break everything: shares are looked at
    first where the error is finite, then what was found is made smaller.
    """
    used = 0

    def counted(part: Part) -> bool:
        nonlocal used
        used += 1
        return passes(part)

    def measured(part: Part) -> float:
        nonlocal used
        used += bool(part)
        return error(part)

    found = None
    if math.isfinite(error(())):
        found = largest_shares(candidates, measured, counted, trials * 2 // 3)
    return smallest(found or candidates, passes, trials - used) or found


def smallest(candidates: Sequence[str], passes: Callable[[Part], bool], trials: int) -> Part | None:
    """Return a small part of the candidates for which ``passes`` holds; None if none was found.

    For failures with few causes, all of which have to go. Halves are tried, then quarters and
    what is left without each of them, and so on, until nothing can be left out or the trials are
    used up: then the smallest part found by then.
    """
    budget = iter(range(trials))

    def holds(part: Part) -> bool:
        return bool(part) and next(budget, None) is not None and passes(part)

    best: Part | None = None
    current, pieces = tuple(candidates), 2
    while True:
        parts = _cut(current, pieces)
        rests = [tuple(c for c in current if c not in part) for part in parts]
        found = next((p for p in (*parts, *(rests if pieces > 2 else ())) if holds(p)), None)
        if found is not None:
            best = current = found
            pieces = 2 if found in parts else max(pieces - 1, 2)
        elif pieces < len(current):
            pieces = min(pieces * 2, len(current))
        else:
            return best
        if len(current) == 1:
            return best


def _cut(whole: Part, pieces: int) -> list[Part]:
    size = -(-len(whole) // pieces)
    return [whole[i : i + size] for i in range(0, len(whole), size)]


@dataclass(frozen=True)
class _Share:
    """What a part of the candidates adds to the squared error."""

    part: Part
    share: float

    @property
    def density(self) -> float:
        return self.share / len(self.part)


def largest_shares(
    candidates: Sequence[str],
    error: Callable[[Part], float],
    passes: Callable[[Part], bool],
    trials: int,
) -> Part | None:
    """Return a part for which ``passes`` holds, of those that add most to the error, or None.

    For failures that many candidates add to. ``error(part)`` is the error without that part's
    contribution; squares of independent errors add up, so one half's share of the error gives
    the other's. The part with the largest share is halved next. Then the parts are taken
    together, the largest shares first, until ``passes`` holds.
    """
    whole = error(()) ** 2
    shares = [_Share(tuple(candidates), whole)]
    for_the_end = math.ceil(math.log2(len(candidates) + 1)) + 1
    for _ in range(trials - for_the_end):
        if not (divisible := [s for s in shares if len(s.part) > 1]):
            break
        largest = max(divisible, key=lambda s: s.share)
        middle = len(largest.part) // 2
        first, second = largest.part[:middle], largest.part[middle:]
        share = min(max(whole - error(first) ** 2, 0.0), largest.share)
        shares.remove(largest)
        shares += [_Share(first, share), _Share(second, largest.share - share)]
    shares.sort(key=lambda s: s.density, reverse=True)
    return _shortest_start([s.part for s in shares], passes)


def _shortest_start(parts: Sequence[Part], passes: Callable[[Part], bool]) -> Part | None:
    """Return the first parts, as few as possible, taken together. All of them are not tried."""
    best: Part | None = None
    low, high = 1, len(parts) - 1
    while low <= high:
        count = (low + high) // 2
        joined = tuple(name for part in parts[:count] for name in part)
        if passes(joined):
            best, high = joined, count - 1
        else:
            low = count + 1
    return best
