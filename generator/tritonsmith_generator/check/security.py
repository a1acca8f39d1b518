"""What in a model repository could be used against the server: all of it are warnings.

Who may write to a repository decides what code the server runs. Nothing is run or changed here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritonsmith_generator.check.advisories import advice_on
from tritonsmith_generator.check.finding import Finding
from tritonsmith_generator.repository.release import NVIDIA_IMAGE, made_for
from tritonsmith_generator.triton_config.plan_parameters import plugin_names

__all__ = ["model_dangers", "repository_dangers"]

_MODEL_FOLDER = "$$TRITON_MODEL_DIRECTORY/"


def repository_dangers(repository: Path) -> Iterator[Finding]:
    """Of the repository as a whole."""
    if _by_anyone(repository):
        yield Finding("warning", ".", _ANYONE.format(path=repository))
    if (found := made_for(repository)) and (
        advice := advice_on(NVIDIA_IMAGE.format(release=found[0]))
    ):
        yield Finding("warning", found[1].name, advice)


def model_dangers(folder: Path, config: ModelConfig) -> Iterator[Finding]:
    """Of one model: its files and what its config names."""
    for danger in _DANGERS:
        yield from danger(folder, config)


def _warning(folder: Path, path: str, message: str) -> Finding:
    return Finding("warning", str(PurePosixPath(folder.name, path)), message)


_ANYONE = (
    "any user of this machine may change it, and with it what the server runs: chmod -R o-w {path}"
)


def _by_anyone(path: Path) -> bool:
    return bool(path.lstat().st_mode & stat.S_IWOTH) and not path.is_symlink()


def _permissions(folder: Path, config: ModelConfig) -> Iterator[Finding]:
    for path in (folder, *sorted(folder.rglob("*"))):
        if _by_anyone(path):
            inner = str(path.relative_to(folder))
            yield _warning(folder, inner, _ANYONE.format(path=folder))
            return  # one is enough: the advice is for all


def _links(folder: Path, config: ModelConfig) -> Iterator[Finding]:
    home = folder.parent.resolve()
    for path in (folder, *sorted(folder.rglob("*"))):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            yield _warning(
                folder,
                str(path.relative_to(folder)),
                f"a link out of the repository, to {path.resolve()}: a container that mounts the "
                "repository does not see it, and who may write there decides what is served",
            )


def _names(folder: Path, config: ModelConfig) -> Iterator[Finding]:
    """File names in the config that lead out of the model's folder."""
    named = {
        "default_model_filename": [config.default_model_filename],
        "cc_model_filenames": config.cc_model_filenames.values(),
        "runtime": [config.runtime],
        "label_filename": [output.label_filename for output in config.output],
        "plugins": plugin_names(config),
        "op_library_filename": config.model_operations.op_library_filename,
        "input_data_file": [
            tensor.input_data_file
            for sample in config.model_warmup
            for tensor in sample.inputs.values()
        ],
    }
    for field, names in named.items():
        for name in names:
            if _leads_out(name):
                yield _warning(
                    folder,
                    "config.pbtxt",
                    f"{field} '{name}' leads out of the model's folder: put the file there and "
                    "name it alone",
                )


def _environment(folder: Path, config: ModelConfig) -> Iterator[Finding]:
    """Yield a finding for each Python environment: it is code that the server runs."""
    if "EXECUTION_ENV_PATH" not in config.parameters:
        return
    path = config.parameters["EXECUTION_ENV_PATH"].string_value
    if _leads_out(path.removeprefix(_MODEL_FOLDER)):
        yield _warning(
            folder,
            "config.pbtxt",
            f"EXECUTION_ENV_PATH '{path}' lies outside the model's folder, and who may write "
            f"there runs code in the server: write {_MODEL_FOLDER}NAME.tar.gz",
        )


def _leads_out(name: str) -> bool:
    return name.startswith("/") or os.path.normpath(name).startswith("..")


_DANGERS: tuple[Callable[[Path, ModelConfig], Iterator[Finding]], ...] = (
    _permissions,
    _links,
    _names,
    _environment,
)
