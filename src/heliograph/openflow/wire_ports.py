# SPDX-License-Identifier: Apache-2.0
"""On the wire: ports, their changes and statistics, and queues, of which there are none."""

from collections.abc import Callable, Iterator, Mapping
from struct import Struct, pack
from typing import Any

from heliograph.openflow import messages as m
from heliograph.openflow.actions import Port
from heliograph.openflow.buffer import Reader, fixed, properties, text
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.message import Message
from heliograph.openflow.ports import from_wide, to_wide

Encoded = tuple[str, Any]
_PORT10 = Struct("!H6s16sIIIIII")
_PORT13 = Struct("!I4x6s2x16sIIIIIIII")
_PORT14 = Struct("!IH2x6s2x16sII")
_ETHERNET = Struct("!HH4xIIIIII")
PORT10_SIZE = _PORT10.size
_MOD10, _MOD13 = Struct("!H6sIII4x"), Struct("!I4x6s2xIII4x")
_MOD14 = Struct("!I4x6s2xII")
_WORD = Struct("!I")
_STATS10 = Struct("!H6x12Q")
_STATS13 = Struct("!I4x12QII")
_STATS14 = Struct("!H2xIII8Q")
_STATS_ETHERNET = Struct("!HH4xQQQQ")
_UNKNOWN = 0xFFFF_FFFF_FFFF_FFFF
_LOW, _MOVED = 0x7F, 4  # features: the lower bits are the same, those above 1.0 has 4 lower


def _features_from(bits: int, version: int) -> m.PortFeatures:
    if version == 1:
        bits = bits & _LOW | (bits & ~_LOW) << _MOVED
    return m.PortFeatures(bits & 0xFFFF)


def _features_to(features: m.PortFeatures, version: int) -> int:
    if version == 1:
        return features & _LOW | (features >> _MOVED) & 0xF80
    return int(features)


def _config_to(config: m.PortConfig, version: int) -> int:
    only10 = m.PortConfig.NO_STP | m.PortConfig.NO_RECV_STP | m.PortConfig.NO_FLOOD
    return int(config if version == 1 else config & ~only10)


def _state_from(bits: int, version: int) -> m.PortState:
    return m.PortState(bits & (1 if version == 1 else 7))


def read_port(reader: Reader, version: int) -> m.PortDesc:
    speeds = 0, 0
    features = [0, 0, 0, 0]
    if version == 1:
        number, mac, name, config, state, *features = reader.unpack(_PORT10)
    elif version < 5:
        number, mac, name, config, state, *rest = reader.unpack(_PORT13)
        number, features, speeds = from_wide(number), rest[:4], (rest[4], rest[5])
    else:
        number, length, mac, name, config, state = reader.unpack(_PORT14)
        number = from_wide(number)
        for kind, body in _properties(reader, length - _PORT14.size):
            if kind == 0:
                rest = list(body.unpack(Struct("!4x6I")))
                features, speeds = rest[:4], (rest[4], rest[5])
    current, advertised, supported, peer = (_features_from(f, version) for f in features)
    return m.PortDesc(
        number=number,
        name=text(name),
        address=int.from_bytes(mac, "big"),
        config=m.PortConfig(config & 0x7F),
        state=_state_from(state, version),
        current=current,
        advertised=advertised,
        supported=supported,
        peer=peer,
        current_speed=speeds[0],
        max_speed=speeds[1],
    )


def _properties(reader: Reader, size: int) -> Iterator[tuple[int, Reader]]:
    return properties(Reader(reader.take(size), Code.OFPBPC_BAD_LEN))


def encode_port(port: m.PortDesc, version: int) -> bytes:
    mac, name = port.address.to_bytes(6, "big"), fixed(port.name, 16)
    config, state = _config_to(port.config, version), _state_from(port.state, version)
    words = port.current, port.advertised, port.supported, port.peer
    features = [_features_to(word, version) for word in words]
    if version == 1:
        return _PORT10.pack(port.number, mac, name, config, state, *features)
    number, speeds = to_wide(port.number), (port.current_speed, port.max_speed)
    if version < 5:
        return _PORT13.pack(number, mac, name, config, state, *features, *speeds)
    ethernet = _ETHERNET.pack(0, _ETHERNET.size, *features, *speeds)
    size = _PORT14.size + len(ethernet)
    return _PORT14.pack(number, size, mac, name, config, state) + ethernet


def _port_status(reader: Reader, version: int) -> m.PortStatus:
    reason = reader.take(8)[0]
    if reason not in set(m.PortReason):
        raise OpenFlowError(Code.NXBRC_BAD_REASON, f"no port changes for reason {reason}")
    return m.PortStatus(m.PortReason(reason), read_port(reader, version))


def _port_mod(reader: Reader, version: int) -> m.PortMod:
    advertise = 0
    if version == 1:
        number, mac, config, mask, advertise = reader.unpack(_MOD10)
    elif version < 5:
        number, mac, config, mask, advertise = reader.unpack(_MOD13)
    else:
        number, mac, config, mask = reader.unpack(_MOD14)
        for kind, body in _properties(reader, len(reader)):
            if kind != 0:
                raise OpenFlowError(Code.OFPBPC_BAD_TYPE, f"a port has no property {kind}")
            advertise = body.unpack(_WORD)[0]
    if (config | mask) & ~0x7F:
        raise OpenFlowError(Code.OFPPMFC_BAD_CONFIG, f"a port has no {(config | mask) & ~0x7F:#x}")
    return m.PortMod(
        port=number if version == 1 else from_wide(number, Code.OFPPMFC_BAD_PORT),
        address=int.from_bytes(mac, "big"),
        config=m.PortConfig(config & mask),
        mask=m.PortConfig(mask),
        advertise=_features_from(advertise, version),
    )


def _encode_port_mod(message: m.PortMod, version: int) -> Encoded:
    mac = message.address.to_bytes(6, "big")
    bits = _config_to(message.config, version), _config_to(message.mask, version)
    advertise = _features_to(message.advertise, version)
    if version == 1:
        return "PORT_MOD", [_MOD10.pack(message.port, mac, *bits, advertise)]
    port = to_wide(message.port)
    if version < 5:
        return "PORT_MOD", [_MOD13.pack(port, mac, *bits, advertise)]
    body = _MOD14.pack(port, mac, *bits)
    return "PORT_MOD", [body + (pack("!HHI", 0, 8, advertise) if advertise else b"")]


def _request_port(reader: Reader, version: int) -> int:
    """A number that may be left out where it can mean nothing but all."""
    if version == 1:
        port: int = reader.unpack(Struct("!H6x"))[0]
        return port
    return from_wide(reader.unpack(Struct("!I4x"))[0])


def _encode_request_port(port: int, version: int) -> bytes:
    return pack("!H6x", port) if version == 1 else pack("!I4x", to_wide(port))


def _counters(stats: m.PortStats) -> list[int]:
    values = [
        stats.rx_packets,
        stats.tx_packets,
        stats.rx_bytes,
        stats.tx_bytes,
        stats.rx_dropped,
        stats.tx_dropped,
        stats.rx_errors,
        stats.tx_errors,
        stats.rx_frame_err,
        stats.rx_over_err,
        stats.rx_crc_err,
        stats.collisions,
    ]
    return [_UNKNOWN if value is None else value for value in values]


_COUNTERS = list(m.PortStats.__dataclass_fields__)[1:13]


def encode_port_stats(stats: m.PortStats, version: int) -> bytes:
    counters = _counters(stats)
    if version == 1:
        return _STATS10.pack(stats.port, *counters)
    unknown = 0xFFFF_FFFF, 0xFFFF_FFFF
    age = unknown if stats.duration_ns is None else divmod(stats.duration_ns, 10**9)
    if version < 5:
        return _STATS13.pack(to_wide(stats.port), *counters, *age)
    ethernet = _STATS_ETHERNET.pack(0, _STATS_ETHERNET.size, *counters[8:])
    size = _STATS14.size + len(ethernet)
    return _STATS14.pack(size, to_wide(stats.port), *age, *counters[:8]) + ethernet


def _port_stats(reader: Reader, version: int) -> m.PortStats:
    age: tuple[int, ...] = (0xFFFF_FFFF, 0)
    if version == 1:
        number, *counters = reader.unpack(_STATS10)
    elif version < 5:
        number, *rest = reader.unpack(_STATS13)
        counters, age = rest[:12], tuple(rest[12:])
    else:
        length, number, seconds, nanos, *counters = reader.unpack(_STATS14)
        age = seconds, nanos
        for kind, body in _properties(reader, length - _STATS14.size):
            if kind == 0:
                counters += body.unpack(Struct("!4x4Q"))
        counters += [_UNKNOWN] * (12 - len(counters))
    values = [None if value == _UNKNOWN else value for value in counters]
    return m.PortStats(
        port=number if version == 1 else from_wide(number),
        duration_ns=None if age[0] == 0xFFFF_FFFF else age[0] * 10**9 + age[1],
        **dict(zip(_COUNTERS, values, strict=False)),
    )


def _all(reader: Reader, version: int, one: Callable[[Reader, int], Any]) -> tuple[Any, ...]:
    entries = []
    while len(reader):
        entries.append(one(reader, version))
    return tuple(entries)


def _queue_stats_request(reader: Reader, version: int) -> m.QueueStatsRequest:
    port, queue = reader.unpack(Struct("!H2xI" if version == 1 else "!II"))
    return m.QueueStatsRequest(port if version == 1 else from_wide(port), queue)


def _queue_config_request(reader: Reader, version: int) -> m.QueueConfigRequest:
    if version == 1:
        return m.QueueConfigRequest(reader.unpack(Struct("!H2x"))[0])
    # Four bytes follow: padding, from 1.4 a queue's number.
    return m.QueueConfigRequest(from_wide(reader.unpack(Struct("!I4x"))[0], Code.OFPQOFC_BAD_PORT))


def _queue_config_reply(reader: Reader, version: int) -> m.QueueConfigReply:
    if version == 1:
        return m.QueueConfigReply(reader.unpack(Struct("!H6x"))[0])
    return m.QueueConfigReply(from_wide(reader.unpack(Struct("!I4x"))[0]))


def _encode_queue_request(message: m.QueueConfigRequest, version: int) -> Encoded:
    if version == 1:
        return "QUEUE_CONFIG_REQUEST", [pack("!H2x", message.port)]
    if version < 5:
        return "QUEUE_CONFIG_REQUEST", [pack("!I4x", to_wide(message.port))]
    return "STATS_REQUEST:QUEUE_DESC", [pack("!II", to_wide(message.port), 0xFFFF_FFFF)]


def _encode_queue_reply(message: m.QueueConfigReply, version: int) -> Encoded:
    if version == 1:
        return "QUEUE_CONFIG_REPLY", [pack("!H6x", message.port)]
    if version < 5:
        return "QUEUE_CONFIG_REPLY", [pack("!I4x", to_wide(message.port))]
    return "STATS_REPLY:QUEUE_DESC", []


def _port_desc_request(reader: Reader, version: int) -> m.PortDescRequest:
    if version < 6:
        return m.PortDescRequest()
    return m.PortDescRequest(from_wide(reader.unpack(Struct("!I4x"))[0]))


DECODERS: Mapping[str, Callable[[Reader, int], Message]] = {
    "PORT_STATUS": _port_status,
    "PORT_MOD": _port_mod,
    "STATS_REQUEST:PORT": lambda r, v: m.PortStatsRequest(_request_port(r, v)),
    "STATS_REPLY:PORT": lambda r, v: m.PortStatsReply(_all(r, v, _port_stats)),
    "STATS_REQUEST:PORT_DESC": _port_desc_request,
    "STATS_REPLY:PORT_DESC": lambda r, v: m.PortDescReply(_all(r, v, read_port)),
    "STATS_REQUEST:QUEUE": _queue_stats_request,
    "STATS_REPLY:QUEUE": lambda _r, _v: m.QueueStatsReply(),
    "QUEUE_CONFIG_REQUEST": _queue_config_request,
    "QUEUE_CONFIG_REPLY": _queue_config_reply,
    "STATS_REQUEST:QUEUE_DESC": _queue_config_request,
    "STATS_REPLY:QUEUE_DESC": lambda _r, _v: m.QueueConfigReply(Port.NONE),
}
ENCODERS: Mapping[type[Any], Callable[[Any, int], Encoded]] = {
    m.PortStatus: lambda a, v: (
        "PORT_STATUS",
        [bytes([a.reason]) + bytes(7) + encode_port(a.port, v)],
    ),
    m.PortMod: _encode_port_mod,
    m.PortStatsRequest: lambda a, v: ("STATS_REQUEST:PORT", [_encode_request_port(a.port, v)]),
    m.PortStatsReply: lambda a, v: (
        "STATS_REPLY:PORT",
        (encode_port_stats(entry, v) for entry in a.entries),
    ),
    m.PortDescRequest: lambda a, v: (
        "STATS_REQUEST:PORT_DESC",
        [] if v < 6 else [_encode_request_port(a.port, v)],
    ),
    m.PortDescReply: lambda a, v: (
        "STATS_REPLY:PORT_DESC",
        (encode_port(entry, v) for entry in a.entries),
    ),
    m.QueueStatsRequest: lambda a, v: (
        "STATS_REQUEST:QUEUE",
        [pack("!H2xI", a.port, a.queue_id) if v == 1 else pack("!II", to_wide(a.port), a.queue_id)],
    ),
    m.QueueConfigRequest: _encode_queue_request,
    m.QueueConfigReply: _encode_queue_reply,
    m.QueueStatsReply: lambda _a, _v: ("STATS_REPLY:QUEUE", []),
}
