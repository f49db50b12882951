# SPDX-License-Identifier: Apache-2.0
"""The MAC table when it is full, flushed, or fooled (rules 60, 61, 64, departure D11)."""

import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from tools.lab.capture import Capture, Frame
from tools.lab.heliograph import Heliograph
from tools.lab.namespaces import Namespace
from tools.lab.openvswitch import Tools
from tools.lab.processes import eventually

from heliograph.kernel import bpf, layouts

PORTS = ("p1", "p2", "p3", "p4")


def mac(number: int, port: int = 0) -> bytes:
    return b"\x02\0" + bytes([port]) + number.to_bytes(3, "big")


@dataclass
class Bridge:
    """Bridge br0 with ports p1 to p4, each silent guest in a namespace."""

    switch: Heliograph
    ovs: Tools
    guests: dict[str, Namespace]

    def speak(self, port: str, *sources: bytes) -> None:
        """Frames from MACs, to a reserved address: learned, but not sent on."""
        self.guests[port].send(
            port, [b"\xff" * 6 + source + b"\x88\xb6" + bytes(46) for source in sources]
        )

    def known(self, macs: list[bytes], *, asker: str = "p4", bystander: str = "p3") -> set[bytes]:
        """Those whose frames are not flooded: a bystander does not see them, but a last one."""
        found, last = set(macs), b"\xff" * 6

        def is_last(frame: Frame) -> bool:
            found.discard(frame.data[:6])
            return frame.data[:6] == last

        with Capture(self.guests[bystander], bystander) as capture:
            self.guests[asker].send(
                asker,
                [target + mac(1, 0xEE) + b"\x88\xb6" + bytes(46) for target in (*macs, last)],
            )
            assert capture.collect(1, keep=is_last, quiet=0)
        return found


@pytest.fixture
def bridge(switch: Heliograph, ovs: Tools, guest: Callable[[str], Namespace]) -> Bridge:
    ovs.vsctl("add-br br0")
    guests = {}
    for name in PORTS:
        ovs.vsctl(f"add-port br0 {name} -- set interface {name} type=internal")
        guests[name] = guest(name)
        guests[name].set_sysctl("ipv6/conf/default/disable_ipv6", "1")
        guests[name].set_sysctl("ipv6/conf/all/disable_ipv6", "1")
        switch.move(name, guests[name])
    return Bridge(switch, ovs, guests)


def test_rule_64_the_bound_is_exact(bridge: Bridge) -> None:
    """One port alone fills the table to the last place, and evicts none of its own."""
    bridge.ovs.vsctl("set bridge br0 other_config:mac-table-size=50")
    macs = [mac(n, 1) for n in range(120)]
    bridge.speak("p4", mac(1, 0xEE))  # the asker's own
    bridge.speak("p1", *macs)
    assert bridge.known(macs) == set(macs[:49])


def test_departure_11_a_quiet_port_still_learns(bridge: Bridge) -> None:
    """At the cost of the oldest entry of the port with most."""
    bridge.ovs.vsctl("set bridge br0 other_config:mac-table-size=50")
    bridge.speak("p4", mac(1, 0xEE))
    flood, quiet = [mac(n, 1) for n in range(60)], [mac(n, 2) for n in range(3)]
    bridge.speak("p1", flood[0])
    time.sleep(2.5)  # by ticks of 1.07 s it is the oldest
    bridge.speak("p1", *flood[1:])
    bridge.speak("p2", quiet[0])
    assert bridge.known(quiet) == {quiet[0]}
    assert bridge.known(flood) == set(flood[1:49])
    bridge.speak("p2", *quiet)
    assert bridge.known(quiet) == set(quiet)
    assert len(bridge.known(flood)) == 46


def test_departure_11_two_floods_share(bridge: Bridge) -> None:
    bridge.ovs.vsctl("set bridge br0 other_config:mac-table-size=101")
    bridge.speak("p4", mac(1, 0xEE))
    first, second = [mac(n, 1) for n in range(300)], [mac(n, 2) for n in range(300)]
    bridge.speak("p1", *first)
    bridge.speak("p2", *second)
    assert len(bridge.known(second)) in (49, 50)
    assert len(bridge.known(first)) in (50, 51)


def test_a_smaller_table_takes_effect(bridge: Bridge) -> None:
    macs = [mac(n, 1) for n in range(100)]
    bridge.speak("p1", *macs)
    assert bridge.known(macs) == set(macs)
    bridge.ovs.vsctl("set bridge br0 other_config:mac-table-size=20")
    assert eventually(lambda: len(bridge.known(macs)) <= 20)


def test_rules_60_and_61_flushes_are_immediate(bridge: Bridge) -> None:
    one, two = [mac(n, 1) for n in range(50)], [mac(n, 2) for n in range(50)]
    bridge.speak("p1", *one)
    bridge.speak("p2", *two)
    assert bridge.known(one + two) == {*one, *two}
    bridge.ovs.vsctl("set port p1 trunks=0,5")
    assert bridge.known(one + two) == set(two)
    bridge.speak("p1", *one)
    bridge.ovs.vsctl("set bridge br0 flood_vlans=77")
    assert bridge.known(one + two) == set()
    bridge.speak("p2", *two)
    bridge.ovs.vsctl("del-port p2")
    assert bridge.known(two) == set()


def test_zero_and_multicast_sources_are_not_learned(bridge: Bridge) -> None:
    odd = [bytes(6), b"\x03\0\0\0\0\x01"]
    bridge.speak("p1", *odd)
    assert bridge.known(odd[:1]) == set()


def test_a_mac_that_moves_too_often_is_reported(bridge: Bridge) -> None:
    wanderer = mac(9, 9)

    def said() -> str:
        return bridge.ovs.vsctl("--if-exists get bridge br0 external_ids:heliograph-error")

    frame = b"\xff" * 6 + wanderer + b"\x88\xb6" + bytes(46)
    with (
        bridge.guests["p1"].packet_socket("p1", 0) as one,
        bridge.guests["p2"].packet_socket("p2", 0) as two,
    ):
        for _ in range(1000):
            one.send(frame)
            two.send(frame)
    assert eventually(lambda: wanderer.hex(":") in said()), said()
    assert "p1" in said()
    assert "p2" in said()
    assert eventually(lambda: said() == "")


def test_a_wrong_count_does_not_end_learning(bridge: Bridge) -> None:
    """Fewer than none, say after a crash: that is an empty table, not a full one."""
    folder = bridge.switch.rundir / "bpf" / f"layout-{layouts.LAYOUT}"
    removed = bpf.get(folder / "fdb_removed")
    try:
        for slot in range(2):
            bpf.update(removed, struct.pack("=I", slot), struct.pack("=I", 1000))
    finally:
        os.close(removed)
    macs = [mac(n, 1) for n in range(3)]
    bridge.speak("p4", mac(1, 0xEE))
    bridge.speak("p1", *macs)
    assert bridge.known(macs) == set(macs)
