# SPDX-License-Identifier: Apache-2.0
"""Traffic of real hosts through flows that rewrite it: super-frames and checksums that are pending
(which a host leaves to its device), both ways."""

import hashlib
import socket
import threading

import pytest
from tests.oracle.flow_pipeline_frames import checksum
from tests.system.site import silence
from tools.lab.capture import Capture, Frame
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.openvswitch import Tools, environment, program
from tools.lab.processes import PATIENCE, run

SIZE = 4 << 20
MAC1, MAC2 = "02:00:00:00:00:01", "02:00:00:00:00:02"
# Such that their changes do not cancel out in a checksum.
ADDRESSES = {
    False: ("10.7.0.1", "10.7.0.2", "10.7.0.9", "10.7.0.77"),
    True: ("fd07::1", "fd07::2", "fd07::9", "fd07::77"),
}


class Hosts:
    """Two hosts, each of which knows the other only under an address and a port that is not his,
    and a wire from the bridge to itself (ports 4 and 5), which the frames pass with a tag."""

    def __init__(self, lab: Lab, switch: Heliograph, ovs: Tools) -> None:
        self.ovs, self.host = ovs, switch.host
        silence(switch.host)
        ports = " ".join(
            f"-- add-port br0 tap{n} -- set interface tap{n} type=internal ofport_request={n}"
            for n in (1, 2, 3)
        )
        ovs.vsctl(f"add-br br0 -- set-fail-mode br0 secure {ports}")
        switch.host.ip("link add wire4 type veth peer name wire5")
        for number in (4, 5):
            switch.host.ip(f"link set wire{number} up")
            port = f"add-port br0 wire{number} -- set interface wire{number}"
            ovs.vsctl(f"{port} ofport_request={number}")
        switch.host.going()
        self.guests = [lab.namespace(f"ns{n}") for n in (1, 2, 3)]
        for n, guest in enumerate(self.guests, 1):
            switch.move(f"tap{n}", guest)
            guest.ip(f"link set tap{n} address 02:00:00:00:00:0{n}")
        silence(self.guests[2])

    def settle(self, *, ipv6: bool, tagged: bool) -> None:
        """Addresses, and flows that change those and the ports."""
        one, two, nine, eight = ADDRESSES[ipv6]
        bits = "/64 nodad" if ipv6 else "/24"
        for n, own, other, mac in ((0, one, nine, MAC2), (1, two, eight, MAC1)):
            self.guests[n].ip(f"address add {own}{bits} dev tap{n + 1}")
            self.guests[n].ip(f"neigh replace {other} lladdr {mac} dev tap{n + 1} nud permanent")
        src, dst = ("ipv6_src", "ipv6_dst") if ipv6 else ("ip_src", "ip_dst")
        push = "push_vlan:0x8100,set_field:4103->vlan_vid,output:" if tagged else "output:"
        there, back = (push + port for port in (("4", "5") if tagged else ("2", "1")))
        lines = [
            "in_port=5,dl_vlan=7,actions=pop_vlan,output:2",
            "in_port=4,dl_vlan=7,actions=pop_vlan,output:1",
        ]
        for kind in ("tcp6", "udp6") if ipv6 else ("tcp", "udp"):
            plain = kind.removesuffix("6")
            lines += [
                f"in_port=1,{kind},{dst}={nine},tp_dst=80,actions=dec_ttl,"
                f"set_field:{eight}->{src},set_field:{two}->{dst},set_field:5001->{plain}_dst,"
                f"{there}",
                f"in_port=2,{kind},{dst}={eight},tp_src=5001,actions=dec_ttl,"
                f"set_field:{nine}->{src},set_field:{one}->{dst},set_field:80->{plain}_src,{back}",
            ]
        command = [str(program("ovs-ofctl")), "-OOpenFlow15", "add-flows", "br0", "-"]
        run(command, stdin="\n".join(lines), env=environment(self.ovs.rundir))


def stream(client: Namespace, server: Namespace, to: str, own: str) -> None:
    """Both say much at once; each must hear it all."""
    listener = server.call(lambda: socket.create_server((own, 5001), family=_family(own)))
    one = client.call(lambda: socket.create_connection((to, 80), PATIENCE))
    with listener, one, listener.accept()[0] as two:
        two.settimeout(PATIENCE)
        said = [hashlib.sha256(bytes([n])).digest() * (SIZE // 32) for n in range(2)]
        senders = [
            threading.Thread(target=end.sendall, args=(data,))
            for end, data in zip((one, two), said, strict=True)
        ]
        heard: list[bytes] = [b"", b""]

        def hear(end: socket.socket, n: int) -> None:
            with end.makefile("rb") as file:
                heard[n] = file.read(SIZE)

        hearers = [threading.Thread(target=hear, args=(e, n)) for n, e in enumerate((two, one))]
        for thread in (*senders, *hearers):
            thread.start()
        for thread in (*senders, *hearers):
            thread.join(PATIENCE)
        assert [hashlib.sha256(data).digest() for data in heard] == [
            hashlib.sha256(data).digest() for data in said
        ]


def datagrams(client: Namespace, server: Namespace, to: str, own: str) -> None:
    def bound() -> socket.socket:
        made = socket.socket(_family(own), socket.SOCK_DGRAM)
        made.bind((own, 5001))
        return made

    with (
        server.call(bound) as two,
        client.call(lambda: socket.socket(_family(own), socket.SOCK_DGRAM)) as one,
    ):
        for end in one, two:
            end.settimeout(PATIENCE)
        for size in (0, 1, 2, 33, 1000, 1400):
            one.sendto(bytes(size), (to, 80))
            data, back = two.recvfrom(2000)
            assert len(data) == size
            two.sendto(data + b"!", back)
            assert one.recv(2000) == data + b"!"


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def faults(frame: Frame) -> bool:
    """Whether a TCP checksum of IPv4, behind one tag, is wrong."""
    data = frame.data[18:]
    total = int.from_bytes(data[2:4], "big")
    pseudo = data[12:20] + bytes([0, data[9]]) + (total - 20).to_bytes(2, "big")
    return bool(checksum(data[:20]) or checksum(pseudo + data[20:total]))


@pytest.mark.parametrize("tagged", [False, True], ids=["plain", "tagged"])
@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_hosts_talk_through_rewriting(
    lab: Lab, switch: Heliograph, ovs: Tools, ipv6: bool, tagged: bool
) -> None:
    hosts = Hosts(lab, switch, ovs)
    client, server, _ = hosts.guests
    hosts.settle(ipv6=ipv6, tagged=tagged)
    _, own, to, _ = ADDRESSES[ipv6]
    datagrams(client, server, to, own)
    stream(client, server, to, own)


def test_egress_copies_of_super_frames_are_right_on_the_wire(
    lab: Lab, switch: Heliograph, ovs: Tools
) -> None:
    """D10 with changed frames: each copy is a frame of the wire, as it was output."""
    hosts = Hosts(lab, switch, ovs)
    client, server, third = hosts.guests
    hosts.settle(ipv6=False, tagged=True)
    ovs.vsctl(
        "set port tap3 other_config:heliograph-wire-frames=true -- --id=@to get port tap3"
        " -- --id=@of get port wire4 -- --id=@m create mirror name=m select_dst_port=@of"
        " output_port=@to -- set bridge br0 mirrors=@m"
    )
    _, own, to, _ = ADDRESSES[False]
    with Capture(third, "tap3") as copies:
        stream(client, server, to, own)
        frames = copies.collect()
    assert sum(frame.length - 70 for frame in frames) >= SIZE
    assert all(frame.length <= 1518 and not frame.pending_checksum for frame in frames)
    assert all(frame.data[12:16] == b"\x81\0\0\7" for frame in frames)
    assert all(frame.data[30:38] == bytes([10, 7, 0, 77, 10, 7, 0, 2]) for frame in frames)
    assert not any(map(faults, frames))
