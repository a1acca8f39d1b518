"""From a spec to a repository: what is out of date is built, checked and published.

A model is left alone when everything that its files follow from is as it was: the bytes of its
source, its part of the spec, and the tools. ``key`` in the lock is the hash of all that. What has
to be built is built side by side, in processes; the lock is written here alone.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from tritonsmith_generator.engine.toolchain import LOCAL, Toolchain
from tritonsmith_generator.errors import InputError, UsageError
from tritonsmith_generator.events import Event, OnEvent, ignore
from tritonsmith_generator.pipeline.incremental import ModelResult, Update, unchanged
from tritonsmith_generator.repository.lock import LockedModel, read_lock, write_lock
from tritonsmith_generator.repository.publish import exclusive
from tritonsmith_generator.spec.schema import ModelSpec, Spec

__all__ = ["ModelResult", "build"]


def build(
    spec: Spec,
    folder: Path,
    repository: Path,
    *,
    only: Collection[str] = (),
    dry_run: bool = False,
    force: bool = False,
    jobs: int | None = None,
    on_event: OnEvent = ignore,
    toolchain: Toolchain = LOCAL,
) -> tuple[ModelResult, ...]:
    """Bring the repository up to date with the spec; ``folder`` is where its paths start.

    Models that are out of date are built side by side, each in a process of its own: ``jobs`` at
    once (None: one for each core) and no more than fit into memory, one engine build for each GPU
    at a time. ``on_event`` is called in the calling thread; when it raises, the build ends.

    A model that fails, or whose process crashes, does not stop the others, and its files stay as
    they were. ``dry_run`` writes nothing and compiles nothing. ``force`` replaces files that were
    changed by hand. Models in the repository that the spec doesn't name are left alone.
    ``toolchain`` is where plans are compiled.

    Returns one result for each model, in the spec's order. Raises HostError if the repository
    cannot be written; errors of single models are in the results.
    """
    chosen = _chosen(spec, only)
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs: {jobs} given; it is how many models are built at once, 1 or more")
    results = {}
    with nullcontext() if dry_run else exclusive(repository) as held:
        lock = read_lock(repository).for_release(spec.triton)
        asked = [
            Update(
                name, model, folder, repository, lock.models.get(name), toolchain, dry_run, force
            )
            for name, model in chosen.items()
        ]
        with closing(_results(asked, jobs, held, on_event)) as found:
            for result, entry in found:
                if entry is not None:
                    lock = lock.with_model(result.name, entry)
                    write_lock(repository, lock)
                results[result.name] = result
                on_event(Event(result.name, "done", result.status))
    return tuple(results[name] for name in chosen)


def _chosen(spec: Spec, only: Collection[str]) -> dict[str, ModelSpec]:
    unknown = set(only) - set(spec.models)
    if unknown:
        raise InputError(
            f"the spec has no model '{sorted(unknown)[0]}'; it has: {', '.join(spec.models)}"
        )
    return {name: model for name, model in spec.models.items() if not only or name in only}


def _results(
    asked: Sequence[Update], jobs: int | None, held: int | None, on_event: OnEvent
) -> Generator[tuple[ModelResult, LockedModel | None], None, None]:
    """Each model's result as it comes, and the lock's new entry where it was built."""
    left = []
    for model in asked:
        began = perf_counter()
        result = unchanged(model)
        if result is None:
            left.append(model)
        else:
            yield replace(result, seconds=perf_counter() - began), None
    if left:
        # What runs processes takes time to import; a run with nothing to do never gets here.
        from tritonsmith_generator.pipeline.parallel import update_side_by_side

        yield from update_side_by_side(left, jobs, held, on_event)
