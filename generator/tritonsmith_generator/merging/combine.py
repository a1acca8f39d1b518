"""Copies of one model that agree, as the one model that goes into the merged repository."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.merging.copies import Part
from tritonsmith_generator.repository.changes import Content
from tritonsmith_generator.repository.inspect import CONFIG_NAME
from tritonsmith_generator.repository.lock import ConfigComments, LockedModel, LockedPlan
from tritonsmith_generator.triton_config.config_pbtxt import render_config
from tritonsmith_generator.triton_config.plan_files import (
    PORTABLE,
    name_plans,
    order,
    plan_filename,
)
from tritonsmith_generator.triton_config.plan_parameters import plugin_names

__all__ = ["Joined", "join"]

_HEADER = "Plans of several GPUs, merged by gen-repo. Build on each GPU's machine, and merge again."


@dataclass(frozen=True)
class Joined:
    """A model made of its parts.

    ``artifact`` are the files of its one version, by name; empty where a model is taken over with
    several versions, which then keep their numbers. ``others`` are by path relative to the
    model's folder. ``pinned`` is the version that the spec names.
    """

    parts: tuple[Part, ...]
    artifact: Mapping[str, Path]
    others: Mapping[str, Content]
    cases: Path | None
    locked: LockedModel | None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.parts[0].name

    @property
    def version(self) -> int:
        return self.pinned or max(part.version for part in self.parts)

    @property
    def pinned(self) -> int | None:
        return self.locked.spec.get("version") if self.locked is not None else None


def join(parts: tuple[Part, ...]) -> Joined:
    """One model of parts that agree. Raises InputError for two plans for the same GPU."""
    plans = _plans(parts)
    if len(plans) < 2 or len(parts) == 1:
        return _taken_over(parts)
    first = parts[0]
    _refuse_what_is_lost(parts)
    files = {gpus: plan_filename(gpus) for gpus in plans}
    plugins = {
        name: first.folder / str(first.version) / name for name in plugin_names(first.config)
    }
    assert first.locked is not None  # two plans for different GPUs are known from locks only
    comments = first.locked.comments
    config, notes = name_plans(first.config, dict(comments.notes), files)
    header = tuple(dict.fromkeys((*comments.header, _HEADER)))
    return Joined(
        parts,
        {**plugins, **{files[gpus]: path for gpus, (_, path) in plans.items()}},
        {**_side_files(parts), CONFIG_NAME: render_config(config, notes, header).encode()},
        next((part.cases for part in parts if part.cases is not None), None),
        replace(
            first.locked,
            tools={name: tool for name, tool in first.locked.tools.items() if name != "gpu"},
            plans={gpus: replace(plan, file=files[gpus]) for gpus, (plan, _) in plans.items()},
            comments=ConfigComments(header, tuple(notes.items())),
        ),
        _notes(plans),
    )


def _plans(parts: Sequence[Part]) -> dict[str, tuple[LockedPlan, Path]]:
    """Return the plans of all parts with their files, by the GPUs that they run on."""
    plans: dict[str, tuple[LockedPlan, Path]] = {}
    for part in parts:
        for gpus, plan in part.locked.plans.items() if part.locked is not None else ():
            path = part.folder / str(part.version) / plan.file
            if gpus in plans and not filecmp.cmp(plans[gpus][1], path, shallow=False):
                raise InputError(
                    f"model '{part.name}': {plans[gpus][1]} and {path} are both for {gpus}, and "
                    "TensorRT makes no plan twice: leave one of the repositories out"
                )
            plans.setdefault(gpus, (plan, path))
    return {gpus: plans[gpus] for gpus in order(plans)}


def _taken_over(parts: tuple[Part, ...]) -> Joined:
    first = parts[0]
    single = len(first.versions) == 1
    apart = {f"{first.version}/", f"cases/{first.version}."} if single else set()
    everything = {**_side_files(parts), **first.files()}
    notes: tuple[str, ...] = ()
    if first.target == "tensorrt_rtx" and len(parts) > 1:
        notes = (
            "a tensorrt_rtx plan is for several GPUs by itself (builder.compute_capabilities); "
            f"that of {first.repository} was taken",
        )
    return Joined(
        parts,
        first.files(first.version) if single else {},
        {p: path for p, path in everything.items() if not p.startswith(tuple(apart))},
        first.cases if single else None,
        first.locked,
        notes,
    )


def _side_files(parts: Sequence[Part]) -> dict[str, Content]:
    return {path: file for part in reversed(parts) for path, file in part.side_files().items()}


def _refuse_what_is_lost(parts: Sequence[Part]) -> None:
    for part in parts:
        assert part.locked is not None
        known = {*plugin_names(part.config), *(p.file for p in part.locked.plans.values())}
        for name in part.files(part.version).keys() - known:
            raise InputError(
                f"{part.folder / str(part.version) / name}: gen-repo did not write this file, and "
                "does not know whether it is for one GPU: move it away"
            )
        policy = part.config.version_policy
        if policy.HasField("all") or policy.HasField("specific") or policy.latest.num_versions > 1:
            raise InputError(
                f"model '{part.name}': its version_policy serves several versions, and one config "
                "names the plans of one only: leave version_policy out of the spec's config"
            )


def _notes(plans: Mapping[str, tuple[LockedPlan, Path]]) -> tuple[str, ...]:
    if PORTABLE in plans:
        return ()
    return (
        f"it has no plan for other GPUs than {', '.join(plans)}: one that is built with builder: "
        f"{{hardware_compatibility: {PORTABLE}}} and merged, too, would serve all since Ampere",
    )
