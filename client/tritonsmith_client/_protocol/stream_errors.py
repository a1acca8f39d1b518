"""Errors in the stream of a decoupled model, of which a server tells the words and no status.

Asked with the header ``triton_grpc_error`` it would tell the status over gRPC. Release 24.10 then
crashes as soon as a model ends its stream in another step than the one with the error, so nothing
asks for it here.
"""

from __future__ import annotations

import re

from tritonsmith_client._exchange.status import refused
from tritonsmith_client.errors import (
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    StatusError,
    UnavailableError,
)

__all__ = ["stream_error"]

# What Triton itself says, and the class that it has where a status comes with it. The start has to
# fit, since a model may say whatever it likes.
_WORDS: dict[type[StatusError], tuple[str, ...]] = {
    NotFoundError: ("Request for unknown model: ",),
    InvalidArgumentError: (
        "unexpected inference (in|out)put '",
        r"expected \d+ inputs but got \d+ inputs for model ",
        "unexpected shape for input '",
        "inference request batch-size must be <= ",
        "inference input '.*' data-type is '",
        "input byte size mismatch for input '",
        "inference request .*to model '.*' must specify ",
    ),
    UnavailableError: (
        "Exceeds maximum queue size",
        "Request timeout expired",
        "Server is stopping, ",
    ),
    InternalError: (
        r"Failed to process the request\(s\) for model ",
        "Stub process '.*' is not healthy",
    ),
}
_KNOWN = [
    (kind, re.compile(rf"(\[request id: .*\] )?({'|'.join(starts)})", re.DOTALL))
    for kind, starts in _WORDS.items()
]


def stream_error(what: str, status: str, message: str) -> StatusError:
    """Get the error for what a server says in a stream; a plain StatusError for words of the model.

    Args:
        status: what came with it without a meaning, or nothing.
    """
    kinds = (kind for kind, words in _KNOWN if words.match(message))
    return refused(next(kinds, StatusError), what, status, message)
