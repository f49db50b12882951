# SPDX-License-Identifier: Apache-2.0
"""Random configurations and real frames: the switch against the model of the rules.

Configured with ovs-vsctl, sent and captured at the devices (tests/oracle/wire.py). `make soak`
runs more of the same.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from random import Random

import pytest
from tests.oracle import wire
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.processes import eventually

from heliograph.kernel.counters import MirrorCounts, drop_key

SEED = 20_261_121
CONFIGURATIONS, FRAMES = 80, 40


@pytest.fixture
def network(lab: Lab, switch: Heliograph) -> Iterator[wire.Network]:
    with wire.network(lab, switch) as made:
        yield made


def test_frames_and_counters(network: wire.Network) -> None:
    for number in range(CONFIGURATIONS):
        said = wire.differences(network, Random(f"{SEED}/{number}"), number, FRAMES)
        assert not said, "\n".join([f"seed {SEED}, configuration {number}", *said])


def test_rule_126_a_copy_in_the_peer_bridge_outlives_the_frame(network: wire.Network) -> None:
    """The frame itself is dropped; its copy is forwarded to one port of the other bridge."""
    network.ovs.vsctl(
        "add-port br0 px0 -- set interface px0 type=patch options:peer=py0"
        " -- add-port br1 py0 -- set interface py0 type=patch options:peer=px0"
        " -- set-fail-mode br1 secure -- --id=@q5 get port q5 -- --id=@py0 get port py0"
        " -- --id=@m create mirror name=m0 select_src_port=@q5 output_port=@py0"
        " -- set bridge br1 mirrors=@m"
    )
    one, two = (b"\x02\0\0\0\0" + bytes([last]) for last in (1, 2))
    numbers = {name: number for number, name in wire.NAMES.items()}
    known, frame = two + one + bytes(50), one + two + bytes(range(50))
    network.send([(numbers["q1"], known), (numbers["q5"], frame)])
    with_copy = {name: Counter[bytes]() for name in network.captures}
    with_copy["q1"][frame] += 1
    for name in ("q2", "q3", "q4", "br0"):
        with_copy[name][known] += 1
    assert network.captured(with_copy) == with_copy


def test_the_database_shows_what_was_counted(network: wire.Network) -> None:
    """Departure D2: selected, copies and drops, for mirrors to ports and to VLANs."""
    wanted: dict[str, MirrorCounts] = {}
    vlans: set[str] = set()
    number = 0
    while len(vlans) < 1 or len(wanted) < 3:  # a configuration with enough to show
        number += 1
        assert not wire.differences(network, Random(f"{SEED}/{number}"), number, 2 * FRAMES)
        slots = network.mirrors()
        read = network.counters.read([], slots.values()).mirrors
        active = {name: read[slot] for name, slot in slots.items()}
        wanted = {name: counts for name, counts in active.items() if counts.packets}
        printed = network.ovs.vsctl("--bare --columns=name find mirror output_vlan!=[]")
        vlans = wanted.keys() & set(printed.split())
        assert number < 50, "no configuration has an active mirror to a VLAN"
    for name, counts in wanted.items():
        keys = {"tx_packets": counts.packets, "tx_bytes": counts.bytes}
        keys |= {"tx_copies": counts.copies} if name in vlans and counts.copies else {}
        keys |= {drop_key(reason): drops for reason, drops in counts.drops.items()}
        if name not in vlans:
            assert counts.packets == counts.copies

        settled = eventually(partial(_shows, network, name, keys))
        assert settled, (name, _statistics(network, name), keys)


def _statistics(network: wire.Network, name: str) -> dict[str, int]:
    text = network.ovs.vsctl(f"get mirror {name} statistics")
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", text)}


def _shows(network: wire.Network, name: str, keys: dict[str, int]) -> bool:
    return _statistics(network, name) == keys
