"""Every argument is checked before anything is sent: over both protocols, by both clients."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support.harness.paths import CLIENT_MODELS as MODELS
from support.wire.callers import WAYS, Caller, caller
from support.wire.refusals import LONE, SECONDS, TEXT, refused

from tritonsmith_client import Client
from tritonsmith_client._protocol.options import Options, changed
from tritonsmith_client._shared_memory.system import SystemRegion
from tritonsmith_generator.serve import Server

ZERO = np.zeros(1, np.float32)
ONE = np.array([[1]], np.int32)


@pytest.fixture(scope="module")
def forwarding_agents(start_server: Callable[..., Server]) -> Server:
    """A server whose models see the headers with which they were called."""
    pattern = "(x-.*|user-agent)"
    flags = [f"--{kind}-header-forward-pattern={pattern}" for kind in ("grpc", "http")]
    names = ["wishes", "accumulate", "scores", "add_sub", "text"]
    return start_server(MODELS, models=names, extra_args=flags)


@pytest.fixture(scope="module", params=WAYS, ids="-".join)
def there(request: pytest.FixtureRequest, forwarding_agents: Server) -> Iterator[Caller]:
    """A client of a real server, of each kind and over each protocol."""
    kind, way = request.param
    server = forwarding_agents
    with caller(kind, way, server.http_url if way == "http" else server.grpc_url) as made:
        yield made


# What using() refuses: the values, how the message names what is wrong, and what is allowed.
INT = "an int from 0 to 4294967295"
QUEUE = "seconds from 0.000001 up to 1000000, or 0 for the model's default"
PARAMETER = "a bool, int, float or str; ints have 64 bits"
VALUE = "a str of printable ASCII characters without spaces around it"
Row = tuple[str, list[Any], str, str]
OPTIONS: list[Row] = [
    ("timeout", [0, -1.0, math.nan, math.inf, 1e12, 10**400, "1", True, 1j], "timeout is", SECONDS),
    ("queue_timeout", [-1, 1e-7, math.nan, math.inf, "1", False], "queue_timeout is", QUEUE),
    (
        "hedge",
        [-1, math.nan, math.inf, "1", True],
        "hedge is",
        "seconds from 0 (never) up to 1000000",
    ),
    ("priority", ["1", 1.0, -1, 2**32, 2**70, True, 10**5000], "priority is", INT),
    ("classes", ["1", 1.5, -1, 2**32, 2**40, True], "classes is", INT),
    ("id", [5, b"x", LONE, "a\0b"], "id is", TEXT),
    ("outputs", ["SAID", "S"], "outputs is", "a list of names: write ['S"),
    ("outputs", [5, b"SAID", {"SAID": 1}], "outputs is", "a list of names"),
    ("outputs", [[5], [LONE], [""], (b"SAID",)], "name 0 is", TEXT + ", and not empty"),
    ("convert", [1, "yes", ZERO], "convert is", "True or False"),
    ("split", [0, ""], "split is", "True or False"),
    ("parameters", [5, [("a", 1)], "a"], "parameters is", "a dict from names to bool, int, float"),
    ("parameters", [{5: 1}, {LONE: 1}, {"a\0b": 1}], "the name of the parameter", TEXT),
    (
        "parameters",
        [
            {"a": value}
            for value in (None, [1], b"x", 1j, 2**63, -(2**63) - 1, LONE, "x\0", np.zeros(2))
        ],
        "the parameter 'a' is",
        PARAMETER,
    ),
    ("parameters", [{"timeout": 1}], "'timeout' belongs to the protocol", "given with queue_time"),
    ("parameters", [{"triton_a": 1}], "'triton_a' belongs to the protocol", "given another name"),
    ("headers", [5, "a: b", [("a", "b")], {"a"}], "headers is a", "a dict from str to str"),
    (
        "headers",
        [{name: "x"} for name in (5, "", "a b", "a:b", "a\r\nb", "ü", "a!", LONE, b"a")],
        "has a name that no header may have",
        "letters, digits, '-', '_' and '.'",
    ),
    (
        "headers",
        [
            {"a": value}
            for value in (5, None, b"x", "", " x", "x\n", "a\r\nb: c", "ü", LONE, "a\tb")
        ],
        "the header 'a' has a value that no header may have",
        VALUE,
    ),
    (
        "headers",
        [
            {name: "x"}
            for name in (
                *("Content-Length", "transfer-encoding", "connection", "te", "content-type"),
                *("content-encoding", "expect", "grpc-timeout", "upgrade", "trailer"),
                *("inference-header-content-length", "accept-encoding"),
            )
        ],
        "belongs to the protocol",
        "",
    ),
    (
        "headers",
        [{"Host": "x"}, {"user-agent": "x"}],
        "is the same for all calls",
        "given to Client(headers={...})",
    ),
    ("headers", [{"x-data-bin": "x"}], "'x-data-bin' would be binary in gRPC", "given a name that"),
    ("headers", [{"A": "1", "a": "1"}], "a header is there twice", "given once"),
    ("out", [5, [("SAID", ZERO)], ZERO], "out is", "a dict from output names to arrays"),
    (
        "out",
        [{"SAID": [1]}, {5: ZERO}, {"SAID": None}],
        "out[",
        "a writable array or RegionTensor, and",
    ),
]


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: f"{row[0]}-{row[3][:20]}")
def test_an_option_that_cannot_be_sent(there: Caller, row: Row) -> None:
    option, values, what, allowed = row
    model = there.model("wishes")
    for value in values:
        message = refused(what, model.using, **{option: value})
        assert message.startswith("model 'wishes': ") and f"; it must be {allowed}" in message


def test_nothing_of_a_refused_option_stays(there: Caller) -> None:
    model = there.model("wishes").using(id="kept")
    refused("priority is '1'", model.using, id="other", priority="1")
    assert there.do(model, ZERO).id == "kept"


def test_a_secret_is_in_no_message(there: Caller) -> None:
    model = there.model("wishes")
    for headers in ({"authorization": "Bearer hunter2\n"}, {"bad name": "hunter2"}, ["hunter2"]):
        message = refused("header", model.using, headers=headers)
        assert "hunter2" not in message


def test_an_output_that_is_not_asked_for_takes_no_array(there: Caller) -> None:
    model = there.model("add_sub").using(outputs=["SUM"])
    out = {"DIFF": np.zeros((1, 16), np.int32)}
    message = "out has the output 'DIFF', which is not among those asked for with outputs=['SUM']"
    refused(message, model.using, out=out)
    frozen = np.zeros((1, 16), np.int32)
    frozen.flags.writeable = False
    refused("out['SUM'] is", model.using, out={"SUM": frozen})


def said(there: Caller, **options: Any) -> Any:
    """What the model was told."""
    model = there.model("wishes").using(**options)
    return json.loads(there.do(model, ZERO)["SAID"].item())


def test_the_largest_and_smallest_arrive(there: Caller) -> None:
    numbers = {"a": -(2**63), "b": 2**63 - 1, "c": math.inf, "d": True, "e": "", "f": "größe\n"}
    arrived = said(there, parameters=numbers)["parameters"]
    assert {name: arrived[name] for name in numbers} == numbers
    for seconds, microseconds in ((1e6, 10**12), (1e-6, 1), (0, 0), (0.57, 570_000)):
        assert said(there, queue_timeout=seconds)["timeout"] == microseconds
    assert said(there, timeout=1e6, priority=2**32 - 1, hedge=1e6)["id"] == ""
    assert said(there, timeout=None, id="größe\n")["id"] == "größe\n"
    arrived = said(there, headers={"X-A.b_c-1": "~ !", "x-b": "x" * 1000})["parameters"]
    assert (arrived["x-a.b_c-1"], arrived["x-b"]) == ("~ !", "x" * 1000)


def test_numbers_of_numpy_are_numbers(there: Caller) -> None:
    given = {"i": np.int64(-7), "f": np.float32(0.5), "b": np.bool_(True), "s": np.str_("x")}
    arrived = said(
        there,
        parameters=given,
        queue_timeout=np.float32(0.5),
        timeout=np.int32(5),
        priority=np.uint8(1),
        split=np.bool_(True),
    )
    assert {name: arrived["parameters"][name] for name in given} == {
        "i": -7, "f": 0.5, "b": True, "s": "x",
    }  # fmt: skip
    assert arrived["parameters"]["b"] is True and arrived["timeout"] == 500_000


def test_names_of_outputs_come_from_any_iterable_and_count_once(there: Caller) -> None:
    ones = np.ones((1, 16), np.int32)
    for names in (["SUM", "SUM"], ("SUM",), {"SUM"}, iter(["SUM"]), np.array(["SUM"])):
        model = there.model("add_sub").using(outputs=names)
        assert list(there.do(model, ones, ones)) == ["SUM"]
    given = changed(Options(), "add_sub", outputs=["SUM", "DIFF", "SUM"], timeout=...)
    assert given.outputs == ("SUM", "DIFF")  # what newer servers refuse is not sent twice


def test_as_many_classes_as_there_are(there: Caller) -> None:
    model = there.model("scores").using(outputs=["PROBABILITY"], classes=2**32 - 1)
    scores = np.ones((1, 4), np.float32)
    assert len(there.do(model, scores).classes("PROBABILITY")[0]) == 4


@pytest.mark.parametrize(
    "id",
    [0, -1, 1.5, True, False, 2**63, 2**65, "", b"a", LONE, "a\0b", "x" * 129, "ü" * 65, (1,)],
    ids=repr,
)
def test_an_id_that_no_sequence_may_have(there: Caller, id: Any) -> None:
    message = refused("model 'accumulate': sequence id is ", there.model("accumulate").sequence, id)
    assert "it must be an int from 1 to 9223372036854775807 or a str of 1 to 128 bytes" in message


@pytest.mark.parametrize("id", [1, 2**63 - 1, np.int64(8), "x" * 128, "ü" * 64], ids=repr)
def test_an_id_that_a_sequence_may_have(there: Caller, id: Any) -> None:
    track = there.model("accumulate").sequence(id)
    assert track.id == id
    assert [there.do(track, ONE)["SUM"].item(), there.do(track.end, ONE)["SUM"].item()] == [1, 2]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"concurrency": 0}, "concurrency is 0; it must be an int from 1"),
        ({"concurrency": "2"}, "concurrency is '2'"),
        ({"concurrency": 1.5}, "concurrency is 1.5"),
        ({"concurrency": True}, "concurrency is True"),
        ({"progress": 5}, "progress is 5; it must be a function"),
        ({"items": 5}, "items is 5; it must be a list, or another iterable"),
        ({"items": "abc"}, "items is 'abc'"),
        ({"items": {"ANY": ZERO}}, "items is {'ANY'"),
    ],
)
def test_what_map_refuses(there: Caller, named: dict[str, Any], message: str) -> None:
    given = {"items": [ZERO], **named}
    refused(f"model 'wishes': {message}", there.model("wishes").map, **given)


@pytest.mark.parametrize("item", ["\ud800", "ok \udfff"])
def test_a_string_without_utf8_names_the_tensor(there: Caller, item: str) -> None:
    model = there.model("text")
    for given in ([["fine", item]], np.array([["fine", item]]), np.array([[item]], object)):
        message = refused("input 'TEXT'", there.do, model, given)
        assert f"has the str {item!r}, which has no UTF-8: a lone surrogate at " in message
        assert "; give bytes, such as text.encode(errors='replace')" in message


def test_names_of_inputs_that_are_none(there: Caller) -> None:
    model = there.model("wishes")
    for name in (5, LONE, b"ANY", None):
        refused(f"has no input {name!r}", there.do, model, {name: ZERO})


@pytest.mark.parametrize("version", [1, "1", np.int32(1), ""])
def test_a_version_is_an_int_or_a_text(there: Caller, version: Any) -> None:
    assert there.do(there.model("wishes", version), ZERO).model_version == "1"
    assert there.model("wishes", version).version == ("1" if version else "")
    assert there.model_ready("wishes", version)
    assert {s.version for s in there.statistics("wishes", version)} == {"1"}


def test_host_and_user_agent_are_the_clients_own(
    there: Caller, forwarding_agents: Server, request: pytest.FixtureRequest
) -> None:
    kind, way = request.node.callspec.params["there"]
    server = forwarding_agents
    headers = {"User-Agent": "me/1", "Host": "models.example", "x-one": "1"}
    address = server.http_url if way == "http" else server.grpc_url
    with caller(kind, way, address, headers=headers) as client:
        arrived = said(client)["parameters"]
    assert arrived["x-one"] == "1"
    assert re.match(r"me/1( grpc-python.*)?$", arrived["user-agent"])
    assert said(there, headers={"x-two": "2"})["parameters"]["x-two"] == "2"


@pytest.mark.parametrize("way", ["grpc", "own", "http"])
def test_the_longest_times_work(way: str, forwarding_agents: Server) -> None:
    server = forwarding_agents
    address = server.http_url if way == "http" else server.grpc_url
    for kind in ("sync", "async"):
        with caller(kind, way, address, timeout=1e6, keepalive=32767) as client:
            assert client.live()
            client.wait_ready(timeout=1e6, models=["text"])
            client.wait_ready(timeout=None)
            assert client.metadata().name == "triton"


def test_a_region_takes_its_place_among_the_outputs(forwarding_agents: Server) -> None:
    region = SystemRegion(1 << 12)
    out = region.tensor("INT32", (1, 16))
    with Client(forwarding_agents.grpc_url) as client:
        client.register(region)
        ones = np.ones((1, 16), np.int32)
        model = client.model("add_sub").using(out={"SUM": out})
        assert model(ones, ones)["SUM"] is out and (out.numpy() == 2).all()  # type: ignore[comparison-overlap]
        client.unregister(region)
    region.close()
