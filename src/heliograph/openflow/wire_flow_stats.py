# SPDX-License-Identifier: Apache-2.0
"""On the wire: what flows there are, and what they add up to."""

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any

from heliograph.openflow import match10, oxm
from heliograph.openflow.action_decoder import decode_actions, decode_instructions
from heliograph.openflow.action_encoder import encode_instructions
from heliograph.openflow.buffer import Reader, padded
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import (
    AggregateReply,
    AggregateRequest,
    FlowFlags,
    FlowStats,
    FlowStatsReply,
    FlowStatsRequest,
)
from heliograph.openflow.message import Message
from heliograph.openflow.oxs import encode_oxs, read_oxs
from heliograph.openflow.ports import from_wide, to_wide
from heliograph.openflow.wire_flows import SECOND, read_nx_match

Encoded = tuple[str, Any]
_REQUEST10, _REQUEST_NX = Struct("!BxH"), Struct("!HHB3x")
_REQUEST13 = Struct("!B3xII4xQQ")
_SUMS = Struct("!QQI4x")
_ENTRY10 = Struct("!IIHHH6xQQQ")
_ENTRY10_HEAD = Struct("!HBx")
_ENTRY_NX = Struct("!HBxIIHHHHHHQQQ")
_ENTRY13 = Struct("!HBxIIHHHHH2xQQQ")
_ENTRY15 = Struct("!H2xBxHHHHHQ")


def _request(make: type[Any], *, nicira: bool) -> Callable[[Reader, int], Message]:
    def decode(reader: Reader, version: int) -> Message:
        message: Message
        if nicira:
            port, length, table = reader.unpack(_REQUEST_NX)
            match, (value, mask) = read_nx_match(reader, length)
            message = make(
                match=match,
                table_id=table,
                out_port=port,
                cookie_value=value,
                cookie_mask=mask,
                nicira=True,
            )
        elif version == 1:
            match = match10.read_match(reader)
            table, port = reader.unpack(_REQUEST10)
            message = make(match=match, table_id=table, out_port=port)
        else:
            table, port, group, value, mask = reader.unpack(_REQUEST13)
            message = make(
                match=oxm.read_match(reader),
                table_id=table,
                out_port=from_wide(port),
                out_group=group,
                cookie_value=value & mask,
                cookie_mask=mask,
            )
        return message

    return decode


def _encode_request(request: FlowStatsRequest, version: int) -> Encoded:
    name = "AGGREGATE" if isinstance(request, AggregateRequest) else "FLOW"
    if request.nicira:
        match = oxm.encode_fields(request.match, 1, (request.cookie_value, request.cookie_mask))
        head = _REQUEST_NX.pack(request.out_port, len(match), request.table_id)
        return f"STATS_REQUEST:NX:{name}", [head, padded(match)]
    if version == 1:
        body = match10.encode_match(request.match)
        return f"STATS_REQUEST:{name}", [body, _REQUEST10.pack(request.table_id, request.out_port)]
    cookies = request.cookie_value, request.cookie_mask
    numbers = request.table_id, to_wide(request.out_port), request.out_group
    match = oxm.encode_match(request.match, version)
    return f"STATS_REQUEST:{name}", [_REQUEST13.pack(*numbers, *cookies), match]


def _age(value: int | None) -> int:
    """Nicira's ages are one higher, so that zero says nothing."""
    return 0 if value is None else min(value + 1, 0xFFFF)


def _encode10(flow: FlowStats) -> bytes:
    actions = encode_instructions(flow.actions, 1, flow.match)
    body = _ENTRY10.pack(
        *divmod(flow.duration_ns, SECOND),
        flow.priority,
        flow.idle_timeout,
        flow.hard_timeout,
        flow.cookie,
        flow.packets,
        flow.bytes,
    )
    size = 4 + match10.MATCH.size + len(body) + len(actions)
    head = _ENTRY10_HEAD.pack(size, flow.table_id)
    return head + match10.encode_match(flow.match) + body + actions


def _encode_nx(flow: FlowStats) -> bytes:
    match = oxm.encode_fields(flow.match, 1)
    body = padded(match) + encode_instructions(flow.actions, 1, flow.match)
    return (
        _ENTRY_NX.pack(
            _ENTRY_NX.size + len(body),
            flow.table_id,
            *divmod(flow.duration_ns, SECOND),
            flow.priority,
            flow.idle_timeout,
            flow.hard_timeout,
            len(match),
            _age(flow.idle_age),
            _age(flow.hard_age),
            flow.cookie,
            flow.packets,
            flow.bytes,
        )
        + body
    )


def _encode13(flow: FlowStats, version: int) -> bytes:
    body = oxm.encode_match(flow.match, version)
    body += encode_instructions(flow.actions, version, flow.match)
    return (
        _ENTRY13.pack(
            _ENTRY13.size + len(body),
            flow.table_id,
            *divmod(flow.duration_ns, SECOND),
            flow.priority,
            flow.idle_timeout,
            flow.hard_timeout,
            flow.flags,
            flow.importance if version >= 5 else 0,
            flow.cookie,
            flow.packets,
            flow.bytes,
        )
        + body
    )


def _encode15(flow: FlowStats) -> bytes:
    body = oxm.encode_match(flow.match, 6)
    body += encode_oxs(flow.duration_ns, flow.idle_age, None, (flow.packets, flow.bytes))
    body += encode_instructions(flow.actions, 6, flow.match)
    return (
        _ENTRY15.pack(
            _ENTRY15.size + len(body),
            flow.table_id,
            flow.priority,
            flow.idle_timeout,
            flow.hard_timeout,
            flow.flags,
            flow.importance,
            flow.cookie,
        )
        + body
    )


def _encode_reply(reply: FlowStatsReply, version: int) -> Encoded:
    if reply.nicira:
        return "STATS_REPLY:NX:FLOW", (_encode_nx(flow) for flow in reply.entries)
    if version == 1:
        return "STATS_REPLY:FLOW", (_encode10(flow) for flow in reply.entries)
    if version >= 6:
        return "STATS_REPLY:FLOW", (_encode15(flow) for flow in reply.entries)
    return "STATS_REPLY:FLOW", (_encode13(flow, version) for flow in reply.entries)


def _entry(reader: Reader, least: int) -> Reader:
    """One of a list of entries that begin with their length."""
    length = int.from_bytes(reader.data[reader.pos : reader.pos + 2], "big")
    if length < least:
        raise OpenFlowError(Code.OFPBRC_BAD_LEN, f"entry of {length} bytes")
    return Reader(reader.take(length))


def _decode10(reader: Reader) -> FlowStats:
    _length, table = reader.unpack(_ENTRY10_HEAD)
    match = match10.read_match(reader)
    seconds, nanos, priority, idle, hard, cookie, packets, octets = reader.unpack(_ENTRY10)
    return FlowStats(
        match=match,
        actions=decode_actions(reader.rest(), 1),
        table_id=table,
        priority=priority,
        cookie=cookie,
        duration_ns=seconds * SECOND + nanos,
        idle_timeout=idle,
        hard_timeout=hard,
        packets=packets,
        bytes=octets,
    )


def _decode_nx(reader: Reader) -> FlowStats:
    _length, table, seconds, nanos, priority, idle, hard, *rest = reader.unpack(_ENTRY_NX)
    match_length, idle_age, hard_age, cookie, packets, octets = rest
    return FlowStats(
        match=read_nx_match(reader, match_length)[0],
        actions=decode_actions(reader.rest(), 1),
        table_id=table,
        priority=priority,
        cookie=cookie,
        duration_ns=seconds * SECOND + nanos,
        idle_timeout=idle,
        hard_timeout=hard,
        idle_age=idle_age - 1 if idle_age else None,
        hard_age=hard_age - 1 if hard_age else None,
        packets=packets,
        bytes=octets,
    )


def _decode13(reader: Reader, version: int) -> FlowStats:
    _length, table, seconds, nanos, priority, idle, hard, *rest = reader.unpack(_ENTRY13)
    flags, importance, cookie, packets, octets = rest
    return FlowStats(
        match=oxm.read_match(reader),
        actions=decode_instructions(reader.rest(), version),
        table_id=table,
        priority=priority,
        cookie=cookie,
        duration_ns=seconds * SECOND + nanos,
        idle_timeout=idle,
        hard_timeout=hard,
        flags=FlowFlags(flags & 0x1F),
        importance=importance if version >= 5 else 0,
        packets=packets,
        bytes=octets,
    )


def _decode15(reader: Reader) -> FlowStats:
    _length, table, priority, idle, hard, flags, importance, cookie = reader.unpack(_ENTRY15)
    match = oxm.read_match(reader)
    sums = read_oxs(reader)
    return FlowStats(
        match=match,
        actions=decode_instructions(reader.rest(), 6),
        table_id=table,
        priority=priority,
        cookie=cookie,
        duration_ns=sums.duration_ns,
        idle_timeout=idle,
        hard_timeout=hard,
        idle_age=sums.idle_age,
        flags=FlowFlags(flags & 0x1F),
        importance=importance,
        packets=sums.packets,
        bytes=sums.bytes,
    )


def _reply(reader: Reader, version: int, *, nicira: bool) -> FlowStatsReply:
    entries = []
    while len(reader):
        if nicira:
            entries.append(_decode_nx(_entry(reader, _ENTRY_NX.size)))
        elif version == 1:
            entries.append(_decode10(_entry(reader, _ENTRY10.size)))
        elif version >= 6:
            entries.append(_decode15(_entry(reader, _ENTRY15.size)))
        else:
            entries.append(_decode13(_entry(reader, _ENTRY13.size), version))
    return FlowStatsReply(tuple(entries), nicira)


def _sums(reader: Reader, version: int, *, nicira: bool) -> AggregateReply:
    if version >= 6:
        sums = read_oxs(reader)
        return AggregateReply(sums.packets, sums.bytes, sums.flows)
    packets, octets, flows = reader.unpack(_SUMS)
    return AggregateReply(packets, octets, flows, nicira)


def _encode_sums(reply: AggregateReply, version: int) -> Encoded:
    kind = "STATS_REPLY:NX:AGGREGATE" if reply.nicira else "STATS_REPLY:AGGREGATE"
    if version >= 6:
        return kind, [encode_oxs(None, None, reply.flows, (reply.packets, reply.bytes))]
    return kind, [_SUMS.pack(reply.packets, reply.bytes, reply.flows)]


DECODERS: Mapping[str, Callable[[Reader, int], Message]] = {
    "STATS_REQUEST:FLOW": _request(FlowStatsRequest, nicira=False),
    "STATS_REQUEST:NX:FLOW": _request(FlowStatsRequest, nicira=True),
    "STATS_REQUEST:AGGREGATE": _request(AggregateRequest, nicira=False),
    "STATS_REQUEST:NX:AGGREGATE": _request(AggregateRequest, nicira=True),
    "STATS_REPLY:FLOW": lambda r, v: _reply(r, v, nicira=False),
    "STATS_REPLY:NX:FLOW": lambda r, v: _reply(r, v, nicira=True),
    "STATS_REPLY:AGGREGATE": lambda r, v: _sums(r, v, nicira=False),
    "STATS_REPLY:NX:AGGREGATE": lambda r, v: _sums(r, v, nicira=True),
}
ENCODERS: Mapping[type[Any], Callable[[Any, int], Encoded]] = {
    FlowStatsRequest: _encode_request,
    AggregateRequest: _encode_request,
    FlowStatsReply: _encode_reply,
    AggregateReply: _encode_sums,
}
