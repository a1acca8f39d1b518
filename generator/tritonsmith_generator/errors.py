"""Every error that the generator raises on purpose.

    TritonsmithError          shown to the user without a traceback
    ├── InputError            exit code 1: the user's model, spec or repository
    ├── UsageError            exit code 2: the command line
    ├── HostError             exit code 3: this machine lacks something (GPU, library, docker)
    └── ServerError           exit code 4: the Triton server did not do what it was asked

A message says what failed, what was given, what was allowed and what to do next.
"""

from __future__ import annotations


class TritonsmithError(Exception):
    """Base of all errors whose text is meant for the user."""

    exit_code = 1


class InputError(TritonsmithError):
    """The user's model, spec or repository is at fault."""

    exit_code = 1


class UsageError(TritonsmithError):
    """The command was called in a way that makes no sense."""

    exit_code = 2


class HostError(TritonsmithError):
    """This machine lacks something: a GPU, a library, a tool, memory or disk space."""

    exit_code = 3


class ServerError(TritonsmithError):
    """The Triton server did not start, did not load a model or gave a wrong answer."""

    exit_code = 4
