# SPDX-License-Identifier: Apache-2.0
"""On the wire: hello, errors, echo, features, configuration, barriers, roles, what is sent when."""

from collections.abc import Callable, Mapping
from struct import Struct, pack
from typing import Any

from heliograph.openflow import messages as m
from heliograph.openflow.buffer import Reader, properties
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import PacketInFormat
from heliograph.openflow.message import Message
from heliograph.openflow.wire_ports import PORT10_SIZE, encode_port, read_port

Encoded = tuple[str, list[bytes]]
_TLV, _WORD = Struct("!HH"), Struct("!I")
_CONFIG = Struct("!HH")
_FEATURES = Struct("!QIBB2xII")
_ROLE, _ROLE_STATUS = Struct("!I4xQ"), Struct("!IB3xQ")
_ASYNC = Struct("!6I")
_NO_GENERATION = 0xFFFF_FFFF_FFFF_FFFF


def _hello(reader: Reader, version: int) -> m.Hello:
    versions = set()
    while len(reader) >= 4:
        kind, length = reader.unpack(_TLV)
        if length < 4 or length - 4 > len(reader):
            raise OpenFlowError(Code.OFPBRC_BAD_LEN, f"element of a hello of {length} bytes")
        body = reader.take(length - 4)
        reader.take(min(-length % 8, len(reader)))
        if kind == 1:
            words = [int.from_bytes(body[n : n + 4], "big") for n in range(0, len(body) & ~3, 4)]
            versions |= {
                32 * n + b for n, word in enumerate(words) for b in range(32) if word >> b & 1
            }
    # What follows elements that are known is for later versions of OpenFlow.
    return m.Hello(frozenset(versions or range(1, version + 1)))


def _encode_hello(message: m.Hello, version: int) -> Encoded:
    if message.versions == frozenset(range(1, version + 1)):
        return "HELLO", []
    bitmap = sum(1 << v for v in message.versions if v < 32)
    return "HELLO", [pack("!HHI", 1, 8, bitmap)]


def _error(reader: Reader, version: int) -> m.Error:
    kind, code = reader.unpack(_TLV)
    if version == 1 and (kind, code) == (0xB0C2, 0):
        vendor, kind, code = reader.unpack(Struct("!IHH"))
        return m.Error(kind, code, vendor, reader.rest())
    if version != 1 and kind == 0xFFFF:
        return m.Error(kind, code, reader.unpack(_WORD)[0], reader.rest())
    return m.Error(kind, code, None, reader.rest())


def _encode_error(message: m.Error, version: int) -> Encoded:
    if message.vendor is None:
        head = _TLV.pack(message.type, message.code)
    elif version == 1:
        head = pack("!HHIHH", 0xB0C2, 0, message.vendor, message.type, message.code)
    else:
        head = pack("!HHI", 0xFFFF, message.code, message.vendor)
    return "ERROR", [head, message.data]


def _capabilities_in(bits: int) -> m.Capabilities:
    return m.Capabilities(bits & sum(m.Capabilities))


def _features(reader: Reader, version: int) -> m.FeaturesReply:
    dpid, buffers, tables, auxiliary, capabilities, actions = reader.unpack(_FEATURES)
    ports = []
    if version == 1:
        auxiliary = 0
        while len(reader) >= PORT10_SIZE:
            ports.append(read_port(reader, version))
    return m.FeaturesReply(
        datapath_id=dpid,
        buffers=buffers,
        tables=tables,
        auxiliary_id=auxiliary,
        capabilities=_capabilities_in(capabilities),
        actions=actions if version == 1 else 0,
        ports=tuple(ports),
    )


def _encode_features(reply: m.FeaturesReply, version: int) -> Encoded:
    own = m.Capabilities.ARP_MATCH_IP
    later = m.Capabilities.GROUP_STATS | m.Capabilities.PORT_BLOCKED
    latest = m.Capabilities.BUNDLES | m.Capabilities.FLOW_MONITORING
    never = later | latest if version == 1 else own if version >= 5 else own | latest
    head = _FEATURES.pack(
        reply.datapath_id,
        reply.buffers,
        reply.tables,
        0 if version == 1 else reply.auxiliary_id,
        reply.capabilities & ~never,
        reply.actions if version == 1 else 0,
    )
    ports = reply.ports if version == 1 else ()
    return "FEATURES_REPLY", [head, *(encode_port(port, version) for port in ports)]


def _encode_config(message: m.GetConfigReply | m.SetConfig, _version: int) -> Encoded:
    kind = "SET_CONFIG" if isinstance(message, m.SetConfig) else "GET_CONFIG_REPLY"
    return kind, [_CONFIG.pack(message.flags, message.miss_send_len)]


def _role(make: Any, *, nicira: bool) -> Callable[[Reader, int], Message]:
    def decode(reader: Reader, _version: int) -> Message:
        if nicira:
            number, generation = reader.unpack(_WORD)[0] + 1, _NO_GENERATION
        else:
            number, generation = reader.unpack(_ROLE)
        if number not in set(m.Role):
            raise OpenFlowError(Code.OFPRRFC_BAD_ROLE, f"no role is {number}")
        message: Message = make(
            m.Role(number), None if generation == _NO_GENERATION else generation, nicira
        )
        return message

    return decode


def _encode_role(message: m.RoleRequest | m.RoleReply, _version: int) -> Encoded:
    kind = "ROLE_REQUEST" if isinstance(message, m.RoleRequest) else "ROLE_REPLY"
    if message.nicira:
        return f"NX:{kind}", [_WORD.pack(max(message.role - 1, 0))]
    generation = _NO_GENERATION if message.generation_id is None else message.generation_id
    return kind, [_ROLE.pack(message.role, generation)]


def _role_status(reader: Reader, _version: int) -> m.RoleStatus:
    role, reason, generation = reader.unpack(_ROLE_STATUS)
    reader.rest()  # properties, of which none is defined but experimenters'
    if role not in set(m.Role) or reason not in set(m.RoleReason):
        raise OpenFlowError(Code.OFPRRFC_BAD_ROLE, f"role {role} for reason {reason}")
    generation_id = None if generation == _NO_GENERATION else generation
    return m.RoleStatus(m.Role(role), m.RoleReason(reason), generation_id)


def _encode_role_status(message: m.RoleStatus, _version: int) -> Encoded:
    generation = _NO_GENERATION if message.generation_id is None else message.generation_id
    return "ROLE_STATUS", [_ROLE_STATUS.pack(message.role, message.reason, generation)]


def _async(reader: Reader, version: int) -> m.SetAsync:
    if version < 5:
        return m.SetAsync(m.AsyncConfig.of(reader.unpack(_ASYNC)), version == 1)
    masks, said = [0] * 6, [False] * 6
    for kind, body in properties(reader):
        if kind < 6:
            # Pairs, secondary before primary.
            masks[kind ^ 1], said[kind ^ 1] = body.unpack(_WORD)[0], True
        elif kind >= 12:
            raise OpenFlowError(Code.OFPACFC_UNSUPPORTED, f"property {kind}")
    return m.SetAsync(m.AsyncConfig.of(masks), said=tuple(said))


def _encode_async(message: m.SetAsync, version: int) -> bytes:
    masks = message.config.masks()
    if version < 5 or message.nicira:
        return _ASYNC.pack(*masks)
    chosen = (kind for kind in range(6) if message.said[kind ^ 1])
    return b"".join(pack("!HHI", kind, 8, masks[kind ^ 1]) for kind in chosen)


def _packet_in_format(reader: Reader, _version: int) -> m.SetPacketInFormat:
    number = reader.unpack(_WORD)[0]
    if number not in set(PacketInFormat):
        raise OpenFlowError(Code.OFPBRC_EPERM, f"no format of packet-ins is {number}")
    return m.SetPacketInFormat(PacketInFormat(number))


def _flow_format(reader: Reader, _version: int) -> m.SetFlowFormat:
    number = reader.unpack(_WORD)[0]
    if number not in {0, 2}:
        raise OpenFlowError(Code.OFPBRC_EPERM, f"no format of flows is {number}")
    return m.SetFlowFormat(number == 2)


def _empty(make: Callable[[], Message]) -> Callable[[Reader, int], Message]:
    return lambda _reader, _version: make()


def _nothing(kind: str) -> Callable[[Any, int], Encoded]:
    return lambda _message, _version: (kind, [])


EMPTY: Mapping[str, type[Any]] = {
    "FEATURES_REQUEST": m.FeaturesRequest,
    "GET_CONFIG_REQUEST": m.GetConfigRequest,
    "BARRIER_REQUEST": m.BarrierRequest,
    "BARRIER_REPLY": m.BarrierReply,
    "GET_ASYNC_REQUEST": m.GetAsyncRequest,
}
DECODERS: Mapping[str, Callable[[Reader, int], Message]] = {
    **{kind: _empty(make) for kind, make in EMPTY.items()},
    "HELLO": _hello,
    "ERROR": _error,
    "ECHO_REQUEST": lambda reader, _v: m.EchoRequest(reader.rest()),
    "ECHO_REPLY": lambda reader, _v: m.EchoReply(reader.rest()),
    "FEATURES_REPLY": _features,
    "GET_CONFIG_REPLY": lambda reader, _v: m.GetConfigReply(*reader.unpack(_CONFIG)),
    "SET_CONFIG": lambda reader, _v: m.SetConfig(*reader.unpack(_CONFIG)),
    "ROLE_REQUEST": _role(m.RoleRequest, nicira=False),
    "ROLE_REPLY": _role(m.RoleReply, nicira=False),
    "ROLE_STATUS": _role_status,
    "NX:ROLE_REQUEST": _role(m.RoleRequest, nicira=True),
    "NX:ROLE_REPLY": _role(m.RoleReply, nicira=True),
    "SET_ASYNC": _async,
    "NX:SET_ASYNC": lambda reader, _v: _async(reader, 1),
    "GET_ASYNC_REPLY": lambda reader, version: m.GetAsyncReply(_async(reader, version).config),
    "NX:SET_FLOW_FORMAT": _flow_format,
    "NX:FLOW_MOD_TABLE_ID": lambda reader, _v: m.FlowModTableId(reader.take(8)[0] != 0),
    "NX:SET_PACKET_IN_FORMAT": _packet_in_format,
    "NX:SET_CONTROLLER_ID": lambda reader, _v: m.SetControllerId(
        int.from_bytes(reader.take(8)[6:], "big")
    ),
}
ENCODERS: Mapping[type[Any], Callable[[Any, int], Encoded]] = {
    **{make: _nothing(kind) for kind, make in EMPTY.items()},
    m.Hello: _encode_hello,
    m.Error: _encode_error,
    m.EchoRequest: lambda message, _v: ("ECHO_REQUEST", [message.data]),
    m.EchoReply: lambda message, _v: ("ECHO_REPLY", [message.data]),
    m.FeaturesReply: _encode_features,
    m.GetConfigReply: _encode_config,
    m.SetConfig: _encode_config,
    m.RoleRequest: _encode_role,
    m.RoleReply: _encode_role,
    m.RoleStatus: _encode_role_status,
    m.SetAsync: lambda message, version: (
        "NX:SET_ASYNC" if message.nicira else "SET_ASYNC",
        [_encode_async(message, version)],
    ),
    m.GetAsyncReply: lambda message, version: (
        "GET_ASYNC_REPLY",
        [_encode_async(m.SetAsync(message.config), version)],
    ),
    m.SetFlowFormat: lambda message, _v: ("NX:SET_FLOW_FORMAT", [_WORD.pack(2 * message.nxm)]),
    m.FlowModTableId: lambda message, _v: (
        "NX:FLOW_MOD_TABLE_ID",
        [bytes([message.enable]) + bytes(7)],
    ),
    m.SetPacketInFormat: lambda message, _v: (
        "NX:SET_PACKET_IN_FORMAT",
        [_WORD.pack(message.format)],
    ),
    m.SetControllerId: lambda message, _v: (
        "NX:SET_CONTROLLER_ID",
        [pack("!6xH", message.controller_id)],
    ),
}
