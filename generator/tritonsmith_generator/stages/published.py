"""Published plans, and how accurate they were found to be.

They are as good as what is in the cache, which may be gone or new.
"""

from __future__ import annotations

from pathlib import Path

from tritonsmith_generator.repository.inspect import CONFIG_NAME, read_config, signature_of_config
from tritonsmith_generator.repository.lock import LockedModel
from tritonsmith_generator.stages.job import Job
from tritonsmith_generator.stages.stage import Kept, Stage

__all__ = ["published"]


def published(job: Job, folder: Path, locked: LockedModel | None, stage: Stage) -> Kept | None:
    """Return what ``stage`` makes, if the model in ``folder`` was published with it."""
    if locked is None or locked.stages.get(stage.name) != stage.inputs:
        return None
    return {"plan": _plan, "accuracy": _accuracy}[stage.name](job, folder, locked)


def _plan(job: Job, folder: Path, locked: LockedModel) -> Kept | None:
    """Return the plan in the model's folder, if its bytes are whole."""
    name, home = job.target.filename, folder / str(locked.version)
    plan = locked.files.get(f"{locked.version}/{name}")
    config = locked.files.get(CONFIG_NAME)  # it says the data types
    if not (plan and config and plan.holds(home / name) and config.holds(folder / CONFIG_NAME)):
        return None
    signature = signature_of_config(read_config(folder))
    about = {
        "compute_capability": next(iter(locked.plans), None),
        "types": {t.name: t.dtype.wire for t in (*signature.inputs, *signature.outputs)},
        "notes": [f"plan: that of version {locked.version} in the repository"],
    }
    return Kept(home, {name: f"sha256:{plan.sha256}"}, about)


def _accuracy(job: Job, folder: Path, locked: LockedModel) -> Kept | None:
    """How accurate the plan was, if it was run."""
    return Kept(folder, {}, locked.accuracy) if locked.accuracy else None
