# SPDX-License-Identifier: Apache-2.0
"""The model of outer packets, held against scapy and tshark, which know nothing of it."""

from dataclasses import replace

import pytest
from scapy.contrib.erspan import ERSPAN_II, ERSPAN_III
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet
from tests.oracle.tunnel import Erspan, Malformed, Outer, decode, encode, resealed
from tools.lab import tshark
from tools.lab.capture import Frame

MACS = {"dst": "02:00:00:00:00:02", "src": "02:00:00:00:00:01"}
INNER = bytes(
    Ether(**MACS) / Dot1Q(vlan=5, prio=3) / IP(src="10.7.0.1", dst="10.7.0.2") / TCP() / b"odd"
)
INNERS = [
    INNER,
    bytes(Ether(**MACS) / ARP()),
    bytes(Ether(**MACS) / IPv6(src="fd07::1", dst="fd07::2") / UDP() / bytes(1452)),
]
ENDS = {"to_mac": bytes.fromhex("020900000002"), "from_mac": bytes.fromhex("020900000001")}
ADDRESSES = [("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")]
VARIANTS = {
    "keyless": {"kind": "gre"},
    "keyed": {"kind": "gre", "key": 0x1000, "ttl": 7, "tos": 0xB9},
    "gre": {"kind": "gre", "key": 0, "csum": True, "seq": 0xFFFFFFFF},
    "erspan1": {
        "kind": "erspan1",
        "key": 1023,
        "seq": 3,
        "erspan": Erspan(vlan=0xABC, cos=5, encapsulation=3, truncated=1, index=0xABCDE),
    },
    "erspan2": {
        "kind": "erspan2",
        "key": 77,
        "seq": 0,
        "erspan": Erspan(
            vlan=5,
            cos=3,
            bso=2,
            truncated=0,
            timestamp=0x89ABCDEF,
            p=1,
            frame_type=0,
            hwid=0x2A,
            direction=1,
            granularity=2,
        ),
    },
    "vxlan": {"kind": "vxlan", "key": 0xABCDEF, "sport": 50000, "dport": 4789},
    "vxlan-csum": {"kind": "vxlan", "key": 5, "csum": True, "sport": 50000, "dport": 4789},
}


def outers(variant: str) -> list[Outer]:
    """It over both families, with each inner frame."""
    return [
        Outer(**ENDS, src=src, dst=dst, df="." in src, inner=inner, **VARIANTS[variant])  # type: ignore[arg-type]
        for src, dst in ADDRESSES
        for inner in INNERS
    ]


def scapy_says(outer: Outer) -> Packet:
    """The headers as scapy builds them, its checksums included."""
    head = Ether(dst=outer.to_mac.hex(":"), src=outer.from_mac.hex(":"))
    if outer.family == 4:
        flags = "DF" if outer.df else ""
        head /= IP(src=outer.src, dst=outer.dst, ttl=outer.ttl, tos=outer.tos, id=0, flags=flags)
    else:
        head /= IPv6(src=outer.src, dst=outer.dst, hlim=outer.ttl, tc=outer.tos)
    if outer.kind == "vxlan":
        pending = None if outer.csum else 0
        head /= UDP(sport=outer.sport, dport=outer.dport, chksum=pending)
        return head / VXLAN(vni=outer.key, flags=8) / outer.inner
    protocol = {"gre": 0x6558, "erspan1": 0x88BE, "erspan2": 0x22EB}[outer.kind]
    gre = GRE(proto=protocol, chksum_present=int(outer.csum))
    if outer.seq is not None:
        gre.seqnum_present, gre.sequence_number = 1, outer.seq
    if outer.erspan is None:
        if outer.key is not None:
            gre.key_present, gre.key = 1, outer.key
        return head / gre / outer.inner
    e = outer.erspan
    shared = {"vlan": e.vlan, "cos": e.cos, "t": e.truncated, "session_id": outer.key}
    if outer.kind == "erspan1":
        return head / gre / ERSPAN_II(en=e.encapsulation, index=e.index, **shared) / outer.inner
    third = ERSPAN_III(bso=e.bso, timestamp=e.timestamp, sgt_other=e.sgt, **shared)
    third.p, third.ft, third.hw, third.d = e.p, e.frame_type, e.hwid, e.direction
    third.gra, third.o = e.granularity, 0
    return head / gre / third / outer.inner


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_encoded_is_what_scapy_builds_and_decodes_to_the_same(variant: str) -> None:
    """Rules 104, 110, 111, 114, 115 and 123."""
    for outer in outers(variant):
        frame = encode(outer)
        assert frame.hex() == bytes(scapy_says(outer)).hex()
        assert decode(frame) == outer


@pytest.mark.parametrize(
    ("variant", "sizes"),
    [
        ("keyless", (38, 58)),
        ("keyed", (42, 62)),
        ("gre", (50, 70)),
        ("erspan1", (50, 70)),
        ("erspan2", (54, 74)),
        ("vxlan", (50, 70)),
    ],
)
def test_headers_have_the_sizes_of_the_rules(variant: str, sizes: tuple[int, int]) -> None:
    """Rules 104 and 116."""
    for outer in outers(variant):
        assert len(encode(outer)) - len(outer.inner) == sizes[outer.family == 6]


def test_tshark_reads_the_same() -> None:
    """Every field and checksum, in every variant."""
    every = [outer for variant in VARIANTS for outer in outers(variant)]
    read = tshark.decode(Frame(frame, len(frame)) for frame in map(encode, every))
    for outer, decoded in zip(every, read, strict=True):
        assert fields(decoded) == expected(outer)
        unsigned = outer.kind == "vxlan" and not outer.csum
        if unsigned and outer.family == 6:  # which RFC 6935 allows to tunnels
            assert decoded.errors == ["Illegal checksum value (0)"]
            continue
        assert decoded.errors == []
        for protocol, statuses in decoded.checksums.items():
            absent = unsigned and protocol == "udp"
            assert set(statuses) - ({"3"} if absent else set()) <= {tshark.GOOD}, protocol


def test_tshark_finds_a_wrong_checksum_and_a_cut_frame() -> None:
    frame = bytearray(encode(outers("gre")[0]))
    frame[-1] ^= 1
    cut = frame[:-4]
    wrong, short = tshark.decode(Frame(bytes(f), len(f)) for f in (frame, cut))
    assert wrong.checksums == {"ip": ["1", "1"], "gre": ["0"], "tcp": ["0"]}
    assert len(wrong.errors) == 2
    assert short.errors


NAMES = {  # of tshark's fields
    "vlan": "vlan",
    "cos": "cos",
    "truncated": "truncated",
    "encapsulation": "encap",
    "index": "index",
    "bso": "bso",
    "timestamp": "timestamp",
    "sgt": "sgt",
    "p": "p",
    "frame_type": "ft",
    "hwid": "hw",
    "direction": "direction",
    "granularity": "gra",
}
ONLY_1, ONLY_2 = {"encapsulation", "index"}, set(list(NAMES)[5:])


def expected(outer: Outer) -> dict[str, object]:
    """What tshark must read: the outermost value of every field there is."""
    layer, ttl, tos = ("ip", "ttl", "dsfield") if outer.family == 4 else ("ipv6", "hlim", "tclass")
    found: dict[str, object] = {f"{layer}.src": outer.src, f"{layer}.dst": outer.dst}
    found |= {f"{layer}.{ttl}": outer.ttl, f"{layer}.{tos}": outer.tos}
    if outer.family == 4:
        found |= {"ip.id": 0, "ip.flags.df": int(outer.df)}
    if outer.kind == "vxlan":
        ports = {"udp.srcport": outer.sport, "udp.dstport": outer.dport}
        return found | ports | {"vxlan.vni": outer.key, "vxlan.flag_i": 1}
    if outer.seq is not None:
        found["gre.sequence_number"] = outer.seq
    if outer.erspan is None:
        return found | ({} if outer.key is None else {"gre.key": outer.key})
    missing, version = (ONLY_2, 1) if outer.kind == "erspan1" else (ONLY_1, 2)
    found |= {"erspan.version": version, "erspan.spanid": outer.key}
    return found | {
        f"erspan.{name}": getattr(outer.erspan, field)
        for field, name in NAMES.items()
        if field not in missing
    }


def fields(decoded: tshark.Decoded) -> dict[str, object]:
    """The same of what it did read."""
    layer = "ip" if decoded.protocols[2] == "ip" else "ipv6"
    texts = [f"{layer}.src", f"{layer}.dst"]
    names = {
        "ip": ["ip.ttl", "ip.dsfield", "ip.id", "ip.flags.df"],
        "ipv6": ["ipv6.hlim", "ipv6.tclass"],
    }[layer]
    names += ["gre.key", "gre.sequence_number", "vxlan.vni", "vxlan.flag_i"]
    names += ["udp.srcport", "udp.dstport"] if "vxlan" in decoded.protocols else []
    names += ["erspan.version", "erspan.spanid", *(f"erspan.{name}" for name in NAMES.values())]
    found: dict[str, object] = {name: decoded[name][0] for name in texts}
    return found | {name: decoded.numbers(name)[0] for name in names if decoded[name]}


KEYED = encode(outers("keyed")[0])  # the GRE header is at 34, or at 54 over IPv6
SUMMED, SIX = encode(outers("gre")[0]), encode(outers("keyed")[3])
SECOND, THIRD = encode(outers("erspan1")[0]), encode(outers("erspan2")[0])
VXLAN4, VXLAN6 = encode(outers("vxlan")[0]), encode(outers("vxlan-csum")[3])


def changed(frame: bytes, at: int, *values: int) -> bytes:
    return resealed(frame[:at] + bytes(values) + frame[at + len(values) :])


@pytest.mark.parametrize(
    ("frame", "wrong"),
    [
        (changed(KEYED, 12, 0x08, 0x06), "EtherType 0806"),
        (KEYED + b"\0", "IPv4 total length"),
        (KEYED[:22] + b"\x08" + KEYED[23:], "IPv4 header checksum"),
        (changed(KEYED, 14, 0x46), "header length 0x46"),
        (changed(KEYED, 20, 0x20), "fragment field 0x2000"),
        (changed(KEYED, 21, 0x01), "fragment field 0x4001"),
        (changed(KEYED, 23, 50), "protocol 50"),
        (changed(KEYED, 34, 0x60), "GRE flags and version 0x6000"),
        (changed(KEYED, 35, 0x01), "GRE flags and version 0x2001"),
        (changed(KEYED, 36, 0x08, 0x00), "GRE protocol 0x0800"),
        (changed(KEYED, 36, 0x88, 0xBE), "flags 0x2000 of ERSPAN"),
        (resealed(KEYED[:40]), "no GRE key"),
        (resealed(KEYED[:37]), "short GRE"),
        (resealed(KEYED[:55]), "inner frame of 13"),
        (changed(SUMMED, 60, 0xFF), "GRE checksum"),
        (changed(SUMMED, 40, 0x01), "GRE reserved1"),
        (SIX[:-1], "IPv6 payload length"),
        (changed(SIX, 14, 0x40), "IP version 4"),
        (changed(SIX, 20, 44), "protocol 44"),
        (changed(SECOND, 42, 0x20), "ERSPAN version 2, not 1"),
        (changed(SECOND, 46, 0x01), "ERSPAN reserved"),
        (resealed(SECOND[:49]), "short ERSPAN"),
        (changed(THIRD, 53, THIRD[53] | 1), "optional subheader"),
        (resealed(THIRD[:53]), "short ERSPAN"),
        (changed(VXLAN4, 42, 0x00), "VXLAN flags"),
        (changed(VXLAN4, 49, 0x01), "VXLAN reserved"),
        (changed(VXLAN4, 39, 0x00), "UDP length"),
        (changed(VXLAN6, 80, 0x55), "UDP checksum"),
        (resealed(VXLAN4[:49]), "short UDP or VXLAN"),
        (KEYED[:30], "short IPv4"),
        (SIX[:50], "short IPv6"),
    ],
)
def test_whatever_is_wrong_is_malformed(frame: bytes, wrong: str) -> None:
    with pytest.raises(Malformed, match=wrong):
        decode(frame)


def test_what_is_resealed_is_right_again() -> None:
    for variant in VARIANTS:
        for outer in outers(variant):
            frame = encode(outer)
            assert resealed(frame) == frame
            if outer.kind == "gre" and not outer.csum:
                longer = replace(outer, inner=outer.inner + b"!")
                assert resealed(frame + b"!") == encode(longer)


def test_a_udp_checksum_of_0_is_sent_as_ffff() -> None:
    """0 would say that there is none (RFC 768)."""
    outer = replace(outers("vxlan-csum")[3], inner=bytes(60))
    missing = encode(outer)[60:62]  # the one word that makes the sum complete
    outer = replace(outer, inner=missing + bytes(58))
    frame = encode(outer)
    assert frame[60:62] == b"\xff\xff"
    assert decode(frame) == outer
