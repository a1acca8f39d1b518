"""What Triton's extensions say about models and servers, as frozen values.

Both protocols bring the same plain fields; the functions here make values of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tritonsmith_client._exchange.exchange import Asked
from tritonsmith_client.errors import InvalidArgumentError

__all__ = [
    "Duration",
    "IndexEntry",
    "ModelStatistics",
    "RegionStatus",
    "Setting",
    "TraceChanges",
    "check_taken",
    "settings_asked",
]

Setting = bool | int | str | tuple[str, ...]
TraceChanges = Mapping[str, tuple[str, ...] | None]


@dataclass(frozen=True)
class Duration:
    """How often something happened, and how many nanoseconds it took altogether."""

    count: int
    ns: int

    @property
    def average_ms(self) -> float:
        """Milliseconds each; 0 where it never happened."""
        return self.ns / self.count / 1e6 if self.count else 0.0


@dataclass(frozen=True)
class ModelStatistics:
    """What one version of a model did since it was loaded.

    Attributes:
        inference_count: inferences, where a batch of 8 counts as 8.
        execution_count: runs of the model, where a batch counts as 1.
        durations: success, fail, queue, compute_input, compute_infer, compute_output, cache_hit
            and cache_miss.
        batches: runs by batch size.
        fields: everything that the server said.
    """

    name: str
    version: str
    inference_count: int
    execution_count: int
    durations: Mapping[str, Duration]
    batches: Mapping[int, Duration]
    fields: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class IndexEntry:
    """A model in the server's repository.

    Attributes:
        version, state: empty for a model that was never loaded; else e.g. READY, UNAVAILABLE.
        reason: why it is unavailable.
    """

    name: str
    version: str
    state: str
    reason: str

    @property
    def ready(self) -> bool:
        return self.state == "READY"


def statistics_from(fields: Mapping[str, Any]) -> tuple[ModelStatistics, ...]:
    return tuple(_statistics(model) for model in fields.get("model_stats", ()))


def _statistics(model: Mapping[str, Any]) -> ModelStatistics:
    durations = model.get("inference_stats", {})
    return ModelStatistics(
        model["name"],
        model["version"],
        int(model.get("inference_count", 0)),
        int(model.get("execution_count", 0)),
        {name: _duration(value) for name, value in durations.items()},
        {int(b["batch_size"]): _duration(b["compute_infer"]) for b in model.get("batch_stats", ())},
        model,
    )


def _duration(value: Mapping[str, Any]) -> Duration:
    return Duration(int(value.get("count", 0)), int(value.get("ns", 0)))


def index_from(entries: list[Mapping[str, Any]]) -> tuple[IndexEntry, ...]:
    names = ("name", "version", "state", "reason")
    return tuple(IndexEntry(*(str(e.get(name, "")) for name in names)) for e in entries)


def regions_from(entries: Iterable[Mapping[str, Any]], kind: str) -> tuple[RegionStatus, ...]:
    return tuple(
        RegionStatus(
            e["name"],
            kind,
            int(e["byte_size"]),
            str(e.get("key", "")),
            int(e.get("offset", 0)),
            int(e["device_id"]) if kind == "cuda" else None,
        )
        for e in entries
    )


def settings_from(fields: Mapping[str, Any]) -> dict[str, Setting]:
    """Give settings of traces or logs; a list becomes a tuple, or its value if it has only one."""
    return {
        name: v if not isinstance(v, list) else v[0] if len(v) == 1 else tuple(v)
        for name, v in fields.items()
    }


def settings_asked(kind: str, changes: Mapping[str, Any], model: str = "") -> Asked:
    """Return what is asked of the trace or log settings."""
    whose = f" of model '{model}'" if model else ""
    return Asked(f"{'changing' if changes else 'reading'} the {kind} settings{whose}", model)


def check_taken(what: str, changes: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise InvalidArgumentError for a setting or a value that the server ignored."""
    for name, wanted in changes.items():
        if name not in now:
            raise InvalidArgumentError(
                f"{what} failed: the server has no setting '{name}'; it has: {', '.join(now)}"
            )
        if wanted is not None and set(_listed(wanted)) != set(_listed(now[name])):
            given, left = (", ".join(map(repr, _listed(v))) for v in (wanted, now[name]))
            raise InvalidArgumentError(
                f"{what} failed: the server has not taken {given} for '{name}', which is now {left}"
            )


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple)) else (value,)


@dataclass(frozen=True)
class RegionStatus:
    """A region of shared memory that a server has registered.

    Attributes:
        kind: ``"system"`` or ``"cuda"``.
        size: bytes.
        key: the name of its file in shared memory; empty for CUDA.
        offset: where in that file it starts.
        device: the GPU's number; None for system shared memory.
    """

    name: str
    kind: str
    size: int
    key: str = ""
    offset: int = 0
    device: int | None = None
