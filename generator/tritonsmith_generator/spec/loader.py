"""``models.yaml``, read strictly.

An unknown key, a wrong type or a key written twice is an InputError that names the file, the
line and what was allowed there.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.spec.builder_options import BuilderOptions
from tritonsmith_generator.spec.limits import Limits
from tritonsmith_generator.spec.quantization import Quantization
from tritonsmith_generator.spec.schema import (
    Accuracy,
    Batching,
    Instances,
    ModelSpec,
    Shapes,
    Spec,
    Warmup,
    merge,
)

__all__ = ["load_spec"]

# libyaml's takes a tenth of the time; not each build of PyYAML has it.
_LOADER: type[yaml.SafeLoader | yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_spec(path: Path) -> Spec:
    """Read ``models.yaml``. ``defaults`` are merged beneath each model. Raises InputError."""
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=_LOADER)
        data = yaml.load(text, Loader=_LOADER)
    except OSError as exc:
        raise InputError(f"cannot read the spec {path}: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(exc).split())}") from exc
    if root is None or not isinstance(data, dict):
        raise InputError(
            f"{path}: a spec is a mapping with the key 'models', such as "
            "models: {name: {onnx: model.onnx}}"
        )
    _refuse_repeated_keys(path, root)
    defaults = data.pop("defaults", None) or {}
    merged = dict(data)
    if isinstance(defaults, dict) and isinstance(data.get("models"), dict):
        merged["models"] = {
            name: merge(defaults, model) if isinstance(model, dict) else model
            for name, model in data["models"].items()
        }
    try:
        return Spec.model_validate(merged)
    except ValidationError as exc:
        # One mistake in defaults is found once for each model.
        found = dict.fromkeys(_describe(path, root, error) for error in exc.errors())
        raise InputError("\n".join(found)) from exc


def _describe(path: Path, root: yaml.Node, error: Any) -> str:
    """One pydantic error as: file, line, key, what is wrong, what is allowed."""
    line, keys = _locate(root, error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        allowed = _allowed(keys[:-1])
        near = difflib.get_close_matches(str(keys[-1]), allowed, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        message = f"unknown key{hint} (allowed: {', '.join(allowed)})"
    elif error["type"] == "missing":
        message = f"the key '{error['loc'][-1]}' is missing"
    elif isinstance(error["input"], str | int | float):
        message += f" (given: {error['input']!r})"
    return f"{path}:{line}: {'.'.join(keys) or 'the spec'}: {message}"


def _mappings(node: yaml.Node) -> Iterator[yaml.MappingNode]:
    if isinstance(node, yaml.MappingNode):
        yield node
        for _, value in node.value:
            yield from _mappings(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _mappings(value)


def _refuse_repeated_keys(path: Path, root: yaml.Node) -> None:
    for mapping in _mappings(root):
        first: dict[str, int] = {}
        for key, _ in mapping.value:
            line = key.start_mark.line + 1
            if first.setdefault(key.value, line) != line:
                raise InputError(
                    f"{path}:{line}: the key '{key.value}' is already set on line "
                    f"{first[key.value]}: remove one of them"
                )


# The models by the path of keys that leads to them; "*" stands for any key or index.
_SCHEMA: dict[tuple[str, ...], type[Any]] = {
    (): Spec,
    ("models", "*"): ModelSpec,
    ("models", "*", "builder"): BuilderOptions,
    ("models", "*", "quantization"): Quantization,
    ("models", "*", "batching"): Batching,
    ("models", "*", "instances"): Instances,
    ("models", "*", "accuracy"): Accuracy,
    ("models", "*", "accuracy", "limit"): Limits,
    ("models", "*", "shapes", "*"): Shapes,
    ("models", "*", "shapes", "*", "*"): Shapes,
    ("models", "*", "warmup"): Warmup,
}


def _allowed(keys: tuple[str, ...]) -> list[str]:
    if keys[:1] == ("defaults",):
        keys = ("models", "*", *keys[1:])
    for pattern, model in _SCHEMA.items():
        if len(pattern) == len(keys) and all(
            want in ("*", got) for want, got in zip(pattern, keys, strict=True)
        ):
            extra = ["defaults"] if model is Spec else []
            return extra + [key for key in model.__annotations__ if key[0] != "_"]
    return []


def _locate(root: yaml.Node, loc: tuple[str | int, ...]) -> tuple[int, tuple[str, ...]]:
    """Return the line (from 1) and the keys, as written, of the value that ``loc`` means."""
    found = _walk(root, loc)
    if len(found[1]) < len(loc) and loc[:1] == ("models",):
        inherited = _walk(root, ("defaults", *loc[2:]))  # merged in from there
        found = max(found, inherited, key=lambda place: len(place[1]) + (place is inherited))
    return found


def _walk(node: yaml.Node, loc: tuple[str | int, ...]) -> tuple[int, tuple[str, ...]]:
    line, keys = node.start_mark.line, []
    for key in loc:
        step = _child(node, key)
        if step is not None:  # an index of ours, where one profile was written without a list
            line, node = step
            keys.append(str(key))
    return line + 1, tuple(keys)


def _child(node: yaml.Node, key: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == str(key):
                return name.start_mark.line, value
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key].start_mark.line, node.value[key]
    return None
