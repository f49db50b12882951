# SPDX-License-Identifier: Apache-2.0
"""Outer packets of tunnels, written from RFC 2784, 2890, 7348 and rules 104, 110-111, 114-123.

`decode` is as strict as a byte-for-byte comparison: it accepts exactly what `encode` makes, so that
lengths, checksums, versions and reserved bits need no field; whatever is wrong raises Malformed.
Tests change bytes of what `encode` made, and `resealed` makes the outer lengths and checksum fit
again, to see one fault at a time.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

Kind = Literal["gre", "erspan1", "erspan2", "vxlan"]
GRE, UDP = 47, 17
PROTOCOLS: dict[int, Kind] = {0x6558: "gre", 0x88BE: "erspan1", 0x22EB: "erspan2"}
TYPES = {kind: protocol for protocol, kind in PROTOCOLS.items()}
CSUM, KEY, SEQ = 0x8000, 0x2000, 0x1000
DF = 0x4000


class Malformed(Exception):  # noqa: N818 - it is what one says of a packet
    """The packet breaks a rule; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erspan:
    """The fields of rule 115 that are not an Outer's; those of the other version stay 0."""

    vlan: int = 0
    cos: int = 0
    encapsulation: int = 0  # version 1: 3 when the tag is left in the frame
    truncated: int = 0
    index: int = 0  # version 1
    bso: int = 0  # version 2: 1 short, 2 oversized, 3 bad
    timestamp: int = 0  # version 2, like all that follow
    sgt: int = 0
    p: int = 0  # 1 when what follows is an Ethernet frame
    frame_type: int = 0
    hwid: int = 0
    direction: int = 0  # 0 ingress, 1 egress
    granularity: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    """A frame of the underlay and the frame in it."""

    to_mac: bytes
    from_mac: bytes
    src: str
    dst: str
    kind: Kind
    inner: bytes
    ttl: int = 64
    tos: int = 0  # with ECN; in IPv6 the traffic class
    df: bool = True  # False in IPv6, which has no such bit
    ident: int = 0
    flow_label: int = 0
    key: int | None = None  # the VNI of VXLAN, the session of ERSPAN
    csum: bool = False  # of GRE or UDP; if there is one, it is right
    seq: int | None = None
    sport: int | None = None
    dport: int | None = None
    erspan: Erspan | None = None

    @property
    def family(self) -> int:
        return ip_address(self.src).version


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071); 0 over data that contains a right one."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total: int = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _demand(true: bool, wrong: str) -> None:
    if not true:
        raise Malformed(wrong)


def _pseudo_header(src: str, dst: str, length: int, protocol: int) -> bytes:
    addresses = ip_address(src).packed + ip_address(dst).packed
    form = "!xBH" if len(addresses) == 8 else "!I3xB"
    words = (protocol, length) if len(addresses) == 8 else (length, protocol)
    return addresses + struct.pack(form, *words)


def _udp_checksum(src: str, dst: str, datagram: bytes) -> int:
    return checksum(_pseudo_header(src, dst, len(datagram), UDP) + datagram)


# -- encode ------------------------------------------------------------------------------------


def encode(outer: Outer) -> bytes:
    """The frame as it is on the wire."""
    payload = _vxlan(outer) if outer.kind == "vxlan" else _gre(outer)
    protocol = UDP if outer.kind == "vxlan" else GRE
    src, dst = ip_address(outer.src).packed, ip_address(outer.dst).packed
    if outer.family == 4:
        fragment = DF if outer.df else 0
        ether, words = b"\x08\0", (0x45, outer.tos, 20 + len(payload), outer.ident, fragment)
        header = struct.pack("!BBHHHBBH", *words, outer.ttl, protocol, 0) + src + dst
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    else:
        first = 6 << 28 | outer.tos << 20 | outer.flow_label
        ether = b"\x86\xdd"
        header = struct.pack("!IHBB", first, len(payload), protocol, outer.ttl) + src + dst
    return outer.to_mac + outer.from_mac + ether + header + payload


def _gre(outer: Outer) -> bytes:
    key = outer.key if outer.kind == "gre" else None
    flags = CSUM * outer.csum | KEY * (key is not None) | SEQ * (outer.seq is not None)
    header = struct.pack("!HH", flags, TYPES[outer.kind])
    header += bytes(4) if outer.csum else b""
    for number in key, outer.seq:
        header += b"" if number is None else struct.pack("!I", number)
    packet = header + _erspan(outer) + outer.inner
    return packet[:4] + struct.pack("!H", checksum(packet)) + packet[6:] if outer.csum else packet


def _erspan(outer: Outer) -> bytes:
    if outer.erspan is None:
        return b""
    e, session = outer.erspan, outer.key or 0
    version, two_bits = (1, e.encapsulation) if outer.kind == "erspan1" else (2, e.bso)
    second = e.cos << 13 | two_bits << 11 | e.truncated << 10 | session
    head = struct.pack("!HH", version << 12 | e.vlan, second)
    if version == 1:
        return head + struct.pack("!I", e.index)
    last = e.p << 15 | e.frame_type << 10 | e.hwid << 4 | e.direction << 3 | e.granularity << 1
    return head + struct.pack("!IHH", e.timestamp, e.sgt, last)


def _vxlan(outer: Outer) -> bytes:
    length = 16 + len(outer.inner)
    header = struct.pack("!HHHH", outer.sport or 0, outer.dport or 0, length, 0)
    datagram = header + struct.pack("!II", 0x08 << 24, (outer.key or 0) << 8) + outer.inner
    if not outer.csum:
        return datagram
    found = _udp_checksum(outer.src, outer.dst, datagram) or 0xFFFF  # 0 would mean none
    return datagram[:6] + struct.pack("!H", found) + datagram[8:]


# -- decode ------------------------------------------------------------------------------------


def decode(frame: bytes) -> Outer:
    """What is in a frame of the underlay. Raises Malformed."""
    outer = _decode(frame)
    _demand(encode(outer) == frame, "some bit that has to be 0 is not")  # a net below all others
    return outer


def _decode(frame: bytes) -> Outer:
    kind = frame[12:14]
    _demand(kind in {b"\x08\0", b"\x86\xdd"}, f"EtherType {kind.hex()}")
    common: dict[str, object] = {"to_mac": frame[:6], "from_mac": frame[6:12]}
    fields, protocol, payload = (_ipv4 if kind == b"\x08\0" else _ipv6)(frame[14:])
    common |= fields
    _demand(protocol in {GRE, UDP}, f"protocol {protocol}")
    if protocol == GRE:
        common |= _read_gre(payload)
    else:
        common |= _read_vxlan(str(common["src"]), str(common["dst"]), payload)
    return Outer(**common)  # type: ignore[arg-type]


def _ipv4(packet: bytes) -> tuple[dict[str, object], int, bytes]:
    _demand(len(packet) >= 20, "short IPv4 header")
    first, tos, length, ident, fragment, ttl, protocol = struct.unpack_from("!BBHHHBB", packet)
    _demand(first == 0x45, f"IPv4 version and header length {first:#x}")
    _demand(length == len(packet), f"IPv4 total length {length} of {len(packet)}")
    _demand(fragment in {0, DF}, f"IPv4 fragment field {fragment:#x}")
    _demand(checksum(packet[:20]) == 0, "IPv4 header checksum")
    found = {
        "src": str(IPv4Address(packet[12:16])),
        "dst": str(IPv4Address(packet[16:20])),
        "ttl": ttl,
        "tos": tos,
        "df": fragment == DF,
        "ident": ident,
    }
    return found, protocol, packet[20:]


def _ipv6(packet: bytes) -> tuple[dict[str, object], int, bytes]:
    _demand(len(packet) >= 40, "short IPv6 header")
    first, length, protocol, ttl = struct.unpack_from("!IHBB", packet)
    _demand(first >> 28 == 6, f"IP version {first >> 28}")
    _demand(length == len(packet) - 40, f"IPv6 payload length {length} of {len(packet) - 40}")
    found = {
        "src": str(IPv6Address(packet[8:24])),
        "dst": str(IPv6Address(packet[24:40])),
        "ttl": ttl,
        "tos": first >> 20 & 0xFF,
        "df": False,
        "flow_label": first & 0xFFFFF,
    }
    return found, protocol, packet[40:]


def _read_gre(packet: bytes) -> dict[str, object]:
    _demand(len(packet) >= 4, "short GRE header")
    flags, protocol = struct.unpack_from("!HH", packet)
    _demand(not flags & ~(CSUM | KEY | SEQ), f"GRE flags and version {flags:#06x}")
    _demand(protocol in PROTOCOLS, f"GRE protocol {protocol:#06x}")
    kind = PROTOCOLS[protocol]
    _demand(kind == "gre" or flags == SEQ, f"GRE flags {flags:#06x} of ERSPAN")
    rest = packet[4:]
    found: dict[str, object] = {"kind": kind, "csum": bool(flags & CSUM)}
    if flags & CSUM:
        _demand(rest[2:4] == bytes(2), "GRE reserved1")
        _demand(checksum(packet) == 0, "GRE checksum")
        rest = rest[4:]
    for flag, name in (KEY, "key"), (SEQ, "seq"):
        if flags & flag:
            _demand(len(rest) >= 4, f"no GRE {name}")
            found[name], rest = int.from_bytes(rest[:4], "big"), rest[4:]
    if kind != "gre":
        return found | _read_erspan(rest, 1 if kind == "erspan1" else 2)
    return found | {"inner": _inner(rest)}


def _read_erspan(packet: bytes, version: int) -> dict[str, object]:
    size = 8 if version == 1 else 12
    _demand(len(packet) >= size, "short ERSPAN header")
    first, second = struct.unpack_from("!HH", packet)
    _demand(first >> 12 == version, f"ERSPAN version {first >> 12}, not {version}")
    cos, two_bits, truncated = second >> 13, second >> 11 & 3, second >> 10 & 1
    if version == 1:
        index = int.from_bytes(packet[4:8], "big")
        _demand(index >> 20 == 0, "ERSPAN reserved bits")
        header = Erspan(
            vlan=first & 0xFFF, cos=cos, encapsulation=two_bits, truncated=truncated, index=index
        )
    else:
        timestamp, sgt, last = struct.unpack_from("!IHH", packet, 4)
        _demand(last & 1 == 0, "ERSPAN optional subheader")
        header = Erspan(
            vlan=first & 0xFFF,
            cos=cos,
            bso=two_bits,
            truncated=truncated,
            timestamp=timestamp,
            sgt=sgt,
            p=last >> 15,
            frame_type=last >> 10 & 0x1F,
            hwid=last >> 4 & 0x3F,
            direction=last >> 3 & 1,
            granularity=last >> 1 & 3,
        )
    return {"key": second & 0x3FF, "erspan": header, "inner": _inner(packet[size:])}


def _read_vxlan(src: str, dst: str, datagram: bytes) -> dict[str, object]:
    _demand(len(datagram) >= 16, "short UDP or VXLAN header")
    sport, dport, length, found = struct.unpack_from("!HHHH", datagram)
    _demand(length == len(datagram), f"UDP length {length} of {len(datagram)}")
    _demand(not found or not _udp_checksum(src, dst, datagram), "UDP checksum")
    flags, last = struct.unpack_from("!II", datagram, 8)
    _demand(flags == 0x08 << 24, f"VXLAN flags {flags:#010x}")
    _demand(last & 0xFF == 0, "VXLAN reserved byte")
    return {
        "kind": "vxlan",
        "key": last >> 8,
        "csum": bool(found),
        "sport": sport,
        "dport": dport,
        "inner": _inner(datagram[16:]),
    }


def _inner(frame: bytes) -> bytes:
    _demand(len(frame) >= 14, f"an inner frame of {len(frame)} bytes")
    return frame


def resealed(frame: bytes) -> bytes:
    """The frame with an IP length and, for IPv4, a header checksum that fit."""
    if frame[12:14] != b"\x08\0":
        return frame[:18] + struct.pack("!H", len(frame) - 54) + frame[20:]
    header = frame[14:16] + struct.pack("!H", len(frame) - 14) + frame[18:24] + bytes(2)
    header += frame[26:34]
    return frame[:14] + header[:10] + struct.pack("!H", checksum(header)) + frame[26:]
