"""Triton's extensions over HTTP: statistics, model control, settings, shared memory."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from tritonsmith_client._exchange.exchange import Asked, Exchange, Repeat, T
from tritonsmith_client._exchange.status import refused
from tritonsmith_client._http.messages import HttpReply, json_of, route
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
from tritonsmith_client.errors import InvalidArgumentError, ResponseError

__all__ = ["HttpAdmin", "model_path"]


def model_path(name: str, version: str) -> str:
    path = "/models/" + quote(name, safe="")
    return path + ("/versions/" + quote(version, safe="") if version else "")


class HttpAdmin:
    """Args: prefix: the path that stands before ``/v2``, for servers behind a proxy."""

    def __init__(self, prefix: str = "") -> None:
        self._root = prefix.rstrip("/") + "/v2"

    def statistics(self, name: str, version: str) -> Exchange[tuple[ModelStatistics, ...]]:
        path = (model_path(name, version) if name else "/models") + "/stats"
        what = asked("reading the statistics of", name, version)
        return self.read(what, path, statistics_from)

    def index(self, ready: bool) -> Exchange[tuple[IndexEntry, ...]]:
        what = Asked("reading the index of the model repository")
        return self.write(what, "/repository/index", {"ready": ready}, index_from, Repeat.ALWAYS)

    def load(self, name: str, config: str, files: Mapping[str, bytes]) -> Exchange[None]:
        parameters: dict[str, Any] = {"config": config} if config else {}
        parameters |= {f"file:{k}": base64.b64encode(v).decode() for k, v in files.items()}
        path = f"/repository/models/{quote(name, safe='')}/load"
        request = {"parameters": parameters}
        return self.write(asked("loading", name), path, request, _nothing, Repeat.UNCONNECTED)

    def unload(self, name: str, dependents: bool) -> Exchange[None]:
        path = f"/repository/models/{quote(name, safe='')}/unload"
        request = {"parameters": {"unload_dependents": dependents}}
        return self.write(asked("unloading", name), path, request, _nothing, Repeat.UNCONNECTED)

    def trace_settings(self, model: str, changes: TraceChanges) -> Exchange[dict[str, Setting]]:
        path = (model_path(model, "") if model else "") + "/trace/setting"
        what = settings_asked("trace", changes, model)
        return self._settings(what, path, changes, _trace_json(changes))

    def log_settings(self, changes: Mapping[str, Any]) -> Exchange[dict[str, Setting]]:
        what = settings_asked("log", changes)

        def check(reply: HttpReply) -> None:
            if reply.status == 503 and (said := reply.said()):
                # What Triton answers here to a value that it does not take; over gRPC it says so.
                raise refused(InvalidArgumentError, what, "HTTP 503", said)

        return self._settings(what, "/logging", changes, changes, check)

    def register_memory(self, name: str, key: str, size: int) -> Exchange[None]:
        path = f"/systemsharedmemory/region/{quote(name, safe='')}/register"
        request = {"key": key, "offset": 0, "byte_size": size}
        return self.write(Asked("registering shared memory"), path, request, _nothing)

    def register_cuda_memory(
        self, name: str, handle: bytes, device: int, size: int
    ) -> Exchange[None]:
        path = f"/cudasharedmemory/region/{quote(name, safe='')}/register"
        encoded = {"b64": base64.b64encode(handle).decode()}
        request = {"raw_handle": encoded, "device_id": device, "byte_size": size}
        return self.write(Asked("registering CUDA shared memory"), path, request, _nothing)

    def memory_status(self, kind: str) -> Exchange[tuple[RegionStatus, ...]]:
        what = Asked("reading the status of shared memory")
        return self.read(what, f"/{kind}sharedmemory/status", lambda v: regions_from(v, kind))

    def unregister_memory(self, name: str, kind: str = "system") -> Exchange[None]:
        path = f"/{kind}sharedmemory/region/{quote(name, safe='')}/unregister"
        what = Asked("unregistering shared memory")
        return self.write(what, path, {}, _nothing, Repeat.ALWAYS)

    def read(self, what: Asked, path: str, parse: Callable[[Any], T]) -> Exchange[T]:
        """Make a GET below /v2 whose reply is JSON."""
        return Exchange(what, route("GET", self._root + path), (), _json_reader(what, parse))

    def write(
        self,
        what: Asked,
        path: str,
        request: Mapping[str, Any],
        parse: Callable[[Any], T],
        repeat: Repeat = Repeat.UNEXECUTED,
        check: Callable[[HttpReply], None] | None = None,
    ) -> Exchange[T]:
        """Make a POST of JSON below /v2 whose reply is JSON.

        Args:
            check: looks at a reply first, and raises what this route alone means by it.
        """
        body = json.dumps(request).encode()
        line = route("POST", self._root + path, "Content-Type: application/json\r\n", len(body))
        return Exchange(what, line, (body,), _json_reader(what, parse, check), repeat)

    def _settings(
        self,
        what: Asked,
        path: str,
        changes: Mapping[str, Any],
        request: Mapping[str, Any],
        check: Callable[[HttpReply], None] | None = None,
    ) -> Exchange[dict[str, Setting]]:
        def read(now: dict[str, Any]) -> dict[str, Setting]:
            check_taken(what, changes, now)
            return settings_from(now)

        if not changes:
            return self.read(what, path, read)
        return self.write(what, path, request, read, check=check)


def _json_reader(
    what: str, parse: Callable[[Any], T], check: Callable[[HttpReply], None] | None = None
) -> Callable[[HttpReply], T]:
    def read(reply: HttpReply) -> T:
        if check is not None:
            check(reply)
        value = json_of(reply, what)
        try:
            return parse(value)
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise ResponseError(f"{what}: unexpected reply {reply.text()[:200]!r}") from exc

    return read


def _trace_json(changes: TraceChanges) -> dict[str, Any]:
    """Over HTTP, Triton wants a list for the levels alone."""
    return {
        name: texts if texts is None or name == "trace_level" else texts[0]
        for name, texts in changes.items()
    }


def _nothing(value: Any) -> None:
    return None
