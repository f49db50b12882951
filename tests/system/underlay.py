# SPDX-License-Identifier: Apache-2.0
"""What tunnels run over: a switch's host, a wire, and who is at its other end.

The other end is a bare collector, whose socket sees every outer frame before anything of it is
processed and which sends crafted ones; a second Heliograph (`Pair`); or Open vSwitch's userspace
datapath (`FarOvs`). All are silent: what comes unasked is ARP and what `is_chatter` knows.

    under = Underlay.build(lab, switch.host)
    ovs.vsctl(f"add-port br0 gre0 -- set interface gre0 type=gre options:remote_ip={FAR.ipv4}")
    with under.capture() as outer:
        ...
        decode(outer.collect(1, keep=is_tunnelled)[0].data)  # tests.oracle.tunnel

What the bench needs too, the wire and its ends, is in `tools.lab.underlay`.
"""

from dataclasses import dataclass
from functools import partial

from tests.system.site import Site, mirror, silence
from tools.lab.capture import Capture, Frame
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.openvswitch import Tools, UserspaceSwitch
from tools.lab.processes import eventually
from tools.lab.underlay import BRIDGE, DEVICE, FAR, MTU, NEAR, End, bridged, under_ovs, wire

__all__ = [
    "BEYOND",
    "BRIDGE",
    "DETOUR",
    "DEVICE",
    "FAR",
    "HOST_SIDE",
    "NEAR",
    "ROUTER",
    "End",
    "FarOvs",
    "Pair",
    "Underlay",
    "bridged",
    "is_tunnelled",
    "under_ovs",
    "wire",
]

DETOUR = "under1"
HOST_SIDE = End("10.9.1.1", "fd09:1::1", "02:09:01:00:00:01")
ROUTER = End("10.9.1.2", "fd09:1::2", "02:09:01:00:00:02")
BEYOND = End("10.9.9.9", "fd09:9::9", "00:00:00:00:00:00")  # on the collector's loopback


def is_tunnelled(frame: Frame) -> bool:
    """A frame that carries GRE or UDP, that is no ARP and no neighbour discovery."""
    kind, data = frame.data[12:14], frame.data
    return (kind == b"\x08\0" and data[23] in {17, 47}) or (
        kind == b"\x86\xdd" and data[20] in {17, 47}
    )


def _deaf(namespace: Namespace) -> None:
    """GRE and UDP are seen by sockets on devices and then forgotten, not answered by "unreachable".

    The rule that finds local addresses comes first by itself, so it has to move.
    """
    for family in "", "-6 ":
        namespace.ip(f"{family}rule add pref 1 lookup local")
        namespace.ip(f"{family}rule del pref 0")
        for protocol in "gre", "udp":
            namespace.ip(f"{family}rule add pref 0 ipproto {protocol} blackhole")


@dataclass
class Underlay:
    """A host with NEAR's addresses, and the namespace of who has FAR's; both devices are `under0`.

    After `detour` there is a second way to BEYOND, an address that only a gateway can deliver to.
    """

    lab: Lab
    host: Namespace
    collector: Namespace
    device: str = DEVICE  # which has the host's address

    @classmethod
    def build(cls, lab: Lab, host: Namespace, bridge: Tools | None = None) -> "Underlay":
        """To a bare collector. With `bridge`, the host's address is on the LOCAL port of `br-under`
        of that switch, whose uplink is the wire."""
        made = cls.join(lab, host, lab.namespace("collector"))
        _deaf(made.collector)
        FAR.settle(made.collector, DEVICE)
        if bridge is None:
            NEAR.settle(host, DEVICE)
        else:
            made.device = BRIDGE
            bridged(bridge, NEAR)
            NEAR.settle(host, BRIDGE)
        return made

    @classmethod
    def join(cls, lab: Lab, host: Namespace, other: Namespace) -> "Underlay":
        """The wire alone."""
        for namespace in host, other:
            silence(namespace)
        wire((host, DEVICE), (other, DEVICE))
        return cls(lab, host, other)

    def capture(self) -> Capture:
        """Every frame that the host sends, as it arrives at the other end."""
        return Capture(self.collector, DEVICE)

    def send(self, *frames: bytes) -> None:
        """Send outer frames to the host."""
        self.collector.send(DEVICE, frames)

    def set_mtu(self, mtu: int) -> None:
        """Of the wire and whatever has an address on it."""
        for namespace, device in (
            (self.host, DEVICE),
            (self.host, self.device),
            (self.collector, DEVICE),
        ):
            namespace.ip(f"link set {device} mtu {mtu}")

    def mend(self) -> None:
        """Undo what a test did to the wire and its ends, and forget what was learned of it."""
        for namespace, device, end in (
            (self.host, self.device, NEAR),
            (self.collector, DEVICE, FAR),
        ):
            end.settle(namespace, device)
            namespace.ip(f"neigh flush dev {device}")
        self.set_mtu(MTU)
        self.ready()

    def ready(self) -> None:
        """Make the ends know each other's MAC address, for no first copy to be lost."""
        for address in FAR.ipv4, FAR.ipv6:
            assert eventually(partial(self._answers, address)), address

    def _answers(self, address: str) -> bool:
        return self.host.ping(address, 1) == 1

    def detour(self) -> Namespace:
        """Make a router that the host reaches by its device `under1`; the way to BEYOND still goes
        by the collector itself (`route`)."""
        router = self.lab.namespace("router")
        silence(router)
        wire((self.host, DETOUR), (router, DETOUR))
        wire((router, "behind0"), (self.collector, "behind0"))
        HOST_SIDE.settle(self.host, DETOUR)
        ROUTER.settle(router, DETOUR)
        End("10.9.2.1", "fd09:2::1", "02:09:02:00:00:01").settle(router, "behind0")
        End("10.9.2.2", "fd09:2::2", "02:09:02:00:00:02").settle(self.collector, "behind0")
        self.collector.set_sysctl("ipv6/conf/lo/disable_ipv6", "0")
        self.collector.ip(f"address add {BEYOND.ipv4}/32 dev lo")
        self.collector.ip(f"address add {BEYOND.ipv6}/128 dev lo nodad")
        router.set_sysctl("ipv4/ip_forward", "1")
        router.set_sysctl("ipv6/conf/all/forwarding", "1")
        router.ip(f"route add {BEYOND.ipv4} via 10.9.2.2")
        router.ip(f"route add {BEYOND.ipv6} via fd09:2::2")
        # What it answers goes back as it came, whichever way that was.
        self.collector.ip("route add 10.9.1.0/24 via 10.9.2.1")
        self.collector.ip("route add fd09:1::/64 via fd09:2::1")
        self.route(FAR)
        return router

    def route(self, hop: End) -> None:
        """Reach BEYOND by FAR (the collector itself, by `under0`) or by ROUTER (by `under1`)."""
        for address, via in (BEYOND.ipv4, hop.ipv4), (BEYOND.ipv6, hop.ipv6):
            self.host.ip(f"route replace {address} via {via}")


@dataclass
class Pair:
    """Two Heliographs, each with br0 and its silent guests tap1 and tap2, joined by an underlay."""

    near: Site
    far: Site
    underlay: Underlay

    @classmethod
    def build(cls, lab: Lab) -> "Pair":
        switches = Heliograph(lab, label="near"), Heliograph(lab, label="far")
        underlay = Underlay.join(lab, *(switch.host for switch in switches))
        near, far = (Site(lab, switch, Tools(switch.rundir), {}) for switch in switches)
        for site, end in (near, NEAR), (far, FAR):
            site.switch.start()
            end.settle(site.switch.host, DEVICE)
            site.ovs.vsctl("add-br br0")
            for guest in "tap1", "tap2":
                site.add("br0", guest)
        underlay.ready()
        return cls(near, far, underlay)


class FarOvs:
    """Open vSwitch's userspace datapath in a namespace that has one end of a wire.

    Bridge `br-int` joins port `p1`, the guest's `eth0`, and the tunnel `tun0`. Two things to know
    of Open vSwitch 3.1:

    - With csum and seq together it computes the checksum for sequence number 0 and then writes the
      number: from the second frame on it is wrong, and nobody takes the frame, not even another
      Open vSwitch. It takes such frames when they are right.
    - A flow that it has seen in the last seconds is not mirrored when the mirror comes, until
      `revalidator/purge`.
    """

    PORT = "tun0"

    def __init__(self, lab: Lab, peer: Namespace) -> None:
        """With FAR's addresses, on a new underlay whose other end, a host, gets NEAR's."""
        self.host, self.guest = lab.namespace("far"), lab.namespace("guest")
        Underlay.join(lab, peer, self.host)
        NEAR.settle(peer, DEVICE)
        self.tools = UserspaceSwitch(lab, self.host).tools
        under_ovs(self.tools, self.host, FAR, NEAR)
        silence(self.guest)
        wire((self.host, "p1"), (self.guest, "eth0"))
        self.tools.vsctl("add-br br-int -- set bridge br-int datapath_type=netdev")
        self.tools.vsctl("add-port br-int p1")

    def tunnel(self, words: str, *, ipv6: bool = False) -> None:
        """(Re)make the tunnel to the peer: tunnel("type=gre options:key=5").

        Not in one transaction: a tunnel of the same type would go on with its sequence numbers.
        """
        remote = NEAR.ipv6 if ipv6 else NEAR.ipv4
        self.tools.vsctl(f"clear bridge br-int mirrors -- --if-exists del-port {self.PORT}")
        self.tools.vsctl(
            f"add-port br-int {self.PORT}"
            f" -- set interface {self.PORT} {words} options:remote_ip={remote}"
        )
        assert self.tools.vsctl(f"get interface {self.PORT} error") == "[]"

    def mirror(self, columns: str) -> None:
        """The mirror of br-int; `columns` may name @tunnel and @local, its ports."""
        words = mirror("m0", "br-int", columns)
        ports = f"-- --id=@tunnel get port {self.PORT} -- --id=@local get port br-int"
        self.tools.vsctl(f"{ports} {words}")
        self.tools.run("ovs-appctl", "revalidator/purge")

    def outer(self) -> Capture:
        """What comes in by the wire."""
        return Capture(self.host, DEVICE)

    def capture(self) -> Capture:
        """What the guest gets."""
        return Capture(self.guest, "eth0")

    def send(self, *frames: bytes) -> None:
        """Let the guest say something."""
        self.guest.send("eth0", frames)
