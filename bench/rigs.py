# SPDX-License-Identifier: Apache-2.0
"""The contenders: each joins three guests, with or without a mirror of the first to the third.

Guests have one device each and 10.8.0.1 to 10.8.0.3. A mirror copies both directions of the
first guest's port.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace, veth
from tools.lab.openvswitch import Tools, UserspaceSwitch
from tools.lab.processes import eventually

# There when the module br_netfilter is loaded; then it taxes every bridge unless told not to.
BR_NETFILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


@dataclass(frozen=True)
class Guest:
    """A namespace and its device."""

    namespace: Namespace
    device: str
    address: str

    def received(self) -> int:
        """Frames that arrived at the device since it was made."""
        return self._counter("rx_packets")

    def received_bytes(self) -> int:
        return self._counter("rx_bytes")

    def _counter(self, name: str) -> int:
        lines = self.namespace.call(Path("/proc/thread-self/net/dev").read_text).splitlines()
        words = next(line for line in lines if line.strip().startswith(f"{self.device}:"))
        return int(words.split(":")[1].split()[("rx_bytes", "rx_packets").index(name)])


@dataclass(frozen=True)
class Rig:
    """A contender that is set up and forwards."""

    name: str
    mirrored: bool
    host: Namespace
    guests: list[Guest] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name}, mirror" if self.mirrored else self.name


@dataclass(frozen=True, kw_only=True)
class OvsRig(Rig):
    """One that the stock ovs-vsctl configures."""

    tools: Tools
    port: str  # what its ports' names begin with

    def mirror(self) -> None:
        """Mirror both directions of port 1 to port 3."""
        self.tools.vsctl(
            f"-- --id=@p1 get port {self.port}1 -- --id=@p3 get port {self.port}3"
            " -- --id=@m create mirror name=m0 select_src_port=@p1 select_dst_port=@p1"
            " output_port=@p3 -- set bridge br0 mirrors=@m"
        )

    def unmirror(self) -> None:
        self.tools.vsctl("clear bridge br0 mirrors")


def _guest(lab: Lab, number: int, device: str) -> Guest:
    return Guest(lab.namespace(f"g{number}"), device, f"10.8.0.{number}")


def _bring_up(rig: Rig) -> None:
    """Give the guests their addresses; return when the first two know each other."""
    for guest in rig.guests:
        guest.namespace.address_up(guest.device, f"{guest.address}/24")
    first, second = rig.guests[:2]
    if not eventually(lambda: first.namespace.ping(second.address, 1) == 1):
        raise RuntimeError(f"{rig}: the guests do not reach each other")


def _veth_guests(lab: Lab, rig: Rig) -> None:
    """Three guests behind p1, p2 and p3 of the rig's host."""
    for number in 1, 2, 3:
        guest = _guest(lab, number, "eth0")
        veth((rig.host, f"p{number}"), (guest.namespace, guest.device))
        rig.guests.append(guest)


def direct(lab: Lab, mirrored: bool) -> Rig:
    """One veth pair and nothing between: the upper bound."""
    assert not mirrored
    rig = Rig("direct veth", False, lab.namespace("h"))
    rig.guests.extend(_guest(lab, number, "eth0") for number in (1, 2))
    veth(*((guest.namespace, guest.device) for guest in rig.guests))
    _bring_up(rig)
    return rig


def bridge(lab: Lab, mirrored: bool) -> Rig:
    """The Linux bridge; its mirror is tc's mirred action on ingress and egress of p1."""
    return _bridge(lab, Rig("Linux bridge", mirrored, lab.namespace("h")), netfilter=False)


def netfilter_bridge(lab: Lab, mirrored: bool) -> Rig:
    """The same as it is where br_netfilter is loaded (container hosts): through iptables."""
    rig = Rig("Linux bridge with br_netfilter", mirrored, lab.namespace("h"))
    return _bridge(lab, rig, netfilter=True)


def _bridge(lab: Lab, rig: Rig, *, netfilter: bool) -> Rig:
    _veth_guests(lab, rig)
    rig.host.ip("link add br0 type bridge")
    if BR_NETFILTER.exists():
        for key in BR_NETFILTER.parent.glob("bridge-nf-call-*"):
            rig.host.set_sysctl(f"bridge/{key.name}", str(int(netfilter)))
    for port in ("p1", "p2") if rig.mirrored else ("p1", "p2", "p3"):
        rig.host.ip(f"link set {port} master br0")
    rig.host.ip("link set br0 up")
    if rig.mirrored:
        tc = ["tc", "-n", rig.host.name]
        rig.host.run(*tc, "qdisc", "add", "dev", "p1", "clsact")
        for direction in "ingress", "egress":
            words = f"filter add dev p1 {direction} protocol all u32 match u32 0 0"
            action = "action mirred egress mirror dev p3"
            rig.host.run(*tc, *words.split(), *action.split())
    _bring_up(rig)
    return rig


def open_vswitch(lab: Lab, mirrored: bool) -> OvsRig:
    """Open vSwitch's userspace datapath (the kernel one needs a module)."""
    host = lab.namespace("h")
    tools = UserspaceSwitch(lab, host).tools
    rig = OvsRig("Open vSwitch userspace", mirrored, host, tools=tools, port="p")
    _veth_guests(lab, rig)
    tools.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev")
    for number in 1, 2, 3:
        tools.vsctl(f"add-port br0 p{number}")
    for guest in rig.guests:  # it forwards frames whose checksum is not filled in as they are
        guest.namespace.run("ethtool", "-K", guest.device, "tx", "off")
    if mirrored:
        rig.mirror()
    _bring_up(rig)
    return rig


def heliograph(lab: Lab, mirrored: bool) -> OvsRig:
    """Heliograph with internal ports, moved into the guests."""
    switch = Heliograph(lab, ephemeral=True, label=f"h{len(lab.namespaces)}")
    switch.start()
    tools = Tools(switch.rundir)
    rig = OvsRig("Heliograph", mirrored, switch.host, tools=tools, port="tap")
    tools.vsctl("add-br br0")
    for number in 1, 2, 3:
        guest = _guest(lab, number, f"tap{number}")
        tools.vsctl(f"add-port br0 tap{number} -- set interface tap{number} type=internal")
        switch.move(guest.device, guest.namespace)
        rig.guests.append(guest)
    if mirrored:
        rig.mirror()
    _bring_up(rig)
    return rig


CONTENDERS: list[tuple[Callable[[Lab, bool], Rig], bool]] = [
    (direct, False),
    (bridge, False),
    (bridge, True),
    *([(netfilter_bridge, True)] if BR_NETFILTER.exists() else []),
    (open_vswitch, False),
    (open_vswitch, True),
    (heliograph, False),
    (heliograph, True),
]
