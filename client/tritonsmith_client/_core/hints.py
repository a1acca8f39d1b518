"""What to do about an error: for programs, and for those who use a command."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tritonsmith_client import errors
from tritonsmith_client._exchange.exchange import Asked
from tritonsmith_client._exchange.status import E, tensor_in
from tritonsmith_client.errors import TritonError

__all__ = ["ASK_INDEX", "command_message", "completed", "restated"]


@dataclass(frozen=True)
class _Hint:
    """The first row that fits is taken.

    Attributes:
        kind: the error's class, or one above it.
        words: what the server says, as a regular expression; any words if empty.
        program: for callers of the API; may refer to a group in the words.
        command: for those who sit before a command line; ``{url}`` is the server's address.
    """

    kind: type[TritonError]
    words: str
    program: str
    command: str = ""


def _both(kind: type[TritonError], words: str, text: str) -> _Hint:
    return _Hint(kind, words, text, text)


ASK_INDEX = "client.index() says which models and versions are ready"
_MODELS = "to see what is ready: tritonsmith models --url {url}"
_LOG = "the server's log says more"
_HINTS = (
    _both(
        errors.UnavailableError,
        "explicit model load / unload is not allowed",
        "the server was started without --model-control-mode=explicit: start it with that",
    ),
    _Hint(
        errors.UnavailableError,
        "maximum queue size",
        "the model's queue is full: send fewer requests at a time, let Client(retry=Retry("
        "attempts=...)) try for longer, or raise max_queue_size in the model's config",
        "the model's queue is full: try again later, or raise max_queue_size in its config",
    ),
    _Hint(
        errors.UnavailableError,
        "[Tt]imeout expired",
        "the request waited too long in the model's queue: send fewer at a time, or give it "
        "longer with using(queue_timeout=...)",
        "the request waited too long in the model's queue: try again later",
    ),
    _Hint(
        errors.PermissionDeniedError,
        "restricted, expecting header '(.+)'",
        r"give its key with Client(headers={'\1': ...})",
        "this command sends no such header: ask an address that needs none",
    ),
    _Hint(
        errors.StatusError,
        "decoupled transaction policy",
        "the model is decoupled: call its .stream(), which yields any number of responses",
        "the model is decoupled, which this command cannot call: use the Python client's .stream()",
    ),
    _Hint(
        errors.StatusError,
        "must specify a non-zero or non-empty correlation ID",
        "the model takes sequences: call it within model.sequence()",
        "the model takes sequences, which this command cannot send: use the Python client's "
        ".sequence()",
    ),
    _Hint(
        errors.StatusError,
        "must specify the START flag",
        "the server no longer knows this sequence: it was idle for longer than the model's "
        "max_sequence_idle_microseconds, or the server was started anew; begin another one with "
        "model.sequence()",
    ),
    _Hint(
        errors.StatusError,
        "[Ss]hared memory is disabled",
        "start the server with --allow-client-shm=true, or send the arrays themselves",
    ),
    _Hint(
        errors.StatusError,
        "[Uu]nable to find shared memory region",
        "client.register(region) lets the server know it, once after each start of the server",
    ),
    _Hint(
        errors.StatusError,
        "shared memory region .* already in manager",
        "client.unregister(region) has the server let go of it first",
    ),
    _Hint(
        errors.StatusError,
        "[Uu]nable to open shared memory region",
        "the server has to be on this host, and in a container share its /dev/shm (--ipc=host)",
    ),
    _Hint(
        errors.ConnectError,
        "",
        "check the address, or wait with client.wait_ready()",
        "check --url, or wait with: tritonsmith health --wait 60 --url {url}",
    ),
    _Hint(errors.ConnectionLostError, "", ""),
    _Hint(
        errors.UnavailableError,
        "",
        "client.wait_ready() waits until the server takes requests",
        "to wait until it is ready: tritonsmith health --wait 60 --url {url}",
    ),
    _Hint(
        errors.NotFoundError,
        "",
        ASK_INDEX,
        _MODELS,
    ),
    _Hint(
        errors.PermissionDeniedError,
        "",
        "credentials go in Client(headers={...})",
        "this command sends no credentials: ask an address that needs none",
    ),
    _both(
        errors.StatusError,
        "failed to poll from model repository",
        "the model is not in the server's repository or its files are wrong: the server's log "
        "says why",
    ),
    _Hint(
        errors.InvalidArgumentError,
        "requested model .*not available|unknown model",
        ASK_INDEX,
        _MODELS,
    ),
    _both(errors.InternalError, "", _LOG),
    _Hint(
        errors.DeadlineExceededError,
        "",
        "Client(timeout=...) and using(timeout=...) give a call longer",
        "a larger --timeout gives it longer (health: --wait)",
    ),
    _both(TritonError, "", ""),
)


def completed(error: E, asked: Asked) -> E:
    """Return the error with what the place where it was raised does not know.

    This is what was asked, of which model, and what to do next.
    """
    message, next_step = error.message, error.hint
    at_fault = isinstance(error, (errors.InputError, errors.ClosedError))  # not what was asked
    if not at_fault and not message.startswith(asked):
        message = f"{asked} failed: {message}"
    if not next_step:
        hint, words = _found(error)
        next_step = asked.hint or words.expand(hint.program)
    model, tensor = error.model or asked.model, error.tensor or tensor_in(message)
    return restated(error, message, model=model, tensor=tensor, hint=next_step)


def restated(error: E, message: str, *, model: str | None, tensor: str | None, hint: str) -> E:
    """Return the same error in these words, with the cause and the traceback that it had.

    A caller's class may have any constructor: it is not called again.
    """
    again = type(error).__new__(type(error))
    again.__dict__.update(vars(error))  # notes, and what a caller's class adds
    TritonError.__init__(
        again,
        message,
        model=model,
        tensor=tensor,
        status=error.status,
        server_message=error.server_message,
        hint=hint,
    )
    again.__cause__ = error.__cause__
    return again.with_traceback(error.__traceback__)


def command_message(error: TritonError, url: str) -> str:
    """Return an error as a command tells it: with what its user can do, who sees no API."""
    hint = _found(error)[0].command.format(url=url)
    return f"{error.message}; {hint}" if hint else error.message


def _found(error: TritonError) -> tuple[_Hint, re.Match[str]]:
    """Return the hint that fits, and its words as the server said them."""
    for hint in _HINTS:
        words = re.search(hint.words, error.server_message)
        if words is not None and isinstance(error, hint.kind):
            return hint, words
    raise AssertionError("the last row fits everything")
