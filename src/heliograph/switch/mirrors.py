# SPDX-License-Identifier: Apache-2.0
"""Planning of mirrors: which can work, what is wrong with the others (departure D1)."""

from collections.abc import Iterator, Mapping
from uuid import UUID

from heliograph.kernel.layouts import Limits
from heliograph.kernel.snapshot import MirrorEntry
from heliograph.switch.intent import Bridge, Mirror


def _ports(bridge: Bridge) -> frozenset[UUID]:
    return frozenset(port.uuid for port in bridge.ports)


def can_work(mirror: Mirror, bridge: Bridge) -> bool:
    """Whether a mirror is given one of its bridge's 32 places (rules 91 to 93).

    One whose output's device is missing has its place: it selects, and its copies are dropped
    and counted, until the device is there.
    """
    return mirror.output_port in _ports(bridge) and not mirror.filter


def entry(mirror: Mirror, numbers: Mapping[UUID, int], slot: int) -> MirrorEntry:
    """The data plane's entry of a mirror that can work; `numbers` are the bridge's ports."""
    assert mirror.output_port is not None
    everything = frozenset(numbers.values())

    def known(ports: frozenset[UUID]) -> frozenset[int]:
        # Rule 3: ports that are not on this bridge are left out, and none is not all.
        return frozenset(numbers[port] for port in ports if port in numbers)

    return MirrorEntry(
        number=slot % Limits.MAX_MIRRORS,
        slot=slot,
        sources=everything if mirror.select_all else known(mirror.sources),
        destinations=everything if mirror.select_all else known(mirror.destinations),
        vlans=mirror.vlans,
        output_port=numbers[mirror.output_port],
        snaplen=mirror.snaplen,
    )


def problems(
    mirror: Mirror, bridge: Bridge, states: Mapping[UUID, str | None], placed: bool
) -> Iterator[str]:
    """What is wrong with a mirror, each with the way to mend it.

    `states` says of every port of the bridge what is wrong with it as an output, or None.
    """
    name = mirror.name or str(mirror.uuid)
    yield from _output_problems(mirror, bridge, states, name)
    if mirror.filter:
        yield "filter is not supported yet, so the mirror is off: clear mirror " + name + " filter"
    elif not placed and mirror.output_port in states:
        yield (
            f"bridge {bridge.name} has {Limits.MAX_MIRRORS} mirrors already, so the mirror is off: "
            "delete one"
        )
    if mirror.select_all:
        return
    chosen = mirror.sources | mirror.destinations
    strangers = chosen - _ports(bridge)
    if strangers:
        yield (
            f"{len(strangers)} selected port(s) are not on bridge {bridge.name} and are ignored: "
            "remove them from select_src_port and select_dst_port"
        )
    if not chosen - strangers:
        yield "selects no port: set select_all=true, select_src_port or select_dst_port"


def _output_problems(
    mirror: Mirror, bridge: Bridge, states: Mapping[UUID, str | None], name: str
) -> Iterator[str]:
    output = mirror.output_port
    if output is None:
        if mirror.output_vlan is None:
            yield f"has no output, so the mirror is off: set mirror {name} output_port=PORT"
        else:
            yield (
                "output_vlan (RSPAN) is not supported yet, so the mirror is off: "
                f"set mirror {name} output_port=PORT"
            )
        return
    if mirror.output_vlan is not None:
        yield (
            "has both output_port and output_vlan; output_vlan is ignored: "
            f"clear mirror {name} output_vlan"
        )
    if output not in states:
        yield (
            f"its output_port is not on bridge {bridge.name}, so the mirror is off: "
            f"choose a port of {bridge.name}"
        )
    elif states[output]:
        yield f"its output does not work: {states[output]}"
