# SPDX-License-Identifier: Apache-2.0
"""A wire that tunnels run over, the addresses of its ends, and the ways to have them at a switch.

A veth end with transmit checksum offload hands over frames whose transport checksum is pending. A
program that reads frames from a socket, as Open vSwitch does, forwards that as it is: every end of
a `wire` has the offload off, like hardware that has none.
"""

from dataclasses import dataclass

from tools.lab.namespaces import Namespace, veth
from tools.lab.openvswitch import Tools

DEVICE = "under0"
BRIDGE = "br-under"
MTU = 1600  # so that a full frame fits with the largest of the outer headers


@dataclass(frozen=True)
class End:
    """The addresses of one end of a wire."""

    ipv4: str
    ipv6: str
    mac: str

    def settle(self, namespace: Namespace, device: str) -> None:
        """Give them to a device. It has a link-local address as well, as without one the kernel
        asks for no IPv6 neighbour of what it forwards."""
        namespace.ip(f"link set {device} address {self.mac}")
        for key, value in (
            (f"ipv6/conf/{device}/accept_dad", "0"),
            (f"ipv6/conf/{device}/router_solicitations", "0"),
            (f"ipv6/conf/{device}/disable_ipv6", "0"),
            # Else a neighbour is asked again 5 s after it was heard of, amid what a test counts.
            (f"ipv4/neigh/{device}/delay_first_probe_time", "60"),
            (f"ipv6/neigh/{device}/delay_first_probe_time", "60"),
        ):
            namespace.set_sysctl(key, value)
        namespace.ip(f"address replace {self.ipv4}/24 dev {device}")
        namespace.ip(f"address replace {self.ipv6}/64 dev {device} nodad")
        namespace.ip(f"link set {device} up")


NEAR = End("10.9.0.1", "fd09::1", "02:09:00:00:00:01")
FAR = End("10.9.0.2", "fd09::2", "02:09:00:00:00:02")


def wire(near: tuple[Namespace, str], far: tuple[Namespace, str], mtu: int = MTU) -> None:
    """A veth pair that neither end of computes checksums late."""
    veth(near, far)
    for namespace, device in (near, far):
        namespace.run("ethtool", "-K", device, "tx", "off")
        namespace.ip(f"link set {device} mtu {mtu}")


def bridged(ovs: Tools, end: End, columns: str = "") -> None:
    """Words for both kinds of switch: the underlay's address goes to a bridge's LOCAL port, the
    wire is the bridge's uplink. `columns` are the bridge's."""
    ovs.vsctl(
        f"add-br {BRIDGE} -- set bridge {BRIDGE} other_config:hwaddr={end.mac} {columns}"
        f" -- add-port {BRIDGE} {DEVICE}"
    )


def under_ovs(tools: Tools, host: Namespace, end: End, peer: End) -> None:
    """Give an Open vSwitch with its userspace datapath one end of a wire, for its tunnels to work.

    The wire becomes the uplink of bridge `br-under`; the address is on that bridge's LOCAL port,
    where Open vSwitch looks for what is to be decapsulated. What goes wrong without the rest:

    - The kernel sees every frame that Open vSwitch takes from the uplink as well. Without
      `arp_ignore` it answers ARP there, and would answer GRE with "protocol unreachable" if the
      LOCAL port had, as by default, the uplink's own MAC address; hence `hwaddr`.
    - A tunnel has no neighbour until Open vSwitch itself has asked (rule 124), whatever the kernel
      knows: the first copies are lost. `tnl/neigh/set` tells it.
    """
    host.set_sysctl(f"ipv4/conf/{DEVICE}/arp_ignore", "1")
    bridged(tools, end, "datapath_type=netdev")
    end.settle(host, BRIDGE)
    for address in peer.ipv4, peer.ipv6:
        tools.run("ovs-appctl", "tnl/neigh/set", BRIDGE, address, peer.mac)
