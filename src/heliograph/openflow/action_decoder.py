# SPDX-License-Identifier: Apache-2.0
"""Actions and instructions out of bytes."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from struct import Struct

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
from heliograph.openflow.buffer import Reader, properties
from heliograph.openflow.errors import NICIRA, ONF, Code, OpenFlowError
from heliograph.openflow.fields import FIELDS, Field
from heliograph.openflow.oxm import BY_HEADER, EXPERIMENTER, read_field
from heliograph.openflow.ports import from_wide

_RESERVED = frozenset(Port) - {Port.MAX, Port.UNSET, Port.NONE}
_LAST_METER = 0xFFFF_0000
# What one version says in 8 bytes takes up to 24 in another, and has to fit into a message there.
_MOST_BYTES = 0x4000
_SHORT = 256  # bytes, of lists that are remembered
Decoder = Callable[[Reader, int], Action]  # what follows the header; the version


def _output(port: int, max_len: int) -> Action:
    if port >= Port.MAX and port not in _RESERVED:
        raise OpenFlowError(Code.OFPBAC_BAD_OUT_PORT, f"output to port {port:#x}")
    return Controller(max_len=max_len) if port == Port.CONTROLLER else Output(port)


def _output10(reader: Reader, _version: int) -> Action:
    return _output(*reader.unpack(codes.OUTPUT10))


def _output13(reader: Reader, _version: int) -> Action:
    port, max_len = reader.unpack(codes.OUTPUT13)
    return _output(from_wide(port, Code.OFPBAC_BAD_OUT_PORT), max_len)


def _output_trunc(reader: Reader, _version: int) -> Action:
    port, max_len = reader.unpack(codes.TRUNC)
    if port >= Port.MAX and port not in {Port.LOCAL, Port.IN_PORT}:
        raise OpenFlowError(Code.OFPBAC_BAD_OUT_PORT, f"output to port {port:#x} has no max_len")
    if max_len < 14:
        raise OpenFlowError(Code.OFPBAC_BAD_ARGUMENT, f"max_len={max_len} is below 14")
    return Output(port, max_len)


def _number(form: Struct, make: Callable[[int], Action], possible: int = 0xFFFF_FFFF) -> Decoder:
    def decode(reader: Reader, _version: int) -> Action:
        value = reader.unpack(form)[0]
        if value & ~possible:
            raise OpenFlowError(Code.OFPBAC_BAD_ARGUMENT, f"{value} has bits outside {possible:#x}")
        return make(value)

    return decode


def _mac(make: Callable[[int], Action]) -> Decoder:
    return lambda reader, _version: make(int.from_bytes(reader.unpack(codes.MAC)[0], "big"))


def _plain(action: Action, size: int) -> Decoder:
    """An action without arguments, followed by so many bytes of padding."""

    def decode(reader: Reader, _version: int) -> Action:
        reader.take(size)
        return action

    return decode


def _push_vlan(ethertype: int) -> Action:
    if ethertype not in {0x8100, 0x88A8}:
        raise OpenFlowError(Code.OFPBAC_BAD_ARGUMENT, f"no tag of type {ethertype:#x}")
    return PushVlan(ethertype)


def _meter(meter_id: int) -> Action:
    if not 0 < meter_id <= _LAST_METER:
        raise OpenFlowError(Code.OFPMMFC_INVALID_METER, f"no meter is {meter_id:#x}")
    return Meter(meter_id)


def writable(field: Field | None) -> Field:
    if field is None:
        raise OpenFlowError(Code.OFPBAC_BAD_SET_TYPE, "a field that is not known")
    if not field.writable:
        raise OpenFlowError(Code.OFPBAC_BAD_SET_ARGUMENT, f"{field.name} cannot be written")
    return field


def _set_field(reader: Reader, *, may_mask: bool) -> Action:
    rest = reader.rest()
    try:
        field, value, mask, end = read_field(rest, 0)
    except OpenFlowError as error:
        known = {Code.OFPBMC_BAD_FIELD: Code.OFPBAC_BAD_SET_TYPE}
        raise OpenFlowError(known.get(error.code, Code.OFPBAC_BAD_SET_LEN), str(error)) from error
    ones = writable(field).value_bits
    if len(rest) - end > 7 or any(rest[end:]):
        raise OpenFlowError(Code.OFPBAC_BAD_SET_LEN, f"bytes after {field.name}")
    if mask is not None and not may_mask:
        raise OpenFlowError(Code.OFPBAC_BAD_SET_MASK, f"{field.name} with a mask")
    mask = ones if mask is None else mask
    if value & field.impossible:  # any mask will do: ovs-ofctl says `load` so to 1.5
        raise OpenFlowError(Code.OFPBAC_BAD_SET_ARGUMENT, f"set_field:{value:#x}->{field.name}")
    if value & ~mask:
        raise OpenFlowError(Code.OFPBMC_BAD_WILDCARDS, f"{field.name} has bits outside its mask")
    if field.name == "vlan_vid" and not value & 0x1000:
        raise OpenFlowError(Code.OFPBAC_BAD_SET_ARGUMENT, "vlan_vid without its bit 0x1000")
    return SetField(field.name, value, mask & ones)


def _subfield(field: Field | None, offset: int, bits: int) -> Subfield:
    if field is None:
        raise OpenFlowError(Code.OFPBAC_BAD_SET_TYPE, "a field that is not known")
    if not bits or offset + bits > field.bits:
        raise OpenFlowError(
            Code.OFPBAC_BAD_SET_LEN, f"{field.name} has no bits {offset} to {offset + bits - 1}"
        )
    return Subfield(field.name, offset, bits)


def _header(reader: Reader) -> Field | None:
    """A header alone, in its place in front of a value."""
    raw = reader.unpack(codes.I4)[0]
    kind, number = raw >> 16, raw >> 9 & 0x7F
    experimenter = reader.unpack(codes.I4)[0] if kind == EXPERIMENTER else 0
    return BY_HEADER.get((kind, number, experimenter))


def _padding(reader: Reader) -> None:
    if len(reader) > 7 or any(reader.rest()):
        raise OpenFlowError(Code.OFPBAC_BAD_LEN, "bytes after the action")


def _move(reader: Reader, sizes: tuple[int, int, int]) -> Action:
    bits, source_offset, target_offset = sizes
    source, target = _header(reader), writable(_header(reader))
    _padding(reader)
    return Move(_subfield(source, source_offset, bits), _subfield(target, target_offset, bits))


def _reg_move(reader: Reader, _version: int) -> Action:
    bits, source, target = reader.unpack(codes.REG_MOVE)
    return _move(reader, (bits, source, target))


def _copy_field(reader: Reader, _version: int) -> Action:
    bits, source, target = reader.unpack(codes.COPY_FIELD)
    return _move(reader, (bits, source, target))


def _reg_load(reader: Reader, _version: int) -> Action:
    place, raw, value = reader.unpack(codes.REG_LOAD)
    field = writable(BY_HEADER.get((raw >> 16, raw >> 9 & 0x7F, 0)))
    target = _subfield(field, place >> 6, (place & 63) + 1)
    if value >> target.bits:
        raise OpenFlowError(
            Code.OFPBAC_BAD_ARGUMENT, f"{value:#x} is too wide for {target.bits} bits"
        )
    return Load(target, value)


def _resubmit(reader: Reader, subtype: int) -> Action:
    port, table = reader.unpack(codes.RESUBMIT)
    if subtype == codes.NX_RESUBMIT:
        table = 0xFF
    return Resubmit(
        None if port == Port.IN_PORT else port,
        None if table == 0xFF else table,
        ct=subtype == codes.NX_RESUBMIT_CT,
    )


def _controller(reader: Reader, _version: int) -> Action:
    max_len, controller_id, reason = reader.unpack(codes.CONTROLLER)
    return Controller(max_len, controller_id, reason)


def _controller2(reader: Reader, _version: int) -> Action:
    reader.take(6)
    values: dict[str, int | bytes | bool] = {}
    sizes = {0: ("max_len", 2), 1: ("controller_id", 2), 2: ("reason", 1), 5: ("meter_id", 4)}
    for kind, body in properties(reader):
        if kind in sizes:
            name, size = sizes[kind]
            values[name] = int.from_bytes(body.take(size), "big")
        elif kind == 3:
            values["userdata"] = body.rest()
        elif kind == 4:
            values["pause"] = True
        else:
            raise OpenFlowError(Code.OFPBPC_BAD_TYPE, f"controller() has no property {kind}")
    return Controller(extended=True, **values)  # type: ignore[arg-type]


def _dec_ttl_ids(reader: Reader, _version: int) -> Action:
    count = int.from_bytes(reader.take(6)[:2], "big")
    raw = reader.take(2 * count)
    reader.rest()
    if not count:
        raise OpenFlowError(Code.OFPBAC_BAD_ARGUMENT, "dec_ttl with an empty list")
    ids = tuple(int.from_bytes(raw[n : n + 2], "big") for n in range(0, 2 * count, 2))
    return DecTtl(ids, listed=True)


def _write_metadata(reader: Reader, _version: int) -> Action:
    return WriteMetadata(*reader.unpack(codes.WRITE_METADATA))


def _set_tunnel(reader: Reader, subtype: int) -> Action:
    wide = subtype == codes.NX_SET_TUNNEL64
    reader.take(6 if wide else 2)
    return SetTunnel(int.from_bytes(reader.take(8 if wide else 4), "big"), wide)


def _clone(reader: Reader, version: int) -> Action:
    reader.take(6)
    try:
        return Clone(decode_actions(reader.rest(), version))
    except RecursionError:
        raise OpenFlowError(
            Code.OFPBAC_TOO_MANY, "clones in clones, more than can be read"
        ) from None


def _whole(name: str, tag: int = 0) -> Callable[[int], Action]:
    """A header field written whole, as the actions of 1.1 do that later versions still read."""
    return lambda value: SetField(name, value | tag, FIELDS[name].value_bits)


_OPENFLOW10: Mapping[int, Decoder] = {
    0: _output10,
    1: _number(codes.H2, SetVlanVid, 0xFFF),
    2: _number(codes.B3, SetVlanPcp, 7),
    3: _plain(StripVlan(), 4),
    4: _mac(SetEthSrc),
    5: _mac(SetEthDst),
    6: _number(codes.I4, SetIpv4Src),
    7: _number(codes.I4, SetIpv4Dst),
    8: _number(codes.B3, SetTos, 0xFC),
    9: _number(codes.H2, SetTpSrc),
    10: _number(codes.H2, SetTpDst),
}
_OPENFLOW13: Mapping[int, Decoder] = {
    0: _output13,
    1: _number(codes.H2, _whole("vlan_vid", tag=0x1000), 0xFFF),
    2: _number(codes.B3, _whole("vlan_pcp"), 7),
    3: _mac(SetEthSrc),
    4: _mac(SetEthDst),
    5: _number(codes.I4, SetIpv4Src),
    6: _number(codes.I4, SetIpv4Dst),
    7: _number(codes.B3, SetTos, 0xFC),
    8: _number(codes.B3, _whole("nw_ecn"), 3),
    9: _number(codes.H2, SetTpSrc),
    10: _number(codes.H2, SetTpDst),
    17: _number(codes.H2, _push_vlan),
    18: _plain(StripVlan(), 4),
    22: _number(codes.I4, Group),
    23: _number(codes.B3, SetTtl, 0xFF),
    24: _plain(DecTtl(), 4),
    25: lambda reader, version: _set_field(reader, may_mask=version >= 6),
}
_OPENFLOW15: Mapping[int, Decoder] = {**_OPENFLOW13, 28: _copy_field, 29: _number(codes.I4, _meter)}
_STANDARD = {1: _OPENFLOW10, 4: _OPENFLOW13, 5: _OPENFLOW13, 6: _OPENFLOW15}
_NICIRA: Mapping[int, Decoder] = {
    codes.NX_RESUBMIT: lambda reader, _v: _resubmit(reader, codes.NX_RESUBMIT),
    codes.NX_RESUBMIT_TABLE: lambda reader, _v: _resubmit(reader, codes.NX_RESUBMIT_TABLE),
    codes.NX_RESUBMIT_CT: lambda reader, _v: _resubmit(reader, codes.NX_RESUBMIT_CT),
    codes.NX_SET_TUNNEL: lambda reader, _v: _set_tunnel(reader, codes.NX_SET_TUNNEL),
    codes.NX_SET_TUNNEL64: lambda reader, _v: _set_tunnel(reader, codes.NX_SET_TUNNEL64),
    codes.NX_REG_MOVE: _reg_move,
    codes.NX_REG_LOAD: _reg_load,
    codes.NX_REG_LOAD2: lambda reader, _v: _set_field(reader, may_mask=True),
    codes.NX_NOTE: lambda reader, _v: Note(reader.rest()),
    codes.NX_EXIT: _plain(Exit(), 6),
    codes.NX_DEC_TTL: _plain(DecTtl(), 6),
    codes.NX_DEC_TTL_IDS: _dec_ttl_ids,
    codes.NX_CONTROLLER: _controller,
    codes.NX_CONTROLLER2: _controller2,
    codes.NX_WRITE_METADATA: _write_metadata,
    codes.NX_OUTPUT_TRUNC: _output_trunc,
    codes.NX_GROUP: lambda reader, _v: Group(int.from_bytes(reader.take(6)[2:], "big")),
    codes.NX_CLONE: _clone,
}


def _vendor(raw: bytes, version: int) -> Action:
    if len(raw) < 16:
        raise OpenFlowError(Code.OFPBAC_BAD_LEN, f"{len(raw)} bytes of a vendor's action")
    vendor, subtype = int.from_bytes(raw[4:8], "big"), int.from_bytes(raw[8:10], "big")
    reader = Reader(raw, Code.OFPBAC_BAD_LEN)
    reader.pos = 10
    if vendor == ONF and subtype == codes.ONF_COPY_FIELD and version == 4:
        reader.pos = 12
        return _copy_field(reader, version)
    if vendor != NICIRA:
        raise OpenFlowError(Code.OFPBAC_BAD_VENDOR, f"actions of vendor {vendor:#x}")
    if subtype in codes.REFUSED_NICIRA:
        return Unsupported(codes.REFUSED_NICIRA[subtype], raw)
    decode = _NICIRA.get(subtype)
    if decode is None:
        raise OpenFlowError(Code.OFPBAC_BAD_VENDOR_TYPE, f"no action of Nicira is {subtype}")
    action = decode(reader, version)
    reader.finish()
    return action


def _one(kind: int, raw: bytes, version: int) -> Action:
    if kind == codes.VENDOR:
        return _vendor(raw, version)
    refused = codes.REFUSED10 if version == 1 else codes.REFUSED13
    if kind in refused:
        return Unsupported(refused[kind], raw)
    decode = _STANDARD[version].get(kind)
    if decode is None:
        raise OpenFlowError(Code.OFPBAC_BAD_TYPE, f"no action is {kind}")
    reader = Reader(raw, Code.OFPBAC_BAD_LEN)
    reader.pos = 4
    action = decode(reader, version)
    reader.finish()
    return action


def decode_actions(data: bytes, version: int) -> Actions:
    if len(data) > _MOST_BYTES:
        raise OpenFlowError(Code.OFPBAC_TOO_MANY, f"{len(data)} bytes of actions")
    return (_often if len(data) <= _SHORT else _decode_actions)(data, version)


def _decode_actions(data: bytes, version: int) -> Actions:
    actions = []
    pos, end = 0, len(data)
    while pos < end:
        if end - pos < 8:
            raise OpenFlowError(Code.OFPBAC_BAD_LEN, "an action is cut short")
        kind, length = codes.HEADER.unpack_from(data, pos)
        if length < 8 or length % 8 or length > end - pos:
            raise OpenFlowError(Code.OFPBAC_BAD_LEN, f"action of {length} bytes")
        action = _one(kind, data[pos : pos + length], version)
        pos += length
        if isinstance(action, WriteMetadata) and (version > 1 or pos < end):
            raise OpenFlowError(
                Code.OFPBAC_UNSUPPORTED_ORDER, "write_metadata is the last thing a flow does"
            )
        actions.append(action)
    return tuple(actions)


_often = lru_cache(maxsize=1024)(_decode_actions)  # many flows do the same


def _check_in_set(action: Action) -> None:
    """An action set has one of each kind, so there is no place in it for some actions."""
    match action:
        case Clone() | Note() | Exit() | Unsupported() | Meter() | Output(max_len=int()):
            refused = True
        case Controller():
            refused = action != Controller(max_len=action.max_len)
        case _:
            refused = False
    if refused:
        raise OpenFlowError(
            Code.OFPBAC_BAD_TYPE, f"{type(action).__name__} cannot be written to an action set"
        )


def _instruction(kind: int, body: bytes, version: int) -> Actions:
    reader = Reader(body, Code.OFPBIC_BAD_LEN)
    if kind == 1:
        return (GotoTable(reader.unpack(codes.B3)[0]),)
    if kind == 2:
        return (WriteMetadata(*reader.unpack(codes.INSTRUCTION_METADATA)),)
    if kind == 6 and version < 6:
        return (_meter(reader.unpack(codes.I4)[0]),)
    if kind not in {3, 4, 5}:
        raise OpenFlowError(Code.OFPBIC_UNKNOWN_INST, f"no instruction is {kind}")
    reader.take(4)
    actions = decode_actions(reader.rest(), version)
    if kind == 3:
        for action in actions:
            _check_in_set(action)
        return (WriteActions(actions),)
    if kind == 5:
        if actions:
            raise OpenFlowError(Code.OFPBIC_BAD_LEN, "clear_actions with actions")
        return (ClearActions(),)
    return actions


def decode_instructions(data: bytes, version: int) -> Actions:
    """In the order in which they are carried out, whatever the order of the message."""
    found: dict[int, Actions] = {}
    reader = Reader(data, Code.OFPBIC_BAD_LEN)
    while len(reader):
        kind, length = reader.unpack(codes.HEADER)
        if length < 8 or length % 8:
            raise OpenFlowError(Code.OFPBIC_BAD_LEN, f"instruction of {length} bytes")
        body = reader.take(length - 4)
        if kind == codes.VENDOR:
            raise OpenFlowError(Code.OFPBIC_BAD_EXPERIMENTER, "an experimenter's instruction")
        if kind in found:
            raise OpenFlowError(Code.OFPBIC_DUP_INST, f"instruction {kind} is there twice")
        found[kind] = _instruction(kind, body, version)
    return tuple(action for kind in (6, 4, 5, 3, 2, 1) for action in found.get(kind, ()))
