# SPDX-License-Identifier: Apache-2.0
"""Reading bytes with a bound: too few are an error of OpenFlow, never one of Python."""

from collections.abc import Iterator
from struct import Struct
from typing import Any

from heliograph.openflow.errors import Code, OpenFlowError

_PROPERTY = Struct("!HH")


class Reader:
    """`short` is the error for bytes that are not there."""

    __slots__ = ("data", "end", "pos", "short")

    def __init__(self, data: bytes, short: Code = Code.OFPBRC_BAD_LEN) -> None:
        self.data, self.pos, self.end, self.short = data, 0, len(data), short

    def __len__(self) -> int:
        return self.end - self.pos

    def unpack(self, form: Struct) -> tuple[Any, ...]:
        pos = self.pos
        if pos + form.size > self.end:
            raise OpenFlowError(self.short, f"{form.size} bytes wanted, {self.end - pos} left")
        self.pos = pos + form.size
        return form.unpack_from(self.data, pos)

    def take(self, count: int) -> bytes:
        pos = self.pos
        if not 0 <= count <= self.end - pos:
            raise OpenFlowError(self.short, f"{count} bytes wanted, {self.end - pos} left")
        self.pos = pos + count
        return self.data[pos : pos + count]

    def rest(self) -> bytes:
        return self.take(self.end - self.pos)

    def finish(self) -> None:
        if self.pos != self.end:
            raise OpenFlowError(self.short, f"{self.end - self.pos} bytes too many")


def properties(reader: Reader) -> Iterator[tuple[int, Reader]]:
    """What is left, as numbered values padded to eight bytes; after the last it may be missing."""
    while len(reader):
        kind, length = reader.unpack(_PROPERTY)
        if length < _PROPERTY.size:
            raise OpenFlowError(Code.OFPBPC_BAD_LEN, f"property of {length} bytes")
        yield kind, Reader(reader.take(length - _PROPERTY.size), Code.OFPBPC_BAD_LEN)
        reader.take(min(-length % 8, len(reader)))


def padded(data: bytes) -> bytes:
    """With zeros up to a multiple of eight."""
    return data + bytes(-len(data) % 8)


def text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def fixed(string: str, size: int) -> bytes:
    """A string in a field of a fixed size, with at least one zero after it."""
    raw = string.encode()[: size - 1].decode("utf-8", "ignore").encode()
    return raw.ljust(size, b"\0")
