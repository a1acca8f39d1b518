"""The models that are out of date, brought up to date side by side."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from tritonsmith_generator.engine.process import start_early
from tritonsmith_generator.engine.resolve import resolve
from tritonsmith_generator.errors import HostError, TritonsmithError
from tritonsmith_generator.events import OnEvent
from tritonsmith_generator.host.gpus import visible_gpus
from tritonsmith_generator.host.limits import cores
from tritonsmith_generator.host.work_dir import remove_abandoned
from tritonsmith_generator.pipeline.incremental import ModelResult, Update, update
from tritonsmith_generator.pipeline.memory_estimate import peak_memory
from tritonsmith_generator.repository.lock import LockedModel
from tritonsmith_generator.spec.schema import ModelSpec
from tritonsmith_generator.stages.stage import cache_limit, prune_stages
from tritonsmith_generator.workers.pool import Ended, Limits, run_side_by_side
from tritonsmith_generator.workers.scheduler import Task, same_gpus

__all__ = ["update_side_by_side"]


def update_side_by_side(
    asked: Sequence[Update], jobs: int | None, held: int | None, on_event: OnEvent
) -> Generator[tuple[ModelResult, LockedModel | None], None, None]:
    """Each model's result and new entry in the lock, as they come.

    Args:
        jobs: how many models at once; None is one for each core.
        held: the descriptor of the repository's lock: it is locked until the last process ended,
            even if this one is killed. None for a dry run.
    """
    limit = None if held is None else cache_limit()  # a wrong one is told before anything is built
    tasks = [_task(model) for model in asked]
    # A single model takes the first GPU anyhow; to ask the driver takes part of a second.
    several = sum(task.on_gpu for task in tasks) > 1
    gpus = same_gpus(visible_gpus()) if several else ()
    limits = Limits(jobs or cores(), gpus)
    locks = () if held is None else (held,)
    try:
        with closing(run_side_by_side(update, tasks, limits, on_event, locks)) as run:
            for ended in run:
                yield _outcome(ended)
        if limit is not None:
            prune_stages(limit)
    finally:
        remove_abandoned()  # of a process that crashed or was stopped


def _task(model: Update) -> Task:
    spec = model.spec
    prepare = None
    try:
        target = resolve(spec, model.toolchain)
        compiled = target.compiled
        if model.compiles(target):
            prepare = (start_early, target.library)
    except HostError:
        compiled = False  # the build will say what is missing
    return Task(
        model.name,
        model,
        memory=peak_memory(spec, model.folder, model.locked, compiled),
        on_gpu=compiled,
        spoils=_runs_code_of_the_user(spec),
        prepare=prepare,
    )


def _runs_code_of_the_user(spec: ModelSpec) -> bool:
    samples = (spec.calibration, spec.accuracy.samples)
    return spec.torch is not None or any(source and ":" in source for source in samples)


def _outcome(ended: Ended) -> tuple[ModelResult, LockedModel | None]:
    error = ended.error
    if error is None:
        result, entry = ended.value
        warnings = (*result.warnings, *_absent_gpus(ended.task.request.spec))
        return replace(result, seconds=ended.seconds, warnings=warnings), entry
    if not isinstance(error, TritonsmithError):
        error = _bug(error)
    return ModelResult(ended.task.name, "failed", seconds=ended.seconds, error=error), None


def _absent_gpus(spec: ModelSpec) -> Iterator[str]:
    """Asked here, where all GPUs are seen. No error: another machine may be the one that serves."""
    wanted = spec.instances.gpus
    here = {gpu.index for gpu in visible_gpus()} if wanted else set()
    if absent := sorted(set(wanted) - here):
        have = f"this machine has {', '.join(map(str, sorted(here)))}" if here else "none is here"
        yield (
            f"instances.gpus names GPU {', '.join(map(str, absent))}, and {have}: the machine that "
            "serves the model has to have it"
        )


def _bug(error: Exception) -> TritonsmithError:
    """Return an error that nobody expected. Other models are built nevertheless."""
    what = f"{type(error).__name__}: {error}"
    bug = TritonsmithError(f"{what}. That is a bug in gen-repo: please report it.{error.__cause__}")
    bug.__cause__ = error
    return bug
