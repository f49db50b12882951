# SPDX-License-Identifier: Apache-2.0
"""OpenFlow port numbers, given as Open vSwitch gives them. Pure."""

from collections.abc import Collection, Mapping
from itertools import chain
from uuid import UUID

from heliograph.switch.intent import Bridge, Interface

OFPORT_LOCAL = 65534  # OFPP_LOCAL of OpenFlow 1.0: the port named like its bridge
OFPORT_MAX = 65279

Numbers = Mapping[int, UUID]  # whose each is, or was last; the one longest out of use first


def ofports(
    bridge: Bridge, working: Collection[UUID], known: Numbers
) -> tuple[dict[UUID, int], dict[UUID, str]]:
    """The numbers of the `working` Interface rows: as requested, else as before, else the lowest
    that nobody had: flows name a port by its number, and are not to hold for another. A request
    moves a port, and one that has the number without having requested it gives way; of several that
    request it, the one that has it keeps it.

    Also returns what is to be said of requests in vain, by UUID of the Interface row.
    """
    given: dict[UUID, int] = {}
    holders: dict[int, Interface] = {}
    vain: dict[UUID, str] = {}
    interfaces = [i for port in bridge.ports for i in port.interfaces if i.uuid in working]

    def give(interface: Interface, number: int) -> None:
        given[interface.uuid] = number
        holders[number] = interface

    for interface in interfaces:
        if interface.name == bridge.name:
            give(interface, OFPORT_LOCAL)
    for interface in sorted(interfaces, key=lambda i: i.ofport != i.ofport_request):
        request = interface.ofport_request
        if interface.uuid in given or request is None or not 0 < request <= OFPORT_MAX:
            continue
        if request in holders:
            vain[interface.uuid] = (
                f"ofport_request={request} is what interface {holders[request].name} has "
                f"requested: set interface {interface.name} ofport_request to another number"
            )
        else:
            give(interface, request)
    last = {interface: number for number, interface in known.items()}
    for interface in interfaces:
        for number in (interface.ofport or 0, last.get(interface.uuid, 0)):
            if interface.uuid not in given and number not in holders and 0 < number <= OFPORT_MAX:
                give(interface, number)
    fresh = (number for number in range(1, OFPORT_MAX + 1) if number not in known)
    unused = (number for number in chain(fresh, known) if number not in holders)
    for interface in interfaces:
        if interface.uuid not in given:
            give(interface, next(unused))
    return given, vain


def remembered(known: Numbers, given: Mapping[UUID, int]) -> dict[int, UUID]:
    """What is known of a bridge's numbers once these are given."""
    holders = {number: interface for interface, number in given.items() if number <= OFPORT_MAX}
    return {n: interface for n, interface in known.items() if n not in holders} | holders
