# SPDX-License-Identifier: Apache-2.0
"""JSON-RPC 1.0 on a byte stream, without I/O (RFC 7047 section 4).

Messages are JSON objects one after the other, with nothing between them, and a read may end
anywhere. The splitter only looks for the end of an object: one possessive regular expression
runs from brace to brace, and a position is never looked at twice, so a message of several
megabytes in small pieces costs linear time. The parsing itself is the standard library's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from heliograph.ovsdb.errors import Json, WireError

MAX_MESSAGE = 32 << 20  # bytes; the Open_vSwitch database of 1,000 ports is a fiftieth of it
MAX_DEPTH = 200  # nested objects; arrays are bounded by the interpreter's recursion limit

_BETWEEN_BRACES = re.compile(rb'(?:[^"{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_IN_STRING = re.compile(rb"(?:[^\"\\]++|\\.)*+", re.DOTALL)
_SPACE = re.compile(rb"[ \t\r\n]*+")
_SUSPECT_ESCAPE = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")


class Splitter:
    """Cuts a byte stream into JSON-RPC messages."""

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._depth = 0
        self._in_string = False
        self._max = max_message

    def feed(self, data: bytes) -> Iterator[dict[str, Json]]:
        """Yields every message that `data` completes.

        Raises WireError when the stream cannot be followed any further.
        """
        self._buffer += data
        while (end := self._find_end()) is not None:
            text = bytes(self._buffer[:end])
            del self._buffer[:end]
            self._scanned = 0
            yield decode(text)
        if len(self._buffer) > self._max:
            raise WireError(f"a message is longer than {self._max} bytes")

    def _find_end(self) -> int | None:
        buffer = self._buffer
        position = self._scanned
        if self._depth == 0:
            position = _end(_SPACE, buffer, 0)
            del buffer[:position]
            position = 0
            if buffer and buffer[0] != ord("{"):
                raise WireError("a message must be a JSON object")
        while position < len(buffer):
            if self._in_string:
                position = _end(_IN_STRING, buffer, position)
                if position >= len(buffer) or buffer[position] != ord('"'):
                    break  # the string, or its last escape, goes on in the next piece
                self._in_string = False
                position += 1
            position = _end(_BETWEEN_BRACES, buffer, position)
            if position >= len(buffer):
                break
            char = buffer[position]
            position += 1
            if char == ord('"'):
                self._in_string = True
            elif char == ord("{"):
                self._depth += 1
                if self._depth > MAX_DEPTH:
                    raise WireError(f"a message nests deeper than {MAX_DEPTH} objects")
            else:
                self._depth -= 1
                if self._depth == 0:
                    return position
        self._scanned = position
        return None


def _end(pattern: re.Pattern[bytes], buffer: bytearray, position: int) -> int:
    match = pattern.match(buffer, position)
    assert match is not None  # every pattern here also matches nothing
    return match.end()


def decode(text: bytes) -> dict[str, Json]:
    """One message as a dict. Raises WireError if it is not a JSON object in UTF-8."""
    try:
        message = _DECODER.decode(text.decode())
    except RecursionError:
        raise WireError("a message is nested too deeply") from None
    except ValueError as fault:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise WireError(f"not JSON: {fault}") from None
    if not isinstance(message, dict):
        raise WireError("a message must be a JSON object")
    if _SUSPECT_ESCAPE.search(text):
        _check_strings(message)
    return message


def encode(message: Json) -> bytes:
    """The JSON text of `message` in UTF-8, without spaces."""
    try:
        return _ENCODER.encode(message).encode()
    except RecursionError:
        raise WireError("a message is nested too deeply") from None


def _integral(text: str) -> int | float:
    # Open vSwitch reads 1.0 and 1e3 as integers, so its clients may write them (RFC 7047
    # section 3.1 leaves numbers to RFC 4627).
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is out of range")
    if number.is_integer() and abs(number) < 1 << 53:
        return int(number)
    return number


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_float=_integral, parse_constant=_refuse)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)


def _check_strings(value: Any) -> None:
    # RFC 7047 section 3.1: a <string> is UTF-8 without NUL; a lone surrogate could be neither
    # stored nor sent to another client.
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, str) and ("\0" in item or not _is_unicode(item)):
            raise WireError("a string has a NUL or half of a surrogate pair")


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)
