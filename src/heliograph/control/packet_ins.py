# SPDX-License-Identifier: Apache-2.0
"""Frames that the data plane has for controllers become messages to those that want them.

They are sent whole, whatever `max_len` and `miss_send_len` say, for no buffer keeps the rest. Of
the latter it only matters whether it is zero.
"""

from dataclasses import replace
from struct import pack, unpack

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
_CHECKSUMS = {6: 16, 17: 6}  # by protocol: their place in the header of TCP, UDP
_IPV6_HEADER = 40


def on_the_wire(record: Record, captured: bytes) -> bytes:
    """The frame as it would be on a wire: the program keeps its tags apart from it, and a sender
    may have left the checksum to the device."""
    frame = _with_checksum(record, captured) if record.transport else captured
    tci, tags = record.key[KeyWord.KEY_PORT] & 0xFFFF, record.key[KeyWord.KEY_TAGS]
    outer, inner = tags >> 48, tags >> 32 & 0xFFFF
    found = b""
    if tci & _TAG:
        found = pack("!HH", outer or _DEFAULT_TPID, tci & ~_TAG)
        if inner:
            found += pack("!HH", inner, tags >> 16 & 0xFFFF)
    return frame[:_MACS] + found + frame[_MACS + 4 * record.tags :]


def _with_checksum(record: Record, frame: bytes) -> bytes:
    """Of TCP or UDP (RFC 9293 3.1, RFC 768); a frame that was cut is left as it is."""
    protocol = record.key[KeyWord.KEY_ETH_DST] >> 8 & 0xFF
    place = record.transport + _CHECKSUMS.get(protocol, 0)
    if place == record.transport or len(frame) < record.length:
        return frame
    end, addresses = _packet(frame, record.network)
    segment = frame[record.transport : place] + bytes(2) + frame[place + 2 : end]
    data = addresses + pack("!II", len(segment), protocol) + segment + bytes(len(segment) % 2)
    total = sum(unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    checksum = ~total & 0xFFFF or 0xFFFF
    return frame[:place] + pack("!H", checksum) + frame[place + 2 :]


def _packet(frame: bytes, network: int) -> tuple[int, bytes]:
    """Where the IP packet ends, and its addresses."""
    if frame[network] >> 4 == 4:
        size = int.from_bytes(frame[network + 2 : network + 4])
        return network + size, frame[network + 12 : network + 20]
    size = int.from_bytes(frame[network + 4 : network + 6])
    return network + _IPV6_HEADER + size, frame[network + 8 : network + 40]


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
    frame = on_the_wire(record, captured)
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
    given = action.extended or action.reason != PacketInReason.ACTION
    if given and reason != PacketInReason.INVALID_TTL:
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
