# SPDX-License-Identifier: Apache-2.0
"""Mirrors whose copies would come back without end are found; others are left alone."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from heliograph.kernel.layouts import VlanMode
from heliograph.kernel.snapshot import BridgeEntry, MirrorEntry, PortEntry
from heliograph.switch.loops import Lead, find

ALL = frozenset(range(100))
NONE: frozenset[int] = frozenset()
# Bridge 0 has ports 1 to 3, bridge 1 has 11 to 13; two veth pairs join 1-11 and 2-12.
WIRES = {
    1: Lead(1, 11, wired=True),
    11: Lead(0, 1, wired=True),
    2: Lead(1, 12, wired=True),
    12: Lead(0, 2, wired=True),
}
PATCHED = {number: lead._replace(wired=False) for number, lead in WIRES.items()}


def port(number: int) -> PortEntry:
    return PortEntry(number, number, VlanMode.TRUNK, 0, frozenset(), 1)


def mirror(
    number: int,
    output: int | None,
    *,
    src: frozenset[int] = NONE,
    dst: frozenset[int] = NONE,
    vlans: Sequence[int] = (),
    output_vlan: int = 0,
) -> MirrorEntry:
    slot = 32 + number if output is None or output > 10 else number
    return MirrorEntry(number, slot, src, dst, frozenset(vlans), output, 0, output_vlan)


def bridges(*mirrors: MirrorEntry, forwarding: bool = False) -> dict[int, BridgeEntry]:
    """Forwarding off, unless the loop shall close by it."""
    return {
        slot: BridgeEntry(
            slot=slot,
            forwarding=forwarding,
            forward_bpdu=False,
            mac_age=300,
            mac_limit=100,
            ports=tuple(port(10 * slot + n) for n in (1, 2, 3)),
            mirrors=tuple(m for m in mirrors if m.slot // 32 == slot),
        )
        for slot in (0, 1)
    }


def test_a_to_b_and_b_to_a_over_two_wires() -> None:
    there, back = mirror(0, 1, src=ALL), mirror(0, 12, src=ALL)
    assert find(bridges(there, back), WIRES) == {there.slot, back.slot}


def test_over_one_wire_the_output_ports_are_reserved() -> None:
    """Rule 51 ends it: what comes in by an output port is dropped."""
    there, back = mirror(0, 1, src=ALL), mirror(0, 11, src=ALL)
    assert find(bridges(there, back), WIRES) == set()


def test_sources_that_the_copies_do_not_come_in_by() -> None:
    there, back = mirror(0, 1, src=frozenset({3})), mirror(0, 12, src=ALL)
    assert find(bridges(there, back), WIRES) == set()


def test_a_copy_that_is_forwarded_back() -> None:
    there = mirror(0, 1, src=ALL)
    assert find(bridges(there), WIRES) == set()
    assert find(bridges(there, forwarding=True), WIRES) == {there.slot}


def test_no_wires_no_loops() -> None:
    there, back = mirror(0, 1, src=ALL), mirror(0, 12, src=ALL)
    assert find(bridges(there, back), {}) == set()


def test_mirrors_do_not_see_what_comes_in_by_a_patch_port() -> None:
    """Rule 13; but what is forwarded from there they do see."""
    there, back = mirror(0, 1, src=ALL), mirror(0, 12, src=ALL)
    assert find(bridges(there, back), PATCHED) == set()
    there, back = mirror(0, 1, dst=ALL), mirror(0, 12, dst=ALL)
    assert find(bridges(there, back), PATCHED) == {there.slot, back.slot}


@pytest.mark.parametrize(("other", "looping"), [(111, False), (112, True)])
def test_rspan_there_and_back(other: int, looping: bool) -> None:
    """Rule 47 ends it when both use one VLAN."""
    there = MirrorEntry(0, 0, ALL, ALL, NONE, None, 0, 111)
    back = MirrorEntry(0, 32, ALL, ALL, NONE, None, 0, other)
    assert bool(find(bridges(there, back), WIRES)) == looping


def test_the_second_mirror_of_the_rspan_experiment_is_no_loop() -> None:
    there = MirrorEntry(0, 0, frozenset({3}), frozenset({3}), NONE, None, 0, 111)
    onward = MirrorEntry(0, 32, ALL, ALL, frozenset({111}), 13, 0)
    one_wire = {number: lead for number, lead in WIRES.items() if number in (1, 11)}
    assert find(bridges(there, onward, forwarding=True), one_wire) == set()


@pytest.mark.parametrize("joined", [WIRES, PATCHED])
def test_an_output_vlan_that_goes_round_by_forwarding_alone(joined: dict[int, Lead]) -> None:
    """Two wires between two bridges carry it: no mirror sees the copy again, but it never ends."""
    there = MirrorEntry(0, 0, frozenset({3}), NONE, NONE, None, 0, 111)
    assert find(bridges(there, forwarding=True), joined) == {there.slot}
    assert find(bridges(there), joined) == set()
    one_wire = {number: lead for number, lead in joined.items() if number in (1, 11)}
    assert find(bridges(there, forwarding=True), one_wire) == set()


def test_wires_of_different_vlans_are_no_circle() -> None:
    there = MirrorEntry(0, 0, frozenset({3}), NONE, NONE, None, 0, 111)
    made = bridges(there, forwarding=True)
    for slot, entry in made.items():
        ports = [replace(p, trunks=frozenset({110 + p.number % 10})) for p in entry.ports]
        made[slot] = replace(entry, ports=tuple(ports))
    assert find(made, WIRES) == set()


# Packets of a tunnel, port 3 of bridge 0, come in by port 11 of bridge 1 (its LOCAL port, say).
AIMED = {3: Lead(1, 11, wired=True, aimed=True)}


@pytest.mark.parametrize(
    ("src", "dst", "looping"),
    [
        ({11}, set(), True),
        ({12, 13}, set(), False),
        (set(), {12, 13}, True),  # by whichever port they go on, it sees them
        (set(), {12}, False),
        (set(), {11}, False),
        (set(), {11, 12, 13}, True),
    ],
)
def test_aimed_packets_are_mirrored_where_they_come_in_or_wherever_they_leave(
    src: set[int], dst: set[int], looping: bool
) -> None:
    """Bridge 1 mirrors them over a wire of its own back to bridge 0, which has only this tunnel."""
    there = mirror(0, 3, src=ALL)
    back = mirror(0, 14, src=frozenset(src), dst=frozenset(dst))
    made = bridges(there, back)
    made[1] = replace(made[1], ports=(*made[1].ports, port(14)))
    found = find(made, AIMED | {14: Lead(0, 1, wired=True)})
    assert found == ({there.slot, back.slot} if looping else set())


def test_aimed_packets_are_not_followed_where_they_are_forwarded() -> None:
    """Port 12 is one of several that they may leave by: the program sees to the rest."""
    there = mirror(0, 3, src=ALL)
    wired = AIMED | {12: Lead(0, 2, wired=True)}
    assert find(bridges(there, forwarding=True), wired) == set()
    unaimed = {3: Lead(1, 11, wired=True), 12: Lead(0, 2, wired=True)}
    assert find(bridges(there, forwarding=True), unaimed) == {there.slot}


def test_a_tunnel_that_leaves_by_its_own_bridge() -> None:
    own = {3: Lead(0, 1, wired=True, aimed=True)}
    for src, dst, looping in (
        (ALL, NONE, True),
        (frozenset({1}), NONE, True),
        (frozenset({2}), frozenset({1}), False),
        (NONE, frozenset({2}), True),  # the only other port there is
    ):
        there = mirror(0, 3, src=src, dst=dst)
        assert find(bridges(there, forwarding=True), own) == ({there.slot} if looping else set())


def test_aimed_packets_end_at_a_reserved_port() -> None:
    """Rule 51."""
    there, other = mirror(0, 3, src=ALL), mirror(0, 11, src=frozenset({12}))
    assert find(bridges(there, other, forwarding=True), AIMED) == set()


def test_aimed_packets_in_a_vlan_that_a_mirror_does_not_select() -> None:
    """Of which VLAN they are is not known, so it may well be that one."""
    there = mirror(0, 3, src=ALL)
    back = mirror(0, 14, src=frozenset({11}), vlans=(5,))
    made = bridges(there, back)
    made[1] = replace(made[1], ports=(*made[1].ports, port(14)))
    assert find(made, AIMED | {14: Lead(0, 1, wired=True)}) == {there.slot, back.slot}
