# SPDX-License-Identifier: Apache-2.0
"""The same cases as real frames: a switch configured by ovs-vsctl, devices, sockets, counters.

Two bridges with their local ports and six veth pairs stay; what a configuration changes is the
columns of their rows, the patch ports between them and the mirrors. Frames are sent in a batch
from one processor, so that they are switched one after the other, and then everything captured
and counted is compared. What the rules leave open is asked for: the numbers that rows were given.
"""

import contextlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from uuid import UUID

from tests.oracle import cases
from tests.oracle.cases import Configuration, Wiring
from tests.oracle.model import Learned, Verdict, Walk
from tests.oracle.vlan import TPIDS
from tools.lab.capture import Capture, Frame
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.namespaces import one_processor, veth
from tools.lab.openvswitch import Tools

from heliograph.kernel import bpf
from heliograph.kernel.counters import Counters, MirrorCounts, PortCounts
from heliograph.kernel.dataplane import read_rows
from heliograph.kernel.layouts import Limits, PriorityTags, Reason, VlanMode
from heliograph.kernel.snapshot import BridgeEntry, MirrorEntry, PortEntry

Counts = tuple[dict[int, PortCounts], dict[int, MirrorCounts]]  # by slot
BRIDGES = ("br0", "br1")
DEVICES = [["br0", "q1", "q2", "q3", "q4"], ["br1", "q5", "q6"]]
PATCHES = [("px0", "py0"), ("px1", "py1")]
NAMES = dict(
    enumerate([*DEVICES[0], *DEVICES[1], *(end for pair in PATCHES for end in pair)], start=1)
)
SLOTS = cases.SLOTS
MODES = {
    VlanMode.ACCESS: "access",
    VlanMode.TRUNK: "trunk",
    VlanMode.NATIVE_TAGGED: "native-tagged",
    VlanMode.NATIVE_UNTAGGED: "native-untagged",
    VlanMode.DOT1Q_TUNNEL: "dot1q-tunnel",
}
PRIORITIES = {
    PriorityTags.PRIORITY_NEVER: "never",
    PriorityTags.PRIORITY_IF_NONZERO: "if-nonzero",
    PriorityTags.PRIORITY_ALWAYS: "always",
}
LOOPS = "off, because its copies would come back to it"  # the planner's own rule


def wiring(rng: Random) -> Wiring:
    """The bridges as they are, with no, one or two patches between them."""
    numbers = {name: number for number, name in NAMES.items()}
    groups = [[numbers[name] for name in names] for names in DEVICES]
    peers: dict[int, tuple[int, int]] = {}
    for near, far in PATCHES[: rng.choice((0, 1, 1, 2))]:
        one, other = numbers[near], numbers[far]
        groups[0].append(one)
        groups[1].append(other)
        peers |= {one: (SLOTS[1], other), other: (SLOTS[0], one)}
    return groups, peers


def macs(number: int) -> list[bytes]:
    """Addresses that no other configuration uses, so that its MAC table is empty for them."""
    return [b"\x02" + number.to_bytes(4, "big") + bytes([last]) for last in range(1, 6)]


def frames(rng: Random, number: int, count: int) -> list[tuple[int, bytes]]:
    """Frames and the numbers of the ports by which they come in.

    The kernel drops a frame that ends less than two bytes behind the type after its tag.
    """
    devices = [n for n, name in NAMES.items() if not name.startswith("p")]
    found: list[tuple[int, bytes]] = []
    while len(found) < count:
        frame = cases.frame(rng, macs(number), to_itself=True)
        if len(frame) >= 20 or int.from_bytes(frame[12:14], "big") not in TPIDS:
            found.append((rng.choice(devices), frame))
    return found


def _set(column: str, values: frozenset[int]) -> str:
    return f"{column}={','.join(map(str, sorted(values)))}" if values else f"{column}=[]"


def _port_words(port: PortEntry) -> str:
    name = NAMES[port.number]
    words = [
        f"vlan_mode={MODES[port.mode]}",
        f"tag={port.tag}" if port.tag else "tag=[]",
        _set("trunks", port.trunks),
        _set("cvlans", port.customer_vlans),
        f"protected={str(port.protected).lower()}",
        f"other_config:priority-tags={PRIORITIES[port.priority_tags]}",
        f"other_config:qinq-ethtype={'802.1ad' if port.service_tpid == 0x88A8 else '802.1q'}",
    ]
    return f"-- set port {name} {' '.join(words)}"


def _mirror_words(name: str, mirror: MirrorEntry, bridge: BridgeEntry) -> str:
    everything = {port.number for port in bridge.ports}
    words = [_set("select_vlan", mirror.vlans)]
    if mirror.sources == mirror.destinations == everything:
        words.append("select_all=true")
    for column, numbers in (
        ("select_src_port", mirror.sources),
        ("select_dst_port", mirror.destinations),
    ):
        if numbers and "select_all=true" not in words:
            words.append(f"{column}={','.join('@' + NAMES[n] for n in sorted(numbers))}")
    if mirror.output_port is None:
        words.append(f"output_vlan={mirror.output_vlan}")
    else:
        words.append(f"output_port=@{NAMES[mirror.output_port]}")
    if mirror.snaplen:
        words.append(f"snaplen={mirror.snaplen}")
    return f"-- --id=@{name} create mirror name={name} {' '.join(words)}"


def _bridge_words(name: str, bridge: BridgeEntry) -> Iterator[str]:
    # STP, which is not there, has a bridge forward nothing.
    yield f"-- set bridge {name} stp_enable={str(not bridge.forwarding).lower()}"
    yield f"-- set bridge {name} {_set('flood_vlans', bridge.flood_vlans)}"
    yield f"other_config:forward-bpdu={str(bridge.forward_bpdu).lower()}"
    for port in bridge.ports:
        yield _port_words(port)
    made = {f"{name}m{mirror.number}": mirror for mirror in bridge.mirrors}
    for mirror_name, mirror in made.items():
        yield _mirror_words(mirror_name, mirror, bridge)
    if made:
        yield f"-- set bridge {name} mirrors={','.join('@' + n for n in made)}"


def _words(config: Configuration) -> Iterator[str]:
    """The ovs-vsctl commands that make a configuration out of any other."""
    there = {NAMES[port.number] for bridge in config.bridges for port in bridge.ports}
    for name in BRIDGES:
        yield f"-- clear bridge {name} mirrors"
    for near, far in PATCHES:
        yield f"-- --if-exists del-port {near} -- --if-exists del-port {far}"
        if near in there:
            for name, port, peer in ((BRIDGES[0], near, far), (BRIDGES[1], far, near)):
                yield f"-- add-port {name} {port}"
                yield f"-- set interface {port} type=patch options:peer={peer}"
    for port in sorted(there):
        yield f"-- --id=@{port} get port {port}"
    yield f"-- set open . other_config:vlan-limit={config.bridges[0].vlan_limit % 2}"
    for name, bridge in zip(BRIDGES, config.bridges, strict=True):
        yield from _bridge_words(name, bridge)


@dataclass(frozen=True)
class Numbers:
    """What the switch calls things: bridges, ports and mirrors by name."""

    bridges: dict[str, int]
    ports: dict[str, int]
    mirrors: dict[str, int]

    def renumber(self, config: Configuration) -> Configuration:
        """The configuration in the switch's numbers, without the mirrors that are off."""
        slots = dict(zip(SLOTS, (self.bridges[name] for name in BRIDGES), strict=True))
        to = {number: self.ports[name] for number, name in NAMES.items() if name in self.ports}

        def port(entry: PortEntry) -> PortEntry:
            peer = entry.peer and (slots[entry.peer[0]], to[entry.peer[1]])
            return replace(entry, number=to[entry.number], peer=peer)

        def mirror(entry: MirrorEntry, slot: int) -> MirrorEntry:
            return replace(
                entry,
                slot=slot,
                number=slot % Limits.MAX_MIRRORS,
                sources=frozenset(to[n] for n in entry.sources),
                destinations=frozenset(to[n] for n in entry.destinations),
                output_port=None if entry.output_port is None else to[entry.output_port],
            )

        return Configuration(
            tuple(
                replace(
                    bridge,
                    slot=slots[bridge.slot],
                    ports=tuple(map(port, bridge.ports)),
                    mirrors=tuple(
                        mirror(m, self.mirrors[f"{name}m{m.number}"])
                        for m in bridge.mirrors
                        if f"{name}m{m.number}" in self.mirrors
                    ),
                )
                for name, bridge in zip(BRIDGES, config.bridges, strict=True)
            ),
            (),
        )


class Network:
    """A running switch, its devices and the sockets at their other ends."""

    def __init__(self, lab: Lab, switch: Heliograph) -> None:
        self.ovs = Tools(switch.rundir)
        self.host, self.guest = switch.host, lab.namespace("guest")
        for namespace in (self.host, self.guest):  # silent: only what is sent counts
            namespace.set_sysctl("ipv6/conf/default/disable_ipv6", "1")
            namespace.set_sysctl("ipv6/conf/all/disable_ipv6", "1")
        places = {"br0": (self.host, "br0"), "br1": (self.host, "br1")}
        for bridge, devices in zip(BRIDGES, DEVICES, strict=True):
            words = [f"add-br {bridge}"]
            for device in devices[1:]:
                places[device] = (self.guest, f"g{device}")
                veth((self.host, device), places[device])
                self.host.ip(f"link set {device} mtu 9000")
                self.guest.ip(f"link set g{device} mtu 9000")
                words.append(f"add-port {bridge} {device}")
            words.append(f"set bridge {bridge} other_config:mac-table-size=1000000")
            self.ovs.vsctl(" -- ".join(words))
            self.ovs.vsctl(f"set interface {bridge} mtu_request=9000")
            self.host.ip(f"link set {bridge} up")
        self.senders = {
            name: namespace.packet_socket(device, 0) for name, (namespace, device) in places.items()
        }
        self.captures = {name: Capture(*place) for name, place in places.items()}
        maps = next((switch.rundir / "bpf").glob("layout-*"))
        self._maps = [bpf.get(maps / name) for name in ("port_stats", "mirror_stats", "rows")]
        self.counters = Counters.of(*self._maps[:2])

    def close(self) -> None:
        for capture in self.captures.values():
            capture.close()
        for sender in self.senders.values():
            sender.close()
        for fd in self._maps:
            os.close(fd)

    def _table(self, name: str, *columns: str) -> list[list[Any]]:
        printed = self.ovs.vsctl(*("--format=json", f"--columns={','.join(columns)}", "list", name))
        rows: list[list[Any]] = json.loads(printed)["data"] if printed else []
        return rows

    def _numbers(self, table: str, first: int, count: int) -> dict[str, int]:
        slots = {uuid: slot for slot, uuid in read_rows(self._maps[2], first, count).items()}
        rows = {name: UUID(uuid[1]) for uuid, name in self._table(table, "_uuid", "name")}
        return {name: slots[uuid] for name, uuid in rows.items() if uuid in slots}

    def mirrors(self) -> dict[str, int]:
        """The slots of the mirrors in force, by name."""
        first = Limits.MAX_BRIDGES + Limits.MAX_PORTS
        return self._numbers("mirror", first, Limits.MAX_MIRROR_SLOTS)

    def configure(self, config: Configuration) -> Configuration:
        """Put a configuration in force; returns it as the switch numbers it."""
        self.ovs.vsctl(" ".join(_words(config)).removeprefix("-- "))
        numbers = Numbers(
            self._numbers("bridge", 0, Limits.MAX_BRIDGES),
            self._numbers("port", Limits.MAX_BRIDGES, Limits.MAX_PORTS),
            self.mirrors(),
        )
        for name, ids in self._table("mirror", "name", "external_ids"):
            if name not in numbers.mirrors:
                assert LOOPS in str(ids), f"mirror {name} is off: {ids}"
        return numbers.renumber(config)

    def counts(self, config: Configuration) -> Counts:
        """The counters of all ports and mirrors, by slot."""
        counts = self.counters.read(
            [port.number for bridge in config.bridges for port in bridge.ports],
            [mirror.slot for bridge in config.bridges for mirror in bridge.mirrors],
        )
        return counts.ports, counts.mirrors

    def send(self, batch: list[tuple[int, bytes]]) -> None:
        """Frames out of one processor, in order."""
        with one_processor():
            for number, frame in batch:
                self.senders[NAMES[number]].send(frame)

    def captured(self, wanted: dict[str, Counter[bytes]]) -> dict[str, Counter[bytes]]:
        """What arrived at each device since the last time; a moment more than is wanted."""

        def anything(_: Frame) -> bool:
            return True

        return {
            name: Counter(
                frame.data
                for frame in capture.collect(
                    wanted[name].total(), keep=anything, timeout=10.0, quiet=0.01
                )
            )
            for name, capture in self.captures.items()
        }


@dataclass
class Expected:
    """What model and devices should show after a batch."""

    captured: dict[str, Counter[bytes]]
    ports: dict[int, list[int]]  # rx packets, rx bytes, tx packets, tx bytes
    port_drops: dict[int, Counter[Reason]]
    mirrors: dict[int, list[int]]  # selected, their bytes, delivered
    mirror_drops: dict[int, Counter[Reason]]


def expect(
    config: Configuration, batch: list[tuple[int, bytes]], names: dict[int, str]
) -> Expected:
    """Run the model over a batch of frames (by the switch's port numbers), learning."""
    want = Expected(
        {name: Counter() for name in names.values()},
        defaultdict(lambda: [0, 0, 0, 0]),
        defaultdict(Counter),
        defaultdict(lambda: [0, 0, 0]),
        defaultdict(Counter),
    )
    homes = {p.number: bridge for bridge in config.bridges for p in bridge.ports}
    learned: Learned = {}
    for number, frame in batch:
        walk = Walk(config.bridges, learned, learns=True)
        verdict = walk.receive(homes[number].slot, number, frame)
        want.ports[number][0] += 1
        want.ports[number][1] += len(frame)
        _add(want, verdict, homes, names, len(frame))
        if verdict.nowhere:
            want.port_drops[number][Reason.DROP_NO_PORT] += 1
    return want


def _add(
    want: Expected,
    verdict: Verdict,
    homes: dict[int, BridgeEntry],
    names: dict[int, str],
    length: int,
) -> None:
    for taken in verdict.taken:
        counts = want.mirrors[taken.bridge * Limits.MAX_MIRRORS + taken.mirror]
        counts[0] += 1
        counts[1] += length  # rule 101
    for port, reason in verdict.drops:
        want.port_drops[port][reason] += 1
    for sent in verdict.sent:
        slot = homes[sent.port].slot * Limits.MAX_MIRRORS + (sent.mirror or 0)
        if sent.reason != Reason.DELIVERED:
            want.port_drops[sent.port][sent.reason] += 1
            if sent.mirror is not None:
                want.mirror_drops[slot][sent.reason] += 1
            continue
        if sent.mirror is not None:
            want.mirrors[slot][2] += 1
        want.ports[sent.port][2] += 1
        want.ports[sent.port][3] += len(sent.image)
        peer = next(p.peer for p in homes[sent.port].ports if p.number == sent.port)
        if peer:
            want.ports[peer[1]][0] += 1
            want.ports[peer[1]][1] += length
        else:
            want.captured[names[sent.port]][sent.image] += 1


def differences(network: Network, rng: Random, number: int, count: int) -> list[str]:
    """One configuration, one batch of frames: what model and switch do differently."""
    wanted = cases.configuration(rng, wiring(rng))
    config = network.configure(wanted)
    to = {
        old.number: new.number
        for before, now in zip(wanted.bridges, config.bridges, strict=True)
        for old, new in zip(before.ports, now.ports, strict=True)
    }
    names = {new: NAMES[old] for old, new in to.items()}
    batch = frames(rng, number, count)
    want = expect(config, [(to[port], frame) for port, frame in batch], names)
    before = network.counts(config)
    network.send(batch)
    found = network.captured(want.captured)
    said = _captures(want.captured, found) + _counts(want, names, before, network.counts(config))
    return [*said, str(config), str([(NAMES[p], f.hex()) for p, f in batch])] if said else []


def _captures(want: dict[str, Counter[bytes]], found: dict[str, Counter[bytes]]) -> list[str]:
    said = []
    for name, there in found.items():
        for word, images in ("misses", want[name] - there), ("got", there - want[name]):
            said += [
                f"{name} {word} {image[:64].hex()} ({len(image)} bytes)"
                for image in images.elements()
            ]
    return said


def _counts(want: Expected, names: dict[int, str], before: Counts, after: Counts) -> list[str]:
    said = []
    for slot, now in after[0].items():
        was = before[0][slot]
        wanted = want.ports[slot], want.port_drops[slot]
        numbers = [
            now.rx_packets - was.rx_packets,
            now.rx_bytes - was.rx_bytes,
            now.tx_packets - was.tx_packets,
            now.tx_bytes - was.tx_bytes,
        ]
        found = numbers, Counter(now.drops) - Counter(was.drops)
        if found != wanted:
            said.append(f"port {names[slot]} counted {found}, not {wanted}")
    for slot, taken in after[1].items():
        first = before[1][slot]
        selected = want.mirrors[slot], want.mirror_drops[slot]
        counted = [
            taken.packets - first.packets,
            taken.bytes - first.bytes,
            taken.delivered - first.delivered,
        ]
        copies = counted, Counter(taken.drops) - Counter(first.drops)
        if copies != selected:
            said.append(f"mirror {slot} counted {copies}, not {selected}")
    return said


@contextlib.contextmanager
def network(lab: Lab, switch: Heliograph) -> Iterator[Network]:
    made = Network(lab, switch)
    try:
        yield made
    finally:
        made.close()
