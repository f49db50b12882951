# SPDX-License-Identifier: Apache-2.0
"""The contenders: each joins guests, with or without mirrors of the first to the third and on.

Guests have one device each and 10.8.0.1, 10.8.0.2 and so on. A mirror copies both directions of
the first guest's port. If it does so into a tunnel, the third guest is not at the switch but at the
other end of a wire that the tunnel takes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace, veth
from tools.lab.openvswitch import Tools, UserspaceSwitch
from tools.lab.processes import eventually
from tools.lab.underlay import DEVICE, FAR, MTU, NEAR, under_ovs

# There when the module br_netfilter is loaded; then it taxes every bridge unless told not to.
BR_NETFILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


@dataclass(frozen=True)
class Mirroring:
    """What is mirrored how; every mirror selects the same frames and has an output of its own."""

    count: int = 1
    vlan: int = 0  # RSPAN: into this VLAN, of which the output is the only port
    snaplen: int = 0
    wire_frames: bool = False  # super-frames go out as the frames of the wire they stand for
    tunnel: str = ""  # one of TUNNELS, if the output leads to another host
    mtu: int = MTU  # of the way there

    @property
    def in_wire_frames(self) -> bool:
        """Whether a super-frame's copy arrives as several frames."""
        return self.wire_frames or self.snaplen > 0 or bool(self.tunnel)

    def __str__(self) -> str:
        many = "mirror" if self.count == 1 else f"{self.count} mirrors"
        into = f" into VLAN {self.vlan}" if self.vlan else ""
        into += f" into {self.tunnel}" if self.tunnel else ""
        cut = f", snaplen {self.snaplen}" if self.snaplen else ""
        cut += f", MTU {self.mtu}" if self.mtu != MTU else ""
        return f"{many}{into}{cut}{', wire frames' if self.wire_frames else ''}"


# Columns of the interface of a tunnel port.
TUNNELS = {"GRE": "type=gre", "ERSPAN II": "type=erspan options:erspan_ver=1"}
UNMIRRORED, MIRRORED, WIRE_FRAMES = Mirroring(0), Mirroring(), Mirroring(wire_frames=True)
INTO_GRE = Mirroring(tunnel="GRE")


@dataclass(frozen=True)
class Guest:
    """A namespace and its device."""

    namespace: Namespace
    device: str
    address: str

    def received(self) -> int:
        """Frames that arrived at the device since it was made."""
        return self.counters()["rx_packets"]

    def counters(self) -> dict[str, int]:
        """Packets and bytes of the device since it was made: rx_packets, tx_bytes, and so on."""
        return device_counters(self.namespace)[self.device]

    def mac(self) -> bytes:
        return self.namespace.mac(self.device)


def device_counters(namespace: Namespace) -> dict[str, dict[str, int]]:
    """The counters of a namespace's devices by name."""
    lines = namespace.call(Path("/proc/thread-self/net/dev").read_text).splitlines()[2:]
    names = ("rx_bytes", 0), ("rx_packets", 1), ("tx_bytes", 8), ("tx_packets", 9)
    rows = (line.split(":") for line in lines)
    return {
        device.strip(): {name: int(words.split()[at]) for name, at in names}
        for device, words in rows
    }


@dataclass(frozen=True)
class Rig:
    """A contender that is set up and forwards."""

    name: str
    mirroring: Mirroring
    host: Namespace
    guests: list[Guest] = field(default_factory=list)

    @property
    def outputs(self) -> list[Guest]:
        """The guests that get copies."""
        return self.guests[2 : 2 + self.mirroring.count]

    def __str__(self) -> str:
        return f"{self.name}, {self.mirroring}" if self.mirroring.count else self.name


@dataclass(frozen=True, kw_only=True)
class OvsRig(Rig):
    """One that the stock ovs-vsctl configures."""

    tools: Tools
    port: str  # what its ports' names begin with

    def mirror(self, how: Mirroring = MIRRORED) -> None:
        """Mirror both directions of port 1 to port 3, and to port 4, 5 ... if more than once."""
        words = f"-- --id=@p1 get port {self.port}1"
        for number in range(3, 3 + how.count):
            port, output = f"{self.port}{number}", f"output_port=@p{number}"
            if how.tunnel:
                words += (
                    f" -- add-port br0 {port} -- set interface {port} {TUNNELS[how.tunnel]}"
                    f" options:remote_ip={FAR.ipv4}"
                )
            words += f" -- --id=@p{number} get port {port}"
            if how.vlan:  # no other port carries it
                output = f"output_vlan={how.vlan}"
                words += f" -- set port {port} trunks={how.vlan}"
                others = "br0", f"{self.port}1", f"{self.port}2"
                words += "".join(f" -- set port {other} tag=1" for other in others)
            if how.wire_frames:
                words += f" -- set port {port} other_config:heliograph-wire-frames=true"
            if how.snaplen:
                output += f" snaplen={how.snaplen}"
            words += (
                f" -- --id=@m{number} create mirror name=m{number} select_src_port=@p1"
                f" select_dst_port=@p1 {output}"
            )
        references = ",".join(f"@m{number}" for number in range(3, 3 + how.count))
        self.tools.vsctl(f"{words} -- set bridge br0 mirrors={references}")

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


def _numbers(how: Mirroring) -> range:
    """Of the guests at the switch: two that talk, and one for each mirror, or one that only
    listens."""
    return range(1, 3 if how.tunnel else 3 + max(how.count, 1))


def _add_collector(lab: Lab, rig: Rig) -> None:
    """The guest that a tunnel leads to, by a wire to the host's device DEVICE.

    Its MAC address is not FAR's: frames are for another host, and what becomes of them is the same
    as at the output of any other mirror.
    """
    guest = _guest(lab, 3, "eth0")
    ends = (rig.host, DEVICE), (guest.namespace, guest.device)
    veth(*ends)
    for namespace, device in ends:
        namespace.ip(f"link set {device} mtu {rig.mirroring.mtu}")
    rig.guests.append(guest)


def _veth_guests(lab: Lab, rig: Rig) -> None:
    """Guests behind p1, p2, p3 ... of the rig's host."""
    for number in _numbers(rig.mirroring):
        guest = _guest(lab, number, "eth0")
        veth((rig.host, f"p{number}"), (guest.namespace, guest.device))
        rig.guests.append(guest)


def direct(lab: Lab, how: Mirroring) -> Rig:
    """One veth pair and nothing between: the upper bound."""
    assert not how.count
    rig = Rig("direct veth", how, lab.namespace("h"))
    rig.guests.extend(_guest(lab, number, "eth0") for number in (1, 2))
    veth(*((guest.namespace, guest.device) for guest in rig.guests))
    _bring_up(rig)
    return rig


def bridge(lab: Lab, how: Mirroring) -> Rig:
    """The Linux bridge; its mirrors are tc's mirred actions on ingress and egress of p1."""
    return _bridge(lab, Rig("Linux bridge", how, lab.namespace("h")), netfilter=False)


def netfilter_bridge(lab: Lab, how: Mirroring) -> Rig:
    """The same as it is where br_netfilter is loaded (container hosts): through iptables."""
    rig = Rig("Linux bridge with br_netfilter", how, lab.namespace("h"))
    return _bridge(lab, rig, netfilter=True)


def _bridge(lab: Lab, rig: Rig, *, netfilter: bool) -> Rig:
    _veth_guests(lab, rig)
    rig.host.ip("link add br0 type bridge")
    if BR_NETFILTER.exists():
        for key in BR_NETFILTER.parent.glob("bridge-nf-call-*"):
            rig.host.set_sysctl(f"bridge/{key.name}", str(int(netfilter)))
    how = rig.mirroring
    for number in range(1, 3 if how.count else 4):
        rig.host.ip(f"link set p{number} master br0")
    rig.host.ip("link set br0 up")
    if how.count:
        tc = ["tc", "-n", rig.host.name]
        rig.host.run(*tc, "qdisc", "add", "dev", "p1", "clsact")
        outputs = range(3, 3 + how.count)
        action = " pipe ".join(f"action mirred egress mirror dev p{n}" for n in outputs)
        for direction in "ingress", "egress":
            words = f"filter add dev p1 {direction} protocol all u32 match u32 0 0"
            rig.host.run(*tc, *words.split(), *action.split())
    _bring_up(rig)
    return rig


def open_vswitch(lab: Lab, how: Mirroring) -> OvsRig:
    """Open vSwitch's userspace datapath (the kernel one needs a module)."""
    host = lab.namespace("h")
    tools = UserspaceSwitch(lab, host).tools
    rig = OvsRig("Open vSwitch userspace", how, host, tools=tools, port="p")
    _veth_guests(lab, rig)
    tools.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev")
    for number in _numbers(how):
        tools.vsctl(f"add-port br0 p{number}")
    for guest in rig.guests:  # it forwards frames whose checksum is not filled in as they are
        guest.namespace.run("ethtool", "-K", guest.device, "tx", "off")
    if how.tunnel:
        _add_collector(lab, rig)
        under_ovs(tools, host, NEAR, FAR)
    if how.count:
        rig.mirror(how)
    _bring_up(rig)
    return rig


def heliograph(lab: Lab, how: Mirroring) -> OvsRig:
    """Heliograph with internal ports, moved into the guests."""
    switch = Heliograph(lab, ephemeral=True, label=f"h{len(lab.namespaces)}")
    switch.start()
    tools = Tools(switch.rundir)
    rig = OvsRig("Heliograph", how, switch.host, tools=tools, port="tap")
    tools.vsctl("add-br br0")
    for number in _numbers(how):
        guest = _guest(lab, number, f"tap{number}")
        tools.vsctl(f"add-port br0 tap{number} -- set interface tap{number} type=internal")
        switch.move(guest.device, guest.namespace)
        rig.guests.append(guest)
    if how.tunnel:
        _add_collector(lab, rig)
        NEAR.settle(rig.host, DEVICE)
        rig.host.ip(f"neighbour add {FAR.ipv4} lladdr {FAR.mac} dev {DEVICE}")
    if how.count:
        rig.mirror(how)
    _bring_up(rig)
    return rig


Build = Callable[[Lab, Mirroring], Rig]

_TWICE, _FOUR_TIMES, _INTO_VLAN = Mirroring(2), Mirroring(4), Mirroring(vlan=111)
CONTENDERS: list[tuple[Build, Mirroring]] = [
    (direct, UNMIRRORED),
    (bridge, UNMIRRORED),
    (heliograph, UNMIRRORED),
    (open_vswitch, UNMIRRORED),
    (bridge, MIRRORED),
    *([(netfilter_bridge, MIRRORED)] if BR_NETFILTER.exists() else []),
    (heliograph, MIRRORED),
    (open_vswitch, MIRRORED),
    *((build, how) for how in (_TWICE, _FOUR_TIMES) for build in (bridge, heliograph)),
    *((build, _INTO_VLAN) for build in (heliograph, open_vswitch)),
    *((heliograph, Mirroring(snaplen=length)) for length in (64, 32)),
    (heliograph, WIRE_FRAMES),
]

# Of copies that go to another host, beside those that stay.
TUNNELLERS: list[tuple[Build, Mirroring]] = [
    (heliograph, MIRRORED),
    (heliograph, WIRE_FRAMES),
    (heliograph, INTO_GRE),
    (heliograph, Mirroring(tunnel="ERSPAN II")),
    (heliograph, Mirroring(tunnel="GRE", mtu=1500)),  # copies of full frames are cut
    (open_vswitch, INTO_GRE),
]
