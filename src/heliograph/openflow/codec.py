# SPDX-License-Identifier: Apache-2.0
"""Bytes to messages and back.

    frames = Framer()
    frames.feed(received)
    while frame := frames.next():
        try:
            message = decode(frame)
        except OpenFlowError as error:
            send(refuse(error, frame))

What `decode` raises is answered and the session goes on; what `Framer` raises ends the connection,
for where the next message begins is not known. `stream` gives a multipart reply message by message
while its entries come from an iterator, so that a long dump need not be in memory at once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Any

from heliograph.openflow import messages as m
from heliograph.openflow import (
    wire_flow_stats,
    wire_flows,
    wire_groups,
    wire_monitors,
    wire_packets,
    wire_ports,
    wire_session,
    wire_tables,
)
from heliograph.openflow.buffer import Reader
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import FlowMod, GroupMod, PacketOut
from heliograph.openflow.kinds import HEADER, TYPES, identify, preamble
from heliograph.openflow.message import Message

_MOST = 0xFFFF  # the length of a message is said in 16 bits
_QUOTED = _MOST - 64  # bytes of the offending message in an error: all, if its header leaves room
_BUNDLE, _BUNDLE_ADD = Struct("!IHH"), Struct("!I2xH")
_HELLO = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """One message as it came: header, body and all."""

    version: int
    type: int
    xid: int
    data: bytes


class Framer:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._pos = 0

    def feed(self, data: bytes) -> None:
        del self._data[: self._pos]
        self._pos = 0
        self._data += data

    def next(self) -> Frame | None:
        """The next message, or None while it is not there whole."""
        left = len(self._data) - self._pos
        if left < HEADER.size:
            return None
        version, type_, length, xid = HEADER.unpack_from(self._data, self._pos)
        if length < HEADER.size:
            raise OpenFlowError(Code.OFPBRC_BAD_LEN, f"message of {length} bytes")
        if left < length:
            return None
        start, self._pos = self._pos, self._pos + length
        return Frame(version, type_, xid, bytes(self._data[start : self._pos]))


Decoder = Callable[[Reader, int], Message]


def decode(frame: Frame, *, table_ids: bool = False) -> Message:
    """`table_ids`: this connection asked for messages.FlowModTableId."""
    reader = Reader(frame.data)
    reader.pos = HEADER.size
    if frame.type == _HELLO:
        # Of any version: it says which ones may be spoken.
        return _DECODERS["HELLO"](reader, frame.version)
    if frame.version not in TYPES:
        raise OpenFlowError(Code.OFPBRC_BAD_VERSION, f"version {frame.version:#x}")
    kind, more = identify(frame.version, frame.type, reader)
    if more and kind.startswith("STATS_REQUEST"):
        raise OpenFlowError(
            Code.OFPBRC_MULTIPART_BUFFER_OVERFLOW, "a request in more than one message"
        )
    if table_ids and f"{kind}{wire_flows.TABLE_IDS}" in _DECODERS and frame.version == 1:
        kind += wire_flows.TABLE_IDS
    message = _DECODERS[kind](reader, frame.version)
    reader.finish()
    return message


def stream(message: Message, version: int, xid: int = 0) -> Iterator[bytes]:
    """The message, or the messages that make up a multipart reply."""
    kind, parts = _ENCODERS[type(message)](message, version)
    if kind.startswith("STATS_REPLY"):
        yield from _multipart(kind, parts, version, xid)
    else:
        yield _frame(kind, b"".join(parts), version, xid)


def encode(message: Message, version: int, xid: int = 0) -> bytes:
    return b"".join(stream(message, version, xid))


def _frame(kind: str, body: bytes, version: int, xid: int, *, more: bool = False) -> bytes:
    type_, head = preamble(kind, version, more=more)
    length = HEADER.size + len(head) + len(body)
    if length > _MOST:
        raise ValueError(f"{kind} of {length} bytes is longer than a message may be")
    return HEADER.pack(version, type_, length, xid) + head + body


def _multipart(kind: str, entries: Iterable[bytes], version: int, xid: int) -> Iterator[bytes]:
    room = _MOST - HEADER.size - len(preamble(kind, version)[1])
    waiting: list[bytes] = []
    size = 0
    for entry in entries:
        if size + len(entry) > room and waiting:
            yield _frame(kind, b"".join(waiting), version, xid, more=True)
            waiting, size = [], 0
        waiting.append(entry)
        size += len(entry)
    yield _frame(kind, b"".join(waiting), version, xid)


def error_message(error: OpenFlowError, version: int, offending: bytes) -> m.Error:
    vendor, kind, code = error.code.number(version)
    return m.Error(kind, code, vendor, offending[:_QUOTED])


def refuse(error: OpenFlowError, frame: Frame, version: int | None = None) -> bytes:
    """The answer to a message that could not be read or done; `version` is the session's."""
    spoken = frame.version if version is None else version
    if spoken not in TYPES:
        spoken = 1
    return encode(error_message(error, spoken, frame.data), spoken, frame.xid)


def _bundle_control(reader: Reader, _version: int) -> m.BundleControl:
    bundle_id, action, flags = reader.unpack(_BUNDLE)
    if action not in set(m.BundleAction):
        raise OpenFlowError(Code.OFPBFC_BAD_TYPE, f"no request of bundles is {action}")
    if flags & ~3:
        raise OpenFlowError(Code.OFPBFC_BAD_FLAGS, f"no flags are {flags & ~3:#x}")
    reader.rest()  # properties, of which none is defined but experimenters'
    return m.BundleControl(bundle_id, m.BundleAction(action), m.BundleFlags(flags))


def _bundle_add(reader: Reader, version: int) -> m.BundleAdd:
    bundle_id, flags = reader.unpack(_BUNDLE_ADD)
    if flags & ~3:
        raise OpenFlowError(Code.OFPBFC_BAD_FLAGS, f"no flags are {flags & ~3:#x}")
    rest = reader.rest()
    if len(rest) < HEADER.size:
        raise OpenFlowError(Code.OFPBFC_MSG_BAD_LEN, "no message to add")
    inner, type_, length, xid = HEADER.unpack_from(rest)
    if inner != version:
        raise OpenFlowError(Code.OFPBFC_MSG_UNSUP, f"a message of version {inner:#x}")
    if not HEADER.size <= length <= len(rest):
        raise OpenFlowError(Code.OFPBFC_MSG_BAD_LEN, f"message of {length} bytes to add")
    outer_xid = int.from_bytes(reader.data[4:8], "big")
    if xid != outer_xid:
        raise OpenFlowError(Code.OFPBFC_MSG_BAD_XID, f"xid {xid:#x} within {outer_xid:#x}")
    if TYPES[version].get(type_) not in {"FLOW_MOD", "GROUP_MOD", "PORT_MOD", "PACKET_OUT"}:
        raise OpenFlowError(Code.OFPBFC_MSG_UNSUP, f"messages of type {type_} in a bundle")
    raw = rest[:length]
    message = decode(Frame(inner, type_, xid, raw))
    assert isinstance(message, FlowMod | GroupMod | m.PortMod | PacketOut)
    return m.BundleAdd(bundle_id, m.BundleFlags(flags), message, xid, raw)


def _bundle_kind(name: str, version: int) -> str:
    return f"ONF:{name}" if version == 4 else name


def _encode_bundle_add(add: m.BundleAdd, version: int) -> tuple[str, list[bytes]]:
    raw = add.raw or encode(add.message, version, add.xid)
    return _bundle_kind("BUNDLE_ADD", version), [_BUNDLE_ADD.pack(add.bundle_id, add.flags), raw]


_WIRES = (
    wire_session,
    wire_ports,
    wire_flows,
    wire_flow_stats,
    wire_groups,
    wire_packets,
    wire_tables,
    wire_monitors,
)
_DECODERS: Mapping[str, Decoder] = {
    **{kind: decoder for wire in _WIRES for kind, decoder in wire.DECODERS.items()},
    "BUNDLE_CONTROL": _bundle_control,
    "ONF:BUNDLE_CONTROL": _bundle_control,
    "BUNDLE_ADD": _bundle_add,
    "ONF:BUNDLE_ADD": _bundle_add,
}
_ENCODERS: Mapping[type[Any], Callable[[Any, int], tuple[str, Iterable[bytes]]]] = {
    **{kind: encoder for wire in _WIRES for kind, encoder in wire.ENCODERS.items()},
    m.BundleControl: lambda a, v: (
        _bundle_kind("BUNDLE_CONTROL", v),
        [_BUNDLE.pack(a.bundle_id, a.action, a.flags)],
    ),
    m.BundleAdd: _encode_bundle_add,
}
