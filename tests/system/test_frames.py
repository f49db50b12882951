# SPDX-License-Identifier: Apache-2.0
"""Real frames through real devices: VLANs, learning, copies, cuts and counts.

The packet tests check the decisions; these check what only real frames show, above all the
egress program, and that the counters are those of the frames captured.
"""

import contextlib
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from scapy.layers.inet import IP, UDP
from tests.system.site import read_live
from tools.lab.capture import Capture, Frame
from tools.lab.heliograph import Heliograph
from tools.lab.namespaces import Namespace
from tools.lab.openvswitch import Tools
from tools.lab.processes import PATIENCE, eventually

ETHERTYPE = b"\x88\xb6"  # the second one for experiments
BROADCAST = b"\xff" * 6


@dataclass
class Network:
    """Internal ports p1 to p4 of br0, each in a guest of its own."""

    switch: Heliograph
    ovs: Tools
    guests: dict[str, Namespace]

    def mac(self, port: str) -> bytes:
        return self.guests[port].mac(port)

    def send(self, port: str, *frames: bytes) -> None:
        self.guests[port].send(port, frames)

    def capture(self, port: str) -> Capture:
        return Capture(self.guests[port], port)

    def live(self, table: str, row: str) -> dict[str, int]:
        """The statistics of a Mirror or Port row as they are this moment."""
        return read_live(self.switch, self.ovs, row, table)

    def statistics(self, table: str, row: str) -> dict[str, int]:
        printed = self.ovs.vsctl(f"get {table} {row} statistics")
        return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", printed)}

    def settled(self, table: str, row: str, **wanted: int) -> dict[str, int]:
        """The statistics once they have these values, or as they are after many refreshes."""

        def there() -> bool:
            now = self.statistics(table, row)
            return all(now.get(key, 0) == value for key, value in wanted.items())

        eventually(there)
        return self.statistics(table, row)


@pytest.fixture
def network(switch: Heliograph, ovs: Tools, guest: Callable[[str], Namespace]) -> Network:
    ovs.vsctl("add-br br0")
    guests = {}
    for number in range(1, 5):
        name = f"p{number}"
        ovs.vsctl(f"add-port br0 {name} -- set interface {name} type=internal")
        guests[name] = guest(name)
        # Silent guests: what these tests count is only what they send.
        guests[name].set_sysctl("ipv6/conf/default/disable_ipv6", "1")
        guests[name].set_sysctl("ipv6/conf/all/disable_ipv6", "1")
        switch.move(name, guests[name])
    return Network(switch, ovs, guests)


def frame(
    dst: bytes = BROADCAST, src: bytes = b"\x02\0\0\0\0\x01", tag: str = "", length: int = 60
) -> bytes:
    """`tag` is TPID and TCI in hex; `length` is of the frame without it."""
    payload = bytes(number % 251 for number in range(length - 14))
    return dst + src + bytes.fromhex(tag) + ETHERTYPE + payload


def data(frames: list[Frame]) -> list[bytes]:
    return [captured.data for captured in frames]


def test_rules_59_to_63_learning(network: Network) -> None:
    """A flood until the destination has spoken, then its port only; two VLANs are two tables."""
    first, second = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
    with network.capture("p2") as two, network.capture("p3") as three:
        network.send("p1", frame(second, first))
        assert data(two.collect(1)) == data(three.collect(1)) == [frame(second, first)]
        network.send("p2", frame(first, second))
        assert three.collect() == []
        network.send("p1", frame(second, first, length=100))
        assert data(two.collect(1)) == [frame(second, first, length=100)]
        assert three.collect() == []
        tagged = frame(second, first, tag="81000007")
        network.send("p1", tagged)
        assert data(two.collect(1)) == data(three.collect(1)) == [tagged]


@pytest.mark.parametrize("own", [True, False])
def test_a_frame_for_another_host_stays_one(network: Network, own: bool) -> None:
    """Known on the port or not, the guest takes for its own only what is for its MAC."""
    guest = network.guests["p2"]
    guest.ip("address add 10.6.0.2/24 dev p2")
    address = network.mac("p2") if own else b"\x02\0\0\0\0\x77"
    network.send("p2", frame(b"\x02\0\0\0\0\x01", address))
    listener = guest.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with listener:
        listener.bind(("10.6.0.2", 5005))
        packet = IP(src="10.6.0.1", dst="10.6.0.2") / UDP(sport=1, dport=5005) / b"hello"
        network.send("p1", address + b"\x02\0\0\0\0\x01" + b"\x08\x00" + bytes(packet))
        listener.settimeout(PATIENCE if own else 1.0)
        if own:
            assert listener.recv(100) == b"hello"
        else:
            with pytest.raises(TimeoutError):
                listener.recv(100)


def test_rules_70_and_71_access_and_trunk(network: Network) -> None:
    """Frames flooded and frames redirected; PCP is kept with a tag."""
    network.ovs.vsctl("set port p1 tag=10 -- set port p2 tag=10 -- set port p3 trunks=10,20")
    plain, tagged = frame(), frame(tag="8100000a")
    with (
        network.capture("p2") as two,
        network.capture("p3") as three,
        network.capture("p4") as four,
    ):
        network.send("p1", plain)
        assert data(two.collect(1)) == [plain]
        assert data(three.collect(1)) == data(four.collect(1)) == [tagged]
        network.send("p1", tagged)
        assert two.collect() == three.collect() == four.collect() == []
        network.send("p3", frame(tag="8100600a"), frame(tag="8100001e"), plain)
        assert data(two.collect(1)) == [plain]
        assert data(four.collect(1)) == [frame(tag="8100600a")]
        known = b"\x02\0\0\0\0\x04"
        network.send("p4", frame(src=known, tag="8100000a"))
        two.collect(1), three.collect(1)
        network.send("p1", frame(known))
        assert data(four.collect(1)) == [frame(known, tag="8100000a")]
        network.send("p4", frame(b"\x02\0\0\0\0\x01", tag="8100000a"))
        assert three.collect() == []
    assert network.live("port", "p1")["drop_vlan"] == 1
    assert network.live("port", "p3")["drop_vlan"] == 2


@pytest.mark.parametrize(
    ("output", "sent", "copy"),
    [
        ("", "81006005", "81006005"),
        ("tag=9", "81006005", ""),
        ("tag=9", "", ""),
        ("vlan_mode=native-untagged tag=5", "81006005", ""),
        ("vlan_mode=native-untagged tag=9", "81006005", "81006005"),
        ("vlan_mode=native-tagged tag=5", "81006005", "81006005"),
        ("trunks=77", "88a80005", "88a80005"),
    ],
)
def test_rules_36_to_38_the_copy_has_the_form_of_its_port(
    network: Network, output: str, sent: str, copy: str
) -> None:
    if output:
        network.ovs.vsctl(f"set port p4 {output}")
    network.ovs.vsctl(
        "-- --id=@1 get port p1 -- --id=@4 get port p4 -- --id=@m create mirror name=m0"
        " select_src_port=@1 output_port=@4 -- set bridge br0 mirrors=@m"
    )
    with network.capture("p4") as copies, network.capture("p2") as original:
        network.send("p1", frame(tag=sent))
        assert data(copies.collect(1)) == [frame(tag=copy)]
        assert data(original.collect(1)) == [frame(tag=sent)]


def test_rule_36_from_an_access_port_to_a_trunk(network: Network) -> None:
    network.ovs.vsctl(
        "set port p1 tag=10 -- --id=@1 get port p1 -- --id=@4 get port p4 -- --id=@m create mirror"
        " name=m0 select_src_port=@1 select_dst_port=@1 output_port=@4 -- set bridge br0 mirrors=@m"
    )
    with network.capture("p4") as copies, network.capture("p1") as port:
        network.send("p1", frame())
        assert data(copies.collect(1)) == [frame(tag="8100000a")]
        network.send("p2", frame(tag="8100000a"))
        assert data(copies.collect(1)) == [frame(tag="8100000a")]
        assert data(port.collect(1)) == [frame()]


ARP = bytes.fromhex("ffffffffffff0200000000010806000108000604000102000000000100000000")
IPV4_UDP = bytes.fromhex(
    "ffffffffffff02000000000108004500004c000040004011266f0a0000010a00000212345678003800"
)
IPV6_TCP = bytes.fromhex("ffffffffffff02000000000186dd6000000000500640") + bytes(72)


SNAPLENS = [14, 15, 17, 18, 33, 34, 41, 42, 60, 74, 80, 81, 96, 1500]


@pytest.mark.parametrize("tag", ["", "81007005", "8100600588a80007"])
def test_rules_78_to_80_snaplen(network: Network, tag: str) -> None:
    """To the byte, for any kind of frame; the original is whole. D12: never below 18 with a tag."""
    network.ovs.vsctl(
        "-- --id=@1 get port p1 -- --id=@4 get port p4 -- --id=@m create mirror name=m0"
        " select_src_port=@1 output_port=@4 -- set bridge br0 mirrors=@m"
    )
    sent = [
        whole[:12] + bytes.fromhex(tag) + whole[12:] + bytes(number % 251 for number in range(rest))
        for whole, rest in ((ARP, 18), (IPV4_UDP, 60), (IPV6_TCP, 200), (frame(), 1300))
    ]
    with network.capture("p4") as copies, network.capture("p2") as original:
        for snaplen in SNAPLENS:
            network.ovs.vsctl(f"set mirror m0 snaplen={snaplen}")
            network.send("p1", *sent)
            least = max(snaplen, 18 if tag else 14)
            assert data(copies.collect(4, quiet=0.05)) == [whole[:least] for whole in sent], snaplen
            assert data(original.collect(4, quiet=0.02)) == sent
    packets, octets = 4 * len(SNAPLENS), sum(map(len, sent)) * len(SNAPLENS)
    counts = network.live("mirror", "m0")
    assert counts == {"tx_packets": packets, "tx_bytes": octets}  # rule 101: the whole length
    output = network.live("port", "p4")
    assert output["tx_packets"] == packets
    assert output["tx_bytes"] == sum(
        min(len(whole), max(snaplen, 18 if tag else 14)) for whole in sent for snaplen in SNAPLENS
    )


def test_rule_78_a_copy_that_is_tagged_and_cut(network: Network) -> None:
    network.ovs.vsctl(
        "set port p1 tag=10 -- --id=@1 get port p1 -- --id=@4 get port p4 -- --id=@m create mirror"
        " name=m0 select_src_port=@1 output_port=@4 snaplen=20 -- set bridge br0 mirrors=@m"
    )
    with network.capture("p4") as copies:
        network.send("p1", frame(length=200))
        assert data(copies.collect(1)) == [frame(tag="8100000a", length=200)[:20]]


def test_rules_22_32_and_51_on_the_wire(network: Network) -> None:
    """Three select_all mirrors, two destinations: one copy each, no loop, nothing in by them."""
    network.ovs.vsctl(
        "-- --id=@3 get port p3 -- --id=@4 get port p4"
        " -- --id=@a create mirror name=a select_all=true output_port=@3"
        " -- --id=@b create mirror name=b select_all=true output_port=@4"
        " -- --id=@c create mirror name=c select_all=true output_port=@4"
        " -- set bridge br0 mirrors=@a,@b,@c"
    )
    with (
        network.capture("p2") as two,
        network.capture("p3") as three,
        network.capture("p4") as four,
    ):
        network.send("p1", frame())
        assert data(three.collect(1)) == data(four.collect(1)) == data(two.collect(1)) == [frame()]
        network.send("p3", frame(length=90))
        network.send("p4", frame(length=91))
        assert two.collect() == three.collect() == four.collect() == []
    assert network.live("port", "p3")["drop_reserved_port"] == 1
    totals = [network.live("mirror", name)["tx_packets"] for name in "abc"]
    assert totals[0] == 1
    assert totals[1] + totals[2] == 1


def test_departure_2_a_copy_that_cannot_be_delivered_is_a_drop(network: Network) -> None:
    """Down: dropped, counted, and production does not notice; up again: delivered."""
    network.ovs.vsctl(
        "-- --id=@4 get port p4 -- --id=@m create mirror name=m0 select_all=true output_port=@4"
        " -- set bridge br0 mirrors=@m"
    )
    network.guests["p4"].ip("link set p4 down")
    with network.capture("p2") as two:
        network.send("p1", *[frame(length=60 + number) for number in range(100)])
        assert len(two.collect(100)) == 100
    counts = network.live("mirror", "m0")
    assert counts["tx_packets"] == 100
    assert counts["drop_device_down"] == 100
    network.guests["p4"].ip("link set p4 up")
    # The kernel sets the other end of the pair going in its own time.
    assert eventually(lambda: network.ovs.vsctl("get interface p4 link_state") == "up")
    network.switch.host.going()
    with network.capture("p4") as copies:
        network.send("p1", frame())
        assert data(copies.collect(1)) == [frame()]
    assert network.settled("mirror", "m0", tx_packets=101)["drop_device_down"] == 100


def test_departure_10_a_super_frame_counts_as_its_segments(network: Network) -> None:
    """A TCP stream: the mirror's count is that of the wire frames and their bytes."""
    one, two = network.guests["p1"], network.guests["p2"]
    one.ip("address add 10.9.0.1/24 dev p1")
    two.ip("address add 10.9.0.2/24 dev p2")
    assert eventually(lambda: one.ping("10.9.0.2", 1) == 1)
    network.ovs.vsctl(
        "-- --id=@1 get port p1 -- --id=@4 get port p4 -- --id=@m create mirror name=m0"
        " select_src_port=@1 output_port=@4 -- set bridge br0 mirrors=@m"
    )
    size = 3_000_000
    with network.capture("p4") as copies:
        server = two.call(lambda: __import__("socket").create_server(("10.9.0.2", 5001)))
        client = one.call(lambda: __import__("socket").create_connection(("10.9.0.2", 5001)))
        with server, client:
            receiver, _ = server.accept()
            with receiver:
                sent = received = 0
                client.setblocking(False)
                while received < size:
                    if sent < size:
                        with contextlib.suppress(BlockingIOError):
                            sent += client.send(bytes(min(1 << 17, size - sent)))
                    received += len(receiver.recv(1 << 20))
        frames = copies.collect()
    # MSS 1448: 1500 less IPv4, TCP and its timestamps; headers of 66 bytes with Ethernet's.
    wire = [-(-(captured.length - 66) // 1448) or 1 for captured in frames]
    assert max(wire) > 1, "no super-frame went by: the test shows nothing"
    packets = sum(wire)
    octets = sum(f.length + 66 * (segments - 1) for f, segments in zip(frames, wire, strict=True))
    assert network.live("mirror", "m0") == {"tx_packets": packets, "tx_bytes": octets}
