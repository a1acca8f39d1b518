"""A plan that lies in the repository is as good as one in the cache, which may be gone or new."""

from __future__ import annotations

from pathlib import Path

from tritonsmith_generator.inspection import CONFIG_NAME, read_config, signature_of_config
from tritonsmith_generator.job import Job
from tritonsmith_generator.lock import LockedModel
from tritonsmith_generator.stage import Kept, Stage

__all__ = ["published_plan"]


def published_plan(job: Job, folder: Path, locked: LockedModel | None, stage: Stage) -> Kept | None:
    """The plan in the model's ``folder``, if it is what ``stage`` makes and its bytes are whole."""
    if locked is None or locked.stages.get(stage.name) != stage.inputs:
        return None
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
