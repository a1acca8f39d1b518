"""Triton's extensions over gRPC: statistics, model control, settings, shared memory.

Message objects are fine here: these calls are rare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tritonsmith_client._exchange.exchange import Asked, Exchange, Repeat, T
from tritonsmith_client._protocol.admin import (
    IndexEntry,
    ModelStatistics,
    RegionStatus,
    Setting,
    TraceChanges,
    check_taken,
    index_from,
    regions_from,
    settings_asked,
    settings_from,
    statistics_from,
)
from tritonsmith_client._protocol.protocol import asked
from tritonsmith_client.errors import ResponseError

__all__ = ["SERVICE", "GrpcAdmin", "plain"]

SERVICE = "/inference.GRPCInferenceService/"


class GrpcAdmin:
    def statistics(self, name: str, version: str) -> Exchange[tuple[ModelStatistics, ...]]:
        return self.ask(
            asked("reading the statistics of", name, version),
            "ModelStatistics",
            {"name": name, "version": version},
            lambda message: statistics_from(plain(message)),
        )

    def index(self, ready: bool) -> Exchange[tuple[IndexEntry, ...]]:
        return self.ask(
            Asked("reading the index of the model repository"),
            "RepositoryIndex",
            {"ready": ready},
            lambda message: index_from(plain(message)["models"]),
        )

    def load(self, name: str, config: str, files: Mapping[str, bytes]) -> Exchange[None]:
        parameters: dict[str, Any] = {"config": {"string_param": config}} if config else {}
        parameters |= {f"file:{key}": {"bytes_param": value} for key, value in files.items()}
        return self.ask(
            asked("loading", name),
            "RepositoryModelLoad",
            {"model_name": name, "parameters": parameters},
            _nothing,
            Repeat.UNCONNECTED,
        )

    def unload(self, name: str, dependents: bool) -> Exchange[None]:
        parameters = {"unload_dependents": {"bool_param": dependents}}
        return self.ask(
            asked("unloading", name),
            "RepositoryModelUnload",
            {"model_name": name, "parameters": parameters},
            _nothing,
            Repeat.UNCONNECTED,
        )

    def trace_settings(self, model: str, changes: TraceChanges) -> Exchange[dict[str, Setting]]:
        settings = {name: {"value": texts or ()} for name, texts in changes.items()}
        what = settings_asked("trace", changes, model)

        def read(message: Any) -> dict[str, Setting]:
            now = {k: v["value"] for k, v in plain(message)["settings"].items()}
            check_taken(what, changes, now)
            return settings_from(now)

        return self.ask(what, "TraceSetting", {"model_name": model, "settings": settings}, read)

    def log_settings(self, changes: Mapping[str, Any]) -> Exchange[dict[str, Setting]]:
        what = settings_asked("log", changes)

        def read(message: Any) -> dict[str, Setting]:
            now = {k: next(iter(v.values())) for k, v in plain(message)["settings"].items()}
            check_taken(what, changes, now)
            return now

        settings = {name: _log_value(value) for name, value in changes.items()}
        return self.ask(what, "LogSettings", {"settings": settings}, read)

    def register_memory(self, name: str, key: str, size: int) -> Exchange[None]:
        request = {"name": name, "key": key, "byte_size": size}
        what = Asked("registering shared memory")
        return self.ask(what, "SystemSharedMemoryRegister", request, _nothing, Repeat.UNEXECUTED)

    def register_cuda_memory(
        self, name: str, handle: bytes, device: int, size: int
    ) -> Exchange[None]:
        request = {"name": name, "raw_handle": handle, "device_id": device, "byte_size": size}
        what = Asked("registering CUDA shared memory")
        return self.ask(what, "CudaSharedMemoryRegister", request, _nothing, Repeat.UNEXECUTED)

    def unregister_memory(self, name: str, kind: str = "system") -> Exchange[None]:
        method = f"{kind.capitalize()}SharedMemoryUnregister"
        return self.ask(Asked("unregistering shared memory"), method, {"name": name}, _nothing)

    def memory_status(self, kind: str) -> Exchange[tuple[RegionStatus, ...]]:
        return self.ask(
            Asked("reading the status of shared memory"),
            f"{kind.capitalize()}SharedMemoryStatus",
            {},
            lambda message: regions_from(plain(message)["regions"].values(), kind),
        )

    def ask(
        self,
        what: Asked,
        method: str,
        request: Mapping[str, Any],
        parse: Callable[[Any], T],
        repeat: Repeat = Repeat.ALWAYS,
    ) -> Exchange[T]:
        """One call of the service, with the fields of its request."""
        from tritonclient.grpc import service_pb2 as messages  # 0.2 s: not before it is needed

        body = getattr(messages, method + "Request")(**request).SerializeToString()
        reply_type = getattr(messages, method + "Response")

        def read(data: bytes) -> T:
            from google.protobuf.message import DecodeError

            try:
                return parse(reply_type.FromString(data))
            except (DecodeError, KeyError) as exc:
                raise ResponseError(f"{what}: unexpected reply {data[:200]!r}") from exc

        return Exchange(what, SERVICE + method, (body,), read, repeat)


def plain(message: Any) -> dict[str, Any]:
    """Return a message as plain values, with defaults, as Triton's JSON shows it."""
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            nested = entry.fields_by_name["value"].message_type is not None
            result[field.name] = {str(k): plain(v) if nested else v for k, v in value.items()}
        elif entry is not None:
            repeated = field.is_repeated
            result[field.name] = [plain(v) for v in value] if repeated else plain(value)
        elif field.enum_type is not None:
            names = field.enum_type.values_by_number
            result[field.name] = (
                [names[v].name for v in value] if field.is_repeated else names[value].name
            )
        else:
            result[field.name] = list(value) if field.is_repeated else value
    return result


def _nothing(message: Any) -> None:
    return None


def _log_value(value: bool | int | str) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"bool_param": value}
    if isinstance(value, int):
        return {"uint32_param": value}
    return {"string_param": value}
