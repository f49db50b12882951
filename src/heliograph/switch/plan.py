# SPDX-License-Identifier: Apache-2.0
"""Intent and facts in, desired state and problems out. Pure: no kernel, no rows, no clock.

Devices are planned before the data plane, because a port's entry needs the ifindex that its
device only has once it is made: `devices` says which must be there, then `plan` what each bridge
shall do with those that are. Whatever cannot be honoured is left out (fails closed) or goes on
without, and is said in `problems`.
"""

import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from heliograph.kernel.devices import FAR_NAME, NAME_SIZE
from heliograph.kernel.layouts import Limits, VlanMode
from heliograph.kernel.links import Device
from heliograph.kernel.snapshot import BridgeEntry, MirrorEntry, PortEntry
from heliograph.switch import mirrors
from heliograph.switch.intent import Bridge, Intent, Interface, Port, without_repeats

INTERNAL_TYPES = {"internal"}
EXISTING_TYPES = {"", "system"}
OFPORT_LOCAL = 65534  # OFPP_LOCAL of OpenFlow 1.0: the port named like its bridge
OFPORT_MAX = 65279
VLAN_MODES = {
    "access": VlanMode.ACCESS,
    "trunk": VlanMode.TRUNK,
    "native-tagged": VlanMode.NATIVE_TAGGED,
    "native-untagged": VlanMode.NATIVE_UNTAGGED,
}


@dataclass(frozen=True, slots=True)
class Internal:
    """An internal port's device pair, wanted: the user's end is `name`, ours `far_name`."""

    uuid: UUID
    port: UUID
    name: str
    mac: str | None
    mtu_request: int | None
    bridge: str

    @property
    def far_name(self) -> str:
        """Our end's name: 15 characters at most, and nobody else's."""
        return f"hg{self.uuid.hex[:12]}"

    @property
    def stable_mac(self) -> str:
        """A locally administered address that is the same whenever the device is made again."""
        octets = bytearray(self.uuid.bytes[-6:])
        octets[0] = octets[0] & 0xFC | 0x02
        return octets.hex(":")


@dataclass(frozen=True, slots=True)
class Existing:
    """A device of the host's that shall become a port."""

    uuid: UUID
    port: UUID
    name: str
    mtu_request: int | None
    bridge: str


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """The devices that must be there, by the UUID of their Interface row."""

    internal: dict[UUID, Internal]
    existing: dict[UUID, Existing]
    errors: dict[UUID, str]


@dataclass(frozen=True, slots=True)
class Slots:
    """Whose slot is which, by row UUID; a mirror's is its bridge's slot * 32 + its number."""

    bridges: dict[UUID, int] = field(default_factory=dict)
    ports: dict[UUID, int] = field(default_factory=dict)
    mirrors: dict[UUID, int] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """Desired state of the data plane, and what to write into the rows.

    `ports` gives the Port row's number for each Interface row that works; `ofports` and `errors`
    are by Interface UUID; `problems` (heliograph-error) by UUID of a Bridge, Port or Mirror row.
    """

    bridges: dict[UUID, BridgeEntry] = field(default_factory=dict)
    slots: Slots = field(default_factory=Slots)
    ports: dict[UUID, int] = field(default_factory=dict)
    ofports: dict[UUID, int] = field(default_factory=dict)
    errors: dict[UUID, str] = field(default_factory=dict)
    problems: dict[UUID, str] = field(default_factory=dict)

    def complain(self, row: UUID, text: str) -> None:
        """Add a sentence to a row's problems."""
        known = self.problems.get(row)
        self.problems[row] = f"{known}; {text}" if known else text


def assign(rows: Iterable[UUID], old: Mapping[UUID, int], free: Collection[int]) -> dict[UUID, int]:
    """Slots for rows: theirs as before, else the lowest that was free, else one given up.

    A slot given up only now is the last choice: frames on their way still count into it. Rows
    for which there is none are left out.
    """
    wanted = list(rows)
    kept = {row: old[row] for row in wanted if row in old}
    taken, leaving = set(kept.values()), set(old.values()) - set(kept.values())
    fresh = sorted(slot for slot in free if slot not in taken)
    fresh.sort(key=lambda slot: slot in leaving)
    spare = iter(fresh)
    for row in wanted:
        if row not in kept:
            slot = next(spare, None)
            if slot is not None:
                kept[row] = slot
    return kept


def _unfit(name: str) -> str | None:
    """Why no device can have a name."""
    if FAR_NAME.fullmatch(name):
        return f"{name}: names of this form are the switch's own, choose another"
    if len(name.encode()) > NAME_SIZE:
        return f"{name}: device names have at most {NAME_SIZE} bytes, choose a shorter one"
    return None


def devices(intent: Intent) -> DevicePlan:
    """Which devices must be there."""
    wanted = DevicePlan({}, {}, {})
    for bridge in without_repeats(intent)[0].bridges:
        for port in bridge.ports:
            for interface in port.interfaces:
                _device(wanted, bridge, port, interface)
    return wanted


def _device(wanted: DevicePlan, bridge: Bridge, port: Port, interface: Interface) -> None:
    """Add the device of one interface to what is wanted, or why there is none."""
    unfit = _unfit(interface.name)
    if len(port.interfaces) > 1:
        wanted.errors[interface.uuid] = (
            f"port {port.name} has several interfaces: bonds are not supported yet, "
            "give each interface a port of its own"
        )
    elif unfit:
        wanted.errors[interface.uuid] = unfit
    elif interface.type in INTERNAL_TYPES or interface.name == bridge.name:
        wanted.internal[interface.uuid] = Internal(
            interface.uuid,
            port.uuid,
            interface.name,
            interface.mac or (bridge.hwaddr if interface.name == bridge.name else None),
            interface.mtu_request,
            bridge.name,
        )
    elif interface.type in EXISTING_TYPES:
        wanted.existing[interface.uuid] = Existing(
            interface.uuid, port.uuid, interface.name, interface.mtu_request, bridge.name
        )
    else:
        wanted.errors[interface.uuid] = (
            f"interface type {interface.type!r} is not supported yet: "
            'use "internal", or "" for a device that exists'
        )


def _generation(bridge: Bridge, port: Port) -> int:
    """Changes with whatever makes what was learned on a port void (rule 60), and only then; so
    entries outlive a restart of the switch."""
    config = (port.uuid, port.vlan_mode, port.tag, sorted(port.trunks), bridge.uuid)
    return zlib.crc32(repr(config).encode()) or 1


def _port_entry(bridge: Bridge, port: Port, number: int, device: Device) -> PortEntry:
    return PortEntry(
        number=number,
        ifindex=device.ifindex,
        mode=VLAN_MODES[port.vlan_mode],
        tag=port.tag or 0,
        trunks=port.trunks if port.vlan_mode != "access" else frozenset(),
        generation=_generation(bridge, port),
        peer_elsewhere=device.kind == "veth" and device.peer_elsewhere,
    )


def _refusal(port: Port) -> str | None:
    """Why a port does not forward, though its device may be there."""
    if port.protected:
        return "protected is not supported yet, so the port does not forward: set protected=false"
    if port.vlan_mode not in VLAN_MODES:
        return f"vlan_mode {port.vlan_mode} is not supported yet, so the port does not forward"
    return None


def _ofports(bridge: Bridge, working: set[UUID]) -> dict[UUID, int]:
    """OpenFlow port numbers: as requested, else as before, else the lowest free."""
    given: dict[UUID, int] = {}
    interfaces = [i for port in bridge.ports for i in port.interfaces if i.uuid in working]
    for interface in interfaces:
        if interface.name == bridge.name:
            given[interface.uuid] = OFPORT_LOCAL
    for pick in ("ofport_request", "ofport"):
        for interface in interfaces:
            number = getattr(interface, pick)
            free = number is not None and number not in given.values()
            if interface.uuid not in given and free and 0 < number <= OFPORT_MAX:
                given[interface.uuid] = number
    unused = (number for number in range(1, OFPORT_MAX) if number not in set(given.values()))
    for interface in interfaces:
        if interface.uuid not in given:
            given[interface.uuid] = next(unused)
    return given


class _Planner:
    """One run of `plan`; each method adds to `self.plan`."""

    def __init__(
        self, intent: Intent, present: Mapping[UUID, Device], errors: Mapping[UUID, str], old: Slots
    ) -> None:
        self.intent, repeats = without_repeats(intent)
        self.present = present
        self.old = old
        self.plan = Plan(errors=dict(errors), problems=repeats)

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
        return self.plan

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
        entries = [entry for port in bridge.ports for entry in self._port(bridge, port)]
        self.plan.ofports |= _ofports(
            bridge,
            {
                interface.uuid
                for port in bridge.ports
                for interface in port.interfaces
                if interface.uuid in self.plan.ports
            },
        )
        self._bridge_problems(bridge)
        self.plan.bridges[bridge.uuid] = BridgeEntry(
            slot=self.plan.slots.bridges[bridge.uuid],
            forwarding=not bridge.secure and not bridge.spanning_tree,
            forward_bpdu=bridge.forward_bpdu,
            mac_age=bridge.mac_age,
            mac_limit=bridge.mac_limit,
            ports=tuple(entries),
            mirrors=self._mirrors(bridge),
        )

    def _port(self, bridge: Bridge, port: Port) -> list[PortEntry]:
        """The port's entry, if it works; its problems in any case."""
        number = self.plan.slots.ports.get(port.uuid)
        refusal = _refusal(port)
        if len(port.interfaces) > 1:
            refusal = (
                "several interfaces: bonds are not supported yet, so the port does not forward"
            )
        if number is None:
            refusal = f"the switch has {Limits.MAX_PORTS} ports already: delete one for this"
        if refusal:
            self.plan.complain(port.uuid, refusal)
        untuned = port.untuned + tuple(c for i in port.interfaces for c in i.untuned)
        if untuned:
            self.plan.complain(
                port.uuid, f"not supported yet and without effect: {', '.join(untuned)}"
            )
        for interface in port.interfaces:
            device = self.present.get(interface.uuid)
            if number is None or refusal or interface.uuid in self.plan.errors or device is None:
                self._fail(interface, refusal or f"no device {interface.name}")
                continue
            self.plan.ports[interface.uuid] = number
            return [_port_entry(bridge, port, number, device)]
        return []

    def _bridge_problems(self, bridge: Bridge) -> None:
        if bridge.spanning_tree:
            self.plan.complain(
                bridge.uuid,
                f"{bridge.spanning_tree} is not supported yet, so the bridge forwards nothing: "
                f"set {bridge.spanning_tree.lower()}_enable=false",
            )
        if bridge.secure:
            self.plan.complain(
                bridge.uuid,
                "fail_mode=secure and no flows, so the bridge forwards nothing: flow tables are "
                "not supported yet, ovs-vsctl del-fail-mode makes it a learning switch",
            )
        if bridge.untuned:
            self.plan.complain(
                bridge.uuid, f"not supported yet and without effect: {', '.join(bridge.untuned)}"
            )

    def _mirrors(self, bridge: Bridge) -> tuple[MirrorEntry, ...]:
        first = self.plan.slots.bridges[bridge.uuid] * Limits.MAX_MIRRORS
        old = {row: slot for row, slot in self.old.mirrors.items() if slot // 32 * 32 == first}
        able = [mirror for mirror in bridge.mirrors if mirrors.can_work(mirror, bridge)]
        slots = assign(
            (mirror.uuid for mirror in able), old, range(first, first + Limits.MAX_MIRRORS)
        )
        self.plan.slots.mirrors.update(slots)
        numbers = {
            port.uuid: self.plan.slots.ports[port.uuid]
            for port in bridge.ports
            if port.uuid in self.plan.slots.ports
        }
        states = {port.uuid: self._state(port) for port in bridge.ports}
        entries = []
        for mirror in bridge.mirrors:
            for problem in mirrors.problems(mirror, bridge, states, mirror.uuid in slots):
                self.plan.complain(mirror.uuid, problem)
            if mirror.uuid in slots and mirror.output_port in numbers:
                entries.append(mirrors.entry(mirror, numbers, slots[mirror.uuid]))
        return tuple(sorted(entries, key=lambda entry: entry.number))

    def _state(self, port: Port) -> str | None:
        """What is wrong with a port as a mirror's output, or None."""
        for interface in port.interfaces:
            if interface.uuid in self.plan.errors:
                return self.plan.errors[interface.uuid]
            device = self.present.get(interface.uuid)
            if device is None:
                return f"there is no device {interface.name}"
            if not device.carrier:
                return f"device {interface.name} is down: ip link set {interface.name} up"
        return None


def plan(
    intent: Intent, present: Mapping[UUID, Device], errors: Mapping[UUID, str], old: Slots
) -> Plan:
    """What the data plane shall do.

    `present` are the switch's devices by Interface UUID (our end of an internal port, or the
    host's device); `errors` those Interface rows whose device could not be had, and why; `old`
    whose slots are in use.
    """
    return _Planner(intent, present, errors, old).run()
