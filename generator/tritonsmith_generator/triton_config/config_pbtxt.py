"""``config.pbtxt``: the ModelConfig that is meant, its text, and the text read back.

The text comes from a template and is parsed again with Triton's own message definition; if that
isn't what was meant, nothing is written.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf import json_format, text_encoding, text_format
from google.protobuf.message import Message
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.jinja_templates import template

__all__ = ["Notes", "message_from", "parse_config", "render_config"]

# Where a number comes from, by the field's path: ("max_batch_size",), ("input", 0, "dims").
Notes = Mapping[tuple[str | int, ...], str]

# protobuf's descriptors have one class in Python and another in C++.
Descriptor: TypeAlias = Any
FieldDescriptor: TypeAlias = Any

# Shown even when zero: proto3 would drop it, and whoever reads the file looks for it.
_ALWAYS_SHOWN = {"ModelConfig": ("max_batch_size",), "ModelInstanceGroup": ("kind",)}


@dataclass(frozen=True)
class Field:
    """One field as the template sees it: a scalar's text, a list of messages or a message."""

    name: str
    note: str | None
    text: str | None = None
    items: tuple[tuple[Field, ...], ...] = ()
    fields: tuple[Field, ...] = ()


def message_from(values: Mapping[str, Any]) -> ModelConfig:
    """Return the ModelConfig with these values, by proto field name.

    Raises InputError for an unknown field, with the nearest one, and for a wrong type.
    """
    _refuse_unknown(values, ModelConfig.DESCRIPTOR, "")
    try:
        return json_format.ParseDict(dict(values), ModelConfig())
    except json_format.ParseError as exc:
        raise InputError(f"config: {' '.join(str(exc).split())}") from exc


def render_config(config: ModelConfig, notes: Notes, header: Sequence[str]) -> str:
    """Return the text of ``config.pbtxt``; parsed back and compared before it is returned."""
    text = template("config.pbtxt.j2").render(
        fields=tuple(_fields(config, notes, ())), header=[_one_line(line) for line in header]
    )
    text = text.rstrip("\n") + "\n"
    read = parse_config(text, "the rendered config.pbtxt")
    if read != config:
        raise AssertionError(f"the config.pbtxt template changed what was meant:\n{text}")
    return text


def parse_config(text: str, where: str) -> ModelConfig:
    """Read ``config.pbtxt``. Raises InputError with line and column for what Triton refuses."""
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as exc:
        raise InputError(f"{where}: {exc}") from exc


def _fields(message: Message, notes: Notes, path: tuple[str | int, ...]) -> Iterator[Field]:
    shown = {field.name: value for field, value in message.ListFields()}
    for name in _ALWAYS_SHOWN.get(message.DESCRIPTOR.name, ()):
        shown.setdefault(name, getattr(message, name))
    for field in message.DESCRIPTOR.fields:  # in the order of model_config.proto
        if field.name in shown:
            yield from _field(field, shown[field.name], notes, (*path, field.name))


def _field(
    field: FieldDescriptor, value: Any, notes: Notes, path: tuple[str | int, ...]
) -> Iterator[Field]:
    note = _one_line(notes[path]) if path in notes else None
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        for key in sorted(value):
            entry = kind.fields_by_name["value"]
            inner = _field(entry, value[key], notes, (*path, key))
            shown_key = Field("key", None, text=_scalar(kind.fields_by_name["key"], key))
            yield Field(field.name, note, fields=(shown_key, *inner))
            note = None
    elif kind is not None and field.is_repeated:
        items = tuple(tuple(_fields(v, notes, (*path, i))) for i, v in enumerate(value))
        yield Field(field.name, note, items=items)
    elif kind is not None:
        yield Field(field.name, note, fields=tuple(_fields(value, notes, path)))
    elif field.is_repeated:
        text = ", ".join(_scalar(field, v) for v in value)
        yield Field(field.name, note, text=f"[ {text} ]")
    else:
        yield Field(field.name, note, text=_scalar(field, value))


def _scalar(field: FieldDescriptor, value: Any) -> str:
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{_escape(value)}"'
    return repr(value)


def _refuse_unknown(values: Mapping[str, Any], kind: Descriptor, where: str) -> None:
    """ParseDict's own message names the field, but neither the path nor what is allowed."""
    for name, value in values.items():
        path = f"{where}.{name}" if where else name
        field = kind.fields_by_name.get(name)
        if field is None:
            near = difflib.get_close_matches(name, kind.fields_by_name, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise InputError(
                f"config: unknown field '{path}': {hint}{kind.name} has: "
                f"{', '.join(kind.fields_by_name)}"
            )
        inner = field.message_type
        if inner is None:
            continue
        if inner.GetOptions().map_entry:
            inner = inner.fields_by_name["value"].message_type
            children = tuple(value.values()) if isinstance(value, Mapping) else ()
        else:
            children = tuple(value) if isinstance(value, list | tuple) else (value,)
        for child in children if inner is not None else ():
            if isinstance(child, Mapping):
                _refuse_unknown(child, inner, path)


def _escape(text: str) -> str:
    escape: Any = text_encoding.CEscape  # its stub says bytes; it takes str as well
    return str(escape(text, as_utf8=True))


def _one_line(text: str) -> str:
    """Put the text on one line: a comment ends there, whatever a name in it may hold."""
    return " ".join(text.split())
