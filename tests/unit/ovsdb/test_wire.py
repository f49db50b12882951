# SPDX-License-Identifier: Apache-2.0
"""The splitter: any chunking gives the same messages, in linear time, within limits."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.ovsdb import wire
from heliograph.ovsdb.errors import WireError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(1 << 62), 1 << 62), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)
MESSAGES = st.lists(st.dictionaries(TEXT, JSON, max_size=3), max_size=4)


def split(pieces: list[bytes]) -> list[Any]:
    splitter = wire.Splitter()
    return [message for piece in pieces for message in splitter.feed(piece)]


@given(messages=MESSAGES, cuts=st.lists(st.integers(0, 300)), ascii_only=st.booleans())
def test_any_chunking_gives_the_messages(
    messages: list[Any], cuts: list[int], ascii_only: bool
) -> None:
    stream = "".join(json.dumps(message, ensure_ascii=ascii_only) for message in messages).encode()
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(bounds)]
    assert split(pieces) == messages
    assert split([stream[i : i + 1] for i in range(len(stream))]) == messages


@given(message=st.dictionaries(TEXT, JSON))
def test_encode_is_read_back(message: Any) -> None:
    assert split([wire.encode(message)]) == [message]


def test_whitespace_between_messages() -> None:
    assert split([b' \n{"a":1}\r\n\t{"b":2} ']) == [{"a": 1}, {"b": 2}]


def test_whole_floats_are_integers() -> None:
    (message,) = split([b'{"a":[1.0,1e3,1.5,-0.0]}'])
    assert message == {"a": [1, 1000, 1.5, 0]}
    assert [type(item) for item in message["a"]] == [int, int, float, int]


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"x",
        b'{"a":}',
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\u0000"}',
        b'{"a":"\n"}',
        b'{"a":1,}',
        b"{" * 300,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 201 + b"1" + b"}" * 201,
        b'{"a":' + b"9" * 5000 + b"}",
        b"}",
    ],
)
def test_what_is_not_a_message_is_refused(text: bytes) -> None:
    with pytest.raises(WireError):
        split([text])


def test_surrogate_pairs_are_one_character() -> None:
    assert split([b'{"a":"\\ud83d\\ude00"}']) == [{"a": "\U0001f600"}]


def test_escaped_backslash_before_u_is_no_escape() -> None:
    assert split([rb'{"a":"\\u0000"}']) == [{"a": "\\u0000"}]


def test_a_message_must_not_grow_without_end() -> None:
    splitter = wire.Splitter(max_message=1000)
    assert list(splitter.feed(b'{"a":"' + b"x" * 900)) == []
    with pytest.raises(WireError, match="longer than 1000"):
        list(splitter.feed(b"x" * 900))


def seconds_to_split(stream: bytes, piece: int) -> float:
    start = time.process_time()
    assert len(split([stream[i : i + piece] for i in range(0, len(stream), piece)])) == 1
    return time.process_time() - start


@pytest.mark.parametrize("shape", ["one string", "many objects"])
def test_time_is_linear_in_the_size(shape: str) -> None:
    def message(size: int) -> bytes:
        if shape == "one string":
            return wire.encode({"a": "x\\" * (size // 3)})
        return wire.encode({"a": [{"b": "c", "d": {}}] * (size // 18)})

    small, large = message(250_000), message(2_000_000)
    # Eight times the size; quadratic time would be 64 times. Pieces are small on purpose.
    fast = min(seconds_to_split(small, 1000) for _ in range(3))
    tries = (seconds_to_split(large, 1000) for _ in range(5))  # a busy processor is slower
    assert any(spent < 30 * fast + 0.05 for spent in tries)
