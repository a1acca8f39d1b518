"""Whether axis 0 is the batch: what shapes and names say, then what ONNX Runtime found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tritonsmith_generator.onnx_model.profiles import ProfileSet
from tritonsmith_generator.onnx_model.rows import Rows, refuse_dependent
from tritonsmith_generator.onnx_model.signature import Signature
from tritonsmith_generator.spec.schema import ModelSpec

__all__ = ["FULL_SHAPES", "Batching", "another_axis", "different_names", "no_batch", "settle"]

FULL_SHAPES = "requests carry full shapes: "
_NONE = "no batching: "

_BATCH = re.compile(r"batch|^bsz?$", re.IGNORECASE)
# A batch beside one of those below, and too short to mean anything elsewhere.
_SHORT_BATCH = re.compile(r"^[bn]$", re.IGNORECASE)
_SEQUENCE = re.compile(r"time|seq|len|frame|token|step|^[lst]$|^src|^tgt", re.IGNORECASE)


@dataclass(frozen=True)
class Batching:
    """The profile set as it is served, and what there is to say of it."""

    profile_set: ProfileSet
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def no_batch(signature: Signature, spec: ModelSpec) -> str:
    """Give what keeps axis 0 from being the batch, whatever rows do; empty if nothing does."""
    if spec.batching is None:
        return "the spec says batching: false"
    if not signature.inputs:
        return "the model has no inputs"
    for tensor in (*signature.inputs, *signature.outputs):
        if 0 not in tensor.dynamic_axes:
            first = f"axis 0 is fixed at {tensor.shape[0]}" if tensor.shape else "it is a scalar"
            return f"'{tensor.name}' has no dynamic batch axis ({first})"
    return ""


def another_axis(signature: Signature, spec: ModelSpec) -> str:
    """Say which other axis is called the batch, where axis 0 is not; empty if none is.

    The user's word counts more than names.
    """
    if no_batch(signature, spec) or (spec.batching and spec.batching.max):
        return ""
    every = (*signature.inputs, *signature.outputs)
    firsts = {str(tensor.shape[0]): tensor.name for tensor in reversed(every)}
    if any(_BATCH.search(first) for first in firsts):
        return ""
    in_time = any(_SEQUENCE.search(first) for first in firsts)
    for tensor in every:
        for axis, dim in enumerate(tensor.shape[1:], 1):
            short = in_time and _SHORT_BATCH.search(str(dim))
            if isinstance(dim, str) and (_BATCH.search(dim) or short):
                first, name = next(iter(firsts.items()))
                return (
                    f"axis 0 is called '{first}' in '{name}', and axis {axis} of '{tensor.name}' "
                    f"is called '{dim}'"
                )
    return ""


def different_names(signature: Signature, spec: ModelSpec) -> str:
    """Say where axis 0 has which name, where it has several; empty if it has one or none.

    The user's word counts more than names.
    """
    if spec.batching and spec.batching.max:
        return ""
    every = (*signature.inputs, *signature.outputs)
    symbols = {str(tensor.shape[0]): tensor.name for tensor in every if tensor.shape[0] != "?"}
    if len(symbols) < 2:
        return ""
    named = " and ".join(f"'{axis}' in '{name}'" for axis, name in symbols.items())
    return f"axis 0 is not the same axis in all tensors ({named})"


def settle(signature: Signature, profile_set: ProfileSet, rows: Rows, spec: ModelSpec) -> Batching:
    """Take what was found about rows into account.

    Without batching, requests carry the same full shapes that the profiles have. Raises InputError
    where the user asks for batches and rows depend on each other.
    """
    random = (_random(rows),) if rows.random else ()
    asked = spec.batching.max if spec.batching else None
    if profile_set.rows is None:
        named = another_axis(signature, spec)
        return Batching(profile_set, random, (_NONE + named,) if named else ())
    if not profile_set.max_batch_size:
        return _of_different_names(profile_set, rows, random)
    if asked:
        refuse_dependent(asked, rows)
        return Batching(profile_set, (*random, *_at_its_word(asked, rows)))
    why = _why(rows)
    if why:
        served = replace(profile_set, max_batch_size=0, reason=FULL_SHAPES + why)
        return Batching(served, random, (_NONE + why,))
    return Batching(profile_set, _slightly(rows))


def _random(rows: Rows) -> str:
    return f"{rows.random}; its answers cannot be compared with a reference"


def _of_different_names(profile_set: ProfileSet, rows: Rows, random: tuple[str, ...]) -> Batching:
    assert profile_set.rows is not None
    names, largest = profile_set.reason.removeprefix(FULL_SHAPES), profile_set.rows[1]
    why = _why(rows)
    if why:
        return Batching(profile_set, random, (f"{_NONE}{names}, and {why}",))
    looks = (
        f"axis 0 looks like a batch (each row's answer was the same alone and in other company), "
        f"but {names}: it is served without batching; 'batching: {{max: {largest}}}' in the spec, "
        f"or --max-batch {largest}, switches batching on"
    )
    return Batching(profile_set, (looks,))


def _at_its_word(asked: int, rows: Rows) -> Iterator[str]:
    unknown = rows.random or rows.unknown
    if unknown:
        yield (
            f"batching.max is {asked} and taken at its word: whether rows depend on each other "
            f"could not be checked, because {unknown}"
        )
    if rows.poisoned:
        yield f"batching.max is {asked}, but {rows.poisoned}"
    yield from _slightly(rows)


def _slightly(rows: Rows) -> tuple[str, ...]:
    return (f"batches are not exact, as {rows.coarse}: {rows.slightly}",) if rows.slightly else ()


def _why(rows: Rows) -> str:
    """Say what speaks against batching that nobody asked for; empty if nothing does."""
    if rows.depend or rows.poisoned:
        return f"axis 0 is no batch axis, because {rows.depend or rows.poisoned}"
    unknown = rows.random or rows.unknown
    if not unknown:
        return ""
    return (
        f"whether rows depend on each other could not be checked, because {unknown} "
        "(batching.max switches batching on)"
    )
