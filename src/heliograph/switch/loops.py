# SPDX-License-Identifier: Apache-2.0
"""Finding mirrors whose copies would go round without end. Pure.

A copy that leaves by a port whose device is one end of a veth pair, or by a patch port, arrives
at another port of this switch if the other end is one; there it is forwarded, or mirrored on.
It goes round if it comes back to be mirrored again, or if ports that carry its output_vlan form a
circle, so that forwarding alone keeps it up.
What leaves for elsewhere is not followed: the switch does not see other hosts' wiring.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from heliograph.kernel.snapshot import BridgeEntry, MirrorEntry, PortEntry


class Lead(NamedTuple):
    """Where a port leads to: the slot of a bridge, the number of a port there, and whether over
    a wire (a veth pair), so that mirrors see it come in (they do not on a patch port, rule 13).

    Packets of a tunnel are `aimed`: they are for one host, and by which port that is reached is not
    known here; the program itself sees that none goes into its tunnel twice (bpf/tunnel.h)."""

    bridge: int
    port: int
    wired: bool
    aimed: bool = False


class Arrival(NamedTuple):
    """A copy that comes in where `lead` says, in a VLAN (None: not known)."""

    lead: Lead
    vlan: int | None


def find(bridges: Mapping[int, BridgeEntry], leads: Mapping[int, Lead]) -> set[int]:
    """The slots of the mirrors whose copies would go round; `leads` by port number."""
    if not leads:
        return set()
    return {
        mirror.slot
        for bridge in bridges.values()
        for mirror in bridge.mirrors
        if _goes_round(bridge, mirror, bridges, leads)
    }


def _goes_round(
    bridge: BridgeEntry,
    mirror: MirrorEntry,
    bridges: Mapping[int, BridgeEntry],
    leads: Mapping[int, Lead],
) -> bool:
    """Follows a copy, the way back to where it began always at hand."""
    seen: set[Arrival] = set()
    way: list[tuple[Arrival | None, Iterator[Arrival]]] = []
    way.append((None, _arrivals_of_copy(bridge, mirror, None, leads)))
    while way:
        arrival = next(way[-1][1], None)
        if arrival is None:
            way.pop()
        elif arrival in seen:
            # Where the VLAN is not known, a circle may be one on paper only.
            if arrival.vlan is not None and any(passed == arrival for passed, _ in way):
                return True
        else:
            seen.add(arrival)
            there = bridges.get(arrival.lead.bridge)
            if there is None or arrival.lead.port in _reserved(there):
                continue
            takers = [other for other in there.mirrors if _selects(there, other, *arrival)]
            if mirror in takers:
                return True
            way.append((arrival, _onward(there, arrival, takers, leads)))
    return False


def _onward(
    bridge: BridgeEntry, arrival: Arrival, takers: list[MirrorEntry], leads: Mapping[int, Lead]
) -> Iterator[Arrival]:
    for other in takers:
        yield from _arrivals_of_copy(bridge, other, arrival.vlan, leads)
    if arrival.lead.aimed:
        return
    for lead in _leads_of_forward(bridge, *arrival, leads):
        yield Arrival(lead, arrival.vlan)


def _arrivals_of_copy(
    bridge: BridgeEntry, mirror: MirrorEntry, vlan: int | None, leads: Mapping[int, Lead]
) -> Iterator[Arrival]:
    for lead in _leads_of_copy(bridge, mirror, leads):
        yield Arrival(lead, mirror.output_vlan or vlan)


def _reserved(bridge: BridgeEntry) -> set[int | None]:
    return {mirror.output_port for mirror in bridge.mirrors}


def _carriers(bridge: BridgeEntry, vlan: int | None) -> Iterator[PortEntry]:
    """Ports that a frame of the VLAN (None: not known, so of any) may be flooded to."""
    reserved = _reserved(bridge)
    for port in bridge.ports:
        if port.number not in reserved and (vlan is None or port.carries(vlan)):
            yield port


def _leads_of_copy(
    bridge: BridgeEntry, mirror: MirrorEntry, leads: Mapping[int, Lead]
) -> Iterator[Lead]:
    if mirror.output_port is not None:
        numbers = [mirror.output_port]
    else:
        numbers = [port.number for port in _carriers(bridge, mirror.output_vlan)]
    return (leads[number] for number in numbers if number in leads)


def _leads_of_forward(
    bridge: BridgeEntry, came_in: Lead, vlan: int | None, leads: Mapping[int, Lead]
) -> Iterator[Lead]:
    if not bridge.forwarding:
        return
    for port in _carriers(bridge, vlan):
        if port.number != came_in.port and port.number in leads:
            yield leads[port.number]


def _selects(bridge: BridgeEntry, mirror: MirrorEntry, lead: Lead, vlan: int | None) -> bool:
    """Whether a mirror may take a frame that comes in there, or what it is forwarded as."""
    if vlan is not None:
        if mirror.output_vlan == vlan:
            return False  # rule 47
        if mirror.vlans and vlan not in mirror.vlans:
            return False
    if lead.wired and lead.port in mirror.sources:
        return True
    if lead.aimed:  # wherever it is forwarded to
        others = {port.number for port in _carriers(bridge, vlan)} - {lead.port}
        return bool(others) and others <= mirror.destinations
    return bool(mirror.destinations - {lead.port})
