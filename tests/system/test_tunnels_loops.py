# SPDX-License-Identifier: Apache-2.0
"""Tunnels over a bridge that they are ports of, and round in other ways: no copy is endless."""

import json
import time
from collections.abc import Iterator

import pytest
from tests.system.remote_span import outers
from tests.system.site import BROADCAST, MAC1, MAC2, Site, frame, mirror, silence
from tests.system.underlay import BRIDGE, DEVICE, FAR, Underlay
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.openvswitch import Tools
from tools.lab.processes import eventually
from tools.lab.watchdog import Watchdog


class OverItself:
    """Bridge br-under with the host's address on its LOCAL port, a wire to the collector, the
    guests tap1 and tap2, and tunnels to the collector as ports of its own."""

    def __init__(self, lab: Lab) -> None:
        switch = Heliograph(lab)
        switch.start()
        self.ovs = Tools(switch.rundir)
        self.site = Site(lab, switch, self.ovs, {})
        self.under = Underlay.build(lab, switch.host, bridge=self.ovs)
        for guest in "tap1", "tap2":
            self.site.add(BRIDGE, guest)
        self.under.ready()
        for side in self.under.host, self.under.collector:
            silence(side)  # of what moves nothing is to be unasked

    def clear(self) -> None:
        self.ovs.vsctl(
            f"clear bridge {BRIDGE} mirrors -- --if-exists del-port out0"
            " -- --if-exists del-port out1"
        )

    def add(self, port: str, then: str = "", remote: str = FAR.ipv4) -> str:
        """Make a tunnel, and more in the same transaction; returns the complaint of ovs-vsctl."""
        return self.ovs.try_vsctl(
            f"add-port {BRIDGE} {port} -- set interface {port} type=gre"
            f" options:remote_ip={remote} options:key={port[-1]} {then}"
        ).stderr

    def mirror(self, columns: str) -> str:
        """The same of a tunnel with a mirror into it."""
        ports = {"@1": "tap1", "@wire": DEVICE, "@local": BRIDGE, "@out": "out0"}
        words = mirror("m0", BRIDGE, f"{columns} output_port=@out")
        known = [f"-- --id={name} get port {port}" for name, port in ports.items() if name in words]
        return self.add("out0", " ".join([*known, words]))

    def moved(self) -> int:
        """Frames that all devices of the host together have sent and received."""
        listed = json.loads(self.under.host.ip("-s -j link show"))
        return sum(device["stats64"][way]["packets"] for device in listed for way in ("rx", "tx"))

    def moves(self, sent: bytes, seconds: float = 0.3) -> int:
        """Frames that they move in that time when tap1 sends one."""
        before = self.moved()
        self.site.send("tap1", sent)
        time.sleep(seconds)
        return self.moved() - before


@pytest.fixture(scope="module")
def made(tokens: list[str]) -> Iterator[OverItself]:
    with Lab() as lab:
        tokens.append(lab.token)
        rig = OverItself(lab)
        yield rig
        print(rig.site.switch.process.log_text())


@pytest.fixture
def rig(made: OverItself) -> Iterator[OverItself]:
    with Watchdog(made.site.lab, 60):
        yield made
        made.clear()


@pytest.mark.parametrize(
    "columns",
    ["select_all=true", "select_src_port=@1,@local snaplen=100"],
)
def test_a_mirror_of_its_own_underlay(rig: OverItself, columns: str) -> None:
    """Said on the Interface, by ovs-vsctl and on the Mirror (D1). When the mirror selects a guest
    instead, its copies leave by that very LOCAL port."""
    with rig.under.capture() as seen:
        printed = rig.mirror(columns)
        error = rig.ovs.vsctl("get interface out0 error")
        assert f"leave by {BRIDGE}, back into the switch, where mirror m0 would" in error
        assert "Error detected while setting up 'out0': its packets leave by" in printed
        assert rig.ovs.vsctl("get interface out0 ofport") == "-1"
        assert "without end" in rig.site.said("m0")
        assert rig.moves(frame(BROADCAST)) < 40
        assert outers(seen) == []
        rig.ovs.vsctl(
            "-- --id=@1 get port tap1 -- clear mirror m0 snaplen"
            " -- set mirror m0 select_all=false select_src_port=@1 select_dst_port=@1"
        )
        assert rig.ovs.vsctl("get interface out0 error") == "[]"
        assert rig.site.said("m0") == ""
        assert rig.moves(frame(BROADCAST), 0.1) < 40
        rig.site.send("tap2", frame(MAC1, MAC2))
        copies = [outer.inner for outer in outers(seen, 2)]
        assert copies == [frame(BROADCAST), frame(MAC1, MAC2)]
        counted = rig.site.live("m0")
        assert counted == {"tx_packets": 2, "tx_bytes": 120}


def test_a_mirror_of_its_own_uplink(rig: OverItself) -> None:
    """What leaves by the wire is copied, and so the copy leaves, which has no copy: drop_loop."""
    with rig.under.capture() as seen:
        assert rig.mirror("select_dst_port=@wire") == ""
        assert rig.moves(frame(BROADCAST)) < 40
        assert [outer.inner for outer in outers(seen, 1)] == [frame(BROADCAST)]
        counted = rig.site.live("m0")
        assert (counted["tx_packets"], counted["drop_loop"]) == (2, 1)


@pytest.fixture
def unlearned(made: OverItself) -> Iterator[list[str]]:
    """Neighbours of the host that are never heard of, so that what is for them is flooded."""
    host, addresses = made.under.host, ["10.9.0.8", "10.9.0.9"]
    for address in addresses:
        mac = f"02:09:00:00:00:9{address[-1]}"
        host.ip(f"neigh replace {address} lladdr {mac} nud permanent dev {BRIDGE}")
    yield addresses
    for address in addresses:
        host.ip(f"neigh del {address} dev {BRIDGE}")


def test_next_hop_unknown_to_its_bridge(rig: OverItself, unlearned: list[str]) -> None:
    """A tunnel as an ordinary port: its packets are flooded, but not into itself again."""
    assert rig.add("out0", remote=unlearned[0]) == ""
    with rig.under.capture() as seen, rig.site.capture("tap2") as two:
        assert rig.moves(frame(BROADCAST)) < 40
        assert [outer.inner for outer in outers(seen, 1)] == [frame(BROADCAST)]
        assert len(two.collect(2)) == 2, "the frame, and the packet it is in"
    counted = rig.site.live("out0", "port")
    assert (counted["tx_packets"], counted["drop_loop"]) == (1, 1)


def test_tunnels_flooded_into_each_other(rig: OverItself, unlearned: list[str]) -> None:
    """A tunnel may run in another, but not in a third one, nor in itself by way of that."""
    for port, remote in zip(("out0", "out1"), unlearned, strict=True):
        assert rig.add(port, remote=remote) == ""
    with rig.under.capture() as seen:
        assert rig.moves(frame(BROADCAST)) < 80
        found = outers(seen, 4)
    outer = 42  # bytes of a header with a key
    assert sorted(len(one.inner) for one in found) == [60, 60, 60 + outer, 60 + outer]
    for port in "out0", "out1":
        counted = rig.site.live(port, "port")
        assert (counted["tx_packets"], counted["drop_loop"]) == (2, 3)


def test_bridges_with_tunnels_to_each_other(rig: OverItself) -> None:
    """On one host: either remote_ip is that host's own, so nothing is sent."""
    ends = {"bra": "10.21.0.1", "brb": "10.22.0.1"}
    words = [
        f"-- add-br {bridge} -- add-port {bridge} to{bridge} -- set interface to{bridge}"
        f" type=gre options:remote_ip={ends['bra' if bridge == 'brb' else 'brb']}"
        for bridge in ends
    ]
    rig.ovs.vsctl(" ".join(words))
    for bridge, address in ends.items():
        rig.under.host.address_up(bridge, f"{address}/24")
    rig.site.add("bra", "tap3")
    for bridge in ends:
        said = rig.site.said(f"to{bridge}", "port")
        assert "is an address of this host itself" in said, bridge
    before = rig.moved()
    rig.site.send("tap3", frame(BROADCAST))
    assert eventually(lambda: rig.site.live("tobra", "port").get("drop_no_route") == 1)
    assert rig.moved() - before < 40
    assert "drop_no_route" not in rig.site.live("tobrb", "port")
    rig.ovs.vsctl("del-br bra -- del-br brb")
