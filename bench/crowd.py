# SPDX-License-Identifier: Apache-2.0
"""Bridges of 2 and of 64 ports: what ports that are not talked to cost, and flooding to all."""

import time

from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.processes import run

from bench.macs import Add
from bench.rigs import UNMIRRORED, OvsRig, Rig, bridge, device_counters, heliograph
from bench.sending import Frames
from bench.traffic import SETTLE, small_frames

PORTS = 64
UNICAST = "60-byte frames, by ports of the bridge, frames/s"
BROADCAST = f"60-byte broadcasts to {PORTS} ports, frames/s"
COPIES = f"60-byte broadcasts to {PORTS} ports, % of copies lost"


def _crowd(lab: Lab, rig: Rig) -> Namespace:
    """Fill the bridge up to 64 ports; the guests' ends of the new ones are in one namespace."""
    crowd = lab.namespace("crowd")
    crowd.set_sysctl("ipv6/conf/default/disable_ipv6", "1")
    names = [f"crowd{number}" for number in range(PORTS - len(rig.guests))]
    if isinstance(rig, OvsRig):
        ports = (f"-- add-port br0 {n} -- set interface {n} type=internal" for n in names)
        rig.tools.vsctl(" ".join(ports), timeout=60)
        lines = [f"link set {name} netns {crowd.name}" for name in names]
    else:
        pair = "link add {0} type veth peer name {0} netns " + crowd.name
        lines = [pair.format(name) for name in names]
        lines += [f"link set {name} master br0 up" for name in names]
    _batch(rig.host, lines)
    _batch(crowd, [f"link set {name} up" for name in names])
    return crowd


def _batch(namespace: Namespace, lines: list[str]) -> None:
    command = ["ip", "-n", namespace.name, "-batch", "-"]
    run(command, stdin="".join(f"{line}\n" for line in lines), timeout=60)


class Crowd:
    """A bridge of few ports and one of 64, of each kind."""

    def __init__(self, lab: Lab) -> None:
        self._rigs: list[tuple[Rig, Namespace | None]] = []
        for build in bridge, heliograph:
            self._rigs.append((build(lab, UNMIRRORED), None))
            rig = build(lab, UNMIRRORED)
            self._rigs.append((rig, _crowd(lab, rig)))

    def turn(self, add: Add, seconds: float) -> None:
        for rig, crowd in self._rigs:
            ports = PORTS if crowd else len(rig.guests)
            burst = small_frames(rig, seconds)
            add(UNICAST, f"{rig}, {ports} ports", burst.per_second)
            if crowd:
                self._broadcast(rig, crowd, add, seconds)

    def _broadcast(self, rig: Rig, crowd: Namespace, add: Add, seconds: float) -> None:
        sender = rig.guests[0]
        frames = Frames([(b"\xff" * 6 + sender.mac() + b"\x88\xb6").ljust(60, b"\0")])
        before = _received(rig, crowd)
        with sender.namespace.packet_socket(sender.device, 0) as out:
            sent, lasted = frames.send(out, seconds)
        time.sleep(SETTLE)
        copies = _received(rig, crowd) - before
        add(BROADCAST, str(rig), sent / lasted)
        add(COPIES, str(rig), max(1 - copies / (sent * (PORTS - 1)), 0.0) * 100)


def _received(rig: Rig, crowd: Namespace) -> int:
    """Frames that all ports but the sender's have got."""
    devices = [c for name, c in device_counters(crowd).items() if name != "lo"]
    return sum(c["rx_packets"] for c in devices) + sum(g.received() for g in rig.guests[1:])
