"""A build's process, and TensorRT in it, started before the command line is parsed.

The parser takes longer to import. What to start is guessed from the arguments. A wrong guess
costs a process that ends unused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from tritonsmith_generator.layout import DEFAULT_REPOSITORY, LOCK_NAME, SOURCES

if TYPE_CHECKING:
    from tritonsmith_generator.spec.builder_options import Library

__all__ = ["early_build"]

_LIBRARIES: tuple[Library, ...] = ("tensorrt", "tensorrt_rtx")
# With these nothing is built, or not here.
_OTHERWISE = {"--dry-run", "--in-release", "--in-image", "--help"}


@contextmanager
def early_build(arguments: Sequence[str]) -> Iterator[None]:
    """Prepare in the block what these arguments of ``gen-repo`` will have built, if anything.

    This process must not have a thread yet.
    """
    if not _builds(arguments):
        yield
        return
    from tritonsmith_generator.engine.process import start_early
    from tritonsmith_generator.errors import HostError
    from tritonsmith_generator.workers.process import early_child

    with ExitStack() as stack:
        with suppress(HostError):  # where no process can be started, the build says so
            process = stack.enter_context(early_child(fork=True))
            target = _value(arguments, "--target")
            for library in _LIBRARIES:
                if library == target:
                    process.prepare(start_early, library)
        yield


def _builds(arguments: Sequence[str]) -> bool:
    """Whether it is clear already that something has to be built: nothing is up to date.

    Without pathlib, which takes time to import.
    """
    source = next((argument for argument in arguments if argument.endswith(SOURCES)), "")
    if arguments[:1] not in (["build"], [source]) or not os.path.isfile(source):  # noqa: PTH113
        return False
    if not _OTHERWISE.isdisjoint(argument.partition("=")[0] for argument in arguments):
        return False
    given = _value(arguments, "--output", "-o")
    places = [given] if given else [DEFAULT_REPOSITORY, os.path.dirname(source)]  # noqa: PTH120
    return not any(os.path.exists(os.path.join(p, LOCK_NAME)) for p in places)  # noqa: PTH110, PTH118


def _value(arguments: Sequence[str], *names: str) -> str | None:
    """Return what follows one of these options."""
    for argument, following in zip(arguments, (*arguments[1:], None), strict=True):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else following
    return None
