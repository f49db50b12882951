# SPDX-License-Identifier: Apache-2.0
"""Link messages: bytes to facts and back."""

import struct

import pytest

from heliograph.kernel import links
from heliograph.kernel.netlink import attribute, attributes, text, u32


def body(*parts: bytes, family: int = 0, flags: int = 0, link_type: int = 1) -> bytes:
    return struct.pack("=BxHiII", family, link_type, 7, flags, 0) + b"".join(parts)


VETH = attribute(18, text(1, "veth"), attribute(2, b""))
FULL = (
    text(3, "tap1"),
    attribute(1, bytes.fromhex("020000000001")),
    u32(4, 1400),
    u32(50, 68),
    u32(51, 65535),
    u32(5, 8),
    u32(10, 9),
    VETH,
    text(20, "naïve"),
    u32(35, 3),
)


def test_every_fact() -> None:
    device = links.parse_link(body(*FULL, flags=0x1 | 0x40 | 0x100))
    assert device == links.Device(
        ifindex=7,
        name="tap1",
        kind="veth",
        link_type=1,
        alias="naïve",
        mac="02:00:00:00:00:01",
        mtu=1400,
        min_mtu=68,
        max_mtu=65535,
        admin_up=True,
        carrier=True,
        promiscuous=True,
        master=9,
        peer=8,
        peer_elsewhere=False,
        carrier_changes=3,
        arp=True,
    )


def test_what_is_not_said_is_empty() -> None:
    device = links.parse_link(body(text(3, "lo"), link_type=772))
    assert device is not None
    assert (device.kind, device.alias, device.mac, device.mtu) == ("", "", "", 0)
    assert (device.master, device.peer, device.link_type) == (0, 0, 772)
    assert not (device.admin_up or device.carrier or device.promiscuous or device.peer_elsewhere)


@pytest.mark.parametrize(
    ("flags", "admin_up", "carrier"),
    [(0x1, True, False), (0x40, False, False), (0x41, True, True)],
)
def test_carrier_needs_up_and_running(flags: int, admin_up: bool, carrier: bool) -> None:
    device = links.parse_link(body(*FULL, flags=flags))
    assert device is not None
    assert (device.admin_up, device.carrier) == (admin_up, carrier)


@pytest.mark.parametrize(
    ("flags", "link_type", "arp"),
    [(0, 1, True), (0x80, 1, False), (0x10, 1, False), (0, 772, False), (0, 65534, False)],
)
def test_neighbours_are_looked_for_on_ethernet_alone(flags: int, link_type: int, arp: bool) -> None:
    device = links.parse_link(body(*FULL, flags=flags, link_type=link_type))
    assert device is not None
    assert device.arp is arp


@pytest.mark.parametrize("namespace", [0, 5])
def test_peer_in_another_namespace(namespace: int) -> None:
    said = body(*FULL, attribute(37, struct.pack("=i", namespace)))
    device = links.parse_link(said)
    assert device is not None
    assert device.peer_elsewhere
    assert links.peer_namespace(said) == namespace
    assert links.peer_namespace(body(*FULL)) is None


@pytest.mark.parametrize(
    "other",
    [
        body(*FULL, family=7),  # AF_BRIDGE: of the device as a port of a bridge
        body(*FULL, attribute(11, b"scan")),  # IFLA_WIRELESS
        body(u32(4, 1500)),
    ],
)
def test_what_does_not_describe_a_device_is_no_device(other: bytes) -> None:
    assert links.parse_link(other) is None


def test_counters_in_the_kernels_order() -> None:
    numbers = list(range(100, 125))
    said = struct.pack("=BxHII", 0, 0, 7, 1) + attribute(1, struct.pack("=25Q", *numbers))
    found = links.parse_stats(said)
    assert found is not None
    ifindex, stats = found
    assert ifindex == 7
    assert (stats.rx_packets, stats.tx_bytes, stats.rx_dropped) == (100, 103, 106)
    assert (stats.collisions, stats.rx_crc_errors, stats.tx_carrier_errors) == (109, 112, 117)
    assert links.parse_stats(struct.pack("=BxHII", 0, 0, 7, 1)) is None


def test_pair_request_mutes_arp_of_our_end_only() -> None:
    wire = links.veth_pair("tap1", "hg0123456789ab", bytes.fromhex("020000000001"), 1400)
    _, _, _, flags, change = links.IFINFO.unpack_from(wire)
    assert (flags, change) == (links.IFF_NOARP, links.IFF_NOARP)
    ours = attributes(wire, 16)
    assert ours[links.IFLA_IFNAME] == b"hg0123456789ab\0"
    assert ours[links.IFLA_MTU] == struct.pack("=I", 65535)
    info = attributes(ours[links.IFLA_LINKINFO])
    peer = attributes(info[links.IFLA_INFO_DATA])[links.VETH_INFO_PEER]
    assert peer[:16] == bytes(16)
    assert attributes(peer, 16) == {
        links.IFLA_IFNAME: b"tap1\0",
        links.IFLA_ADDRESS: bytes.fromhex("020000000001"),
        links.IFLA_MTU: struct.pack("=I", 1400),
    }
