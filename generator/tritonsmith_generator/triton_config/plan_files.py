"""The plans of one model by GPU: which file Triton opens on which compute capability.

Triton looks the GPU's capability up in ``cc_model_filenames``, letter for letter, and opens
``default_model_filename`` where it isn't there. TensorRT refuses a plan of another capability, 8.0
on 8.6 as well; the exception is a plan built with ``hardware_compatibility: ampere_plus``. So only
such a plan serves as a fallback. Without one, Triton is given the plan of the newest capability:
TensorRT then says what it expected and what it got, which "no such file" would not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritonsmith_generator.triton_config.config_pbtxt import Notes

__all__ = ["PORTABLE", "gpus_of", "is_capability", "name_plans", "order", "plan_filename"]

# The GPUs of a plan: a compute capability such as "9.0", or this for all since Ampere.
PORTABLE = "ampere_plus"

_CAPABILITY = re.compile(r"[1-9]\d*\.\d")


def is_capability(text: str) -> bool:
    """Whether this can be a GPU's compute capability as Triton writes it, e.g. ``"8.9"``."""
    return _CAPABILITY.fullmatch(text) is not None


def gpus_of(hardware_compatibility: str | None, compute_capability: str) -> str:
    """Return the GPUs that a plan built on this capability runs on."""
    return PORTABLE if hardware_compatibility == PORTABLE else compute_capability


def plan_filename(gpus: str) -> str:
    """Return the file's name where there are several, e.g. ``model_9_0.plan``."""
    return f"model_{gpus.replace('.', '_')}.plan"


def name_plans(
    config: ModelConfig, notes: Notes, plans: Mapping[str, str]
) -> tuple[ModelConfig, Notes]:
    """Return the config with the plans (files by GPUs) and a fallback; and a note on each."""
    named = ModelConfig()
    named.CopyFrom(config)
    named.cc_model_filenames.clear()
    own = {gpus: file for gpus, file in plans.items() if gpus != PORTABLE}
    named.cc_model_filenames.update(own)
    named.default_model_filename = plans.get(PORTABLE) or own[order(own)[-1]]
    fallback = (
        "for every other GPU since Ampere: hardware-compatible"
        if PORTABLE in plans
        else "no plan is for other GPUs; there TensorRT refuses this one, and says why"
    )
    return named, {
        **notes,
        ("default_model_filename",): fallback,
        ("cc_model_filenames",): "by compute capability: the plan that was built on such a GPU",
    }


def order(gpus: Collection[str]) -> list[str]:
    """Compute capabilities from old to new, then the portable plan."""
    own = [one for one in gpus if one != PORTABLE]
    own.sort(key=lambda one: [int(part) for part in one.split(".")])
    return own + [PORTABLE] * (PORTABLE in gpus)
