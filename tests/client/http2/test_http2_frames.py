"""Our own HTTP/2 against the hpack and h2 libraries, piece by piece and in any cut."""

from __future__ import annotations

import contextlib
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.wire.http2 import OK, frame, grpc_frame

from tritonsmith_client import ResponseError
from tritonsmith_client._http2.connection import Http2Connection, Http2Reply
from tritonsmith_client._http2.frames import PREFACE
from tritonsmith_client._http2.hpack import Decoder, Encoder

REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/inference.GRPCInferenceService/ModelInfer"),
    (":authority", "localhost:8001"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
# Characters of each length of Huffman code; header names are few, so that tables are used.
TEXT = st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=40)
NAMES = st.sampled_from(["grpc-status", "grpc-message", ":status", "x-a", "x-b", "content-type"])
FIELDS = st.lists(st.tuples(NAMES, TEXT), max_size=6)


@given(
    st.lists(st.tuples(FIELDS, st.booleans(), st.sampled_from([0, 100, 1000, 4096])), max_size=8)
)
def test_what_hpack_writes_is_read(blocks: list[tuple[list[tuple[str, str]], bool, int]]) -> None:
    theirs, ours = hpack.Encoder(), Decoder()
    for fields, huffman, table in blocks:
        theirs.header_table_size = table
        raw = [(name.encode(), value.encode("latin-1")) for name, value in fields]
        assert list(ours.decode(theirs.encode(raw, huffman=huffman))) == fields


@given(st.lists(st.tuples(FIELDS, FIELDS), max_size=8), st.sampled_from([0, 60, 500, 4096, 65536]))
def test_what_is_written_hpack_reads(blocks: list[Any], limit: int) -> None:
    ours, theirs = Encoder(limit), hpack.Decoder()
    theirs.max_allowed_table_size = min(limit, 4096)
    for fields, others in blocks:
        for _ in range(2):
            block = ours.encode(tuple(fields), others)
            read = [
                (bytes(name).decode(), bytes(value).decode("latin-1"))
                for name, value in theirs.decode(block, raw=True)
            ]
            assert read == fields + others


@given(st.binary(max_size=200))
def test_noise_is_no_header_block(noise: bytes) -> None:
    """Read as something or refused; nothing else happens."""
    with contextlib.suppress(ResponseError):
        Decoder().decode(noise)


def test_the_examples_of_the_standard() -> None:
    """RFC 7541 C.6: three responses with Huffman code, in a table of 256 bytes."""
    decoder = Decoder()
    decoder.decode(bytes.fromhex("3fe101"))
    for block, first in (
        (
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff"
            "6e919d29ad171863c78f0b97c8e9ae82ae43d3",
            (":status", "302"),
        ),
        ("4883640effc1c0bf", (":status", "307")),
    ):
        fields = decoder.decode(bytes.fromhex(block))
        assert fields[0] == first
        assert dict(fields)["location"] == "https://www.example.com"


def test_the_same_block_may_mean_something_else_later() -> None:
    """An index counts from the entry that came last."""
    decoder = Decoder()
    for name in ("x-a", "x-b", "x-c"):
        decoder.decode(b"\x40\x03" + name.encode() + b"\x011")
        assert decoder.decode(b"\xbe") == ((name, "1"),)
        assert decoder.decode(b"\xbe") == ((name, "1"),)


def started() -> Http2Connection:
    """A connection on which a call waits for its reply."""
    http2 = Http2Connection()
    http2.take()
    http2.buffer()[:9] = frame(4, 0, 0)
    http2.received(9)
    http2.start((tuple(REQUEST), (), [b"\0\0\0\0\1x"]))
    http2.take()
    return http2


def feed(http2: Http2Connection, data: bytes, cuts: list[int]) -> Http2Reply | None:
    at = 0
    over = False
    for cut in [*cuts, *[65536] * (len(data) // 256 + 2)]:
        while at < len(data):
            room = http2.buffer()
            piece = data[at : at + min(cut, len(room))]
            room[: len(piece)] = piece
            at += len(piece)
            over = http2.received(len(piece))
            break
    return http2.reply() if over else None


def padded(data: bytes, padding: int) -> bytes:
    return bytes((padding,)) + data + bytes(padding)


@settings(max_examples=300)
@given(
    message=st.binary(max_size=300) | st.integers(16_000, 70_000).map(bytes),
    sizes=st.lists(st.integers(1, 20_000), max_size=6),
    paddings=st.lists(st.none() | st.integers(0, 255), min_size=9, max_size=9),
    breaks=st.integers(0, 60),
    priority=st.booleans(),
    huffman=st.booleans(),
    between=st.lists(
        st.sampled_from(
            [
                frame(6, 0, 0, b"12345678"),  # PING
                frame(8, 0, 0, b"\0\0\0\7"),  # WINDOW_UPDATE
                frame(8, 0, 1, b"\0\0\0\7"),
                frame(4, 0, 0, b"\0\4\0\1\0\0"),  # SETTINGS
                frame(2, 0, 1, bytes(5)),  # PRIORITY
                frame(0x42, 9, 1, b"what?"),  # of an extension
            ]
        ),
        min_size=4,
        max_size=4,
    ),
    cuts=st.lists(st.integers(1, 400), max_size=50),
)
def test_a_reply_in_any_frames_and_any_cut(
    message: bytes,
    sizes: list[int],
    paddings: list[int | None],
    breaks: int,
    priority: bool,
    huffman: bool,
    between: list[bytes],
    cuts: list[int],
) -> None:
    encoder = hpack.Encoder()
    block = encoder.encode(OK, huffman=huffman)
    head = (bytes(5) if priority else b"") + block[:breaks]
    ends = len(block) <= breaks
    data = [between[0]]
    if paddings[0] is None:
        data.append(frame(1, 4 * ends | 0x20 * priority, 1, head))
    else:
        data.append(frame(1, 4 * ends | 0x20 * priority | 8, 1, padded(head, paddings[0])))
    if not ends:
        data.append(frame(9, 4, 1, block[breaks:]))
    data.append(between[1])
    rest = grpc_frame(message)
    for size, padding in zip([*sizes, 70_005], paddings[1:], strict=False):
        piece, rest = rest[:size], rest[size:]
        if padding is None:
            data.append(frame(0, 0, 1, piece))
        else:
            data.append(frame(0, 8, 1, padded(piece, padding)))
    data += [between[2], frame(1, 5, 1, encoder.encode([("grpc-status", "0")])), between[3]]
    http2 = started()
    reply = feed(http2, b"".join(data), cuts)
    assert reply is not None
    assert reply.message.content is not None
    assert bytes(reply.message.content) == message
    assert reply.trailers == {"grpc-status": "0"}
    assert http2.keep_alive
    sent = b"".join(http2.take())
    assert sent.count(frame(6, 1, 0, b"12345678")) == between.count(frame(6, 0, 0, b"12345678"))


@given(st.binary(max_size=300), st.lists(st.integers(1, 50), max_size=9))
def test_noise_is_no_reply(noise: bytes, cuts: list[int]) -> None:
    """Refused, or waited on for more; never a message."""
    http2 = started()
    try:
        reply = feed(http2, noise, cuts)
    except ResponseError:
        return
    assert reply is None or reply.message.content is None


@given(
    sizes=st.lists(st.integers(0, 200_000), min_size=1, max_size=4),
    window=st.integers(0, 200_000),
    frame_size=st.sampled_from([16384, 20_000, 1 << 20]),
    most=st.sampled_from([1, 10_000, 1 << 31]),
)
def test_a_strict_server_reads_what_is_sent(
    sizes: list[int], window: int, frame_size: int, most: int
) -> None:
    """The h2 library raises where a frame or a window is exceeded, or a header is out of order."""
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.local_settings = h2.settings.Settings(
        client=False,
        initial_values={
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window,
            h2.settings.SettingCodes.MAX_FRAME_SIZE: frame_size,
        },
    )
    server.max_inbound_frame_size = frame_size  # it would change that later only
    server.initiate_connection()
    http2 = Http2Connection()
    for size in sizes:
        body, got = bytes(range(256)) * (size // 256) + bytes(size % 256), b""
        while not http2.ready:
            exchange(http2, server)
        http2.start((tuple(REQUEST), (("x-token", "s3cret"),), [b"\0", body]))
        ended = False
        for _ in range(size // max(1, min(most, frame_size)) + 10_000):
            for event in exchange(http2, server, most):
                if isinstance(event, h2.events.RequestReceived):
                    sent = [(name.decode(), value.decode()) for name, value in event.headers]
                    assert sent == [*REQUEST, ("x-token", "s3cret")]
                    if window < 16384:
                        server.increment_flow_control_window(1 << 20, event.stream_id)
                elif isinstance(event, h2.events.DataReceived):
                    got += event.data
                    server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    ended = True
                    server.send_headers(event.stream_id, OK)
                    server.send_data(event.stream_id, grpc_frame(b"yes"))
                    server.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
            if ended and http2.over:
                break
        assert got == b"\0" + body
        assert bytes(http2.reply().message.content or b"") == b"yes"


def exchange(
    http2: Http2Connection, server: h2.connection.H2Connection, most: int = 1 << 31
) -> list[Any]:
    """Carries what both have to say to the other."""
    events = server.receive_data(b"".join(http2.take(most)))
    data = server.data_to_send()
    while data:
        room = http2.buffer()
        piece, data = data[: len(room)], data[len(room) :]
        room[: len(piece)] = piece
        http2.received(len(piece))
    return list(events)


def test_the_first_words_are_those_of_the_standard() -> None:
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.initiate_connection()
    (settings_event, *_) = server.receive_data(PREFACE)
    assert isinstance(settings_event, h2.events.RemoteSettingsChanged)
    changed = {int(k): v.new_value for k, v in settings_event.changed_settings.items()}
    assert changed == {2: 0, 4: (1 << 31) - 1, 5: (1 << 24) - 1}


@pytest.mark.parametrize("table", [0, 100, 4096, 65536])
def test_the_servers_header_table(table: int) -> None:
    """Smaller than usual, it is respected from the first block on."""
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.local_settings = h2.settings.Settings(
        client=False, initial_values={h2.settings.SettingCodes.HEADER_TABLE_SIZE: table}
    )
    server.initiate_connection()
    http2 = Http2Connection()
    exchange(http2, server)
    for _ in range(3):
        http2.start((tuple(REQUEST), (), [b"x"]))
        events = exchange(http2, server)
        request = next(e for e in events if isinstance(e, h2.events.RequestReceived))
        assert [(n.decode(), v.decode()) for n, v in request.headers] == REQUEST
        server.send_headers(request.stream_id, [*OK, ("grpc-status", "0")], end_stream=True)
        exchange(http2, server)
