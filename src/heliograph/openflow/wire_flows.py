# SPDX-License-Identifier: Apache-2.0
"""On the wire: changes of flows, and flows that are gone."""

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any

from heliograph.openflow import match10, oxm
from heliograph.openflow.action_decoder import decode_actions, decode_instructions
from heliograph.openflow.action_encoder import encode_instructions
from heliograph.openflow.actions import ALL_TABLES, NO_BUFFER
from heliograph.openflow.buffer import Reader, padded
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import (
    FlowCommand,
    FlowFlags,
    FlowMod,
    FlowRemoved,
    RemovedReason,
)
from heliograph.openflow.match import Masked, Match
from heliograph.openflow.message import Message
from heliograph.openflow.oxs import encode_oxs, read_oxs
from heliograph.openflow.ports import from_wide, to_wide

Encoded = tuple[str, list[bytes]]
_MOD10, _MOD_NX = Struct("!QHHHHIHH"), Struct("!QHHHHIHHH6x")
_MOD13 = Struct("!QQBBHHHIIIHH")
_REMOVED10, _REMOVED_NX = Struct("!QHBxIIH2xQQ"), Struct("!QHBBIIHHQQ")
_REMOVED13, _REMOVED15 = Struct("!QHBBIIHHQQ"), Struct("!BBHHHQ")
_SAME_COOKIE = 0xFFFF_FFFF_FFFF_FFFF
_EMERGENCY = 4
_HIGHEST = 0xFFFF  # of a 1.0 match without any wildcard, whatever the message says
SECOND = 10**9


def read_nx_match(reader: Reader, length: int) -> tuple[Match, Masked]:
    if length > len(reader):
        raise OpenFlowError(Code.OFPBMC_BAD_LEN, f"match of {length} bytes, {len(reader)} left")
    fields = reader.take(length)
    reader.take(-length % 8)
    return oxm.decode_fields(fields)


def _command(number: int) -> FlowCommand:
    if number > FlowCommand.DELETE_STRICT:
        raise OpenFlowError(Code.OFPFMFC_BAD_COMMAND, f"no command is {number}")
    return FlowCommand(number)


def _split_command(word: int, *, table_ids: bool) -> tuple[FlowCommand, int]:
    if table_ids:
        return _command(word & 0xFF), word >> 8
    return _command(word), ALL_TABLES


def _flags10(bits: int, command: FlowCommand) -> FlowFlags:
    if bits & _EMERGENCY:
        raise OpenFlowError(Code.OFPFMFC_TABLE_FULL, "there is no table for emergency flows")
    if bits & ~3:
        raise OpenFlowError(Code.OFPFMFC_BAD_FLAGS, f"no flags are {bits & ~3:#x}")
    implied = FlowFlags.RESET_COUNTS if command == FlowCommand.ADD else FlowFlags.NONE
    return FlowFlags(bits) | implied


def _cookie10(cookie: int) -> int | None:
    return None if cookie == _SAME_COOKIE else cookie


def _flow_mod10(*, table_ids: bool) -> Callable[[Reader, int], FlowMod]:
    def decode(reader: Reader, version: int) -> FlowMod:
        exact = match10.is_exact(reader)
        match = match10.read_match(reader)
        cookie, word, idle, hard, priority, buffer, port, flags = reader.unpack(_MOD10)
        command, table_id = _split_command(word, table_ids=table_ids)
        return FlowMod(
            command=command,
            match=match,
            table_id=table_id,
            priority=_HIGHEST if exact else priority,
            cookie=_cookie10(cookie),
            idle_timeout=idle,
            hard_timeout=hard,
            buffer_id=None if buffer == NO_BUFFER else buffer,
            out_port=port,
            flags=_flags10(flags, command),
            actions=decode_actions(reader.rest(), version),
        )

    return decode


def _flow_mod_nx(*, table_ids: bool) -> Callable[[Reader, int], FlowMod]:
    def decode(reader: Reader, version: int) -> FlowMod:
        cookie, word, idle, hard, priority, buffer, port, flags, length = reader.unpack(_MOD_NX)
        command, table_id = _split_command(word, table_ids=table_ids)
        match, (cookie_value, cookie_mask) = read_nx_match(reader, length)
        if cookie_mask and command == FlowCommand.ADD:
            raise OpenFlowError(Code.NXBRC_NXM_INVALID, "a flow to add, matched by its cookie")
        return FlowMod(
            command=command,
            match=match,
            table_id=table_id,
            priority=priority,
            cookie=_cookie10(cookie),
            cookie_value=cookie_value,
            cookie_mask=cookie_mask,
            idle_timeout=idle,
            hard_timeout=hard,
            buffer_id=None if buffer == NO_BUFFER else buffer,
            out_port=port,
            flags=_flags10(flags, command),
            actions=decode_actions(reader.rest(), version),
        )

    return decode


def _flow_mod13(reader: Reader, version: int) -> FlowMod:
    head = reader.unpack(_MOD13)
    cookie, cookie_mask, table_id, command, idle, hard, priority, buffer, *rest = head
    port, group, flags, importance = rest
    if flags & ~0x1F:
        raise OpenFlowError(Code.OFPFMFC_BAD_FLAGS, f"no flags are {flags & ~0x1F:#x}")
    command = _command(command)
    add = command == FlowCommand.ADD
    match = oxm.read_match(reader)
    actions = decode_instructions(reader.rest(), version)
    return FlowMod(
        command=command,
        match=match,
        table_id=table_id,
        priority=priority,
        cookie=cookie if add else None,
        cookie_value=0 if add else cookie & cookie_mask,
        cookie_mask=0 if add else cookie_mask,
        idle_timeout=idle,
        hard_timeout=hard,
        importance=importance if version >= 5 else 0,
        buffer_id=None if buffer == NO_BUFFER else buffer,
        out_port=from_wide(port),
        out_group=group,
        flags=FlowFlags(flags),
        actions=actions,
    )


def _encode_flow_mod(mod: FlowMod, version: int) -> Encoded:
    buffer = NO_BUFFER if mod.buffer_id is None else mod.buffer_id
    times = mod.idle_timeout, mod.hard_timeout, mod.priority
    if version == 1:
        return _encode_flow_mod10(mod, (*times, buffer))
    add = mod.command == FlowCommand.ADD
    cookies = (mod.cookie or 0, 0) if add else (mod.cookie_value, mod.cookie_mask)
    importance = mod.importance if version >= 5 else 0
    outs = to_wide(mod.out_port), mod.out_group
    head = (*cookies, mod.table_id, mod.command, *times, buffer, *outs, mod.flags, importance)
    return "FLOW_MOD", [
        _MOD13.pack(*head),
        oxm.encode_match(mod.match, version),
        encode_instructions(mod.actions, version, mod.match),
    ]


def _in_10(mod: FlowMod) -> bytes | None:
    """The match as 1.0 has it; None where it cannot say match and priority."""
    data = match10.encode_match(mod.match)
    if match10.read_match(Reader(data)) != mod.match:
        return None
    return data if mod.priority == _HIGHEST or not match10.is_exact(Reader(data)) else None


def _encode_flow_mod10(mod: FlowMod, numbers: tuple[int, ...]) -> Encoded:
    table = 0 if mod.table_id == ALL_TABLES else mod.table_id
    cookie = _SAME_COOKIE if mod.cookie is None else mod.cookie
    words = (cookie, table << 8 | mod.command, *numbers, mod.out_port, mod.flags & 3)
    actions = encode_instructions(mod.actions, 1, mod.match)
    plain = None if mod.cookie_mask else _in_10(mod)
    if plain is not None:
        return "FLOW_MOD", [plain, _MOD10.pack(*words), actions]
    match = oxm.encode_fields(mod.match, 1, (mod.cookie_value, mod.cookie_mask))
    return "NX:FLOW_MOD", [_MOD_NX.pack(*words, len(match)), padded(match), actions]


def _reason(number: int) -> RemovedReason:
    if number > RemovedReason.EVICTION:
        raise OpenFlowError(Code.NXBRC_BAD_REASON, f"no flow is removed for reason {number}")
    return RemovedReason(number)


def _removed10(reader: Reader, _version: int) -> FlowRemoved:
    match = match10.read_match(reader)
    cookie, priority, reason, seconds, nanos, idle, packets, octets = reader.unpack(_REMOVED10)
    return FlowRemoved(
        match=match,
        reason=_reason(reason),
        priority=priority,
        cookie=cookie,
        duration_ns=seconds * SECOND + nanos,
        idle_timeout=idle,
        packets=packets,
        bytes=octets,
    )


def _removed_nx(reader: Reader, _version: int) -> FlowRemoved:
    cookie, priority, reason, table, seconds, nanos, idle, length, packets, octets = reader.unpack(
        _REMOVED_NX
    )
    return FlowRemoved(
        match=read_nx_match(reader, length)[0],
        reason=_reason(reason),
        table_id=max(table - 1, 0),
        priority=priority,
        cookie=cookie,
        duration_ns=seconds * SECOND + nanos,
        idle_timeout=idle,
        packets=packets,
        bytes=octets,
        nicira=True,
    )


def _removed13(reader: Reader, version: int) -> FlowRemoved:
    if version >= 6:
        table, reason, priority, idle, hard, cookie = reader.unpack(_REMOVED15)
        match = oxm.read_match(reader)
        stats = read_oxs(reader)
        duration, packets, octets = stats.duration_ns, stats.packets, stats.bytes
    else:
        cookie, priority, reason, table, seconds, nanos, idle, hard, packets, octets = (
            reader.unpack(_REMOVED13)
        )
        match, duration = oxm.read_match(reader), seconds * SECOND + nanos
    return FlowRemoved(
        match=match,
        reason=_reason(reason),
        table_id=table,
        priority=priority,
        cookie=cookie,
        duration_ns=duration,
        idle_timeout=idle,
        hard_timeout=hard,
        packets=packets,
        bytes=octets,
    )


def _encode_removed(gone: FlowRemoved, version: int) -> Encoded:
    # Reasons that came with later versions are deletions to earlier ones.
    reason = gone.reason if version >= 5 or gone.reason <= 3 else RemovedReason.DELETE
    if version == 1 and reason == RemovedReason.GROUP_DELETE and not gone.nicira:
        reason = RemovedReason.DELETE
    age, sums = divmod(gone.duration_ns, SECOND), (gone.packets, gone.bytes)
    numbers = gone.cookie, gone.priority, reason
    if version >= 6:
        times = gone.idle_timeout, gone.hard_timeout
        head = _REMOVED15.pack(gone.table_id, reason, gone.priority, *times, gone.cookie)
        stats = encode_oxs(gone.duration_ns, None, None, sums)
        return "FLOW_REMOVED", [head, oxm.encode_match(gone.match, version), stats]
    if version > 1:
        times = gone.idle_timeout, gone.hard_timeout
        head = _REMOVED13.pack(*numbers, gone.table_id, *age, *times, *sums)
        return "FLOW_REMOVED", [head, oxm.encode_match(gone.match, version)]
    if not gone.nicira:
        head = _REMOVED10.pack(*numbers, *age, gone.idle_timeout, *sums)
        return "FLOW_REMOVED", [match10.encode_match(gone.match), head]
    match = oxm.encode_fields(gone.match, 1)
    times = gone.idle_timeout, len(match)
    head = _REMOVED_NX.pack(*numbers, gone.table_id + 1, *age, *times, *sums)
    return "NX:FLOW_REMOVED", [head, padded(match)]


_flow_mod_plain = _flow_mod10(table_ids=False)
TABLE_IDS = "+table_ids"  # after the kind, on a 1.0 connection that asked for FlowModTableId
DECODERS: Mapping[str, Callable[[Reader, int], Message]] = {
    "FLOW_MOD": lambda r, v: _flow_mod_plain(r, v) if v == 1 else _flow_mod13(r, v),
    "NX:FLOW_MOD": _flow_mod_nx(table_ids=False),
    f"FLOW_MOD{TABLE_IDS}": _flow_mod10(table_ids=True),
    f"NX:FLOW_MOD{TABLE_IDS}": _flow_mod_nx(table_ids=True),
    "FLOW_REMOVED": lambda r, v: _removed10(r, v) if v == 1 else _removed13(r, v),
    "NX:FLOW_REMOVED": _removed_nx,
}
ENCODERS: Mapping[type[Any], Callable[[Any, int], Encoded]] = {
    FlowMod: _encode_flow_mod,
    FlowRemoved: _encode_removed,
}
