# SPDX-License-Identifier: Apache-2.0
"""Intent and facts in, desired state and problems out. Pure: no kernel, no rows, no clock.

Devices are planned before the data plane (wanted.py), because a port's entry needs the ifindex
that its device only has once it is made; `plan` says what each bridge shall do with those that
are there. Whatever cannot be honoured is left out (fails closed) or goes on
without, and is said in `problems`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from heliograph.control.versions import unspoken
from heliograph.kernel.devices import Device
from heliograph.kernel.layouts import Limits
from heliograph.kernel.links import ARPHRD_ETHER
from heliograph.kernel.snapshot import BridgeEntry, MirrorEntry, PortEntry
from heliograph.kernel.tunnels import UnderlayEntry
from heliograph.switch import loops, mirrors, patches, tunnels
from heliograph.switch.encapsulation import Network
from heliograph.switch.entries import port_entry
from heliograph.switch.intent import Bridge, Intent, Interface, Port, without_repeats
from heliograph.switch.ofports import ofports, remembered
from heliograph.switch.slots import Slots, assign


@dataclass(frozen=True, slots=True)
class Facts:
    """About the switch's devices, by Interface UUID: those that are `present` (our end of an
    internal port, or the host's device), the `users` at the other ends of pairs, and why others
    could not be had; `segmenter` is the ifindex of its near end (wire.py), 0 without one."""

    present: Mapping[UUID, Device] = field(default_factory=dict)
    errors: Mapping[UUID, str] = field(default_factory=dict)
    users: Mapping[UUID, Device] = field(default_factory=dict)
    segmenter: int = 0
    network: Network = field(default_factory=Network)


@dataclass(slots=True)
class Plan:
    """Desired state of the data plane, and what to write into the rows.

    `ports` gives the Port row's number for each Interface row whose device works, `patches` for
    each patch Interface row that has its peer, `tunnels` for each that is a tunnel port; `ofports`
    and `errors` are by Interface UUID; `problems` (heliograph-error) by UUID of any other row.
    """

    bridges: dict[UUID, BridgeEntry] = field(default_factory=dict)
    slots: Slots = field(default_factory=Slots)
    ports: dict[UUID, int] = field(default_factory=dict)
    patches: dict[UUID, int] = field(default_factory=dict)
    tunnels: dict[UUID, int] = field(default_factory=dict)
    underlay: UnderlayEntry = field(default_factory=UnderlayEntry)
    receivers: frozenset[int] = frozenset()
    ofports: dict[UUID, int] = field(default_factory=dict)
    errors: dict[UUID, str] = field(default_factory=dict)
    problems: dict[UUID, str] = field(default_factory=dict)

    @property
    def flooding(self) -> set[int]:
        """The slots of the mirrors that have an output_vlan."""
        return {m.slot for b in self.bridges.values() for m in b.mirrors if m.output_vlan}

    def complain(self, row: UUID, text: str) -> None:
        """Add a sentence to a row's problems."""
        known = self.problems.get(row)
        self.problems[row] = f"{known}; {text}" if known else text


def _surplus_vlan_sets(bridge: Bridge) -> list[frozenset[int]]:
    """The sets of customer VLANs that are too many for the data plane."""
    sets = {p.cvlans for p in bridge.ports if p.vlan_mode == "dot1q-tunnel"} - {frozenset()}
    return sorted(sets, key=sorted)[Limits.MAX_VLAN_SETS - 1 :]


class _Planner:
    """One run of `plan`; each method adds to `self.plan`."""

    def __init__(self, intent: Intent, facts: Facts, old: Slots) -> None:
        self.intent, repeats = without_repeats(intent)
        self.facts = facts
        self.present = facts.present
        self.old = old
        self.peers, _ = patches.pair(self.intent)
        self.plan = Plan(errors=dict(facts.errors), problems=repeats)

    def run(self) -> Plan:
        bridges = assign(
            (bridge.uuid for bridge in self.intent.bridges),
            self.old.bridges,
            range(Limits.MAX_BRIDGES),
        )
        ports = assign(
            (p.uuid for b in self.intent.bridges if b.uuid in bridges for p in b.ports),
            self.old.ports,
            range(Limits.MAX_PORTS),
        )
        self.plan.slots = Slots(bridges, ports, {})
        for bridge in self.intent.bridges:
            if bridge.uuid in bridges:
                self._bridge(bridge)
            else:
                self._too_many_bridges(bridge)
        self._break_loops()
        self._dig_tunnels()
        if self.intent.uuid and self.intent.untuned:
            self.plan.complain(
                self.intent.uuid,
                f"not supported yet and without effect: {', '.join(self.intent.untuned)}",
            )
        return self.plan

    def _break_loops(self) -> None:
        """Mirrors whose copies would come back to them are off: no copy is endless."""
        entries = {entry.slot: entry for entry in self.plan.bridges.values()}
        looping = loops.find(entries, self._leads())
        for bridge in self.intent.bridges:
            off = {
                mirror.uuid
                for mirror in bridge.mirrors
                if self.plan.slots.mirrors.get(mirror.uuid) in looping
            }
            for uuid in off:
                self.plan.complain(
                    uuid,
                    "off, because its copies would come back to it, or go round, without end: let "
                    "its output lead to no port that a mirror selects, nor into a circle of ports",
                )
                del self.plan.slots.mirrors[uuid]
            self._close_tunnels(bridge, off)
            if off:
                entry = self.plan.bridges[bridge.uuid]
                kept = tuple(mirror for mirror in entry.mirrors if mirror.slot not in looping)
                self.plan.bridges[bridge.uuid] = replace(entry, mirrors=kept)

    def _close_tunnels(self, bridge: Bridge, off: Collection[UUID]) -> None:
        """A tunnel whose packets would be mirrored into it again is no port: left without its
        mirror it would be flooded to."""
        outputs = {mirror.output_port: mirror for mirror in bridge.mirrors if mirror.uuid in off}
        for port in bridge.ports:
            mirror = outputs.get(port.uuid)
            for interface in port.interfaces:
                number = self.plan.tunnels.pop(interface.uuid, None) if mirror else None
                if number is None or mirror is None:
                    continue
                egress = self.facts.network.egress[interface.uuid].name
                text = (
                    f"its packets leave by {egress}, back into the switch, where mirror "
                    f"{mirror.name} would copy them into the tunnel again, without end: have the "
                    "mirror not select that port, or reach remote_ip by another device"
                )
                self._fail(interface, text)
                for other in bridge.mirrors:
                    if other.output_port == port.uuid and other.uuid not in off:
                        self.plan.complain(other.uuid, f"its output does not work: {text}")
                entry = self.plan.bridges[bridge.uuid]
                kept = tuple(p for p in entry.ports if p.number != number)
                self.plan.bridges[bridge.uuid] = replace(entry, ports=kept)

    def _leads(self) -> dict[int, loops.Lead]:
        """Where ports lead to other ports of this switch, by number."""
        homes = {
            port.number: entry.slot for entry in self.plan.bridges.values() for port in entry.ports
        }
        holders = {self.present[uuid].ifindex: number for uuid, number in self.plan.ports.items()}
        found = {}
        for entry in self.plan.bridges.values():
            for port in entry.ports:
                if port.peer:
                    found[port.number] = loops.Lead(*port.peer, wired=False)
        for uuid, number in self.plan.ports.items():
            device = self.present[uuid]
            if device.kind == "veth" and not device.peer_elsewhere and device.peer in holders:
                other = holders[device.peer]
                found[number] = loops.Lead(homes[other], other, wired=True)
        for uuid, number in self.plan.tunnels.items():
            egress = self.facts.network.egress.get(uuid)
            wired = egress and egress.kind == "veth" and not egress.peer_elsewhere
            if egress and wired and egress.peer in holders:
                other = holders[egress.peer]
                found[number] = loops.Lead(homes[other], other, wired=True, aimed=True)
        return found

    def _too_many_bridges(self, bridge: Bridge) -> None:
        text = f"there are {Limits.MAX_BRIDGES} bridges already: delete one for {bridge.name}"
        self.plan.complain(bridge.uuid, text)
        for mirror in bridge.mirrors:
            self.plan.complain(mirror.uuid, f"off, because {text}")
        for port in bridge.ports:
            for interface in port.interfaces:
                self._fail(interface, text)

    def _fail(self, interface: Interface, text: str) -> None:
        self.plan.errors.setdefault(interface.uuid, text)
        self.plan.ofports[interface.uuid] = -1

    def _bridge(self, bridge: Bridge) -> None:
        surplus = _surplus_vlan_sets(bridge)
        made = [entry for port in bridge.ports for entry in self._port(bridge, port, surplus)]
        numbers = self._ofports(bridge)
        entries = [replace(entry, ofport=numbers[entry.number]) for entry in made]
        self._bridge_problems(bridge)
        self.plan.bridges[bridge.uuid] = BridgeEntry(
            slot=self.plan.slots.bridges[bridge.uuid],
            forwarding=not bridge.spanning_tree,
            forward_bpdu=bridge.forward_bpdu,
            mac_age=bridge.mac_age,
            mac_limit=bridge.mac_limit,
            ports=tuple(entries),
            mirrors=self._mirrors(bridge, entries),
            flood_vlans=bridge.flood_vlans,
            vlan_limit=self.intent.vlan_limit,
            segmenter=self.facts.segmenter,
            mirror_changed=bridge.mirror_changed,
        )

    def _ofports(self, bridge: Bridge) -> dict[int, int]:
        """The OpenFlow numbers of the bridge's working ports, by their own."""
        plan = self.plan
        working = plan.ports | plan.patches | plan.tunnels
        known = self.old.ofports.get(bridge.uuid, {})
        given, vain = ofports(bridge, working.keys(), known)
        plan.ofports |= given
        plan.slots.ofports[bridge.uuid] = remembered(known, given)
        for port in bridge.ports:
            for interface in port.interfaces:
                if interface.uuid in vain:
                    plan.complain(port.uuid, vain[interface.uuid])
        return {working[uuid]: number for uuid, number in given.items()}

    def _port(self, bridge: Bridge, port: Port, surplus: list[frozenset[int]]) -> list[PortEntry]:
        """The port's entry, if it works; its problems in any case."""
        number = self.plan.slots.ports.get(port.uuid)
        refusal = self._refusal(bridge, port, number, surplus)
        if refusal:
            self.plan.complain(port.uuid, refusal)
        untuned = port.untuned + tuple(c for i in port.interfaces for c in i.untuned)
        if untuned:
            self.plan.complain(
                port.uuid, f"not supported yet and without effect: {', '.join(untuned)}"
            )
        for interface in port.interfaces:
            device, peer = self.present.get(interface.uuid), self._peer(interface)
            tunnel = interface.uuid in self.facts.network.tunnels
            there = device is not None or peer is not None or tunnel
            if number is None or refusal or interface.uuid in self.plan.errors or not there:
                self._fail(interface, refusal or f"no device {interface.name}")
                continue
            if tunnel:
                self._tunnel_problems(port, interface)
            working = self.plan.tunnels if tunnel else self.plan.ports
            (self.plan.patches if peer else working)[interface.uuid] = number
            ends = device, self.facts.users.get(interface.uuid)
            entry = port_entry(bridge, port, number, ends, peer)
            return [replace(entry, ifindex=self.facts.segmenter, tunnel=True) if tunnel else entry]
        return []

    def _tunnel_problems(self, port: Port, interface: Interface) -> None:
        path = self.facts.network.paths.get(interface.uuid)
        if path and path.problem:
            self.plan.complain(port.uuid, f"sends nothing: {path.problem}")
        egress = self.facts.network.egress.get(interface.uuid)
        if egress and egress.link_type != ARPHRD_ETHER:
            self.plan.complain(
                port.uuid,
                f"receives nothing: {egress.name}, by which packets of {interface.name} come, has "
                "no Ethernet headers: reach remote_ip by a device that has, unless the port is to "
                "send only, as a mirror's output",
            )
        elif egress and egress in self.present.values():
            self.plan.complain(
                port.uuid,
                f"receives nothing: {egress.name}, by which packets of {interface.name} come, is a "
                "port itself, and what comes in there stays in the switch: move the host's address "
                "to the port that is named like the bridge",
            )
        for remark in tunnels.remarks(interface):
            self.plan.complain(port.uuid, remark)

    def _dig_tunnels(self) -> None:
        """What the data plane is to know of the tunnel ports that are left."""
        network = self.facts.network
        homes = {p.number: b.slot for b in self.plan.bridges.values() for p in b.ports}
        outputs = {m.output_port for b in self.plan.bridges.values() for m in b.mirrors}
        flooded = {
            port.number
            for bridge in self.plan.bridges.values()
            for port in bridge.ports
            if any(mirror.output_vlan for mirror in bridge.mirrors)
        }
        entries = [
            replace(network.entry(uuid, number, homes[number]), copies=number in outputs | flooded)
            for uuid, number in sorted(self.plan.tunnels.items(), key=lambda item: item[1])
        ]
        if entries:
            self.plan.receivers = network.receivers
            self.plan.underlay = UnderlayEntry(
                self.facts.segmenter, network.tai_offset, network.addresses, tuple(entries)
            )

    def _refusal(
        self, bridge: Bridge, port: Port, number: int | None, surplus: list[frozenset[int]]
    ) -> str | None:
        """Why a port does not forward, though its device may be there."""
        if number is None:
            return f"the switch has {Limits.MAX_PORTS} ports already: delete one for this"
        if len(port.interfaces) > 1:
            return "several interfaces: bonds are not supported yet, so the port does not forward"
        if port.vlan_mode == "dot1q-tunnel" and port.cvlans in surplus:
            return (
                f"bridge {bridge.name} has {Limits.MAX_VLAN_SETS - 1} different sets of cvlans "
                "already, so the port does not forward: give it the cvlans of another port"
            )
        return None

    def _peer(self, interface: Interface) -> tuple[int, int] | None:
        """The slot of the bridge and the number of the port at a patch port's other end."""
        end = self.peers.get(interface.uuid)
        if end is None:
            return None
        slots = self.plan.slots
        if end.bridge not in slots.bridges or end.port not in slots.ports:
            return None
        return slots.bridges[end.bridge], slots.ports[end.port]

    def _bridge_problems(self, bridge: Bridge) -> None:
        if bridge.spanning_tree:
            self.plan.complain(
                bridge.uuid,
                f"{bridge.spanning_tree} is not supported yet, so the bridge forwards nothing: "
                f"set {bridge.spanning_tree.lower()}_enable=false",
            )
        for uuid, columns in bridge.in_band.items():
            self.plan.complain(
                uuid,
                f"without effect: {', '.join(columns)} is for control through the bridge itself, "
                f"which is not supported: reach the controller by an address of the host, and "
                f"clear controller {uuid} {' '.join(columns)}",
            )
        if strange := unspoken(bridge.protocols):
            self.plan.complain(
                bridge.uuid,
                f"protocols: {', '.join(strange)} is not spoken here: set bridge {bridge.name} "
                "protocols=OpenFlow10,OpenFlow13,OpenFlow14,OpenFlow15, or some of these",
            )
        if bridge.untuned:
            self.plan.complain(
                bridge.uuid, f"not supported yet and without effect: {', '.join(bridge.untuned)}"
            )

    def _mirrors(self, bridge: Bridge, ports: Sequence[PortEntry]) -> tuple[MirrorEntry, ...]:
        first = self.plan.slots.bridges[bridge.uuid] * Limits.MAX_MIRRORS
        old = {row: slot for row, slot in self.old.mirrors.items() if slot // 32 * 32 == first}
        numbers = {
            port.uuid: self.plan.slots.ports[port.uuid]
            for port in bridge.ports
            if port.uuid in self.plan.slots.ports
        }
        able = [mirror for mirror in bridge.mirrors if mirrors.can_work(mirror, numbers)]
        slots = assign(
            (mirror.uuid for mirror in able), old, range(first, first + Limits.MAX_MIRRORS)
        )
        self.plan.slots.mirrors.update(slots)
        view = mirrors.View(
            bridge=bridge,
            numbers=numbers,
            faults={port.uuid: self._fault(port) for port in bridge.ports},
            patches=frozenset(
                port.uuid
                for port in bridge.ports
                if any(i.uuid in self.plan.patches for i in port.interfaces)
            ),
            entries=tuple(ports),
        )
        entries = []
        for mirror in bridge.mirrors:
            for problem in mirrors.problems(mirror, view, mirror.uuid in slots):
                self.plan.complain(mirror.uuid, problem)
            if mirror.uuid in slots:
                entries.append(mirrors.entry(mirror, view, slots[mirror.uuid]))
        return tuple(sorted(entries, key=lambda entry: entry.number))

    def _fault(self, port: Port) -> str | None:
        """What is wrong with a port as a mirror's output, or None."""
        for interface in port.interfaces:
            if interface.uuid in self.plan.errors:
                return self.plan.errors[interface.uuid]
            if interface.uuid in self.plan.patches:
                continue
            if interface.uuid in self.plan.tunnels:
                return self.facts.network.problem(interface.uuid)
            device = self.present.get(interface.uuid)
            if device is None:
                return f"there is no device {interface.name}"
            if not device.carrier:
                return f"device {interface.name} is down: ip link set {interface.name} up"
        return None


def plan(intent: Intent, facts: Facts, old: Slots) -> Plan:
    """What the data plane shall do; `old` says whose slots are in use."""
    return _Planner(intent, facts, old).run()
