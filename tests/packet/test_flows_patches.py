# SPDX-License-Identifier: Apache-2.0
"""Frames that pass patch ports between bridges with flow tables and bridges without."""

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from tests.packet.conftest import Switch, frame
from tests.packet.flows import add

from heliograph.flows.tables import Tables
from heliograph.kernel.flow_store import FlowStore
from heliograph.kernel.flow_store_maps import KernelBacking
from heliograph.kernel.snapshot import MirrorEntry
from heliograph.openflow import actions as a

THIRD_BRIDGE = 5


class WithTables:
    """A bridge whose frames go through flow tables."""

    def __init__(self, bridge: Switch) -> None:
        self.bridge = bridge
        backing = KernelBacking(bridge.plane.map_fd("flow_stores"), 2 * bridge.slot)
        self.store = FlowStore(backing, port_live=lambda _: True)
        self.tables = Tables(self.store)
        self.store.load(self.tables)

    def configure(self, *actions: a.Action, mirrors: tuple[MirrorEntry, ...] = ()) -> None:
        """One flow for all frames; ofports are the ports' numbers."""
        self.store.apply(self.tables.change(add(*actions), 0).delta)
        self.bridge.configure(*mirrors, flows=True)


@pytest.fixture
def third(switch: Switch) -> Iterator[Switch]:
    made = Switch(switch.plane, THIRD_BRIDGE, switch.numbers)
    made.port("z")
    yield made
    switch.plane.clear_bridge(THIRD_BRIDGE)


def test_a_bridge_behind_one_with_tables_has_the_frame_as_it_was_sent(
    switch: Switch, other: Switch, third: Switch
) -> None:
    """The first floods to both; only the second reads the frame's key."""
    switch.patch("to-other", other, "from-switch")
    switch.patch("to-third", third, "beside")
    tables = WithTables(other)
    tables.configure(a.SetEthDst(0x020000000009), a.Output(switch.numbers["x"]))
    third.configure()
    switch.configure()
    for last in (1, 2):  # the second frame must not look like the first
        sent = frame(dst="ff:ff:ff:ff:ff:ff", src=f"02:00:00:00:00:0{last}", length=60 + last)
        images = {o.port: o.image for o in switch.outputs(sent, "a")}
        assert images["z"] == sent.hex() == images["b"]
        assert images["x"] == "020000000009" + sent.hex()[12:]
    tables.store.close()


def test_rule_34_the_copy_of_a_first_fragment_keeps_its_ports(
    switch: Switch, other: Switch
) -> None:
    """Look-ups do not see them; the copy, on its way through a patch port, has them."""
    switch.patch("to-other", other, "from-switch")
    other.configure()
    tables = WithTables(switch)
    tables.configure(
        a.Output(switch.numbers["b"]), mirrors=(switch.mirror(0, "to-other", src=["a"]),)
    )
    ip = IP(src="10.0.0.1", dst="10.0.0.2", flags="MF")
    sent = bytes(Ether(dst="02:00:00:00:00:02") / ip / UDP(sport=1000, dport=2000) / bytes(24))
    images = {o.port: o.image for o in switch.outputs(sent, "a")}
    assert images == dict.fromkeys(("b", "to-other", "x", "y"), sent.hex())
    tables.store.close()
