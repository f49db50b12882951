# SPDX-License-Identifier: Apache-2.0
"""Planning of mirrors: which can work, what is wrong with the others (departure D1)."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from heliograph.kernel.layouts import Limits
from heliograph.kernel.snapshot import MirrorEntry, PortEntry
from heliograph.switch.intent import Bridge, Mirror


@dataclass(frozen=True, slots=True)
class View:
    """What a mirror's bridge has: `numbers` of its ports; `faults`, what is wrong with each as an
    output, or None; `patches`, those that are patch ports; `entries`, those that forward."""

    bridge: Bridge
    numbers: Mapping[UUID, int]
    faults: Mapping[UUID, str | None]
    patches: frozenset[UUID]
    entries: tuple[PortEntry, ...]


def can_work(mirror: Mirror, ports: Container[UUID]) -> bool:
    """Whether a mirror is given one of its bridge's 32 places (rules 91 to 93); `ports` are those
    of its bridge that have a number.

    One whose output's device is missing has its place: it selects, and its copies are dropped
    and counted, until the device is there.
    """
    if mirror.filter:
        return False
    if mirror.output_port is None:
        return mirror.output_vlan is not None
    return mirror.output_port in ports


def entry(mirror: Mirror, view: View, slot: int) -> MirrorEntry:
    """The data plane's entry of a mirror that can work."""
    everything = frozenset(view.numbers.values())

    def known(ports: frozenset[UUID]) -> frozenset[int]:
        # Rule 3: ports that are not on this bridge are left out, and none is not all.
        return frozenset(view.numbers[port] for port in ports if port in view.numbers)

    output = mirror.output_port
    return MirrorEntry(
        number=slot % Limits.MAX_MIRRORS,
        slot=slot,
        sources=everything if mirror.select_all else known(mirror.sources),
        destinations=everything if mirror.select_all else known(mirror.destinations),
        vlans=mirror.vlans,
        output_port=None if output is None else view.numbers[output],
        snaplen=mirror.snaplen,
        output_vlan=mirror.output_vlan or 0 if output is None else 0,
    )


def problems(mirror: Mirror, view: View, placed: bool) -> Iterator[str]:
    """What is wrong with a mirror, each with the way to mend it."""
    name = mirror.name or str(mirror.uuid)
    if mirror.output_port is not None:
        yield from _port_problems(mirror, view, name)
    elif mirror.output_vlan is not None:
        yield from _vlan_problems(mirror, view, mirror.output_vlan)
    else:
        yield (
            "has no output, so the mirror is off: -- --id=@p get port PORT "
            f"-- set mirror {name} output_port=@p, or set mirror {name} output_vlan=VLAN"
        )
    if mirror.filter:
        yield "filter is not supported yet, so the mirror is off: clear mirror " + name + " filter"
    elif not placed and can_work(mirror, view.numbers):
        yield (
            f"bridge {view.bridge.name} has {Limits.MAX_MIRRORS} mirrors already, so the mirror "
            "is off: delete one"
        )
    if not mirror.select_all:
        yield from _selection_problems(mirror, view)


def _selection_problems(mirror: Mirror, view: View) -> Iterator[str]:
    chosen = mirror.sources | mirror.destinations
    strangers = chosen - view.faults.keys()
    if strangers:
        yield (
            f"{len(strangers)} selected port(s) are not on bridge {view.bridge.name} and are "
            "ignored: remove them from select_src_port and select_dst_port"
        )
    if not chosen - strangers:
        yield "selects no port: set select_all=true, select_src_port or select_dst_port"
    elif chosen - strangers == {mirror.output_port}:
        yield (
            "selects only its own output_port, which is reserved for copies: nothing else comes in "
            "or goes out by it; choose another output_port"
        )
    elif chosen - strangers <= view.patches:
        yield (
            "selects only patch ports, where no mirror sees anything: select the ports beyond, "
            "on the bridge of their peer"
        )


def _port_problems(mirror: Mirror, view: View, name: str) -> Iterator[str]:
    output = mirror.output_port
    assert output is not None
    if mirror.output_vlan is not None:
        yield (
            "has both output_port and output_vlan; output_vlan is ignored: "
            f"clear mirror {name} output_vlan"
        )
    if output not in view.faults:
        yield (
            f"its output_port is not on bridge {view.bridge.name}, so the mirror is off: "
            f"choose a port of {view.bridge.name}"
        )
    elif view.faults[output]:
        yield f"its output does not work: {view.faults[output]}"
    elif output in view.patches and mirror.snaplen:
        yield f"a copy with a snaplen does not pass a patch port: clear mirror {name} snaplen"


def _vlan_problems(mirror: Mirror, view: View, vlan: int) -> Iterator[str]:
    reserved = {view.numbers.get(m.output_port) for m in view.bridge.mirrors if m.output_port}
    carried = [p for p in view.entries if p.number not in reserved and p.carries(vlan)]
    if not carried:
        yield (
            f"no port of bridge {view.bridge.name} carries its output_vlan {vlan}: add one that "
            f"does, for example a trunk or one with tag={vlan}"
        )
