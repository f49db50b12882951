# SPDX-License-Identifier: Apache-2.0
"""`make demo-rspan`: a port mirrored into a VLAN and seen on another bridge (RSPAN).

Prints what it does as it does it, compares what happened with what it announced, removes
everything it made, and exits with 1 if anything was different.
"""

import sys

from tools.lab.capture import Frame
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.processes import eventually
from tools.stage import PINGS, Claims, Stage, perform

VLAN = 111
TAG = bytes((0x81, 0x00, 0, VLAN))
ECHOES = 2 * PINGS  # requests and replies
ICMP = "icmp or (vlan and icmp)"


class DemoRspan(Stage):
    """Two bridges joined by one wire; what tap1 of br0 says and hears is seen on tap4 of br1."""

    def __init__(self, lab: Lab, claim: Claims) -> None:
        super().__init__(lab, claim)
        self.guests: dict[str, Namespace] = {}

    def build(self) -> None:
        print(
            "\nTwo bridges, joined by a veth pair, with internal ports in network namespaces"
            "\n(IPv6 is off there, so that nobody talks unasked):\n"
        )
        self.start()
        host = self.switch.host
        for device in "all", "default":
            host.set_sysctl(f"ipv6/conf/{device}/disable_ipv6", "1")
        for bridge in "br0", "br1":
            self.vsctl(f"add-br {bridge}")
        for words in "link add p0 type veth peer name p1", "link set p0 up", "link set p1 up":
            print(f"$ ip {words}")
            host.ip(words)
        self.vsctl("add-port br0 p0 -- add-port br1 p1")
        for port, bridge, address in (
            ("tap1", "br0", "10.7.0.1/24"),
            ("tap2", "br0", "10.7.0.2/24"),
            ("tap4", "br1", None),
        ):
            self.guests[port] = self.guest(port, bridge, port, address)
        eventually(lambda: self.guests["tap1"].ping("10.7.0.2", 1) == 1)

    def watch(self) -> list[Frame]:
        """What tap4 sees while tap1 pings tap2."""
        capture = self.tcpdump(self.guests["tap4"], "tap4", ICMP)
        self.ping(self.guests["tap1"], "10.7.0.2")
        capture.stop()
        print(*capture.text("-t", "-e"), sep="\n", end="\n" if capture.frames() else "")
        return capture.frames()

    def tagged(self, frames: list[Frame]) -> bool:
        """Whether they are exactly the echoes, each with the tag of the VLAN."""
        return len(frames) == ECHOES and all(frame.data[12:16] == TAG for frame in frames)

    def plain(self, frames: list[Frame]) -> bool:
        """Whether they are exactly the echoes, each an untagged IPv4 frame."""
        return len(frames) == ECHOES and all(frame.data[12:14] == b"\x08\0" for frame in frames)

    def run(self) -> None:
        self.build()
        print("\nWithout a mirror tap4, on the other bridge, sees nothing of it.\n")
        self.claim(self.watch() == [], "tcpdump on tap4 captured nothing")
        print(
            f"\nA mirror on br0: both directions of tap1 are copied into VLAN {VLAN}. On br1 that"
            "\nVLAN is always flooded, or br1 would learn in it where the hosts seem to be:\n"
        )
        self.vsctl(
            f"set bridge br1 flood_vlans={VLAN} -- --id=@tap1 get port tap1"
            " -- --id=@m create mirror name=m0 select_src_port=@tap1 select_dst_port=@tap1"
            f" output_vlan={VLAN} -- set bridge br0 mirrors=@m"
        )
        print("\ntap4 is a trunk, as ports are:\n")
        self.claim(
            self.tagged(self.watch()), f"that is each echo once, with the tag of VLAN {VLAN}"
        )
        print(f"\ntap4 is an access port of VLAN {VLAN}:\n")
        self.vsctl(f"set port tap4 tag={VLAN}")
        self.claim(self.plain(self.watch()), "the same without a tag")
        print("\ntap4 is an access port of another VLAN:\n")
        self.vsctl(f"set port tap4 tag={VLAN - 1}")
        self.claim(self.watch() == [], "tcpdump on tap4 captured nothing")
        print(f"\nA second mirror, on br1: what is in VLAN {VLAN} there is copied to tap4.\n")
        self.vsctl(
            f"-- --id=@tap4 get port tap4 -- --id=@m create mirror name=m1 select_all=true"
            f" select_vlan={VLAN} output_port=@tap4 -- set bridge br1 mirrors=@m"
        )
        self.claim(self.plain(self.watch()), "each echo once again, without a tag")
        errors = self.vsctl("--columns=name,external_ids list mirror")
        self.claim("heliograph-error" not in errors, "both mirrors say that they work")
        print("\n$ ip link delete p0")
        self.switch.host.ip("link delete p0")
        self.finish()


if __name__ == "__main__":
    sys.exit(perform(lambda lab, claim: DemoRspan(lab, claim).run()))
