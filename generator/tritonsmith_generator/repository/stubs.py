"""Python classes for the models of a repository, which mypy and editors understand."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonsmith_client.dtypes import DataType
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.jinja_templates import template
from tritonsmith_generator.onnx_model.signature import Tensor
from tritonsmith_generator.repository.inspect import model_folders, read_config, wire_signature

__all__ = ["MARK", "render_stubs"]

# The module's first line begins so: what has it was written by gen-repo and may be replaced.
MARK = '"""Typed models for tritonsmith_client'
# The names that a class brings with it, as the template writes them.
_CLASSES = ("{}", "{}Outputs", "Async{}", "{}Sequence", "Async{}Sequence", "_{}")


@dataclass(frozen=True)
class _Field:
    """A tensor under a name that Python takes. ``name`` is the model's own name for it."""

    name: str
    python: str
    dtype: str
    type: str
    shape: str
    optional: bool

    @property
    def quoted(self) -> str:
        return _quoted(self.name)


@dataclass(frozen=True)
class _Class:
    """One model. ``name`` is the model's, ``python`` the class's."""

    name: str
    python: str
    about: str
    inputs: tuple[_Field, ...]
    outputs: tuple[_Field, ...]
    decoupled: bool
    sequence: bool

    @property
    def quoted(self) -> str:
        return _quoted(self.name)


def render_stubs(repository: Path, only: Collection[str] = ()) -> str:
    """Return the text of a Python module with two classes a model: ``Name`` and ``AsyncName``.

    Names of models and tensors that Python does not take are changed (``input.1`` to ``input_1``);
    on the wire they stay what they are. The text depends on the configs alone.

    Args:
        only: names of models; all if empty.

    Raises:
        InputError: there is no repository, no such model, or a config that cannot be read or that
            leaves inputs and outputs for Triton to complete.
    """
    folders = {folder.name: folder for folder in model_folders(repository)}
    unknown = sorted(set(only) - set(folders))
    if unknown:
        raise InputError(
            f"{repository} has no model '{unknown[0]}'; it has: {', '.join(folders) or 'none'}"
        )
    wanted = [name for name in folders if not only or name in only]
    if not wanted:
        raise InputError(f"{repository} holds no model: nothing to write classes for")
    classes = _unique({name: _pascal(name) for name in wanted}, _CLASSES, ())
    models = [_class(folders[name], python) for name, python in classes.items()]
    return template("stubs.py.j2").render(
        mark=MARK,
        models=models,
        bf16=any(f.dtype == "BF16" for m in models for f in (*m.inputs, *m.outputs)),
        repository=_text(repository.absolute().name),
    )


def _class(folder: Path, python: str) -> _Class:
    config = read_config(folder)
    if not config.input or not config.output:
        raise InputError(
            f"{folder}/config.pbtxt names no inputs or no outputs: Triton completes it when it "
            "loads the model; write them there"
        )
    signature = wire_signature(config)
    optional = {tensor.name for tensor in config.input if tensor.optional}
    runs = config.backend or config.platform or "an ensemble"
    batches = f", batches of up to {config.max_batch_size}" if config.max_batch_size else ""
    return _Class(
        name=config.name or folder.name,
        python=python,
        about=_text(f"Model {config.name or folder.name} ({runs}{batches})."),
        # What may be left out comes last, as Python wants it.
        inputs=tuple(sorted(_fields(signature.inputs, optional, _ARGUMENT), key=_is_optional)),
        outputs=_fields(signature.outputs, set(), _RESULT),
        decoupled=config.model_transaction_policy.decoupled,
        sequence=config.HasField("sequence_batching"),
    )


def _is_optional(field: _Field) -> bool:
    return field.optional


_ARGUMENT = {"BYTES": "_npt.NDArray[_np.object_ | _np.bytes_ | _np.str_]"}
_RESULT: Mapping[str, str] = {}


def _fields(
    tensors: Iterable[Tensor], optional: Collection[str], other: Mapping[str, str]
) -> tuple[_Field, ...]:
    by_name = {tensor.name: tensor for tensor in tensors}
    python = _unique({name: _identifier(name) for name in by_name}, ("{}",), ("self", "inputs"))
    return tuple(
        _Field(
            name=name,
            python=python[name],
            dtype=tensor.dtype.wire,
            type=other.get(tensor.dtype.wire, _array(tensor.dtype)),
            shape=_text(f"{tensor.dtype}[{', '.join(map(str, tensor.shape))}]"),
            optional=name in optional,
        )
        for name, tensor in by_name.items()
    )


def _array(dtype: DataType) -> str:
    scalar = dtype.numpy.type
    module = "_np" if scalar.__module__ == "numpy" else "_ml_dtypes"
    # numpy 1 calls it bool_, numpy 2 bool; both know bool_.
    name = "bool_" if scalar.__name__ == "bool" else scalar.__name__
    return f"_npt.NDArray[{module}.{name}]"


def _pascal(name: str) -> str:
    words = re.findall(r"[^\W_]+", name)
    joined = "".join(word[0].upper() + word[1:] for word in words) or "Model"
    return f"Model{joined}" if joined[0].isdigit() else joined


def _identifier(name: str) -> str:
    plain = re.sub(r"\W", "_", name).strip("_") or "tensor"
    return f"tensor_{plain}" if plain[0].isdigit() else plain


def _unique(
    names: Mapping[str, str], shapes: Sequence[str], taken: Collection[str]
) -> dict[str, str]:
    """Return the names, each with a number behind it if any of its ``shapes`` is taken already."""
    used, result = set(taken), {}
    for key, name in names.items():
        number, free = 2, f"{name}_" if keyword.iskeyword(name) else name
        while not used.isdisjoint(shape.format(free) for shape in shapes):
            number, free = number + 1, f"{name}_{number}"
        used.update(shape.format(free) for shape in shapes)
        result[key] = free
    return result


def _text(text: str) -> str:
    """Return what may stand in a docstring."""
    return " ".join(text.split()).replace("\\", "\\\\").replace('"', r"\"")


def _quoted(text: str) -> str:
    """Return a string literal in double quotes, as formatters want it."""
    return '"' + text.translate(_ESCAPES) + '"'


_ESCAPES = {ord("\\"): r"\\", ord('"'): r"\"", ord("\n"): r"\n", ord("\r"): r"\r"}
