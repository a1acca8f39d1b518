"""One model, from its source to its folder in the repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from tritonsmith_generator.engine.process import EngineProcess
from tritonsmith_generator.events import Event, OnEvent
from tritonsmith_generator.host.work_dir import work_folder
from tritonsmith_generator.onnx_model.case_file import case_path, served_cases, write_cases
from tritonsmith_generator.onnx_model.onnx_file import OnnxFile, read
from tritonsmith_generator.onnx_model.precheck import Checked, precheck
from tritonsmith_generator.onnx_model.profiles import ProfileSet
from tritonsmith_generator.onnx_model.shape_tensors import with_shape_tensors
from tritonsmith_generator.onnx_model.signature import Signature
from tritonsmith_generator.passes.base import Arrays
from tritonsmith_generator.passes.graph.tidy import Tidy
from tritonsmith_generator.pipeline.batch_axis import settle
from tritonsmith_generator.pipeline.profile_set import derive_profile_set
from tritonsmith_generator.repository.changes import Change, Content, compare, refuse_conflicts
from tritonsmith_generator.repository.inspect import CONFIG_NAME
from tritonsmith_generator.repository.lock import ConfigComments, LockedModel
from tritonsmith_generator.repository.publish import next_version, publish
from tritonsmith_generator.stages.job import Job
from tritonsmith_generator.stages.merged_plans import kept_plans, locked_plans
from tritonsmith_generator.stages.model_stages import Made, ModelStages
from tritonsmith_generator.stages.published import published
from tritonsmith_generator.stages.runner import StageReport, Stages
from tritonsmith_generator.triton_config.config_pbtxt import render_config
from tritonsmith_generator.triton_config.model_config import config_for, served_signature
from tritonsmith_generator.triton_config.plan_files import name_plans
from tritonsmith_generator.triton_config.plan_parameters import STRIPPED
from tritonsmith_generator.triton_config.warmup import FOLDER as WARMUP_FOLDER
from tritonsmith_generator.triton_config.warmup import derive_warmup
from tritonsmith_generator.trt.availability import check_options, check_without_builder

__all__ = ["Built", "build_model"]

# Batches of the user's samples that are kept as cases.
_SAMPLES = 8


@dataclass(frozen=True)
class Built:
    """What was published, or would be.

    ``notes`` says what passes and builder did, ``stages`` which of them ran and why; ``entry`` is
    the lock's new record.
    """

    version: int
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    stages: tuple[StageReport, ...]
    entry: LockedModel | None


def build_model(
    job: Job,
    repository: Path,
    locked: LockedModel | None,
    dry_run: bool,
    force: bool,
    process: EngineProcess,
    on_event: OnEvent,
) -> Built:
    """Check, convert, compile, record cases, render and publish.

    ``process`` is where a plan is built; it is stopped then.

    Raises InputError for the model, the spec or a file that was changed by hand; HostError for
    what this machine lacks. Nothing is published then.
    """

    def tell(stage: str, detail: str, fraction: float | None = None) -> None:
        on_event(Event(job.name, stage, detail, fraction))

    folder = repository / job.name
    merged = kept_plans(job, folder, locked)
    stages = Stages(job, locked, dry_run)
    with work_folder() as work:
        if not dry_run and _likely_to_compile(job, locked):
            process.prepare()
        tell("precheck", str(job.source))
        source = _read(job)
        file = _tidy(source.checked, work)
        made = ModelStages(
            job,
            file,
            source.checked.signature,
            source.profile_set,
            source.samples[:_SAMPLES],
            stages,
            partial(published, job, folder, locked),
            process,
            tell,
        ).make(merged)
        process.stop()  # it ends while the rest is done
        batching = settle(source.signature, source.profile_set, made.rows, job.spec)
        source = replace(source, profile_set=batching.profile_set)
        plans = locked_plans(job, made.artifact, locked if merged else None)
        number = _version(job, folder, locked, made.artifact.files)
        named = plans if merged else {}
        gpus = {gpu: plan.file for gpu, plan in named.items()}
        files, comments = _files(job, source, made, number, gpus)
        changes = compare(repository, job.name, files, locked.files if locked else {})
        refuse_conflicts(changes, force)
        ran = stages.reports()
        notes = (*batching.notes, *made.notes)
        warnings = (
            *source.checked.warnings,
            *batching.warnings,
            *_lacks(job),
            *made.artifact.warnings,
        )
        if dry_run:
            return Built(number, changes, warnings, notes, ran, None)
        tell("publish", f"version {number}")
        records = publish(repository, job.name, files)
    entry = LockedModel(
        key=job.key,
        artifact=job.artifact_key,
        target=job.target.name,
        version=number,
        precision=job.spec.precision,
        limit=job.spec.accuracy.limit,
        source=job.spec.onnx or job.spec.torch or "",
        sources=job.sources,
        files=records,
        tools={**job.tools, **(job.toolchain.facts if job.target.compiled else {})},
        spec=job.said,
        plans=plans,
        stages=stages.inputs,
        accuracy=made.accuracy,
        comments=comments,
        rows={what: words for what, words in asdict(made.rows).items() if words},
    )
    return Built(number, changes, warnings, notes, ran, entry)


@dataclass(frozen=True)
class _Source:
    """The model as it was read: its signature as it will be served, and the shapes it is for."""

    checked: Checked
    samples: list[Arrays]
    profile_set: ProfileSet
    signature: Signature


def _read(job: Job) -> _Source:
    """Check the file, and the spec against it, before anything takes time."""
    checked = precheck(job.source, job.target.name)
    if job.release is not None:
        check_options(job.release, job.spec.builder)
    elif job.spec.target != "auto":  # auto: the same spec, on a machine without TensorRT
        check_without_builder(job.spec.builder, job.target.name)
    samples = _samples(job, checked)
    profile_set = derive_profile_set(checked.signature, job.spec)
    profile_set = with_shape_tensors(
        profile_set, checked.file.proto.graph, checked.signature, samples
    )
    signature = served_signature(checked.signature, job.target)
    config_for(job.name, job.target, signature, profile_set, job.spec)  # wrong settings fail here
    return _Source(checked, samples, profile_set, signature)


def _files(
    job: Job, source: _Source, made: Made, number: int, plans: Mapping[str, str]
) -> tuple[dict[str, Content], ConfigComments]:
    """Return the model's folder, by path, and the comments of its config.

    ``plans`` are the files by GPU, where there are several.
    """
    served, profile_set = made.artifact.served(source.signature), source.profile_set
    warmup = derive_warmup(job.target, served, profile_set, job.spec, made.cases)
    config, notes = config_for(job.name, job.target, served, profile_set, job.spec, warmup.entries)
    if plans:
        config, notes = name_plans(config, notes, plans)
    comments = ConfigComments(_header(job), tuple(notes.items()))
    files: dict[str, Content] = {
        **{f"{number}/{name}": content for name, content in made.artifact.files.items()},
        str(case_path(Path(), number)): write_cases(served_cases(made.cases, served)),
        **{f"{WARMUP_FOLDER}/{name}": content for name, content in warmup.files.items()},
        CONFIG_NAME: render_config(config, notes, comments.header).encode(),
    }
    return files, comments


def _lacks(job: Job) -> tuple[str, ...]:
    """Return what the plan lacks to be served."""
    return (STRIPPED,) if job.target.compiled and job.spec.builder.strip_plan else ()


def _likely_to_compile(job: Job, locked: LockedModel | None) -> bool:
    """Return a guess, good enough to start a process for: the cache may hold the plan."""
    return job.target.compiled and (locked is None or locked.artifact != job.artifact_key)


def _samples(job: Job, checked: Checked) -> list[Arrays]:
    samples = job.samples(job.spec.case_samples)
    return list(samples.read(checked.signature)) if samples is not None else []


def _tidy(checked: Checked, work: Path) -> OnnxFile:
    if not checked.untidy:
        return checked.file
    return read(Tidy().apply(checked.file.path, work).model)


def _version(
    job: Job, folder: Path, locked: LockedModel | None, artifact: Mapping[str, Content]
) -> int:
    """Get the version that the spec pins, the one that holds this artifact already, or the next."""
    if job.spec.version is not None:
        return job.spec.version
    if locked is not None and locked.artifact == job.artifact_key:
        versioned = {f"{locked.version}/{name}": content for name, content in artifact.items()}
        same = compare(folder.parent, folder.name, versioned, {})
        if all(change.action in ("create", "identical") for change in same):
            return locked.version
    return next_version(folder, artifact)


def _header(job: Job) -> tuple[str, ...]:
    return (
        f"Written by gen-repo (tritonsmith {version('tritonsmith')}). Change the spec, not this.",
        f"Source: {job.source.name}, SHA-256 {job.sources[job.source.name].sha256}",
    )
