"""Every status becomes one class, on paper and with the real server."""

from __future__ import annotations

import pickle
from http import HTTPStatus

import grpc
import pytest

import tritonsmith_client
from tritonsmith_client import (
    AlreadyExistsError,
    Client,
    ConnectError,
    DeadlineExceededError,
    InputError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    RequestCancelledError,
    Retry,
    StatusError,
    TritonError,
    UnavailableError,
    UnsupportedError,
    errors,
)
from tritonsmith_client._exchange.status import from_grpc_status, from_http_status
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._protocol.grpc.status import mapped

# The codes of a Python model's TritonError; the HTTP server says 400 for several of them.
CODES = {
    "UNKNOWN": (InternalError, InvalidArgumentError),
    "INTERNAL": (InternalError, InternalError),
    "NOT_FOUND": (NotFoundError, NotFoundError),
    "INVALID_ARG": (InvalidArgumentError, InvalidArgumentError),
    "UNAVAILABLE": (UnavailableError, UnavailableError),
    "UNSUPPORTED": (UnsupportedError, UnsupportedError),
    "ALREADY_EXISTS": (AlreadyExistsError, InvalidArgumentError),
    "CANCELLED": (RequestCancelledError, InvalidArgumentError),
}


def test_every_grpc_status_has_a_class() -> None:
    kinds = {
        code.name: type(from_grpc_status(code.name, "why", "inference"))
        for code in grpc.StatusCode
        if code is not grpc.StatusCode.OK
    }
    assert kinds.pop("DEADLINE_EXCEEDED") is DeadlineExceededError
    assert all(issubclass(kind, StatusError) for kind in kinds.values())
    assert kinds["UNAUTHENTICATED"] is kinds["PERMISSION_DENIED"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("Deadline Exceeded", "inference failed: deadline of 0.2 s exceeded"),
        ("Stream removed (Deadline Exceeded)", "inference failed: deadline of 0.2 s exceeded"),
        ("the model gave up", "inference failed: the model gave up (DEADLINE_EXCEEDED)"),
    ],
)
def test_a_deadline_is_told_alike_whoever_noticed_it_first(words: str, message: str) -> None:
    """Which of grpcio's words come is a race between its timer and the server's."""

    class Failed(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.DEADLINE_EXCEEDED

        def details(self) -> str:
            return words

    error = mapped(Failed(), "inference", Deadline(0.2))
    assert type(error) is DeadlineExceededError
    assert error.message == message


def test_every_http_status_has_a_class() -> None:
    for status in [int(s) for s in HTTPStatus if s >= 300] + [418, 599]:
        error = from_http_status(status, "why", "inference")
        assert isinstance(error, (StatusError, DeadlineExceededError))
        assert str(status) in str(error)


def test_the_tree_is_drawn_as_it_is() -> None:
    classes = [
        c for c in vars(errors).values() if isinstance(c, type) and c.__module__ == errors.__name__
    ]
    assert classes
    for kind in classes:
        assert issubclass(kind, TritonError)
        assert kind.__name__ in (errors.__doc__ or "")
        assert getattr(tritonsmith_client, kind.__name__) is kind
        assert kind.__name__ in tritonsmith_client.__all__


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n.endswith("Error")])
def test_every_error_survives_pickling(name: str) -> None:
    bare = getattr(errors, name)("why")
    assert str(bare) == bare.message == "why"
    assert (bare.model, bare.tensor, bare.status) == (None, None, "")
    full = getattr(errors, name)("why", model="m", tensor="t", hint="do this")
    copy = pickle.loads(pickle.dumps(full))
    assert type(copy) is type(full) and str(copy) == "why; do this"
    assert (copy.model, copy.tensor, copy.hint) == ("m", "t", "do this")


def test_the_door_offers_what_it_lists() -> None:
    for name in tritonsmith_client.__all__:
        assert getattr(tritonsmith_client, name).__module__.startswith("tritonsmith_client.")


@pytest.mark.parametrize("kind", CODES)
def test_a_model_that_fails(client: Client, url: str, kind: str) -> None:
    with Client(url, retry=Retry(attempts=1)) as once, pytest.raises(StatusError) as caught:
        once.model("fail")([kind])
    assert type(caught.value) is CODES[kind][url.startswith("http")]
    assert f"told to fail with {kind}" in caught.value.server_message
    assert "inference with model 'fail' failed: " in str(caught.value)
    assert caught.value.status


def test_an_exception_in_a_model(client: Client) -> None:
    with pytest.raises(InternalError, match="told to raise"):
        client.model("fail")(["anything"])


def test_an_unknown_model_and_version(client: Client) -> None:
    with pytest.raises(
        NotFoundError, match=r"model 'nope'.*the repository has 'accumulate', 'add_sub'"
    ):
        client.model("nope")
    with pytest.raises(NotFoundError, match=r"model 'add_sub' version 9"):
        client.model("add_sub", version="9")
    with pytest.raises(NotFoundError, match="a/../b"):
        client.model("a/../b")
    with pytest.raises(InputError, match="model 'add_sub': version is 'newest'; it must be a num"):
        client.model("add_sub", version="newest")


def test_no_server(url: str) -> None:
    scheme = url.partition("://")[0]
    with Client(f"{scheme}://127.0.0.1:9") as client, pytest.raises(UnavailableError) as caught:
        client.metadata()
    if scheme == "http":
        assert isinstance(caught.value, ConnectError)
        assert "no connection to http://127.0.0.1:9" in str(caught.value)


def test_a_name_without_address() -> None:
    once = Retry(attempts=1)
    with (
        Client("http://nowhere.invalid", retry=once) as client,
        pytest.raises(ConnectError, match="nowhere.invalid"),
    ):
        client.metadata()


@pytest.mark.parametrize("header", [{"a\r\nb": "c"}, {"a": "b\r\nc: d"}, {"": "x"}, {"a:b": "c"}])
def test_headers_cannot_end_a_line(header: dict[str, str], url: str) -> None:
    with pytest.raises(InputError, match="that no header may have"):
        Client(url, headers=header)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_timeout_that_makes_no_sense(timeout: float) -> None:
    with pytest.raises(InputError, match="must be seconds above 0"):
        Client("localhost", timeout=timeout)


class NoTokenError(TritonError):
    """A caller's own error, with a constructor of its own."""

    def __init__(self, *, issuer: str) -> None:
        super().__init__(f"{issuer} gave no token")
        self.issuer = issuer


def test_an_error_of_a_callers_own_is_told_anew_for_each_call(url: str) -> None:
    """The object is the caller's, who may raise it for any number of calls."""
    reason = OSError("no route")
    refusal = NoTokenError(issuer="vault")

    def headers() -> dict[str, str]:
        raise refusal from reason

    with Client(url, headers=headers) as client:
        for ask, words in (
            (client.index, "reading the index of the model repository failed: vault gave no token"),
            (client.live, "the liveness check failed: vault gave no token"),
        ):
            with pytest.raises(NoTokenError) as caught:
                ask()
            assert str(caught.value) == words
            assert caught.value.issuer == "vault"
            assert caught.value.__cause__ is reason
    assert str(refusal) == "vault gave no token"
