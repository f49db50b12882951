# SPDX-License-Identifier: Apache-2.0
"""On the wire: packets to controllers and from them."""

from collections.abc import Callable, Mapping
from struct import Struct, pack
from typing import Any

from heliograph.openflow import oxm
from heliograph.openflow.action_decoder import decode_actions
from heliograph.openflow.action_encoder import encode_actions
from heliograph.openflow.actions import NO_BUFFER, Port
from heliograph.openflow.buffer import Reader, padded, properties
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import PacketIn, PacketInFormat, PacketInReason, PacketOut
from heliograph.openflow.match import Match
from heliograph.openflow.message import Message
from heliograph.openflow.ports import from_wide, to_wide
from heliograph.openflow.wire_flows import read_nx_match

Encoded = tuple[str, list[bytes]]
_OUT10, _OUT13, _OUT15 = Struct("!IHH"), Struct("!IIH6x"), Struct("!IH2x")
_IN10, _IN13, _IN_NX = Struct("!IHHBx"), Struct("!IHBBQ"), Struct("!IHBBQH6x")
_TLV = Struct("!HH")
_PIPELINE = frozenset({"metadata", "packet_type"})
_NO_COOKIE = 0xFFFF_FFFF_FFFF_FFFF
_PACKET, _FULL_LEN, _BUFFER, _TABLE, _COOKIE, _REASON, _METADATA, _USERDATA = range(8)


def _packet_out(reader: Reader, version: int) -> PacketOut:
    metadata = Match()
    if version == 1:
        buffer, port, length = reader.unpack(_OUT10)
    elif version < 6:
        buffer, port, length = reader.unpack(_OUT13)
        port = from_wide(port)
    else:
        buffer, length = reader.unpack(_OUT15)
        fields = {name: (value, mask) for name, value, mask in oxm.read_match(reader)}
        if "in_port" not in fields:
            raise OpenFlowError(Code.OFPBRC_BAD_PORT, "a packet from no port that is named")
        port = fields.pop("in_port")[0]
        metadata = Match.of(fields)
        for name in fields:
            if name not in _PIPELINE and not name.startswith(("reg", "tun_")):
                raise OpenFlowError(Code.OFPBRC_PIPELINE_FIELDS_ONLY, f"{name} comes of the packet")
    if Port.MAX <= port < Port.NONE and port not in {Port.LOCAL, Port.CONTROLLER}:
        raise OpenFlowError(Code.OFPBRC_BAD_PORT, f"a packet from port {port:#x}")
    if length > len(reader):
        raise OpenFlowError(Code.OFPBRC_BAD_LEN, f"{length} bytes of actions")
    return PacketOut(
        actions=decode_actions(reader.take(length), version),
        data=reader.rest(),
        in_port=port,
        buffer_id=None if buffer == NO_BUFFER else buffer,
        metadata=metadata,
    )


def _encode_out(out: PacketOut, version: int) -> Encoded:
    buffer = NO_BUFFER if out.buffer_id is None else out.buffer_id
    actions = encode_actions(out.actions, version)
    if version == 1:
        head = _OUT10.pack(buffer, out.in_port, len(actions))
    elif version < 6:
        head = _OUT13.pack(buffer, to_wide(out.in_port), len(actions))
    else:
        match = Match.of(
            [("in_port", (out.in_port, 0xFFFF)), *((n, (v, m)) for n, v, m in out.metadata)]
        )
        head = _OUT15.pack(buffer, len(actions)) + oxm.encode_match(match, version)
    return "PACKET_OUT", [head, actions, out.data]


def _reason_in(number: int) -> PacketInReason:
    if number > PacketInReason.PACKET_OUT:
        raise OpenFlowError(Code.NXBRC_BAD_REASON, f"no packet comes for reason {number}")
    return PacketInReason(number)


def _reason_out(reason: PacketInReason, version: int) -> PacketInReason:
    """Before 1.4 there was one reason for all kinds of actions."""
    late = reason > PacketInReason.INVALID_TTL
    return PacketInReason.ACTION if late and version < 5 else reason


def _packet_in(reader: Reader, version: int) -> PacketIn:
    if version == 1:
        buffer, total, port, reason = reader.unpack(_IN10)
        return PacketIn(
            data=reader.rest(),
            total_len=total,
            reason=_reason_in(reason),
            match=Match.of({"in_port": (port, 0xFFFF)}),
            buffer_id=None if buffer == NO_BUFFER else buffer,
        )
    buffer, total, reason, table, cookie = reader.unpack(_IN13)
    match = oxm.read_match(reader)
    reader.take(2)
    return PacketIn(
        data=reader.rest(),
        total_len=total,
        reason=_reason_in(reason),
        match=match,
        table_id=table,
        cookie=None if cookie == _NO_COOKIE else cookie,
        buffer_id=None if buffer == NO_BUFFER else buffer,
    )


def _packet_in_nx(reader: Reader, _version: int) -> PacketIn:
    buffer, total, reason, table, cookie, length = reader.unpack(_IN_NX)
    match, _cookie = read_nx_match(reader, length)
    reader.take(2)
    return PacketIn(
        data=reader.rest(),
        total_len=total,
        reason=_reason_in(reason),
        match=match,
        table_id=table,
        cookie=None if cookie == _NO_COOKIE else cookie,
        buffer_id=None if buffer == NO_BUFFER else buffer,
        format=PacketInFormat.NXT_PACKET_IN,
    )


def _packet_in2(reader: Reader, _version: int) -> PacketIn:
    found = {kind: body.rest() for kind, body in properties(reader)}
    if _PACKET not in found:
        raise OpenFlowError(Code.OFPBPC_BAD_LEN, "a packet-in without a packet")
    match, _cookie = oxm.decode_fields(found.get(_METADATA, b""))
    number = {kind: int.from_bytes(body, "big") for kind, body in found.items()}
    return PacketIn(
        data=found[_PACKET],
        total_len=number.get(_FULL_LEN, len(found[_PACKET])),
        reason=_reason_in(found.get(_REASON, b"\1")[0] if found.get(_REASON, b"\1") else 0),
        match=match,
        table_id=found.get(_TABLE, b"\0")[0] if found.get(_TABLE, b"\0") else 0,
        cookie=number.get(_COOKIE),
        buffer_id=number.get(_BUFFER),
        userdata=found.get(_USERDATA),
        format=PacketInFormat.NXT_PACKET_IN2,
    )


def _property(kind: int, body: bytes) -> bytes:
    return padded(_TLV.pack(kind, 4 + len(body)) + body)


def _encode_in2(packet: PacketIn, version: int) -> Encoded:
    parts = [_property(_PACKET, packet.data)]
    if packet.total_len != len(packet.data):
        parts.append(_property(_FULL_LEN, pack("!I", packet.total_len)))
    if packet.buffer_id is not None:
        parts.append(_property(_BUFFER, pack("!I", packet.buffer_id)))
    parts.append(_property(_TABLE, bytes([packet.table_id])))
    if packet.cookie is not None:
        parts.append(_property(_COOKIE, pack("!4xQ", packet.cookie)))
    parts.append(_property(_REASON, bytes([_reason_out(packet.reason, version)])))
    parts.append(_property(_METADATA, oxm.encode_fields(packet.match, version)))
    if packet.userdata is not None:
        parts.append(_property(_USERDATA, packet.userdata))
    return "NX:PACKET_IN2", parts


def _encode_in(packet: PacketIn, version: int) -> Encoded:
    if packet.format == PacketInFormat.NXT_PACKET_IN2:
        return _encode_in2(packet, version)
    buffer = NO_BUFFER if packet.buffer_id is None else packet.buffer_id
    total, reason = min(packet.total_len, 0xFFFF), _reason_out(packet.reason, version)
    cookie = _NO_COOKIE if packet.cookie is None else packet.cookie
    if packet.format == PacketInFormat.NXT_PACKET_IN:
        match = oxm.encode_fields(packet.match, version)
        head = _IN_NX.pack(buffer, total, reason, packet.table_id, cookie, len(match))
        return "NX:PACKET_IN", [head, padded(match), bytes(2), packet.data]
    if version == 1:
        port = (packet.match.get("in_port") or (Port.NONE, 0))[0]
        return "PACKET_IN", [_IN10.pack(buffer, total, port, reason), packet.data]
    head = _IN13.pack(buffer, total, reason, packet.table_id, cookie)
    return "PACKET_IN", [head, oxm.encode_match(packet.match, version), bytes(2), packet.data]


DECODERS: Mapping[str, Callable[[Reader, int], Message]] = {
    "PACKET_OUT": _packet_out,
    "PACKET_IN": _packet_in,
    "NX:PACKET_IN": _packet_in_nx,
    "NX:PACKET_IN2": _packet_in2,
}
ENCODERS: Mapping[type[Any], Callable[[Any, int], Encoded]] = {
    PacketOut: _encode_out,
    PacketIn: _encode_in,
}
