# SPDX-License-Identifier: Apache-2.0
"""Actions and instructions into bytes of any version.

Where a version lacks an action, one that does the same is written, as Open vSwitch does it
(`set_field` for `mod_nw_src` on 1.3, `mod_nw_src` for `set_field` on 1.0; Nicira's where there is
no other), or none (`write_actions` on 1.0). What depends on the packet's kind is known from the
flow's match.
"""

from collections.abc import Callable, Iterator, Mapping
from struct import pack
from typing import Any

from heliograph.openflow import action_codes as codes
from heliograph.openflow.actions import (
    Action,
    Actions,
    ClearActions,
    Clone,
    Controller,
    DecTtl,
    Exit,
    GotoTable,
    Group,
    Load,
    Meter,
    Move,
    Note,
    Output,
    Port,
    PushVlan,
    Resubmit,
    SetEthDst,
    SetEthSrc,
    SetField,
    SetIpv4Dst,
    SetIpv4Src,
    SetTos,
    SetTpDst,
    SetTpSrc,
    SetTtl,
    SetTunnel,
    SetVlanPcp,
    SetVlanVid,
    StripVlan,
    Subfield,
    Unsupported,
    WriteActions,
    WriteMetadata,
)
from heliograph.openflow.buffer import padded
from heliograph.openflow.errors import NICIRA
from heliograph.openflow.fields import FIELDS
from heliograph.openflow.match import ANYTHING, Match
from heliograph.openflow.oxm import encode_field, header_bytes
from heliograph.openflow.ports import to_wide

_INSTRUCTIONS = (Meter, ClearActions, WriteActions, WriteMetadata, GotoTable)


class _Flow:
    """The version, and what is known of packets so far."""

    __slots__ = ("match", "tagged", "version")

    def __init__(self, version: int, match: Match) -> None:
        self.version, self.match = version, match
        value, mask = match.get("vlan_tci") or (0, 0)
        self.tagged = bool(value & mask & 0x1000)

    def transport(self) -> str | None:
        value, mask = self.match.get("nw_proto") or (0, 0)
        return {6: "tcp", 17: "udp", 132: "sctp"}.get(value & mask)


def _standard(kind: int, body: bytes) -> bytes:
    return pack("!HH", kind, 4 + len(body)) + body


def _nicira(subtype: int, body: bytes) -> bytes:
    length = 10 + len(body) + 7 & ~7
    return (
        pack("!HHIH", codes.VENDOR, length, NICIRA, subtype) + body + bytes(length - 10 - len(body))
    )


def _set_field(field: str, value: int, mask: int, flow: _Flow) -> bytes:
    whole = mask == FIELDS[field].value_bits
    if flow.version == 1 and whole and (action := _in_10(field, value, flow)):
        return _ENCODERS[type(action)](action, flow)
    body = encode_field(field, value, mask, flow.version)
    if flow.version == 1 or (flow.version < 6 and not whole):
        return _nicira(codes.NX_REG_LOAD2, body)
    return padded(pack("!HH", 25, 4 + len(body) + 7 & ~7) + body)


def _in_10(field: str, value: int, flow: _Flow) -> Action | None:
    """What sets a field in 1.0; None: nothing but Nicira's `set_field`."""
    if field in _OF_10:
        return _OF_10[field](value)
    protocol, _, end = field.partition("_")
    if flow.transport() == protocol in {"tcp", "udp"} and end in {"src", "dst"}:
        return SetTpSrc(value) if end == "src" else SetTpDst(value)
    if field in {"vlan_vid", "vlan_pcp"}:
        # These add a tag where there is none; 1.0 has no other way to say `push_vlan`.
        made = SetVlanVid(value & 0xFFF) if field == "vlan_vid" else SetVlanPcp(value)
        return made if flow.tagged else None
    bits = FIELDS[field].bits
    return Load(Subfield(field, 0, bits), value) if _can_load(field, bits) else None


_OF_10: Mapping[str, Callable[[int], Action]] = {
    "eth_src": SetEthSrc,
    "eth_dst": SetEthDst,
    "ip_src": SetIpv4Src,
    "ip_dst": SetIpv4Dst,
    "ip_dscp": lambda value: SetTos(value << 2),
}


def _can_load(field: str, bits: int) -> bool:
    """`load` cannot name experimenters' fields."""
    return bits <= 64 and not FIELDS[field].header(1)[2]


def _assign(field: str, value: int, flow: _Flow) -> bytes:
    return _set_field(field, value, FIELDS[field].value_bits, flow)


def _output(action: Output, flow: _Flow) -> bytes:
    if action.max_len is not None:
        return _nicira(codes.NX_OUTPUT_TRUNC, codes.TRUNC.pack(action.port, action.max_len))
    return _plain_output(action.port, 0, flow)


def _plain_output(port: int, max_len: int, flow: _Flow) -> bytes:
    if flow.version == 1:
        return _standard(0, codes.OUTPUT10.pack(port, max_len))
    return _standard(0, codes.OUTPUT13.pack(to_wide(port), max_len))


def _property(kind: int, body: bytes) -> bytes:
    return padded(codes.PROPERTY.pack(kind, 4 + len(body)) + body)


def _controller(action: Controller, flow: _Flow) -> bytes:
    if action == Controller(max_len=action.max_len):
        return _plain_output(Port.CONTROLLER, action.max_len, flow)
    if not action.extended:
        body = codes.CONTROLLER.pack(action.max_len, action.controller_id, action.reason)
        return _nicira(codes.NX_CONTROLLER, body)
    body = b""
    if action.max_len != 0xFFFF:
        body += _property(0, pack("!H", action.max_len))
    if action.controller_id:
        body += _property(1, pack("!H", action.controller_id))
    if action.reason != 1:
        body += _property(2, bytes([action.reason]))
    if action.userdata is not None:
        body += _property(3, action.userdata)
    if action.pause:
        body += _property(4, b"")
    if action.meter_id is not None:
        body += _property(5, pack("!I", action.meter_id))
    return _nicira(codes.NX_CONTROLLER2, bytes(6) + body)


def _group(action: Group, flow: _Flow) -> bytes:
    if flow.version == 1:
        return _nicira(codes.NX_GROUP, bytes(2) + pack("!I", action.group_id))
    return _standard(22, pack("!I", action.group_id))


def _resubmit(action: Resubmit, _flow: _Flow) -> bytes:
    port = Port.IN_PORT if action.in_port is None else action.in_port
    if action.table_id is None and not action.ct:
        return _nicira(codes.NX_RESUBMIT, codes.RESUBMIT.pack(port, 0))
    subtype = codes.NX_RESUBMIT_CT if action.ct else codes.NX_RESUBMIT_TABLE
    table = 0xFF if action.table_id is None else action.table_id
    return _nicira(subtype, codes.RESUBMIT.pack(port, table))


def _clone(action: Clone, flow: _Flow) -> bytes:
    return _nicira(
        codes.NX_CLONE, bytes(6) + encode_actions(action.actions, flow.version, flow.match)
    )


def _header(subfield: Subfield, version: int) -> bytes:
    field = FIELDS[subfield.field]
    return header_bytes(field.header(version), field.size, False)


def _move(action: Move, flow: _Flow) -> bytes:
    numbers = action.source.bits, action.source.offset, action.target.offset
    fields = _header(action.source, flow.version) + _header(action.target, flow.version)
    if flow.version >= 6:
        body = codes.COPY_FIELD.pack(*numbers) + fields
        return padded(pack("!HH", 28, 4 + len(body) + 7 & ~7) + body)
    return _nicira(codes.NX_REG_MOVE, codes.REG_MOVE.pack(*numbers) + fields)


def _load(action: Load, flow: _Flow) -> bytes:
    target = action.target
    if flow.version >= 6 or not _can_load(target.field, target.bits):  # 1.5 lacks it
        mask = (1 << target.bits) - 1 << target.offset
        tag = 0x1000 if target.field == "vlan_vid" else 0  # a VLAN is only set with that bit
        return _set_field(target.field, action.value << target.offset | tag, mask | tag, flow)
    header = int.from_bytes(_header(target, 1), "big")
    place = target.offset << 6 | target.bits - 1
    return _nicira(codes.NX_REG_LOAD, codes.REG_LOAD.pack(place, header, action.value))


def _push_vlan(action: PushVlan, flow: _Flow) -> bytes:
    flow.tagged = True
    # In 1.0 a tag is added by setting its VLAN, which has to follow.
    return b"" if flow.version == 1 else _standard(17, codes.H2.pack(action.ethertype))


def _strip_vlan(_action: StripVlan, flow: _Flow) -> bytes:
    flow.tagged = False
    return _standard(3 if flow.version == 1 else 18, bytes(4))


def _tag(flow: _Flow) -> bytes:
    """What `mod_vlan_*` does by itself where there is no tag."""
    if flow.tagged:
        return b""
    flow.tagged = True
    return _standard(17, codes.H2.pack(0x8100))


def _vlan_vid(action: SetVlanVid, flow: _Flow) -> bytes:
    if flow.version == 1:
        return _standard(1, codes.H2.pack(action.vid))
    return _tag(flow) + _assign("vlan_vid", action.vid | 0x1000, flow)


def _vlan_pcp(action: SetVlanPcp, flow: _Flow) -> bytes:
    if flow.version == 1:
        return _standard(2, codes.B3.pack(action.pcp))
    return _tag(flow) + _assign("vlan_pcp", action.pcp, flow)


def _address(kind: int, field: str, size: int) -> Callable[[Any, _Flow], bytes]:
    def encode(action: SetEthSrc | SetIpv4Src, flow: _Flow) -> bytes:
        if flow.version == 1:
            return _standard(kind, action.address.to_bytes(size, "big") + bytes(-(4 + size) % 8))
        return _assign(field, action.address, flow)

    return encode


def _tos(action: SetTos, flow: _Flow) -> bytes:
    if flow.version == 1:
        return _standard(8, codes.B3.pack(action.tos))
    return _assign("ip_dscp", action.tos >> 2, flow)


def _ttl(action: SetTtl, flow: _Flow) -> bytes:
    if flow.version == 1:
        return _load(Load(Subfield("nw_ttl", 0, 8), action.ttl), flow)
    return _standard(23, codes.B3.pack(action.ttl))


def _transport(kind: int, end: str) -> Callable[[Any, _Flow], bytes]:
    def encode(action: SetTpSrc, flow: _Flow) -> bytes:
        protocol = flow.transport()
        # Of which protocol's field it is only the match tells; without it, as 1.1 has it.
        if flow.version == 1 or protocol is None:
            return _standard(kind, codes.H2.pack(action.port))
        return _assign(f"{protocol}_{end}", action.port, flow)

    return encode


def _dec_ttl(action: DecTtl, flow: _Flow) -> bytes:
    if action.listed:
        ids = action.controller_ids
        return _nicira(codes.NX_DEC_TTL_IDS, pack(f"!H4x{len(ids)}H", len(ids), *ids))
    return _nicira(codes.NX_DEC_TTL, b"") if flow.version == 1 else _standard(24, bytes(4))


def _set_tunnel(action: SetTunnel, _flow: _Flow) -> bytes:
    if action.wide:
        return _nicira(codes.NX_SET_TUNNEL64, bytes(6) + action.tunnel_id.to_bytes(8, "big"))
    return _nicira(codes.NX_SET_TUNNEL, bytes(2) + action.tunnel_id.to_bytes(4, "big"))


def _meter(action: Meter, flow: _Flow) -> bytes:
    return _standard(29, pack("!I", action.meter_id)) if flow.version >= 6 else b""


def _goto_table(action: GotoTable, _flow: _Flow) -> bytes:
    body = codes.RESUBMIT.pack(Port.IN_PORT, action.table_id)
    return _nicira(codes.NX_RESUBMIT_TABLE, body)


def _write_metadata(action: WriteMetadata, _flow: _Flow) -> bytes:
    return _nicira(codes.NX_WRITE_METADATA, codes.WRITE_METADATA.pack(action.value, action.mask))


_ENCODERS: Mapping[type[Any], Callable[[Any, _Flow], bytes]] = {
    Output: _output,
    Controller: _controller,
    Group: _group,
    Resubmit: _resubmit,
    Clone: _clone,
    SetField: lambda a, flow: _set_field(a.field, a.value, a.mask, flow),
    Load: _load,
    Move: _move,
    PushVlan: _push_vlan,
    StripVlan: _strip_vlan,
    SetVlanVid: _vlan_vid,
    SetVlanPcp: _vlan_pcp,
    SetEthSrc: _address(4, "eth_src", 6),
    SetEthDst: _address(5, "eth_dst", 6),
    SetIpv4Src: _address(6, "ip_src", 4),
    SetIpv4Dst: _address(7, "ip_dst", 4),
    SetTos: _tos,
    SetTtl: _ttl,
    SetTpSrc: _transport(9, "src"),
    SetTpDst: _transport(10, "dst"),
    DecTtl: _dec_ttl,
    SetTunnel: _set_tunnel,
    Note: lambda a, _flow: _nicira(codes.NX_NOTE, a.data),
    Exit: lambda _a, _flow: _nicira(codes.NX_EXIT, b""),
    Unsupported: lambda a, _flow: a.data,
    # Instructions, in the plain list of 1.0:
    Meter: _meter,
    ClearActions: lambda _a, _flow: b"",
    WriteActions: lambda _a, _flow: b"",
    WriteMetadata: _write_metadata,
    GotoTable: _goto_table,
}


def _encode(actions: Actions, flow: _Flow) -> bytes:
    return b"".join([_ENCODERS[type(action)](action, flow) for action in actions])


def encode_actions(actions: Actions, version: int, match: Match = ANYTHING) -> bytes:
    """A list of actions; instructions in it as far as the version has actions like them."""
    return _encode(actions, _Flow(version, match))


def _instructions(actions: Actions, flow: _Flow) -> Iterator[bytes]:
    applied = []
    after: list[Action] = []
    for action in actions:
        if isinstance(action, Meter) and flow.version < 6:
            yield pack("!HHI", 6, 8, action.meter_id)
        elif isinstance(action, _INSTRUCTIONS) and not isinstance(action, Meter):
            after.append(action)
        else:
            applied.append(action)
    if applied:
        body = _encode(tuple(applied), flow)
        yield pack("!HH4x", 4, 8 + len(body)) + body
    for action in after:
        match action:
            case ClearActions():
                yield pack("!HH4x", 5, 8)
            case WriteActions(actions):
                body = _encode(actions, flow)
                yield pack("!HH4x", 3, 8 + len(body)) + body
            case WriteMetadata(value, mask):
                yield pack("!HH4xQQ", 2, 24, value, mask)
            case GotoTable(table_id):
                yield pack("!HHB3x", 1, 8, table_id)


def _in_order(actions: Actions) -> Iterator[Action]:
    """In the plain list nothing may follow `write_metadata`, so there it is a `set_field`."""
    for n, action in enumerate(actions, 1):
        if isinstance(action, WriteMetadata) and n < len(actions):
            yield SetField("metadata", action.value & action.mask, action.mask)
        else:
            yield action


def encode_instructions(actions: Actions, version: int, match: Match = ANYTHING) -> bytes:
    """What a flow does: instructions, or the plain list of actions that 1.0 has for it."""
    if version == 1:
        return encode_actions(tuple(_in_order(actions)), version, match)
    return b"".join(_instructions(actions, _Flow(version, match)))
