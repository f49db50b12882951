# SPDX-License-Identifier: Apache-2.0
"""Super-frames as the frames of the wire they stand for (departures D10 and D12)."""

import re
import socket
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from tools.lab.capture import Capture, Frame
from tools.lab.flow import transfer
from tools.lab.heliograph import Heliograph
from tools.lab.namespaces import Namespace
from tools.lab.openvswitch import Tools
from tools.lab.processes import PATIENCE, eventually

SIZE = 2_000_000
ETH_P_ALL = 3
SO_MARK, SO_RCVMARK = 36, 75  # asm-generic/socket.h
MIRROR = (
    "-- --id=@1 get port p1 -- --id=@3 get port p3 -- --id=@m create mirror name=m0"
    " select_src_port=@1 output_port=@3 {} -- set bridge br0 mirrors=@m"
)


@pytest.fixture
def guests(
    switch: Heliograph, ovs: Tools, guest: Callable[[str], Namespace]
) -> dict[str, Namespace]:
    """p1 (10.8.0.1) and p2 (10.8.0.2), and p3 that listens, without IPv6."""
    ovs.vsctl("add-br br0")
    made = {}
    for number in (1, 2, 3):
        name = f"p{number}"
        ovs.vsctl(f"add-port br0 {name} -- set interface {name} type=internal")
        made[name] = guest(name)
        made[name].set_sysctl("ipv6/conf/default/disable_ipv6", "1")
        made[name].set_sysctl("ipv6/conf/all/disable_ipv6", "1")
        switch.move(name, made[name], f"10.8.0.{number}/24" if number < 3 else None)
    assert eventually(lambda: made["p1"].ping("10.8.0.2", 1) == 1)
    return made


def statistics(ovs: Tools, table: str, row: str) -> dict[str, int]:
    printed = ovs.vsctl(f"get {table} {row} statistics")
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", printed)}


def payload_seen(frames: list[Frame]) -> set[int]:
    """The TCP sequence numbers, relative to the first, at which a captured segment begins."""
    segments = [
        Ether(f.data)[TCP] for f in frames if len(f.data) >= 54 and Ether(f.data)[IP].len > 52
    ]
    first = min(segment.seq for segment in segments)
    return {segment.seq - first for segment in segments}


@pytest.mark.parametrize("snaplen", [54, 66, 128, 1000])
def test_departure_10_every_segments_head_arrives(
    switch: Heliograph, ovs: Tools, guests: dict[str, Namespace], snaplen: int
) -> None:
    ovs.vsctl(MIRROR.format(f"snaplen={snaplen}"))
    with Capture(guests["p3"], "p3") as copies:
        transfer(guests["p1"], guests["p2"], "10.8.0.2", SIZE)
        frames = copies.everything()
    assert max(len(frame.data) for frame in frames) == snaplen
    # 1,448 bytes of payload a segment: 1,500 less IPv4, TCP and its timestamps.
    assert (
        payload_seen(frames) >= set(range(0, SIZE - 1448, 1448))
        or len(payload_seen(frames)) >= SIZE // 1448
    )
    assert eventually(lambda: statistics(ovs, "mirror", "m0")["tx_packets"] == len(frames))
    counts = statistics(ovs, "mirror", "m0")
    assert counts.keys() == {"tx_packets", "tx_bytes"}, "nothing was dropped"
    assert counts["tx_bytes"] > SIZE
    output = statistics(ovs, "interface", "p3")
    assert output["tx_packets"] >= len(frames)
    assert "segmenter" not in switch.helio("show", "--rundir", switch.rundir).stdout


def test_departure_10_wire_frames(
    ovs: Tools, guests: dict[str, Namespace], switch: Heliograph
) -> None:
    """None larger than the wire's, checksums valid; without the option they are as they come."""
    ovs.vsctl(MIRROR.format(""))
    with Capture(guests["p3"], "p3") as copies:
        transfer(guests["p1"], guests["p2"], "10.8.0.2", SIZE)
        assert max(frame.length for frame in copies.everything()) > 1514
        ovs.vsctl("set port p3 other_config:heliograph-wire-frames=true")
        transfer(guests["p1"], guests["p2"], "10.8.0.2", SIZE)
        frames = copies.everything()
        assert max(frame.length for frame in frames) == 1514
        assert not any(frame.pending_checksum for frame in frames)
        for frame in frames[:: len(frames) // 50]:
            packet = Ether(frame.data)
            told = packet[TCP].chksum
            del packet[TCP].chksum
            assert Ether(bytes(packet))[TCP].chksum == told
        ovs.vsctl("remove port p3 other_config heliograph-wire-frames")
        transfer(guests["p1"], guests["p2"], "10.8.0.2", SIZE)
        assert max(frame.length for frame in copies.everything()) > 1514


def test_the_segmenter_comes_and_goes(
    switch: Heliograph, ovs: Tools, guests: dict[str, Namespace]
) -> None:
    def devices() -> int:
        return switch.host.ip("-o link show").count(": hg")

    before = devices()
    ovs.vsctl(MIRROR.format("snaplen=64"))
    assert devices() == before + 2
    switch.stop()
    switch.start()
    assert devices() == before + 2
    ovs.vsctl("clear bridge br0 mirrors")
    assert devices() == before
    ovs.vsctl(MIRROR.format("snaplen=64"))
    switch.stop()
    switch.teardown()
    assert devices() == 0


def test_copies_carry_no_mark_of_ours(
    switch: Heliograph, ovs: Tools, guests: dict[str, Namespace]
) -> None:
    """To a port in the switch's own namespace, where a mark would survive."""
    ovs.vsctl("add-port br0 p4 -- set interface p4 type=internal")
    switch.host.ip("link set p4 up")
    switch.host.going()
    ovs.vsctl(MIRROR.format("snaplen=64").replace("port p3", "port p4"))
    with switch.host.packet_socket("p4", ETH_P_ALL) as copies:
        copies.setsockopt(socket.SOL_SOCKET, SO_RCVMARK, 1)
        transfer(guests["p1"], guests["p2"], "10.8.0.2", SIZE)
        copies.settimeout(PATIENCE)
        seen = 0
        while seen < 10:
            data, notes, _, _ = copies.recvmsg(2048, 256)
            if len(data) == 64:  # not what the host itself says there
                assert [mark for _, kind, mark in notes if kind == SO_MARK] == [bytes(4)]
                seen += 1


def test_departure_10_super_frames_in_a_guests_own_tunnel_are_cut(
    ovs: Tools, guests: dict[str, Namespace]
) -> None:
    """Their inner headers are not looked at, so how long each segment is is not known before."""
    for number in (1, 2):
        tunnel = f"link add vx type vxlan id 5 remote 10.8.0.{3 - number} dstport 4789"
        guests[f"p{number}"].ip(f"{tunnel} dev p{number}")
        guests[f"p{number}"].ip("link set vx mtu 1450")
        guests[f"p{number}"].address_up("vx", f"10.20.0.{number}/24")
    ovs.vsctl(MIRROR.format("snaplen=1460"))
    with Capture(guests["p3"], "p3") as copies:
        transfer(guests["p1"], guests["p2"], "10.20.0.2", SIZE)
        frames = copies.everything()
    assert max(len(frame.data) for frame in frames) == 1460
    assert len(frames) > SIZE // 1400
    assert eventually(lambda: statistics(ovs, "mirror", "m0")["tx_packets"] == len(frames))
    assert statistics(ovs, "mirror", "m0").keys() == {"tx_packets", "tx_bytes"}


@pytest.mark.parametrize("snaplen", [38, 64, 100])
def test_rule_78_a_guests_own_tunnel_frame_is_cut(
    ovs: Tools, guests: dict[str, Namespace], snaplen: int
) -> None:
    """Which the kernel will not cut at its end: a datagram in a guest's VXLAN, checksum pending."""
    for name, number, other in (("p1", 1, 2), ("p2", 2, 1)):
        guest = guests[name]
        guest.ip(f"link add vx type vxlan id 7 remote 10.8.0.{other} dstport 4789 dev {name}")
        guest.address_up("vx", f"10.7.7.{number}/24")
    assert eventually(lambda: guests["p1"].ping("10.7.7.2", 1) == 1)
    ovs.vsctl(MIRROR.format(f"snaplen={snaplen}"))
    sender = guests["p1"].call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with sender, Capture(guests["p3"], "p3") as copies, Capture(guests["p2"], "p2") as originals:
        for size in (10, 100, 1200):
            sender.sendto(bytes(size), ("10.7.7.2", 9))
        sent = [f.data for f in originals.everything() if f.data[36:38] == b"\x12\xb5"]
        seen = [f.data for f in copies.everything() if f.data[12:14] == b"\x08\x00"]
    assert len(sent) >= 3
    assert [frame[:34] for frame in seen] == [frame[:34] for frame in sent]
    assert [len(frame) for frame in seen] == [min(len(frame), snaplen) for frame in sent]
    assert statistics(ovs, "mirror", "m0").get("drop_cut") is None
