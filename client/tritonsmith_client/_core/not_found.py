"""Why a model is not there: what the server's index of its repository says about it. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tritonsmith_client._core.hints import ASK_INDEX, restated
from tritonsmith_client._core.input_checks import nearest
from tritonsmith_client._exchange.exchange import Flow
from tritonsmith_client.errors import NotFoundError, TritonError

if TYPE_CHECKING:
    from tritonsmith_client._protocol.admin import IndexEntry
    from tritonsmith_client._protocol.protocol import WireProtocol

__all__ = ["explained", "why"]

_SHOWN = 8
_LOAD = "client.load('{}') loads it, on a server with --model-control-mode=explicit"
_WAIT = "client.wait_ready(models=['{}']) waits for it"
_LIST = "client.index() lists all of them"


def explained(
    error: NotFoundError, protocol: WireProtocol, name: str, version: str
) -> Flow[NotFoundError]:
    """Return the error with what there is instead, as far as the server tells that."""
    reason, hint = yield from why(protocol, name, version)
    return restated(
        error,
        f"{error.message}: {reason}" if reason else error.message,
        model=error.model,
        tensor=error.tensor,
        hint=hint if error.hint == ASK_INDEX else error.hint,  # the server's words may say more
    )


def why(protocol: WireProtocol, name: str, version: str) -> Flow[tuple[str, str]]:
    """Why a model is not ready, and what to do about it; empty where the server does not tell."""
    try:
        entries: Sequence[IndexEntry] = yield protocol.index(False)
    except TritonError:  # the index may be restricted; other servers than Triton have none
        return (yield from _versions(protocol, name)) if version else ("", ASK_INDEX)
    return _reason(entries, name, version)


def _versions(protocol: WireProtocol, name: str) -> Flow[tuple[str, str]]:
    try:
        metadata = yield protocol.model_metadata(name, "")
    except TritonError:
        return "", ASK_INDEX
    return _ready(metadata.versions), ""


def _reason(entries: Sequence[IndexEntry], name: str, version: str) -> tuple[str, str]:
    own = {entry.version: entry for entry in entries if entry.name == name}
    if not own:
        names = sorted({entry.name for entry in entries})
        shown = ", ".join(f"'{known}'" for known in names[:_SHOWN])
        more = len(names) - _SHOWN
        if more > 0:
            shown += f" and {more} more"
        listed = f"the repository has {shown or 'no model'}{nearest(name, names)}"
        return listed, _LIST if more > 0 else ""
    ready = [number for number, entry in own.items() if entry.ready]
    if ready:
        # Where what was asked for is ready, the model itself has answered like that.
        return ("", "") if not version or version in ready else (_ready(ready), "")
    entry = own.get(version) or next(iter(own.values()))
    if entry.state == "LOADING":
        return "it is still loading", _WAIT.format(name)
    reason = entry.reason.strip()
    if reason in ("", "unloaded"):
        return "it is in the repository, but not loaded", _LOAD.format(name)
    first = reason.splitlines()[0]  # of a traceback, often
    return f"it could not be loaded: {first}", "the server's log says more"


def _ready(versions: Iterable[str]) -> str:
    return f"its ready versions are: {', '.join(versions) or 'none'}"
