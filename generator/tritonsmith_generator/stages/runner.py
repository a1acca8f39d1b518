"""Why a stage of a model's build ran: what of its inputs is not what the lock says it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tritonsmith_generator.repository.lock import LockedModel
    from tritonsmith_generator.stages.job import Job
    from tritonsmith_generator.stages.stage import Inputs, Kept, Make, Stage

__all__ = ["StageReport", "Stages", "all_reused", "differences", "flat"]

_CONFIG = "config.pbtxt"  # rendered each time: that is quick
_ORDER = ("cases", "conversion", "plan", "accuracy", _CONFIG)

_SHOWN = 60  # characters of a value
_DIGEST = "sha256:"


@dataclass(frozen=True)
class StageReport:
    """What happened to a stage, or would happen in a dry run.

    Attributes:
        stage: cases, conversion, plan, accuracy (of the plan) or config.pbtxt.
        ran: False where an earlier result was used again.
        why: what made it run, one reason after the other; empty where it did not.
        seconds: wall time; stages may overlap.
        parts: wall seconds of its parts by name, where it knows them.
    """

    stage: str
    ran: bool
    why: tuple[str, ...] = ()
    seconds: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)


class Stages:
    """The stages of one model's build: each is run or reused here, and why is remembered.

    ``inputs`` are those of each stage, for the lock.
    """

    def __init__(self, job: Job, locked: LockedModel | None, dry_run: bool) -> None:
        self.inputs: dict[str, Inputs] = {}
        self._locked, self._dry_run = locked, dry_run
        self._changes = _changes_of(job, locked)
        self._reports: list[StageReport] = []

    def result(
        self,
        stage: Stage,
        make: Make,
        elsewhere: Callable[[Stage], Kept | None] = lambda stage: None,
    ) -> Kept | None:
        """Return the stage's result; None in a dry run where it would have to be made.

        ``elsewhere`` looks for it where the cache has it not.
        """
        began = perf_counter()
        kept = stage.kept() or elsewhere(stage)
        why = () if kept is not None else self._why(stage)
        self.inputs[stage.name] = stage.inputs
        if kept is None and not self._dry_run:
            kept = stage.made(make)
        ran = kept is None or kept.fresh  # or another process has made it meanwhile
        parts = kept.about.get("parts", {}) if kept is not None and ran else {}
        seconds = round(perf_counter() - began, 3)
        self._add(StageReport(stage.name, ran, why if ran else (), seconds, parts))
        return kept

    def before(self, name: str) -> Inputs:
        """Return a stage's inputs when the model was published; empty if there were none."""
        return self._locked.stages.get(name, {}) if self._locked is not None else {}

    def follows(self, name: str, other: str) -> None:
        """In a dry run: the inputs are not known, because another stage would make them."""
        self._add(StageReport(name, True, (f"its input comes from {other}",)))

    def reports(self) -> tuple[StageReport, ...]:
        """All of them, the config's last: whoever asks is about to render it."""
        self._add(StageReport(_CONFIG, True, self._changes))
        return tuple(sorted(self._reports, key=lambda report: _ORDER.index(report.stage)))

    def _add(self, report: StageReport) -> None:
        self._reports.append(report)

    def _why(self, stage: Stage) -> tuple[str, ...]:
        # A stage may run more than once in a build: then what counts is the time before.
        before = self.inputs.get(stage.name) or self.before(stage.name)
        if not before:
            return self._changes
        lost = "is damaged" if stage.folder.exists() else "is gone"
        return differences(before, stage.inputs) or (f"its cached result {lost}",)


def all_reused(locked: LockedModel) -> tuple[StageReport, ...]:
    """Return the reports of a model that is up to date."""
    kept = {*locked.stages, _CONFIG}
    return tuple(StageReport(name, ran=False) for name in _ORDER if name in kept)


def differences(before: Inputs, now: Inputs) -> tuple[str, ...]:
    """Return what changed, e.g. ``("precision fp32 -> fp16", "model.onnx: other bytes")``."""
    return tuple(
        _difference(name, before.get(name), now.get(name))
        for name in dict.fromkeys((*now, *before))
        if before.get(name) != now.get(name)
    )


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested values by dotted name, as text: ``batching.max_delay_us``, ``"100"``."""
    for key, value in values.items():
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            value = {str(number): item for number, item in enumerate(value)}
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield prefix + key, str(value)
        elif not prefix:  # batching: false
            yield key, "off"


def _changes_of(job: Job, locked: LockedModel | None) -> tuple[str, ...]:
    if locked is None:
        return ("first build",)
    if not locked.stages:
        return ("built by an earlier gen-repo, which did not record why",)
    tools = {name: text for name, text in locked.tools.items() if name in job.tools}
    before = _inputs(locked.target, locked.spec, tools, locked.sources)
    now = _inputs(job.target.name, job.said, job.tools, job.sources)
    return differences(before, now) or ("a file in the repository is gone or was changed",)


def _inputs(
    target: str, spec: Mapping[str, Any], tools: Mapping[str, str], sources: Mapping[str, Any]
) -> Inputs:
    """Everything that a model's files follow from, by the names that users know."""
    return {
        "target": target,
        **dict(flat(spec)),
        **{name: _DIGEST + record.sha256 for name, record in sources.items()},
        # "TensorRT 8.6.0" is a version that says of what.
        **{_TOOLS.get(name, name): text.rpartition(" ")[2] for name, text in tools.items()},
    }


_TOOLS = {"gpu": "GPU"}


def _difference(name: str, before: str | None, now: str | None) -> str:
    if (before or now or "").startswith(_DIGEST):
        how = "no longer used" if now is None else "new" if before is None else "other bytes"
        return f"{name}: {how}"
    return f"{name} {_short(before)} -> {_short(now)}"


def _short(value: str | None) -> str:
    text = "unset" if value is None else value or "none"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
