# SPDX-License-Identifier: Apache-2.0
"""On the wire: flow monitors and what they tell.

1.0 has Nicira's, 1.3 the same with its own matches and ports under ONF's number, 1.4 a form of
OpenFlow. There the flag for a connection's own changes is the one that Open vSwitch takes for it,
called ONLY_OWN; NO_ABBREV, which the specification has for it, is understood too.
"""

from collections.abc import Callable, Iterator, Mapping
from struct import Struct
from typing import Any

from heliograph.openflow import oxm
from heliograph.openflow.action_decoder import decode_actions, decode_instructions
from heliograph.openflow.action_encoder import encode_instructions
from heliograph.openflow.buffer import Reader, padded
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import RemovedReason
from heliograph.openflow.match import Match
from heliograph.openflow.message import Message
from heliograph.openflow.monitors import (
    FlowEvent,
    FlowUpdate,
    Monitor,
    MonitorCancel,
    MonitorCommand,
    MonitorFlags,
    MonitorPaused,
    MonitorReply,
    MonitorRequest,
    MonitorResumed,
    OwnUpdate,
)
from heliograph.openflow.ports import from_wide, to_wide
from heliograph.openflow.wire_flows import read_nx_match

Encoded = tuple[str, Any]
_ASK10, _ASK13, _ASK14 = Struct("!IHHHB5x"), Struct("!IHHIB3x"), Struct("!IIIHBB")
_HEAD, _SHORT = Struct("!HH"), Struct("!HHI")
_FULL10, _FULL14 = Struct("!HHHHHHHBxQ"), Struct("!HHBBHHH4xQ")
_NUMBER = Struct("!I")
_ALIKE = 0x1F  # flags that are equal in all versions
_SOMETHING = 0xF  # of them, what there is to be told
_OWN, _OWN14, _NO_ABBREV14 = 0x20, 0x40, 0x20
_EVENTS10 = {0: FlowEvent.ADDED, 1: FlowEvent.DELETED, 2: FlowEvent.MODIFIED}
_NUMBERS10 = {event: number for number, event in _EVENTS10.items()} | {FlowEvent.INITIAL: 0}
_SHORT10, _SHORT14, _PAUSED14, _RESUMED14 = 3, 4, 5, 6


def _family(version: int) -> str:
    return {1: "NX:", 4: "ONF:"}.get(version, "")


def _flags(bits: int, version: int) -> MonitorFlags:
    own = _OWN14 | _NO_ABBREV14 if version >= 5 else _OWN
    if bits & ~(_ALIKE | own):
        raise OpenFlowError(Code.OFPMOFC_BAD_FLAGS, f"no flags are {bits & ~(_ALIKE | own):#x}")
    if not bits & _SOMETHING:
        raise OpenFlowError(Code.OFPMOFC_BAD_FLAGS, "a monitor that is to tell nothing")
    return MonitorFlags(bits & _ALIKE) | MonitorFlags.OWN * bool(bits & own)


def _flag_bits(flags: MonitorFlags, version: int) -> int:
    own = _OWN14 if version >= 5 else _OWN
    return flags & _ALIKE | own * bool(flags & MonitorFlags.OWN)


def _read_match10(reader: Reader, length: int) -> Match:
    match, (_value, mask) = read_nx_match(reader, length)
    if mask:
        raise OpenFlowError(Code.OFPBMC_BAD_FIELD, "flows are not monitored by their cookie")
    return match


def _read_match13(reader: Reader, length: int) -> Match:
    """Its length is said twice."""
    start = reader.pos
    match = oxm.read_match(reader)
    if reader.pos - start != length + -length % 8:
        raise OpenFlowError(Code.OFPBMC_BAD_LEN, f"match of {length} bytes")
    return match


def _port(number: int) -> int:
    return from_wide(number, Code.OFPBAC_BAD_OUT_PORT)


def _monitor(reader: Reader, version: int) -> Monitor:
    if version == 1:
        number, flags, port, length, table = reader.unpack(_ASK10)
        return Monitor(
            id=number,
            flags=_flags(flags, version),
            match=_read_match10(reader, length),
            table_id=table,
            out_port=port,
        )
    if version == 4:
        number, flags, length, port, table = reader.unpack(_ASK13)
        return Monitor(
            id=number,
            flags=_flags(flags, version),
            match=_read_match13(reader, length),
            table_id=table,
            out_port=_port(port),
        )
    number, port, group, flags, table, command = reader.unpack(_ASK14)
    if command not in set(MonitorCommand):
        raise OpenFlowError(Code.OFPMOFC_BAD_COMMAND, f"no command is {command}")
    deletes = command == MonitorCommand.DELETE  # which only needs the number
    return Monitor(
        id=number,
        flags=MonitorFlags.NONE if deletes else _flags(flags, version),
        match=oxm.read_match(reader),
        table_id=table,
        out_port=_port(port),
        out_group=group,
        command=MonitorCommand(command),
    )


def _request(reader: Reader, version: int) -> MonitorRequest:
    monitors = []
    while len(reader):
        monitors.append(_monitor(reader, version))
    return MonitorRequest(tuple(monitors))


def _encode_monitor(monitor: Monitor, version: int) -> bytes:
    bits, table = _flag_bits(monitor.flags, version), monitor.table_id
    if version == 1:
        fields = oxm.encode_fields(monitor.match, 1)
        return _ASK10.pack(monitor.id, bits, monitor.out_port, len(fields), table) + padded(fields)
    match = oxm.encode_match(monitor.match, version)
    port = to_wide(monitor.out_port)
    if version == 4:
        length = int.from_bytes(match[2:4], "big")
        return _ASK13.pack(monitor.id, bits, length, port, table) + match
    numbers = monitor.id, port, monitor.out_group, bits, table, monitor.command
    return _ASK14.pack(*numbers) + match


def _encode_request(request: MonitorRequest, version: int) -> Encoded:
    kind = f"STATS_REQUEST:{_family(version)}FLOW_MONITOR"
    return kind, [_encode_monitor(monitor, version) for monitor in request.monitors]


def _encode_update(update: FlowUpdate | OwnUpdate, version: int) -> bytes:
    if isinstance(update, OwnUpdate):
        return _SHORT.pack(_SHORT.size, _SHORT14 if version >= 5 else _SHORT10, update.xid)
    times, reason = (update.idle_timeout, update.hard_timeout), update.reason or 0
    actions = encode_instructions(update.actions, version, update.match)
    if version >= 5:
        body = oxm.encode_match(update.match, version) + actions
        head = _FULL14.size + len(body), update.event, update.table_id, reason
        return _FULL14.pack(*head, *times, update.priority, update.cookie) + body
    if version == 1:
        fields = oxm.encode_fields(update.match, 1)
        length, match = len(fields), padded(fields)
    else:
        match = oxm.encode_match(update.match, version)
        length = int.from_bytes(match[2:4], "big")
    size = _FULL10.size + len(match) + len(actions)
    numbers = size, _NUMBERS10[update.event], reason, update.priority
    return _FULL10.pack(*numbers, *times, length, update.table_id, update.cookie) + match + actions


def _encode_reply(reply: MonitorReply, version: int) -> Encoded:
    kind = f"STATS_REPLY:{_family(version)}FLOW_MONITOR"
    return kind, (_encode_update(update, version) for update in reply.entries)


def _removed(number: int) -> RemovedReason:
    if number > RemovedReason.EVICTION:
        raise OpenFlowError(Code.NXBRC_BAD_REASON, f"no flow is removed for reason {number}")
    return RemovedReason(number)


def _read_update(reader: Reader, version: int) -> FlowUpdate | OwnUpdate:
    if version >= 5:
        _length, event, table, reason, idle, hard, priority, cookie = reader.unpack(_FULL14)
        match, known = oxm.read_match(reader), dict(enumerate(FlowEvent))
    else:
        _length, event, reason, priority, idle, hard, length, table, cookie = reader.unpack(_FULL10)
        match = (_read_match10 if version == 1 else _read_match13)(reader, length)
        known = _EVENTS10
    if event not in known:
        raise OpenFlowError(Code.NXBRC_FM_BAD_EVENT, f"no event is {event}")
    return FlowUpdate(
        event=known[event],
        match=match,
        actions=(decode_actions if version == 1 else decode_instructions)(reader.rest(), version),
        table_id=table,
        priority=priority,
        cookie=cookie,
        idle_timeout=idle,
        hard_timeout=hard,
        reason=_removed(reason) if known[event] == FlowEvent.DELETED else None,
    )


def _updates(reader: Reader, version: int) -> Iterator[FlowUpdate | OwnUpdate]:
    while len(reader):
        length = int.from_bytes(reader.data[reader.pos : reader.pos + 2], "big")
        if length < _SHORT.size:
            raise OpenFlowError(Code.OFPBRC_BAD_LEN, f"update of {length} bytes")
        entry = Reader(reader.take(length))
        _length, event = _HEAD.unpack_from(entry.data)
        if event == (_SHORT14 if version >= 5 else _SHORT10):
            yield OwnUpdate(entry.unpack(_SHORT)[2])
        else:
            yield _read_update(entry, version)


def _reply(reader: Reader, version: int) -> Message:
    if version >= 5 and len(reader) == _SHORT.size:
        _length, event = _HEAD.unpack_from(reader.data, reader.pos)
        if event in {_PAUSED14, _RESUMED14}:
            reader.rest()
            return MonitorPaused() if event == _PAUSED14 else MonitorResumed()
    return MonitorReply(tuple(_updates(reader, version)))


def _encode_pause(version: int, *, resumed: bool) -> Encoded:
    if version >= 5:
        event = _RESUMED14 if resumed else _PAUSED14
        return "STATS_REPLY:FLOW_MONITOR", [_SHORT.pack(_SHORT.size, event, 0)]
    return f"{_family(version)}FLOW_MONITOR_{'RESUMED' if resumed else 'PAUSED'}", []


def _cancel(reader: Reader, _version: int) -> MonitorCancel:
    return MonitorCancel(*reader.unpack(_NUMBER))


_FAMILIES = "NX:", "ONF:", ""
DECODERS: Mapping[str, Callable[[Reader, int], Message]] = {
    **{f"STATS_REQUEST:{family}FLOW_MONITOR": _request for family in _FAMILIES},
    **{f"STATS_REPLY:{family}FLOW_MONITOR": _reply for family in _FAMILIES},
    **{f"{family}FLOW_MONITOR_CANCEL": _cancel for family in _FAMILIES[:2]},
    **{f"{family}FLOW_MONITOR_PAUSED": lambda _r, _v: MonitorPaused() for family in _FAMILIES[:2]},
    **{
        f"{family}FLOW_MONITOR_RESUMED": lambda _r, _v: MonitorResumed() for family in _FAMILIES[:2]
    },
}
ENCODERS: Mapping[type[Any], Callable[[Any, int], Encoded]] = {
    MonitorRequest: _encode_request,
    MonitorReply: _encode_reply,
    MonitorCancel: lambda cancel, version: (
        f"{_family(version)}FLOW_MONITOR_CANCEL",
        [_NUMBER.pack(cancel.monitor_id)],
    ),
    MonitorPaused: lambda _message, version: _encode_pause(version, resumed=False),
    MonitorResumed: lambda _message, version: _encode_pause(version, resumed=True),
}
