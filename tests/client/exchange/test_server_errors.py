"""What users hear of each kind of wrong request, from real servers: class, model, tensor, the
server's words and the hint, the same over each protocol and in both clients."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import re
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from support.harness.paths import CLIENT_MODELS, SPECIAL_MODELS
from support.harness.soak import by_turns

from tritonsmith_client import (
    AlreadyExistsError,
    AsyncClient,
    Client,
    ConnectError,
    DeadlineExceededError,
    InputError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    Retry,
    StatusError,
    SystemRegion,
    TritonError,
    UnavailableError,
    UnsupportedError,
)
from tritonsmith_client._exchange.exchange import Repeat
from tritonsmith_generator.serve import Server

ONES = np.ones((1, 16), np.int32)
ONE = np.array([[1]], np.int32)
ROW = np.ones((1, 3), np.float32)
ZERO = np.zeros((1, 1), np.float32)
IN_THE_MIDDLE = {"COUNT": np.array([2], np.int32), "DELAY": np.full(1, 0.01, np.float32),
                 "FAIL": np.array([True])}  # fmt: skip
Ask = Callable[[Any], Coroutine[Any, Any, object]]


async def got(value: Any) -> Any:
    """What a method of either client returns."""
    return await value if inspect.isawaitable(value) else value


async def drained(parts: Any) -> list[Any]:
    return [part async for part in parts] if isinstance(parts, AsyncIterator) else [*parts]


def client_does(method: str, *args: Any, **named: Any) -> Ask:
    async def ask(client: Any) -> object:
        return await got(getattr(client, method)(*args, **named))

    return ask


def infer(model: str, *args: Any, **options: Any) -> Ask:
    async def ask(client: Any) -> object:
        return await got((await got(client.model(model))).using(**options)(*args))

    return ask


def stream(model: str, *args: Any) -> Ask:
    async def ask(client: Any) -> object:
        return await drained((await got(client.model(model))).stream(*args))

    return ask


def behind(waiting: int, **options: Any) -> Ask:
    """A request to a model that is busy, with so many in its queue already."""

    async def ask(client: Any) -> object:
        model = await got(client.model("queued"))
        running = [model.using(timeout=None).submit(np.full((1, 1), 2.5, np.float32))]
        for _ in range(waiting):
            await asyncio.sleep(0.2)  # one after the other
            running.append(model.using(timeout=None).submit(ZERO))
        await asyncio.sleep(0.2)
        try:
            return await got(model.using(**options)(ZERO))
        finally:
            for future in running:
                await (future if asyncio.isfuture(future) else asyncio.wrap_future(future))

    return ask


async def idle_sequence(client: Any) -> None:
    track = (await got(client.model("accumulate"))).sequence()
    await got(track(ONE))
    await asyncio.sleep(1.0)  # longer than the server keeps an idle one
    await got(track(ONE))


async def unknown_region(client: Any) -> None:
    model = await got(client.model("plain"))
    await got(model(SystemRegion(64).tensor("FP32", (1, 3))))


async def region_twice(client: Any) -> None:
    region = SystemRegion(64)
    await got(client.register(region))
    try:
        await got(client.register(region))
    finally:
        await got(client.unregister(region))


async def unloaded_meanwhile(client: Any) -> None:
    await got(client.load("plain"))
    model = await got(client.model("plain"))
    await got(client.unload("plain"))
    while [e.state for e in await got(client.index()) if e.name == "plain"] != ["UNAVAILABLE"]:
        await asyncio.sleep(0.05)
    await got(model(ROW))


async def reshaped_meanwhile(client: Any) -> None:
    model = await got(client.model("add_sub"))
    fields = dict(model.config.fields)
    narrow = [{**tensor, "dims": [8]} for tensor in fields["input"]]
    await got(client.load("add_sub", config=fields | {"input": narrow}))
    try:
        await drained(model.stream(ONES, ONES))
    finally:
        await got(client.load("add_sub", config=fields))


async def not_loadable(client: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="broken on purpose"):
        await got(client.load("broken"))
    await got(client.model("broken"))


@dataclass(frozen=True)
class Row:
    """
    Attributes:
        kind: the class; two of them where HTTP has no status of its own for it.
        words: in what the server said.
        told: in the message.
    """

    ask: Ask
    kind: type[TritonError] | tuple[type[TritonError], type[TritonError]]
    model: str | None = None
    words: str = "^$"
    hint: str = "^$"
    tensor: str | None = None
    told: str = ""
    retried: int = 0
    server: str = "open"
    attempts: int = field(default=2)


CONTROL = "without --model-control-mode=explicit"
INDEX = r"client\.index\(\)"
RESTRICTED = "restricted, expecting header '(triton-grpc-protocol-)?key'"
KEY = r"Client\(headers={'(triton-grpc-protocol-)?key': "
TYPED = "INPUT0' of model 'add_sub' takes INT32 and was given float32"

ROWS = {
    "unknown model": Row(
        client_does("model", "nope"), NotFoundError, "nope", "is not found", INDEX,
        told="the repository has 'accumulate', 'add_sub', .* and [0-9]+ more$"),
    "misspelt model": Row(
        client_does("model", "add_sup"), NotFoundError, "add_sup", "is not found", INDEX,
        told=r"\(did you mean 'add_sub'\?\)"),
    "unknown version": Row(
        client_does("model", "versioned", "9"), NotFoundError, "versioned", "version 9",
        told="its ready versions are: 1, 2$"),
    "statistics of an unknown model": Row(
        client_does("statistics", "nope"), InvalidArgumentError, "nope", "not available", INDEX),
    "traces of an unknown model": Row(
        client_does("trace_settings", "nope"), InvalidArgumentError, "nope", "unknown", INDEX),
    "waiting for an unknown model": Row(
        client_does("wait_ready", 1.6, models=["add_sup"]), DeadlineExceededError, "add_sup",
        hint=INDEX, told=r"model 'add_sup': the repository has .* \(did you mean 'add_sub'\?\)$"),
    "loading where that is off": Row(
        client_does("load", "text"), UnavailableError, "text", "not allowed", CONTROL),
    "unloading where that is off": Row(
        client_does("unload", "text"), UnavailableError, "text", "not allowed", CONTROL),
    "a full queue": Row(
        behind(2), UnavailableError, "queued", "maximum queue size", "max_queue_size", retried=1),
    "too long in the queue": Row(
        behind(1, queue_timeout=0.05), UnavailableError, "queued", "[Tt]imeout expired",
        "queue_timeout=", attempts=1),
    "a busy model": Row(
        infer("fail", ["UNAVAILABLE"]), UnavailableError, "fail", "told to fail",
        r"client\.wait_ready\(\)", retried=1),
    "a model that finds nothing": Row(
        infer("fail", ["NOT_FOUND"]), NotFoundError, "fail", "told to fail", told="FOUND|404"),
    "a model that raises": Row(
        infer("fail", ["x"]), InternalError, "fail", "told to raise", "the server's log"),
    "a stream of a model that raises": Row(
        stream("fail", ["x"]), InternalError, "fail", "told to raise", "the server's log"),
    "a decoupled model that raises": Row(
        stream("repeat", IN_THE_MIDDLE), StatusError, "repeat", "told to fail in the middle"),
    "a decoupled model, called": Row(
        infer("repeat", IN_THE_MIDDLE), UnsupportedError, "repeat", "decoupled", r"\.stream\(\)"),
    "no sequence": Row(
        infer("accumulate", ONE), InvalidArgumentError, "accumulate", "correlation ID",
        r"model\.sequence\(\)"),
    "no sequence in a stream": Row(
        stream("accumulate", ONE), InvalidArgumentError, "accumulate", "correlation ID",
        r"model\.sequence\(\)"),
    "a sequence that was idle": Row(
        idle_sequence, InvalidArgumentError, "accumulate", "START flag", "begin another one"),
    "memory that nobody registered": Row(
        unknown_region, NotFoundError, "plain", "find shared memory region",
        r"client\.register\(region\)"),
    "memory registered twice": Row(
        region_twice, (AlreadyExistsError, InvalidArgumentError), None, "already in manager",
        r"client\.unregister\(region\)"),
    "a deadline": Row(
        infer("slow", np.full((1, 1), 3.0, np.float32), timeout=0.2), DeadlineExceededError, "slow",
        hint=r"using\(timeout=", told="deadline of 0.2 s exceeded$"),
    "a bad log format": Row(
        client_does("log_settings", {"log_format": "nonsense"}), InvalidArgumentError, None,
        "invalid argument .* nonsense"),
    "an unknown log setting": Row(
        client_does("log_settings", {"log_bogus": 1}), InvalidArgumentError, None,
        told="no setting 'log_bogus'; it has: .*log_verbose_level"),
    "an unknown trace setting": Row(
        client_does("trace_settings", "add_sub", {"trace_bogus": "1"}), InvalidArgumentError,
        "add_sub", told="no setting 'trace_bogus'; it has: .*trace_rate"),
    "no metrics there": Row(
        client_does("metrics", "http://127.0.0.1:9"), ConnectError, None,
        hint=r"metrics\(url=", told="no connection to http://127.0.0.1:9", retried=1),
    "another data type": Row(
        infer("add_sub", ONES.astype(np.float32), ONES), InputError, "add_sub", tensor="INPUT0",
        hint=r"\.astype\(np\.int32\)", told=TYPED),
    "another shape": Row(
        infer("add_sub", ONES, ONES[:, :8]), InputError, "add_sub", tensor="INPUT1",
        hint="reshape it", told="of model 'add_sub' takes shape"),
    "a wrong element": Row(
        infer("add_sub", ONES, [[1.5] * 16]), InputError, "add_sub", tensor="INPUT1",
        told="of model 'add_sub' cannot be made of this list"),
    "no text": Row(
        infer("text", [[1]]), InputError, "text", tensor="TEXT", told="input 'TEXT'"),
    "too large a batch": Row(
        stream("add_sub", np.ones((9, 16), np.int32), np.ones((9, 16), np.int32)), InputError,
        "add_sub", tensor="INPUT0", hint="in parts of 8"),
    "strings, classified": Row(
        infer("scores", np.ones((1, 4), np.float32), classes=2), InputError, "scores",
        tensor="TEXT", hint=r"using\(outputs="),
    "a model that is not loaded": Row(
        client_does("model", "text"), NotFoundError, "text", "not found",
        r"client\.load\('text'\)", told="not loaded$", server="controlled"),
    "a model unloaded meanwhile": Row(
        unloaded_meanwhile, NotFoundError, "plain", "no available versions",
        r"client\.load\('plain'\)", told="not loaded$", server="controlled"),
    "a model reshaped meanwhile": Row(
        reshaped_meanwhile, InputError, "add_sub", tensor="INPUT0", hint="reshape it",
        told=r"takes shape \[-1, 8\]", server="controlled"),
    "a model that cannot be loaded": Row(
        not_loadable, NotFoundError, "broken", "no available versions", "the server's log",
        told="could not be loaded: .*broken on purpose$", server="controlled"),
    "waiting for a model that is not loaded": Row(
        client_does("wait_ready", 1.6, models=["text", "nope"]), DeadlineExceededError, "text",
        hint=r"client\.load\('text'\)", server="controlled",
        told="within 1.6 s at .*: model 'text', model 'nope': it is .* not loaded$"),
    "loading an unknown model": Row(
        client_does("load", "nope"), InternalError, "nope", "failed to poll",
        "not in the server's repository", server="controlled"),
    "a restricted inference": Row(
        infer("plain", ROW), PermissionDeniedError, "plain", RESTRICTED, KEY, server="closed"),
    "a restricted stream": Row(
        stream("plain", ROW), PermissionDeniedError, "plain", RESTRICTED, KEY, server="closed"),
    "a restricted index": Row(
        client_does("index"), PermissionDeniedError, None, RESTRICTED, KEY, server="closed"),
    "an unknown version where the index is restricted": Row(
        client_does("model", "plain", "9"), NotFoundError, "plain", "version 9",
        told="its ready versions are: 1$", server="closed"),
}  # fmt: skip


@pytest.fixture(scope="module")
def servers(
    start_server: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Server]:
    """One that is as it comes, one that loads what it is told to, one that asks for a key."""
    folder = tmp_path_factory.mktemp("errors") / "models"
    shutil.copytree(CLIENT_MODELS, folder)
    for name in ("queued", "versioned"):
        shutil.copytree(SPECIAL_MODELS / name, folder / name)
    config = folder / "accumulate" / "config.pbtxt"
    config.write_text(config.read_text().replace("60000000", "300000"))
    started = {"open": start_server(folder)}

    broken = folder / "broken"
    shutil.copytree(folder / "text", broken)
    config = broken / "config.pbtxt"
    config.write_text(config.read_text().replace('"text"', '"broken"'))
    (broken / "1" / "model.py").write_text("raise RuntimeError('broken on purpose')\n")
    explicit = ["--model-control-mode=explicit", "--load-model=add_sub"]
    started["controlled"] = start_server(folder, extra_args=explicit)

    groups = "inference,model-repository:key=secret"
    flags = [f"--grpc-restricted-protocol={groups}", f"--http-restricted-api={groups}"]
    started["closed"] = start_server(folder, models=["plain"], extra_args=flags)
    return started


@dataclass(frozen=True)
class Counting(Retry):
    """Remembers how often it let something be sent again."""

    again_and_again: list[bool] = field(default_factory=list)

    def again(self, error: TritonError, repeat: Repeat, attempt: int) -> bool:
        decided = super().again(error, repeat, attempt)
        self.again_and_again.append(decided)
        return decided


# Of three in a row each has another protocol.
WAYS = [*zip(("grpc", "own", "http") * 2, (Client, AsyncClient) * 3, strict=True)]


@pytest.mark.parametrize(
    ("url", "kind", "what"), by_turns(WAYS, [(what,) for what in ROWS], each=3), indirect=["url"]
)
def test_an_error_says_it_all(
    servers: dict[str, Server], url: str, what: str, kind: type[Client] | type[AsyncClient]
) -> None:
    row = ROWS[what]
    server = servers[row.server]
    http = url.startswith("http")
    retry = Counting(attempts=row.attempts, first=0.01)

    async def main() -> None:
        client = kind(server.http_url if http else server.grpc_url, timeout=20.0, retry=retry)
        try:
            await row.ask(client)
        finally:
            await got(client.close())

    with pytest.raises(TritonError) as caught:
        asyncio.run(main())
    error = caught.value
    expected = row.kind[http] if isinstance(row.kind, tuple) else row.kind
    assert type(error) is expected
    assert (error.model, error.tensor) == (row.model, row.tensor)
    assert re.search(row.words, error.server_message)
    assert re.search(row.hint, error.hint)
    assert re.search(row.told, error.message)
    assert str(error) == "; ".join(filter(None, (error.message, error.hint)))
    assert sum(retry.again_and_again) == row.retried
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and vars(again) == vars(error) and str(again) == str(error)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_stream_of_one_answer_takes_what_a_call_takes(
    servers: dict[str, Server], url: str, kind: type[Client] | type[AsyncClient]
) -> None:
    """A model that is not decoupled: batches, strings that are no text, FP16, a classification."""

    async def parts(model: Any, *args: Any) -> list[Any]:
        return await drained(model.stream(*args))

    async def main() -> None:
        server = servers["open"]
        client = kind(server.http_url if url.startswith("http") else server.grpc_url)
        try:
            batch = np.arange(6, dtype=np.float32).reshape(2, 3)
            (part,) = await parts(await got(client.model("plain")), batch)
            assert np.array_equal(part["Y"], batch)
            (part,) = await parts(await got(client.model("text")), [[b"\xffa"]])
            assert part["UPPER"].item() == b"\xffA"
            identity = await got(client.model("identity"))
            (part,) = await parts(identity, {"IN_FP16": np.full((1, 2), 1.5, np.float16)})
            assert part["OUT_FP16"].tolist() == [[1.5, 1.5]]
            scores = (await got(client.model("scores"))).using(classes=1, outputs=["PROBABILITY"])
            (part,) = await parts(scores, np.array([[0, 9, 0, 0]], np.float32))
            assert part.classes("PROBABILITY")[0][0].index == 1
        finally:
            await got(client.close())

    asyncio.run(main())
