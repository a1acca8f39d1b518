"""What a plan needs of the server that loads it: plugin libraries, and leave to bring its own code.

A config says both as parameters, under the names of the settings of Triton's TensorRT backend. The
embedded backends read them there; NVIDIA's takes them from its command line, once for all models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.spec.builder_options import BuilderOptions

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

__all__ = [
    "NOTE",
    "STRIPPED",
    "is_version_compatible",
    "parameters_for",
    "plugin_files",
    "plugin_names",
]

_PLUGINS = "plugins"
_VERSION_COMPATIBLE = "version-compatible"

NOTE = (
    "the server needs these for the plan: gen-repo serve and deploy give them to NVIDIA's, "
    "as --backend-config=tensorrt,NAME=VALUE"
)

STRIPPED = (
    "strip_plan leaves the weights out of the plan, and no Triton backend puts them back: refit "
    "the plan in a program of yours (tensorrt.OnnxParserRefitter) and serve what that writes, or "
    "take strip_plan out of the spec"
)


def plugin_files(plugins: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Return the libraries by their names beside the plan; ``folder`` is the spec's.

    Raises InputError for two of one name and for a name that a command line would take apart.
    """
    files: dict[str, Path] = {}
    for plugin in plugins:
        if not re.fullmatch(r"[\w.+-]+\.so(\.[\w.+-]+)?", plugin.name):
            raise InputError(
                f"plugin library {plugin}: its name goes onto the server's command line; use "
                "letters, digits, '_', '-', '+' and '.', and end it with .so"
            )
        if files.setdefault(plugin.name, folder / plugin) != folder / plugin:
            raise InputError(
                f"plugin libraries {files[plugin.name]} and {folder / plugin} have one name, and "
                "both go beside the plan: rename one"
            )
    return files


def parameters_for(builder: BuilderOptions) -> dict[str, dict[str, str]]:
    """Return the config's parameters; none for most plans."""
    said = {}
    if builder.plugins:
        said[_PLUGINS] = ";".join(plugin.name for plugin in builder.plugins)
    if builder.version_compatible:
        said[_VERSION_COMPATIBLE] = "true"
    return {name: {"string_value": value} for name, value in said.items()}


def plugin_names(config: ModelConfig) -> tuple[str, ...]:
    """Return the plugin libraries that lie beside the plan, in its version."""
    return tuple(name for name in _value(config.parameters, _PLUGINS).split(";") if name)


def is_version_compatible(config: ModelConfig) -> bool:
    """Whether the plan may bring a runtime of its own, which the server then runs."""
    return _value(config.parameters, _VERSION_COMPATIBLE).lower() in ("true", "1", "on")


def _value(parameters: Mapping[str, Any], name: str) -> str:
    # Asking for a missing key of a protobuf map would add it.
    return str(parameters[name].string_value) if name in parameters else ""
