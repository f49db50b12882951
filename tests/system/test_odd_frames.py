# SPDX-License-Identifier: Apache-2.0
"""Frames that are too short, too long, or not what they say: passed or dropped, and counted."""

import contextlib
import struct

import pytest
from tests.system.site import MAC1, MAC2, Site, data, frame, mirror
from tools.lab.capture import SOL_PACKET

PACKET_VNET_HDR = 15
NO_GSO, TCPV4, UDP_FRAGMENTS, TCPV6, UDP_L4 = 0, 1, 3, 4, 5
VIRTIO = struct.Struct("=BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
NEEDS_CSUM = 1


@pytest.fixture
def mirrored(site: Site) -> Site:
    """What tap1 sends is copied to tap2; tap5 gets it by way of forwarding."""
    site.add("br0", "tap5")
    site.ovs.vsctl(
        "-- --id=@1 get port tap1 -- --id=@2 get port tap2 "
        + mirror("m0", "br0", "select_src_port=@1 output_port=@2")
    )
    return site


def drops(statistics: dict[str, int]) -> int:
    return sum(number for key, number in statistics.items() if key.startswith("drop_"))


def test_runts_and_truncated_tags(mirrored: Site) -> None:
    """The least is a header. Frames that end within their first tag, or 2 bytes after it, the
    kernel drops before it shows them to anyone; what ends within the second is malformed, if
    that is looked at."""
    site = mirrored
    head, tag = MAC2 + MAC1, bytes.fromhex("81000005")
    whole = [
        frame(length=14),
        frame(length=15),
        frame(tag="81000005", length=16),
        head + bytes.fromhex("0800"),  # IPv4 without a byte of it
        head + bytes.fromhex("86dd60"),
        head + tag + bytes.fromhex("81000007"),  # the second tag is payload
        head + tag + bytes.fromhex("8100000788"),
    ]
    lost = [head + tag[:2], head + tag[:3], head + tag, head + tag + b"\x88\xb6"]
    with site.capture("tap2") as copies, site.capture("tap5") as through:
        site.send("tap1", *lost, *whole)
        assert data(copies.collect(len(whole))) == whole
        assert data(through.collect(len(whole))) == whole
        for words, snaplen in ("", 14), ("81000005", 18):
            site.ovs.vsctl(f"set mirror m0 snaplen={snaplen}")
            site.send("tap1", frame(tag=words), frame(tag=words, length=16))
            least = [frame(tag=words)[:snaplen], frame(tag=words, length=16)[:snaplen]]
            assert data(copies.collect(2)) == least
        site.ovs.vsctl("set open . other_config:vlan-limit=2")
        site.send("tap1", *whole[-2:])
        assert data(copies.collect()) == []
    packets = len(whole) + 4
    octets = sum(map(len, whole)) + 2 * (60 + 16) + 8
    assert site.live("m0") == {"tx_packets": packets, "tx_bytes": octets}
    port = site.live("tap1", "port")
    assert port["drop_malformed"] == 2
    assert port["rx_packets"] == packets + 2


def test_giants(mirrored: Site) -> None:
    """Frames of 9,000 bytes pass where the MTU does, and are dropped and counted where not."""
    site = mirrored
    big = frame(length=9014)
    site.guests["tap1"].ip("link set tap1 mtu 9000")
    with pytest.raises(OSError, match="too long"):
        site.send("tap1", frame(length=9019))
    with site.capture("tap2") as copies:
        site.send("tap1", big)
        assert copies.collect() == []
        for name in "tap2", "tap5":
            site.guests[name].ip(f"link set {name} mtu 9000")
        site.send("tap1", big, frame(tag="81006005", length=9014))
        assert data(copies.collect(2)) == [big, frame(tag="81006005", length=9014)]
        site.ovs.vsctl("set mirror m0 snaplen=9000")
        site.send("tap1", big)
        assert data(copies.collect(1)) == [big[:9000]]
    assert site.live("m0") == {"drop_refused": 1, "tx_packets": 4, "tx_bytes": 4 * 9014 + 4}


def segments(
    *,
    kind: int = TCPV4,
    size: int = 1448,
    payload: int = 20_000,
    ethertype: int = 0x0800,
    first: int = 0x45,
    total: int | None = None,
    protocol: int = 6,
    offset: int = 0x50,
    start: int = 34,
    head: int = 54,
    tag: bytes = b"",
) -> bytes:
    """A super-frame as a guest hands it over (virtio-net header first); true unless told to lie."""
    length = 40 + payload if total is None else total
    ip = struct.pack(
        "!BBHHHBBH4s4s", first, 0, length, 1, 0, 64, protocol, 0, b"\n\0\0\1", b"\n\0\0\2"
    )
    tcp = struct.pack("!HHIIBBHHH", 1000, 2000, 1, 1, offset, 0x10, 512, 0, 0)
    ethernet = MAC2 + MAC1 + tag + struct.pack("!H", ethertype)
    flags = NEEDS_CSUM if kind else 0
    header = VIRTIO.pack(flags, kind, head + len(tag), size, start + len(tag), 16)
    return header + ethernet + ip + tcp + bytes(n % 251 for n in range(payload))


LIES = {
    "true": segments(),
    "true, tagged": segments(tag=b"\x81\0\0\5"),
    "64 KB": segments(payload=65_000),
    "shorter in IPv4 than it is": segments(total=40),
    "of no length in IPv4": segments(total=0),
    "longer in IPv4 than it is": segments(total=65_535),
    "IPv4 header of no length": segments(first=0x40),
    "IPv4 header of 60 bytes": segments(first=0x4F),
    "IPv6 in an IPv4 frame": segments(first=0x60),
    "TCP header of no length": segments(offset=0),
    "TCP header of 60 bytes": segments(offset=0xF0),
    "UDP that says it is TCP": segments(protocol=17),
    "no transport at all": segments(protocol=253),
    "segments of 1 byte": segments(size=1, payload=500),
    "segments of 65,535 bytes": segments(size=65_535),
    "one segment": segments(payload=100),
    "no payload": segments(payload=0),
    "IPv6's segments of IPv4": segments(kind=TCPV6),
    "UDP's segments of TCP": segments(kind=UDP_L4, protocol=17, head=42),
    "an IPv6 frame of IPv4": segments(ethertype=0x86DD),
    "segments of an unknown protocol": segments(ethertype=0x88B6),
    "a checksum outside": segments(start=60_000),
    "not a super-frame but as long": segments(kind=NO_GSO),
    "IPv4 lies about an ordinary frame": segments(kind=NO_GSO, total=9_000, payload=100),
    "TCP lies about an ordinary frame": segments(kind=NO_GSO, offset=0xF0, payload=0),
}


# What kernels hand on; the others some refuse, and some do not.
TAKEN = {"true", "true, tagged", "64 KB", "IPv4 lies about an ordinary frame", "no payload"}


def hand_over(site: Site, handed: bytes) -> bool:
    """Send with a virtio-net header; False if the kernel does not take it."""
    with site.guests["tap1"].packet_socket("tap1", 0) as sender:
        sender.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        with contextlib.suppress(OSError):
            return bool(sender.send(handed))
    return False


def test_lengths_that_lie(mirrored: Site) -> None:
    """Passed, cut or dropped; every copy is accounted for, and the switch goes on as before."""
    site = mirrored
    with site.capture("tap2") as copies:
        for snaplen in 0, 64, 14:
            site.ovs.vsctl(f"set mirror m0 snaplen={snaplen or 65535}")
            taken = set()
            for name, handed in LIES.items():
                if hand_over(site, handed):
                    taken.add(name)
                    seen = copies.collect(1, quiet=0.05)
                    # Segments that fit need no cut, so their super-frame stays as it is.
                    fits = name == "segments of 1 byte" and snaplen == 64
                    longest = max(len(copy.data) for copy in seen)
                    assert not snaplen or longest <= max(snaplen, 18) or fits, name
            assert taken >= TAKEN
            site.send("tap1", frame())
            assert data(copies.collect(1)) == [frame()[: snaplen or None]]
    counts = site.live("m0")
    delivered = site.live("tap2", "port")["tx_packets"]
    assert counts["tx_packets"] == delivered + drops(counts)
    # Of a lie about headers the kernel may make fewer segments than it seemed to hold.
    assert drops(counts) <= counts["tx_packets"] // 100, counts
