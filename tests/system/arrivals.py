# SPDX-License-Identifier: Apache-2.0
"""Outer packets for a switch's tunnel ports: their making, their sending, what became of them.

    rig.dig({"gre0": "type=gre options:remote_ip=10.9.0.2 options:key=5"})
    assert rig.deliver(encode(arriving("gre", inner, key=5)), count=1) == [inner]
    assert rig.counts("gre0")["rx_packets"] == 1

Nothing here knows how the switch reads a packet; what is not as tests.oracle.tunnel makes it is
made by changing bytes of that, or by scapy.
"""

import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from tests.oracle.tunnel import Erspan, Kind, Outer, checksum
from tests.system.site import MAC1, MAC2, Site, data, frame
from tests.system.underlay import DEVICE, FAR, NEAR, End, Underlay
from tools.lab.capture import Frame, not_chatter
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.openvswitch import Tools
from tools.lab.processes import eventually

from heliograph.switch.feedback import live

Drop = tuple[str, str]  # a port and a reason
GUEST = "tap1"  # a trunk of all VLANs, whose MAC address is MAC2
MACS = {"src": MAC1.hex(":"), "dst": MAC2.hex(":")}
# What an outer packet may be dropped for before its frame is one of a port.
OUTER_DROPS = "key remote version fragment checksum malformed ecn decapsulation".split()


def arriving(kind: Kind, inner: bytes, *, ipv6: bool = False, **fields: Any) -> Outer:
    """An outer packet from FAR to NEAR, with what its kind cannot be without."""
    known: dict[str, Any] = {
        "to_mac": bytes.fromhex(NEAR.mac.replace(":", "")),
        "from_mac": bytes.fromhex(FAR.mac.replace(":", "")),
        "src": FAR.ipv6 if ipv6 else FAR.ipv4,
        "dst": NEAR.ipv6 if ipv6 else NEAR.ipv4,
        "df": not ipv6,
    }
    if kind in {"erspan1", "erspan2"}:
        known |= {"seq": 7, "erspan": Erspan()}
    elif kind == "vxlan":
        known |= {"sport": 50000, "dport": 4789}
    return Outer(**known | {"kind": kind, "inner": inner} | fields)


def size_of_headers(outer: Outer) -> int:
    """Of an outer packet as `encode` makes it: all that comes before the inner frame."""
    shim = {"gre": 4, "erspan1": 16, "erspan2": 20, "vxlan": 16}[outer.kind]
    if outer.kind == "gre":
        shim += 4 * (outer.csum + (outer.key is not None) + (outer.seq is not None))
    return 14 + (20 if outer.family == 4 else 40) + shim


def with_options(packet: bytes, options: bytes) -> bytes:
    """An IPv4 frame with so much more in its IP header."""
    first = packet[14] + len(options) // 4
    length = struct.pack("!H", len(packet) - 14 + len(options))
    header = bytes([first, packet[15]]) + length + packet[18:24] + bytes(2) + packet[26:34]
    header += options
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return packet[:14] + header + packet[34:]


def with_limit(packet: bytes) -> bytes:
    """An IPv6 frame with the limit for tunnels in tunnels (RFC 2473) that Linux sends unasked."""
    header, rest = packet[14:54], packet[54:]
    option = bytes([header[6], 0, 4, 1, 4, 1, 1, 0])
    length = struct.pack("!H", len(rest) + len(option))
    return packet[:14] + header[:4] + length + b"\x3c" + header[7:] + option + rest


def with_subheader(packet: bytes, outer: Outer) -> bytes:
    """A frame of ERSPAN type III with its O bit set and the 8 bytes that this announces; its IP
    length does not fit."""
    at = size_of_headers(outer)
    return packet[: at - 1] + bytes([packet[at - 1] | 1]) + b"platform" + packet[at:]


def inner_frames() -> dict[str, bytes]:
    """What may come out of a tunnel, by name; all to MAC2."""
    ends4, ends6 = {"src": "10.7.0.1", "dst": "10.7.0.2"}, {"src": "fd07::1", "dst": "fd07::2"}
    tagged = Dot1Q(vlan=5, prio=3)
    packets = {
        "arp": Ether(**MACS) / ARP(pdst="10.7.0.2"),
        "ipv4": Ether(**MACS) / IP(**ends4) / TCP() / b"odd",
        "ipv4-bad-checksums": Ether(**MACS) / IP(**ends4, chksum=1) / UDP(chksum=1) / b"odd",
        "ipv4-options": Ether(**MACS) / IP(**ends4, options=b"\x01" * 40) / TCP(),
        "ipv4-empty": Ether(**MACS) / IP(**ends4),
        "ipv6": Ether(**MACS) / IPv6(**ends6) / UDP() / bytes(33),
        "ipv6-empty": Ether(**MACS) / IPv6(**ends6),
        "tagged-arp": Ether(**MACS) / tagged / ARP(pdst="10.7.0.2"),
        "tagged-ipv4": Ether(**MACS) / tagged / IP(**ends4) / TCP() / bytes(7),
        "tagged-ipv6": Ether(**MACS) / tagged / IPv6(**ends6) / TCP() / bytes(8),
        "qinq": Ether(**MACS, type=0x88A8) / tagged / Dot1Q(vlan=7) / IP(**ends4) / UDP(),
        "three-tags": Ether(**MACS) / tagged / Dot1Q(vlan=7) / Dot1Q(vlan=9) / ARP(),
        "own-tunnel": Ether(**MACS) / IP(**ends4, proto=47) / b"\0\0\x65\x58" / bytes(40),
        "full-ipv4": Ether(**MACS) / IP(**ends4) / TCP() / bytes(1460),
        "full-ipv6": Ether(**MACS) / IPv6(**ends6) / TCP() / bytes(1440),
        "full-tagged": Ether(**MACS) / tagged / IP(**ends4) / TCP() / bytes(1460),
        "jumbo": Ether(**MACS) / IP(**ends4) / UDP() / bytes(8972),
    }
    found = {name: bytes(packet) for name, packet in packets.items()}
    found["full"] = frame(length=1514)
    runts = [14, 15, 17, 18, 33, 34, 41, 47, 53, 54, 59, 60, 61]
    found |= {f"runt-{n}": frame(length=n) for n in runts}
    # An IP header that is announced and is not all there.
    found |= {f"ipv4-cut-{n}": found["ipv4"][:n] for n in (14, 20, 33)}
    found |= {f"ipv6-cut-{n}": found["ipv6"][:n] for n in (14, 30, 53)}
    return found


def is_answer(captured: Frame) -> bool:
    """Whether the host's word at the collector was about a packet: no ARP, no discovery."""
    return captured.data[12:14] != b"\x08\x06" and not_chatter(captured)


@dataclass
class Rig:
    """br0 with the guests tap1 and tap2, and an underlay to a bare collector."""

    site: Site
    under: Underlay
    uuids: dict[str, UUID] = field(default_factory=dict)

    @classmethod
    def build(cls, lab: Lab, mtu: int = 9216) -> "Rig":
        switch = Heliograph(lab)
        switch.start()
        site = Site(lab, switch, Tools(switch.rundir), {})
        under = Underlay.build(lab, switch.host)
        under.set_mtu(mtu)
        site.ovs.vsctl("add-br br0")
        for guest in GUEST, "tap2":
            site.add("br0", guest)
        site.ovs.vsctl(
            f"set interface {GUEST} mtu_request=9000 -- set interface br0 mtu_request=9000"
        )
        site.guests[GUEST].ip(f"link set {GUEST} mtu 9000")
        under.ready()
        return cls(site, under)

    def neighbours(self, count: int) -> list[End]:
        """More addresses of the collector, for each of which a tunnel has a way."""
        ends = [
            replace(FAR, ipv4=f"10.9.0.{n}", ipv6=f"fd09::{n:x}") for n in range(11, 11 + count)
        ]
        for end in ends:
            self.settle(end)
        return ends

    def settle(self, end: End) -> None:
        """Another address of the collector, which its neighbours can find."""
        self.under.collector.ip(f"address replace {end.ipv4}/24 dev {DEVICE}")
        self.under.collector.ip(f"address replace {end.ipv6}/64 dev {DEVICE} nodad")

    def dig(self, ports: Mapping[str, str], bridge: str = "br0", then: str = "") -> None:
        """Tunnel ports by name, each with the columns of its Interface."""
        words = " ".join(
            f"-- add-port {bridge} {name} -- set interface {name} {columns}"
            for name, columns in ports.items()
        )
        self.site.ovs.vsctl(f"{words} {then}")
        for name in ports:
            assert self.site.ovs.vsctl(f"get interface {name} error") == "[]", name
        rows = self.site.ovs.vsctl(" -- ".join(f"get port {name} _uuid" for name in ports))
        self.uuids |= dict(zip(ports, map(UUID, rows.split()), strict=True))

    def fill_in(self, *names: str) -> None:
        """Remove these tunnel ports, or all."""
        names = names or tuple(self.uuids)
        self.site.ovs.vsctl(" ".join(f"-- del-port {name}" for name in names))
        for name in names:
            del self.uuids[name]

    def introduce(self, *tags: str) -> None:
        """Have the guest's MAC address learned, in each VLAN: nothing to it is flooded."""
        self.site.send(GUEST, *(frame(MAC2, MAC2, tag) for tag in tags))

    def all_counts(self) -> dict[str, dict[str, int]]:
        """The tunnel ports' statistics as they are this moment, without those that are 0."""
        counters = live(self.site.switch.rundir)
        assert counters is not None
        return {
            name: {key: value for key, value in counters.ports[uuid].items() if value}
            for name, uuid in self.uuids.items()
        }

    def counts(self, name: str) -> dict[str, int]:
        """Those of one."""
        return self.all_counts()[name]

    def dropped(self) -> Counter[Drop]:
        """How many were dropped so far, by port and reason."""
        return Counter(
            {
                (name, key.removeprefix("drop_")): value
                for name, counts in self.all_counts().items()
                for key, value in counts.items()
                if key.startswith("drop_")
            }
        )

    def drops(self, wanted: Mapping[Drop, int], before: Counter[Drop]) -> None:
        """Wait until these have been dropped since, and no others."""
        eventually(lambda: self.dropped() - before == wanted, interval=0.005)
        assert self.dropped() - before == wanted

    def deliver(self, *packets: bytes, count: int = -1) -> list[bytes]:
        """Send them; what the guest gets, which is to be so many frames (-1: as many)."""
        with self.site.capture(GUEST) as inside:
            self.under.send(*packets)
            return data(inside.collect(len(packets) if count < 0 else count, quiet=0.02))

    def receivers(self) -> set[str]:
        """The devices on which tunnels receive."""
        folder = Path(self.site.switch.rundir, "bpf", "links")
        numbers = {path.name.split("-")[0] for path in folder.glob("*-tunnel")}
        lines = self.site.switch.host.ip("-o link show").splitlines()
        names = dict(re.findall(r"^(\d+): ([^:@]+)", line)[0] for line in lines)
        return {names.get(number, f"device {number}, which is gone") for number in numbers}
