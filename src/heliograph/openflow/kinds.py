# SPDX-License-Identifier: Apache-2.0
"""Kinds of messages and their numbers: header, multipart header, experimenter header.

A kind is a word: `FLOW_MOD`; `STATS_REQUEST:FLOW` for a multipart message; `NX:FLOW_MOD` and
`ONF:BUNDLE_ADD` for experimenters' messages; `STATS_REPLY:NX:FLOW` for their multipart messages.
"""

from struct import Struct

from heliograph.openflow.buffer import Reader
from heliograph.openflow.errors import NICIRA, ONF, Code, OpenFlowError

HEADER = Struct("!BBHI")
_SUBTYPE = Struct("!II")
_STATS10, _STATS13 = Struct("!HH"), Struct("!HH4x")
MORE = 1
VENDOR_STATS = 0xFFFF

_COMMON = """HELLO ERROR ECHO_REQUEST ECHO_REPLY VENDOR FEATURES_REQUEST FEATURES_REPLY
GET_CONFIG_REQUEST GET_CONFIG_REPLY SET_CONFIG PACKET_IN FLOW_REMOVED PORT_STATUS PACKET_OUT
FLOW_MOD """.split()
_V10 = [
    *_COMMON,
    *"PORT_MOD STATS_REQUEST STATS_REPLY BARRIER_REQUEST BARRIER_REPLY".split(),
    *"QUEUE_CONFIG_REQUEST QUEUE_CONFIG_REPLY".split(),
]
_V13 = [
    *_COMMON,
    *"GROUP_MOD PORT_MOD TABLE_MOD STATS_REQUEST STATS_REPLY BARRIER_REQUEST BARRIER_REPLY".split(),
    *"QUEUE_CONFIG_REQUEST QUEUE_CONFIG_REPLY ROLE_REQUEST ROLE_REPLY".split(),
    *"GET_ASYNC_REQUEST GET_ASYNC_REPLY SET_ASYNC METER_MOD".split(),
]
# From 1.4 queues are described by a multipart message, so the two types are free.
_V14 = [
    *("" if word.startswith("QUEUE_CONFIG") else word for word in _V13),
    *["ROLE_STATUS", "", "", "BUNDLE_CONTROL", "BUNDLE_ADD"],
]
TYPES = {
    1: dict(enumerate(_V10)),
    4: dict(enumerate(_V13)),
    5: dict(enumerate(_V14)),
    6: dict(enumerate(_V14)),
}
_STATS = dict(enumerate("DESC FLOW AGGREGATE TABLE PORT QUEUE".split()))
_S13 = _STATS | dict(
    enumerate(
        "GROUP GROUP_DESC GROUP_FEATURES METER METER_CONFIG METER_FEATURES TABLE_FEATURES "
        "PORT_DESC".split(),
        6,
    )
)
_S14 = _S13 | {14: "TABLE_DESC", 15: "QUEUE_DESC", 16: "FLOW_MONITOR"}
STATS = {1: _STATS | {13: "PORT_DESC"}, 4: _S13, 5: _S14, 6: _S14}
_MONITORS = "FLOW_MONITOR_CANCEL", "FLOW_MONITOR_PAUSED", "FLOW_MONITOR_RESUMED"
_NX = {
    10: "ROLE_REQUEST",
    11: "ROLE_REPLY",
    12: "SET_FLOW_FORMAT",
    13: "FLOW_MOD",
    14: "FLOW_REMOVED",
    15: "FLOW_MOD_TABLE_ID",
    16: "SET_PACKET_IN_FORMAT",
    17: "PACKET_IN",
    19: "SET_ASYNC",
    20: "SET_CONTROLLER_ID",
    30: "PACKET_IN2",
    31: "GROUP_MOD",
} | dict(enumerate(_MONITORS, 21))
_ONF = {2300: "BUNDLE_CONTROL", 2301: "BUNDLE_ADD"} | dict(enumerate(_MONITORS, 1870))
_NX_STATS = {
    0: "FLOW",
    1: "AGGREGATE",
    2: "FLOW_MONITOR",
    7: "GROUP",
    8: "GROUP_DESC",
    9: "GROUP_FEATURES",
}
_ONF_STATS = {1870: "FLOW_MONITOR"}
# Of Nicira's.
_ONLY10 = {"FLOW_MOD", "FLOW_REMOVED", "GROUP_MOD", "SET_FLOW_FORMAT", *_MONITORS}


def _invert(tables: dict[int, dict[int, str]]) -> dict[int, dict[str, int]]:
    return {v: {name: number for number, name in t.items()} for v, t in tables.items()}


_TYPE_NUMBERS, _STATS_NUMBERS = _invert(TYPES), _invert(STATS)
_NUMBERS = _invert({0: _NX, 1: _ONF, 2: _NX_STATS, 3: _ONF_STATS})


def identify(version: int, type_: int, reader: Reader) -> tuple[str, bool]:
    """The kind, and whether more of a multipart message follows. `reader` ends up after it."""
    kind = TYPES[version].get(type_, "")
    if not kind:
        raise OpenFlowError(Code.OFPBRC_BAD_TYPE, f"no message of this version is {type_}")
    if kind == "VENDOR":
        return _vendor(version, reader), False
    if kind in {"STATS_REQUEST", "STATS_REPLY"}:
        number, flags = reader.unpack(_STATS10 if version == 1 else _STATS13)
        if number == VENDOR_STATS:
            return f"{kind}:{_vendor_stats(version, reader)}", bool(flags & MORE)
        name = STATS[version].get(number)
        if name is None:
            raise OpenFlowError(Code.OFPBRC_BAD_STAT, f"no multipart message is {number}")
        return f"{kind}:{name}", bool(flags & MORE)
    return kind, False


def _vendor(version: int, reader: Reader) -> str:
    vendor, subtype = reader.unpack(_SUBTYPE)
    if vendor not in {NICIRA, ONF}:
        raise OpenFlowError(Code.OFPBRC_BAD_VENDOR, f"messages of vendor {vendor:#x}")
    if vendor == ONF:
        name, there = _ONF.get(subtype), version == 4
    else:
        name = _NX.get(subtype)
        there = version == 1 or name not in _ONLY10
    if name is None or not there:
        raise OpenFlowError(Code.OFPBRC_BAD_SUBTYPE, f"no message of {vendor:#x} is {subtype}")
    return f"{'ONF' if vendor == ONF else 'NX'}:{name}"


def _vendor_stats(version: int, reader: Reader) -> str:
    vendor, subtype = reader.unpack(_SUBTYPE)
    if vendor not in {NICIRA, ONF}:
        raise OpenFlowError(Code.OFPBRC_BAD_VENDOR, f"multipart messages of vendor {vendor:#x}")
    onf = vendor == ONF
    name = (_ONF_STATS if onf else _NX_STATS).get(subtype)
    if name is None or version != (4 if onf else 1):
        raise OpenFlowError(
            Code.OFPBRC_BAD_SUBTYPE, f"no multipart message of {vendor:#x} is {subtype}"
        )
    if onf:
        return f"ONF:{name}"
    reader.take(4)
    return f"NX:{name}"


def preamble(kind: str, version: int, *, more: bool = False) -> tuple[int, bytes]:
    """Type, and what stands between the header and the body."""
    types = _TYPE_NUMBERS[version]
    first, _, rest = kind.partition(":")
    if first == "NX":
        return types["VENDOR"], _SUBTYPE.pack(NICIRA, _NUMBERS[0][rest])
    if first == "ONF":
        return types["VENDOR"], _SUBTYPE.pack(ONF, _NUMBERS[1][rest])
    if not rest:
        return types[first], b""
    head = _STATS10 if version == 1 else _STATS13
    if rest.startswith("NX:"):
        vendor = _SUBTYPE.pack(NICIRA, _NUMBERS[2][rest[3:]]) + bytes(4)
        return types[first], head.pack(VENDOR_STATS, more) + vendor
    if rest.startswith("ONF:"):
        vendor = _SUBTYPE.pack(ONF, _NUMBERS[3][rest[4:]])
        return types[first], head.pack(VENDOR_STATS, more) + vendor
    return types[first], head.pack(_STATS_NUMBERS[version][rest], more)
