"""HPACK (RFC 7541): HTTP/2's headers, to bytes and back. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from tritonsmith_client.errors import ResponseError

__all__ = ["Decoder", "Encoder", "Field"]

Field = tuple[str, str]

# RFC 7541 appendix A.
_STATIC: tuple[Field, ...] = (
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    *(
        (name, "")
        for name in (
            *("accept-language", "accept-ranges", "accept", "access-control-allow-origin"),
            *("age", "allow", "authorization", "cache-control", "content-disposition"),
            *("content-encoding", "content-language", "content-length", "content-location"),
            *("content-range", "content-type", "cookie", "date", "etag", "expect", "expires"),
            *("from", "host", "if-match", "if-modified-since", "if-none-match", "if-range"),
            *("if-unmodified-since", "last-modified", "link", "location", "max-forwards"),
            *("proxy-authenticate", "proxy-authorization", "range", "referer", "refresh"),
            *("retry-after", "server", "set-cookie", "strict-transport-security"),
            *("transfer-encoding", "user-agent", "vary", "via", "www-authenticate"),
        )
    ),
)
# RFC 7541 appendix B: the symbols by the length of their codes. The code is canonical, so that
# the codes follow from this.
_SYMBOLS = {
    5: "303132616365696f7374",
    6: "20252d2e2f333435363738393d415f62646667686c6d6e707275",
    7: "3a42434445464748494a4b4c4d4e4f5051525354555657596a6b71767778797a",
    8: "262a2c3b585a",
    10: "212228293f",
    11: "272b7c",
    12: "233e",
    13: "0024405b5d7e",
    14: "5e7d",
    15: "3c607b",
    19: "5cc3d0",
    20: "808283a2b8c2e0e2",
    21: "99a1a7acb0b1b3d1d8d9e3e5e6",
    22: "8184858688929a9ca0a3a4a9aaadb2b5b9babbbdbec4c6e4e8e9",
    23: "0187898a8b8c8d8f93959697989b9d9ea5a6a8aeafb4b6b7bcbfc5e7ef",
    24: "098e9091949fabced7e1eced",
    25: "c7cfeaeb",
    26: "c0c1c8c9cacdd2d5dadbeef0f2f3ff",
    27: "cbccd3d4d6dddedff1f4f5f6f7f8fafbfcfdfe",
    28: "020304050607080b0c0e0f1011121314151718191a1b1c1d1e1f7fdcf9",
    30: "0a0d16",
}
_LONGEST_CODE = 30
_TABLE_SIZE = 4096  # bytes, as long as nothing else was agreed on
_ENTRY_SIZE = 32  # what an entry counts for besides its text
_LIST_LIMIT = 65536  # bytes of all the headers of one response


def _codes() -> dict[tuple[int, int], int]:
    """Return the symbol of each code, by its length and value."""
    found = {}
    code = length = 0
    for bits, symbols in _SYMBOLS.items():
        code <<= bits - length
        length = bits
        for symbol in bytes.fromhex(symbols):
            found[bits, code] = symbol
            code += 1
    return found


class Decoder:
    """Reads the header blocks of one connection, in their order."""

    def __init__(self) -> None:
        self._entries: deque[Field] = deque()
        self._size = 0
        self._limit = _TABLE_SIZE
        self._known: dict[bytes, tuple[Field, ...]] = {}

    def decode(self, block: bytes) -> tuple[Field, ...]:
        """Return the fields of a block. Raises ResponseError for what is no such block."""
        known = self._known.get(block)
        if known is not None:
            return known
        before = self._known
        try:
            fields = tuple(self._fields(block))
        except (IndexError, UnicodeDecodeError) as exc:
            raise ResponseError("the reply's HTTP/2 headers are malformed") from exc
        if self._known is before and len(before) < 64:  # the same block means the same again
            before[block] = fields
        return fields

    def _fields(self, block: bytes) -> Iterable[Field]:
        at = total = 0
        while at < len(block):
            first = block[at]
            if first & 0x80:
                index, at = _integer(block, at, 7)
                field = self._entry(index)
            elif first & 0x60 == 0x20:
                size, at = _integer(block, at, 5)
                if size > _TABLE_SIZE or total:
                    raise IndexError
                self._resize(size)
                continue
            else:
                index, at = _integer(block, at, 6 if first & 0x40 else 4)
                name = self._entry(index)[0] if index else ""
                if not index:
                    name, at = _string(block, at)
                value, at = _string(block, at)
                field = (name, value)
                if first & 0x40:
                    self._add(field)
            total += len(field[0]) + len(field[1]) + _ENTRY_SIZE
            if total > _LIST_LIMIT:
                raise ResponseError(f"the reply has more than {_LIST_LIMIT} bytes of headers")
            yield field

    def _entry(self, index: int) -> Field:
        if index == 0:
            raise IndexError
        if index <= len(_STATIC):
            return _STATIC[index - 1]
        return self._entries[index - len(_STATIC) - 1]

    def _add(self, field: Field) -> None:
        self._entries.appendleft(field)
        self._size += _size(field)
        self._resize(self._limit)

    def _resize(self, limit: int) -> None:
        self._limit = limit
        while self._size > limit:
            self._size -= _size(self._entries.pop())
        self._known = {}


class Encoder:
    """Writes the header blocks of one connection.

    It fills the peer's table once and never overwrites an entry, so that the same headers become
    the same few bytes from then on.

    Args:
        limit: what the peer allows, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._room = min(limit, _TABLE_SIZE)
        self._start = b"" if limit >= _TABLE_SIZE else _encoded(limit, 5, 0x20)
        self._places: dict[Field, int] = {}  # counted from the first one
        self._known: dict[tuple[Field, ...], bytes] = {}

    def encode(self, fields: tuple[Field, ...], others: Iterable[Field] = ()) -> bytes:
        """Return a block.

        Args: others: fields that will hardly come again, or should not be kept.
        """
        block = self._known.get(fields)
        if block is None:
            room = self._room
            block = self._block(fields)
            if self._room != room or len(self._known) > 64:
                self._known.clear()  # the places in the table have moved
            else:
                self._known[fields] = block
        start, self._start = self._start, b""
        # Proxies, too, shall not keep the others.
        return b"".join((start, block, *(_literal(field, 4, 0x10) for field in others)))

    def _block(self, fields: Iterable[Field]) -> bytes:
        pieces = []
        for field in fields:
            if field in _STATIC_PLACES:
                pieces.append(_encoded(_STATIC_PLACES[field], 7, 0x80))
            elif field in self._places:
                index = len(_STATIC) + len(self._places) - self._places[field]
                pieces.append(_encoded(index, 7, 0x80))
            elif _size(field) <= self._room:
                pieces.append(_literal(field, 6, 0x40))
                self._places[field] = len(self._places)
                self._room -= _size(field)
            else:
                pieces.append(_literal(field, 4, 0))
        return b"".join(pieces)


def _size(field: Field) -> int:
    return len(field[0]) + len(field[1]) + _ENTRY_SIZE


def _literal(field: Field, bits: int, flags: int) -> bytes:
    name, value = field
    index = _STATIC_NAMES.get(name, 0)
    head = _encoded(index, bits, flags)
    return (head if index else head + _text(name)) + _text(value)


def _text(text: str) -> bytes:
    data = text.encode("latin-1")
    return _encoded(len(data), 7, 0) + data


def _encoded(number: int, bits: int, flags: int) -> bytes:
    """Return an integer whose first byte shares its bits with flags (RFC 7541 5.1)."""
    most = (1 << bits) - 1
    if number < most:
        return bytes((flags | number,))
    out = bytearray((flags | most,))
    number -= most
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    number = block[at] & most
    at += 1
    if number < most:
        return number, at
    for shift in range(0, 28, 7):
        byte = block[at]
        at += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise IndexError


def _string(block: bytes, at: int) -> tuple[str, int]:
    huffman = block[at] & 0x80
    length, at = _integer(block, at, 7)
    end = at + length
    if end > len(block):
        raise IndexError
    data = block[at:end]
    return (_unpacked(data) if huffman else data).decode("latin-1"), end


def _unpacked(data: bytes) -> bytes:
    """Text in the Huffman code. Raises IndexError for what is none."""
    out = bytearray()
    code = length = 0
    for byte in data:
        for shift in range(7, -1, -1):
            code = code << 1 | byte >> shift & 1
            length += 1
            symbol = _CODES.get((length, code))
            if symbol is not None:
                out.append(symbol)
                code = length = 0
            elif length >= _LONGEST_CODE:
                raise IndexError
    if length > 7 or code != (1 << length) - 1:  # padding is the start of the code of all ones
        raise IndexError
    return bytes(out)


_CODES = _codes()
_STATIC_PLACES = {field: place for place, field in enumerate(_STATIC, 1)}
_STATIC_NAMES = {field[0]: place for place, field in reversed(list(enumerate(_STATIC, 1)))}
