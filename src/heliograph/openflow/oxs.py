# SPDX-License-Identifier: Apache-2.0
"""Statistics of flows as 1.5 has them: a list of numbered values, OXS."""

from dataclasses import dataclass
from struct import Struct, pack

from heliograph.openflow.buffer import Reader, padded
from heliograph.openflow.errors import Code, OpenFlowError

_HEADER = Struct("!HH")
_CLASS = 0x8002
_DURATION, _IDLE, _FLOWS, _PACKETS, _BYTES = 0, 1, 3, 4, 5
_SIZES = {_DURATION: 8, _IDLE: 8, _FLOWS: 4, _PACKETS: 8, _BYTES: 8}


@dataclass(slots=True)
class FlowSums:
    duration_ns: int = 0
    idle_age: int | None = None
    flows: int = 0
    packets: int = 0
    bytes: int = 0


def encode_oxs(
    duration_ns: int | None, idle_age: int | None, flows: int | None, sums: tuple[int, int]
) -> bytes:
    parts = []
    if duration_ns is not None:
        parts.append(pack("!HBBII", _CLASS, _DURATION << 1, 8, *divmod(duration_ns, 10**9)))
    if idle_age is not None:
        parts.append(pack("!HBBII", _CLASS, _IDLE << 1, 8, idle_age, 0))
    if flows is not None:
        parts.append(pack("!HBBI", _CLASS, _FLOWS << 1, 4, flows))
    parts.append(pack("!HBBQ", _CLASS, _PACKETS << 1, 8, sums[0]))
    parts.append(pack("!HBBQ", _CLASS, _BYTES << 1, 8, sums[1]))
    body = b"".join(parts)
    return padded(pack("!HH", 0, 4 + len(body)) + body)


def read_oxs(reader: Reader) -> FlowSums:
    _reserved, length = reader.unpack(_HEADER)
    if length < 4:
        raise OpenFlowError(Code.OFPBRC_BAD_LEN, f"statistics of {length} bytes")
    body = Reader(reader.take(length - 4))
    reader.take(-length % 8)
    sums = FlowSums()
    while len(body):
        kind, code, size = body.unpack(Struct("!HBB"))
        value = body.take(size)
        if kind != _CLASS:
            continue
        if _SIZES.get(code >> 1, size) != size:
            raise OpenFlowError(Code.OFPBRC_BAD_LEN, f"statistic {code >> 1} of {size} bytes")
        _set(sums, code >> 1, value)
    return sums


def _set(sums: FlowSums, code: int, raw: bytes) -> None:
    if code == _DURATION:
        sums.duration_ns = int.from_bytes(raw[:4], "big") * 10**9 + int.from_bytes(raw[4:], "big")
    elif code == _IDLE:
        sums.idle_age = int.from_bytes(raw[:4], "big")
    elif code == _FLOWS:
        sums.flows = int.from_bytes(raw, "big")
    elif code == _PACKETS:
        sums.packets = int.from_bytes(raw, "big")
    elif code == _BYTES:
        sums.bytes = int.from_bytes(raw, "big")
