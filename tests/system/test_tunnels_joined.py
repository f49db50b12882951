# SPDX-License-Identifier: Apache-2.0
"""Whole ways: from the kernel's own vxlan device to a guest and back, and from a mirror of one
switch to a plain capture behind another."""

import hashlib
import random
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.oracle.tunnel import checksum
from tests.system.arrivals import inner_frames
from tests.system.site import Site, data, mirror
from tests.system.underlay import DEVICE, FAR, NEAR, Pair, Underlay
from tools.lab.capture import Capture, Frame
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.openvswitch import Tools
from tools.lab.processes import eventually

PORT = 5001
IN_FLIGHT = (
    1 << 17
)  # octets at most: a queue of the machine that is full loses copies, not segments


def echo(server: socket.socket, octets: int) -> None:
    """Take what comes, say its digest, send it back."""
    connection, _ = server.accept()
    with connection, connection.makefile("rwb") as file:
        received = file.read(octets)
        file.write(hashlib.sha256(received).digest() + received)
        file.flush()


def exchange(client: Namespace, server: Namespace, address: str, octets: int) -> bytes:
    """Send so many octets over TCP and have them sent back; every one is as it was."""
    sent = random.Random(7).randbytes(octets)
    with server.call(partial(socket.create_server, (address, PORT))) as listening:
        listening.settimeout(20)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, IN_FLIGHT)
        thread = threading.Thread(target=echo, args=[listening, octets])
        thread.start()
        connect = partial(socket.create_connection, (address, PORT), 20)
        with client.call(connect) as connection, connection.makefile("rb") as file:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, IN_FLIGHT)
            connection.sendall(sent)
            assert file.read(32) == hashlib.sha256(sent).digest(), "what arrived is something else"
            assert file.read(len(sent)) == sent, "what came back is something else"
        thread.join()
    return sent


@pytest.fixture(scope="module")
def vxlans(tokens: list[str]) -> Iterator[tuple[Site, Underlay]]:
    """A switch with a guest, and a host that has FAR's addresses and a kernel of its own."""
    with Lab() as lab:
        tokens.append(lab.token)
        switch = Heliograph(lab)
        switch.start()
        site = Site(lab, switch, Tools(switch.rundir), {})
        under = Underlay.join(lab, switch.host, lab.namespace("kernel"))
        NEAR.settle(under.host, DEVICE)
        FAR.settle(under.collector, DEVICE)
        under.ready()
        site.ovs.vsctl("add-br br0")
        site.add("br0", "tap1")
        site.guests["tap1"].ip("address add 10.20.0.1/24 dev tap1")
        yield site, under


@pytest.mark.parametrize("offload", ["on", "off"])
@pytest.mark.parametrize(("ipv6", "csum"), [(False, False), (False, True), (True, True)])
def test_tcp_by_the_kernels_vxlan(
    vxlans: tuple[Site, Underlay], ipv6: bool, csum: bool, offload: str
) -> None:
    """Rules 109, 123, D10: super-frames with pending checksums, on their way in and on their way
    back, or with the sender's offloads off a frame of the wire for each segment."""
    site, under = vxlans
    here, there = (NEAR.ipv6, FAR.ipv6) if ipv6 else (NEAR.ipv4, FAR.ipv4)
    sums = "udp6zerocsumtx udp6zerocsumrx"
    sums = ("noudp6zerocsumtx" if csum else sums) if ipv6 else "udpcsum" if csum else "noudpcsum"
    under.collector.run("ethtool", "-K", DEVICE, "tx", offload, "tso", offload)
    under.collector.ip(
        f"link add vx0 type vxlan id 77 dev {DEVICE} dstport 4789"
        f" local {there} remote {here} {sums}"
    )
    under.collector.run("ethtool", "-K", "vx0", "tx", offload)
    under.collector.ip("address add 10.20.0.2/24 dev vx0")
    under.collector.ip("link set vx0 mtu 1500 up")
    site.ovs.vsctl(
        "add-port br0 vxlan0 -- set interface vxlan0 type=vxlan options:key=77"
        f" options:remote_ip={there} options:csum={str(csum).lower()}"
    )
    try:
        with Capture(under.host, DEVICE) as seen:
            exchange(under.collector, site.guests["tap1"], "10.20.0.1", 3_000_000)
            frames = seen.collect(quiet=0.01)
        counts = site.live("vxlan0", "port")
        assert not [key for key in counts if key.startswith("drop_")], counts
        assert min(counts["rx_bytes"], counts["tx_bytes"]) > 3_000_000
        whole = [frame for frame in frames if frame.length > 1600]
        assert bool(whole) == (offload == "on"), "the stream was not what it was to be"
    finally:
        under.collector.ip("link del vx0")
        site.ovs.vsctl("del-port vxlan0")


TUNNELS = {
    "gre": "type=gre options:key=0x1000",
    "erspan1": "type=erspan options:erspan_ver=1 options:key=77",
    "erspan2": "type=erspan options:erspan_ver=2 options:key=77",
    "vxlan": "type=vxlan options:key=77",
    "gre6": "type=gre options:csum=true options:seq=true",
}


@pytest.fixture(scope="module")
def pair(tokens: list[str]) -> Iterator[Pair]:
    with Lab() as lab:
        tokens.append(lab.token)
        made = Pair.build(lab)
        for number, guest in enumerate(("tap1", "tap2"), 1):
            made.near.guests[guest].ip(f"address add 10.7.0.{number}/24 dev {guest}")
            # Else a neighbour is asked again 5 s after it was heard of, amid what is counted.
            made.near.guests[guest].set_sysctl(f"ipv4/neigh/{guest}/delay_first_probe_time", "60")
        yield made


def join(pair: Pair, kind: str) -> None:
    """Mirror tap1 of one switch into a tunnel to the other, and there to its tap1."""
    ends = ((pair.near, FAR), (pair.far, NEAR))
    for site, remote in ends:
        address = remote.ipv6 if kind.endswith("6") else remote.ipv4
        site.ovs.vsctl(
            f"--if-exists del-port tun0 -- add-port br0 tun0 -- set interface tun0 {TUNNELS[kind]}"
            f" options:remote_ip={address}"
        )
    tap1_to_tunnel = mirror(
        "m0", "br0", "select_src_port=@tap1 select_dst_port=@tap1 output_port=@tun0"
    )
    pair.near.ovs.vsctl(f"-- --id=@tap1 get port tap1 -- --id=@tun0 get port tun0 {tap1_to_tunnel}")
    tunnel_to_tap1 = mirror("m0", "br0", "select_src_port=@tun0 output_port=@tap1")
    pair.far.ovs.vsctl(f"-- --id=@tap1 get port tap1 -- --id=@tun0 get port tun0 {tunnel_to_tap1}")
    assert [site.said("m0") for site, _ in ends] == ["", ""]


@pytest.mark.parametrize("kind", TUNNELS)
def test_a_mirror_reaches_a_capture_behind_another_switch(pair: Pair, kind: str) -> None:
    """Rules 51, 103, D9: every frame byte for byte, once, in order."""
    join(pair, kind)
    frames = [one for name, one in inner_frames().items() if name != "jumbo"]
    with pair.far.capture("tap1") as copies, pair.near.capture("tap2") as originals:
        pair.near.send("tap1", *frames)
        assert data(originals.collect(len(frames))) == frames
        assert data(copies.collect(len(frames))) == frames
    selected = {"tx_packets": len(frames), "tx_bytes": sum(map(len, frames))}
    assert pair.near.live("m0") == pair.far.live("m0") == selected
    sent = {key: value for key, value in pair.near.live("tun0", "port").items() if value}
    assert sent == selected


class Stream:
    """What a host said by TCP, put together from frames; each of them is right by itself."""

    def __init__(self, frames: list[Frame], source: str) -> None:
        self.said = bytearray()
        self.repeated = 0
        seen: set[int] = set()
        first = None
        for frame in frames:
            packet = frame.data[14:]
            if frame.data[12:14] != b"\x08\0" or packet[12:16] != socket.inet_aton(source):
                continue
            assert int.from_bytes(packet[2:4], "big") == len(packet) <= 1500
            segment = packet[20:]
            pseudo = packet[12:20] + b"\0\x06" + len(segment).to_bytes(2, "big")
            assert checksum(packet[:20]) == checksum(pseudo + segment) == 0
            number, payload = int.from_bytes(segment[4:8], "big"), segment[segment[12] >> 4 << 2 :]
            first = number + 1 if first is None else first
            if payload:
                at = (number - first) % 2**32
                self.repeated += at in seen
                seen.add(at)
                self.said.extend(bytes(max(at - len(self.said), 0)))  # one overtook another
                self.said[at : at + len(payload)] = payload


def retransmitted(namespace: Namespace) -> int:
    """Segments that the host sent once more."""
    text = namespace.call(Path("/proc/thread-self/net/snmp").read_text)
    names, values = (line.split() for line in text.splitlines() if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])


@pytest.mark.parametrize("kind", ["gre", "erspan2", "vxlan"])
def test_a_stream_reaches_it_as_frames_of_the_wire(pair: Pair, kind: str) -> None:
    """D10: the guests exchange super-frames; each segment arrives once, with right checksums."""
    join(pair, kind)
    near, guests = pair.near, (pair.near.guests["tap1"], pair.near.guests["tap2"])
    before = [retransmitted(guest) for guest in guests]
    with pair.far.capture("tap1") as copies, Capture(guests[1], "tap2") as originals:
        sent = exchange(*guests, "10.7.0.2", 400_000)
        assert eventually(lambda: near.live("m0") == pair.far.live("m0"))
        counts = near.live("m0")
        frames = copies.collect(counts["tx_packets"])
        assert max(one.length for one in originals.collect()) > 1514, "there was no super-frame"
    total = {"tx_packets": len(frames), "tx_bytes": sum(one.length for one in frames)}
    assert total == counts
    said = [sent, hashlib.sha256(sent).digest() + sent]
    for guest, number, source in zip(guests, before, ("10.7.0.1", "10.7.0.2"), strict=True):
        stream = Stream(frames, source)
        assert stream.said == said.pop(0)
        assert stream.repeated <= retransmitted(guest) - number
