# SPDX-License-Identifier: Apache-2.0
"""Frames that the data plane has for controllers become messages to those that want them.

They are sent whole, whatever `max_len` and `miss_send_len` say, for no buffer keeps the rest. Of
the latter it only matters whether it is zero.
"""

from dataclasses import replace
from struct import pack

from heliograph.control.bridge import Bridge
from heliograph.flows.flow import Flow
from heliograph.kernel.layouts import KeyWord
from heliograph.kernel.layouts import PacketIn as Record
from heliograph.openflow.actions import Controller
from heliograph.openflow.flows import PacketIn, PacketInReason
from heliograph.openflow.match import ANYTHING, Masked, Match
from heliograph.openflow.messages import Version

_MACS = 12  # bytes before the first tag
_TAG = 0x1000  # of a TCI: there is a tag
_WORD, _LONG = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF
_REGISTERS = 8  # words, two registers in each
_DEFAULT_TPID = 0x8100


def with_tags(frame: bytes, key: tuple[int, ...]) -> bytes:
    """The frame as it would be on a wire; the program keeps its tags apart from it."""
    tci, tags = key[KeyWord.KEY_PORT] & 0xFFFF, key[KeyWord.KEY_TAGS]
    found = b""
    for tpid, tag in ((tags >> 48, tci), (tags >> 32 & 0xFFFF, tags >> 16 & 0xFFFF)):
        if tag & _TAG:
            found += pack("!HH", tpid or _DEFAULT_TPID, tag & ~_TAG)
    return frame[:_MACS] + found + frame[_MACS:]


def metadata(key: tuple[int, ...]) -> Match:
    """What came with the frame: its port, and what flows have noted."""
    fields: dict[str, Masked] = {"in_port": (key[KeyWord.KEY_PORT] >> 32 & 0xFFFF, 0xFFFF)}
    if noted := key[KeyWord.KEY_METADATA]:
        fields["metadata"] = noted, _LONG
    for n in range(_REGISTERS):
        both = key[KeyWord.KEY_REGISTERS + n]
        for number, value in ((2 * n, both >> 32), (2 * n + 1, both & _WORD)):
            if value:
                fields[f"reg{number}"] = value, _WORD
    return Match.of(fields)


def deliver(bridge: Bridge, record: Record, captured: bytes) -> None:
    """To each connection whose number was asked for, and that wants frames for this reason."""
    plane = bridge.wanted.plane
    flow_id = plane.rule_at(record.rule) if record.rule else None
    flow = None if flow_id is None else bridge.tables.flows.get(flow_id)
    frame = with_tags(captured, record.key)
    message = PacketIn(
        data=frame,
        total_len=record.length + len(frame) - len(captured),
        reason=PacketInReason(record.reason),
        match=metadata(record.key),
        table_id=record.table,
        cookie=flow.cookie if flow else None,
    )
    if record.op:
        for action in plane.controllers_at(record.op):
            _by_action(bridge, message, action, flow)
        return
    for peer in bridge.peers:
        if peer.subscription.wants_misses():
            peer.tell_frame(replace(message, cookie=0))


def _by_action(bridge: Bridge, message: PacketIn, action: Controller, flow: Flow | None) -> None:
    reason = message.reason
    if action.extended and reason != PacketInReason.INVALID_TTL:
        reason = PacketInReason(action.reason)
    # From 1.3 on so a controller asks for frames that nothing else matches.
    catches = flow is not None and flow.priority == 0 and flow.match == ANYTHING
    miss = catches and reason == PacketInReason.ACTION
    for peer in bridge.peers:
        subscription = peer.subscription
        if subscription.controller_id != action.controller_id:
            continue
        missed = miss and subscription.version >= Version.V13
        told = PacketInReason.NO_MATCH if missed else reason
        if subscription.wants_packet_in(told):
            peer.tell_frame(replace(message, reason=told, userdata=action.userdata))
