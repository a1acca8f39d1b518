"""A build into a repository whose plans were merged from several GPUs keeps them all.

A change of the config alone is written; what would need other plans is refused, since this machine
can make one of them at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.repository.inspect import read_config, signature_of_config
from tritonsmith_generator.repository.lock import LockedModel, LockedPlan
from tritonsmith_generator.stages.job import Job
from tritonsmith_generator.stages.plan import Artifact
from tritonsmith_generator.triton_config.plan_files import gpus_of

__all__ = ["kept_plans", "locked_plans"]


def kept_plans(job: Job, folder: Path, locked: LockedModel | None) -> Artifact | None:
    """Give the plans that were merged from several GPUs, if this job would make one of them again.

    None where no plans were merged. Raises InputError where the job makes something else: that
    would take the place of plans which this machine cannot build.
    """
    if locked is None or len(locked.plans) < 2:
        return None
    if job.artifact_key not in {plan.artifact for plan in locked.plans.values()}:
        gpus = ", ".join(locked.plans)
        here = job.tools.get("gpu") or "none"
        raise InputError(
            f"{folder} holds plans that were merged from several GPUs ({gpus}), and none of them "
            f"is what would be built here (GPU: {here}): the model, its spec or the tools are "
            "others. Build into another folder (-o) on each GPU's machine, then: "
            "gen-repo merge FOLDER FOLDER ..."
        )
    signature = signature_of_config(read_config(folder))
    tensors = (*signature.inputs, *signature.outputs)
    files = {p.file: folder / str(locked.version) / p.file for p in locked.plans.values()}
    for name, path in files.items():
        if not locked.files[f"{locked.version}/{name}"].still(path):
            raise InputError(
                f"{path} is gone or was changed, and this machine cannot build all plans of "
                "this model: merge it again from the repositories of each GPU"
            )
    files |= job.plugins
    return Artifact(files, {tensor.name: tensor.dtype.wire for tensor in tensors})


def locked_plans(
    job: Job, artifact: Artifact, merged: LockedModel | None
) -> Mapping[str, LockedPlan]:
    """Return what the lock says of the plans: of those that were kept, or of the one just built."""
    if merged is not None:
        return {
            gpus: replace(plan, key=job.key) if plan.artifact == job.artifact_key else plan
            for gpus, plan in merged.plans.items()
        }
    if job.target.name != "tensorrt" or artifact.compute_capability is None:
        return {}
    gpus = gpus_of(job.spec.builder.hardware_compatibility, artifact.compute_capability)
    plan = LockedPlan(job.target.filename, job.key, job.artifact_key, job.tools)
    return {gpus: plan}
