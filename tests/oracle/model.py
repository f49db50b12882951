# SPDX-License-Identifier: Apache-2.0
"""What bridges do with one frame, written from the mirroring rules alone (sections 1 to 9).

It shares nothing with the data plane but the types of its configuration. It is a plain recursive
walk: an output is followed at once by the copies that it causes, whose outputs cause copies in
turn. Where the rules leave an order open it is the program's: the ports of a flood and of an
output VLAN by their numbers, and what goes on in the bridge behind a patch port after all that
happens in this one.
"""

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from tests.oracle.vlan import (
    TPIDS,
    Packet,
    Tag,
    Tags,
    admits,
    includes,
    inward,
    outward,
    parse,
    vid,
)

from heliograph.kernel.layouts import Reason
from heliograph.kernel.snapshot import BridgeEntry, MirrorEntry, PortEntry

MAX_PASSAGES = 64  # of patch ports in all: the program's bound
MAX_CROSSINGS = 8  # of patch ports, one within the other (design, "Ports are devices")
WHOLE = 65535  # rule 79

RESERVED = frozenset(
    [bytes.fromhex("0180c20000") + bytes([last]) for last in range(16)]
    + [bytes.fromhex("00e02b0000") + bytes([last]) for last in (0x00, 0x04, 0x06)]
    + [bytes.fromhex("01000ccccc") + bytes([last]) for last in (0xCC, 0xCD, *range(0xC0, 0xC8))]
    + [bytes.fromhex("01000c000000"), bytes.fromhex("01000ccdcdcd")]
)
"""Rule 48's list, which is rule 58's as well."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame that leaves by a port, or would if `reason` were DELIVERED; None: not a copy."""

    port: int
    mirror: int | None
    reason: Reason
    image: bytes


@dataclass(frozen=True, slots=True)
class Taken:
    """A mirror of a bridge selects a frame, seen in a VLAN."""

    bridge: int
    mirror: int
    vlan: int


@dataclass(slots=True)
class Verdict:
    """All that happens to one frame, in order. `drops` and `learned` begin with a port.

    `nowhere`: it was not refused, but no port was there for it, copies aside.
    """

    sent: list[Sent] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    drops: list[tuple[int, Reason]] = field(default_factory=list)
    learned: list[tuple[int, int]] = field(default_factory=list)
    nowhere: bool = False


Learned = dict[tuple[int, bytes, int], int]
"""(bridge slot, MAC, VLAN) to port number: the entries that are valid."""


@dataclass(slots=True)
class _Place:
    """A bridge, and the port by which the frame has come into it."""

    bridge: BridgeEntry
    by: PortEntry
    crossings: int = 0

    def port(self, number: int) -> PortEntry:
        return next(port for port in self.bridge.ports if port.number == number)

    def reserved(self, number: int) -> bool:
        return any(mirror.output_port == number for mirror in self.bridge.mirrors)

    def apart(self, port: PortEntry) -> bool:
        """Rule 77."""
        return self.by.protected and port.protected

    def members(self, tags: Tags) -> list[PortEntry]:
        """Where a flood and an output VLAN go (rules 45, 52, 74)."""
        ports = sorted(self.bridge.ports, key=lambda port: port.number)
        return [p for p in ports if includes(p, tags) and not self.reserved(p.number)]


def _destination(mirror: MirrorEntry) -> tuple[int | None, int]:
    return mirror.output_port, mirror.output_vlan


class Walk:
    """One frame on its way; `verdict` grows as it goes."""

    def __init__(
        self, bridges: Iterable[BridgeEntry], learned: Learned, *, learns: bool = False
    ) -> None:
        """`learns`: what it learns goes into `learned`, which a recording leaves alone."""
        self.bridges = {bridge.slot: bridge for bridge in bridges}
        self.learned = learned
        self.learns = learns
        self.verdict = Verdict()
        self.passages = 0
        # Destinations that have their copy, of each bridge (rules 22, 31), once for all (D9).
        self.done: defaultdict[int, set[tuple[int | None, int]]] = defaultdict(set)
        self.behind: deque[tuple[_Place, Packet]] = deque()

    def receive(self, slot: int, number: int, frame: bytes) -> Verdict:
        """A frame comes in by a device."""
        bridge = self.bridges[slot]
        by = next(port for port in bridge.ports if port.number == number)
        here = _Place(bridge, by)
        packet = parse(frame, bridge.vlan_limit)
        if by.ifindex == 0:
            self._drop(here, Reason.DROP_NOT_READY)
        elif packet is None:
            self._drop(here, Reason.DROP_MALFORMED)
        elif here.reserved(number):  # rules 11 and 51
            self._drop(here, Reason.DROP_RESERVED_PORT)
        else:
            self._mirror(here, by, packet, ingress=True)  # rules 4 and 5
            self._normal(here, packet)
        refused = bool(self.verdict.drops)
        while self.behind:
            self._normal(*self.behind.popleft())
        self.verdict.nowhere = not refused and all(s.mirror is not None for s in self.verdict.sent)
        return self.verdict

    def _drop(self, here: _Place, reason: Reason) -> None:
        self.verdict.drops.append((here.by.number, reason))

    def _normal(self, here: _Place, packet: Packet) -> None:
        """Section 7; rule 58 gives the order."""
        destination, source = packet.addresses[:6], packet.addresses[6:]
        if here.reserved(here.by.number):  # rule 55
            return self._drop(here, Reason.DROP_RESERVED_PORT)
        if not admits(here.by, packet.tags):
            return self._drop(here, Reason.DROP_VLAN)
        if not here.bridge.forwarding:  # rule 68
            return self._drop(here, Reason.DROP_NO_FORWARDING)
        if destination in RESERVED and not here.bridge.forward_bpdu:
            return self._drop(here, Reason.DROP_RESERVED_MAC)
        tags = inward(here.by, packet.tags)
        known = self._learn_and_look_up(here, source, destination, vid(tags))
        if known is None:
            for port in here.members(tags):
                if port.number != here.by.number and not here.apart(port):
                    self._output(here, port, tags, packet)
        elif known == here.by.number:  # rule 62
            self._drop(here, Reason.DROP_SAME_PORT)
        elif here.reserved(known):  # rule 53
            self._drop(here, Reason.DROP_TO_RESERVED)
        elif here.apart(here.port(known)):
            self._drop(here, Reason.DROP_PROTECTED)
        else:
            self._output(here, here.port(known), tags, packet)
        return None

    def _learn_and_look_up(
        self, here: _Place, source: bytes, destination: bytes, vlan: int
    ) -> int | None:
        """Rule 59; the port of the destination, None to flood."""
        if vlan in here.bridge.flood_vlans:
            return None
        slot, by = here.bridge.slot, here.by.number
        group = source[0] & 1 or not any(source)
        if not group and self.learned.get((slot, source, vlan)) != by:
            self.verdict.learned.append((by, vlan))
            if self.learns:
                self.learned[slot, source, vlan] = by
        if destination[0] & 1:
            return None
        return self.learned.get((slot, destination, vlan))

    def _output(
        self,
        here: _Place,
        port: PortEntry,
        tags: Tags,
        packet: Packet,
        *,
        mirror: MirrorEntry | None = None,
        snaplen: int = 0,
    ) -> bool:
        """Rules 36 and 77 to 81. Whether the output was mirrored in turn.

        `tags` are those inside the switch, `packet` is the frame as it was before.
        """
        priority = packet.tags[0].pcp if packet.tags else 0
        leaving = replace(packet, tags=outward(port, tags, priority))
        image, reason = leaving.wire, Reason.DELIVERED
        if here.apart(port):
            reason = Reason.DROP_PROTECTED
        elif port.peer and snaplen:
            reason = Reason.DROP_PATCH_SNAPLEN
        elif port.peer and (here.crossings == MAX_CROSSINGS or self.passages == MAX_PASSAGES):
            reason = Reason.DROP_TOO_DEEP
        elif not port.peer and not port.ifindex:
            reason = Reason.DROP_NO_DEVICE
        if snaplen and snaplen != WHOLE:
            tagged = int.from_bytes(image[12:14], "big") in TPIDS
            image = image[: max(snaplen, 18) if tagged else snaplen]  # D12
        number = None if mirror is None else mirror.number
        self.verdict.sent.append(Sent(port.number, number, reason, image))
        if reason == Reason.DELIVERED and port.peer:
            self._cross(here, port.peer, leaving)
            return False  # rule 13
        if reason != Reason.DELIVERED:
            return False  # rule 8; a port without device is none
        return self._mirror(here, port, leaving, ingress=False)

    def _cross(self, here: _Place, peer: tuple[int, int], packet: Packet) -> None:
        """Rules 13, 31, 126: on in the other bridge, as received there, but not mirrored."""
        bridge = self.bridges[peer[0]]
        by = next(port for port in bridge.ports if port.number == peer[1])
        self.passages += 1
        there = _Place(bridge, by, here.crossings + 1)
        self.behind.append((there, packet))

    def _mirror(self, here: _Place, port: PortEntry, packet: Packet, *, ingress: bool) -> bool:
        """Sections 1 to 3, for a frame received on or sent by a port. Whether any took it."""
        if not admits(port, packet.tags):  # rule 17
            return False
        tags, done = inward(port, packet.tags), self.done[here.bridge.slot]
        took = False
        for mirror in sorted(here.bridge.mirrors, key=lambda m: m.number):  # rule 23
            chosen = mirror.sources if ingress else mirror.destinations
            if port.number not in chosen or _destination(mirror) in done:
                continue
            if mirror.vlans and vid(tags) not in mirror.vlans:  # rules 19 and 24
                continue
            took = True
            done.add(_destination(mirror))  # rule 32: before the copy is sent
            self.verdict.taken.append(Taken(here.bridge.slot, mirror.number, vid(tags)))
            if mirror.output_port is not None:
                output = here.port(mirror.output_port)
                self._output(here, output, tags, packet, mirror=mirror, snaplen=mirror.snaplen)
            else:
                self._to_vlan(here, mirror, tags, packet)
        return took

    def _to_vlan(self, here: _Place, mirror: MirrorEntry, tags: Tags, packet: Packet) -> None:
        """Section 5."""
        if vid(tags) == mirror.output_vlan or packet.addresses[:6] in RESERVED:
            return  # rules 47 to 49
        outer = tags[0] if tags else Tag(0)
        moved = (replace(outer, vid=mirror.output_vlan), *tags[1:])
        snaplen = mirror.snaplen
        for port in here.members(moved):
            if self._output(here, port, moved, packet, mirror=mirror, snaplen=snaplen):
                snaplen = 0  # rule 83
