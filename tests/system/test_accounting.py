# SPDX-License-Identifier: Apache-2.0
"""Selected = delivered + dropped by reason, exactly, whatever happens meanwhile (D2, D6)."""

import os
import struct
import sys
import time
from pathlib import Path

import pytest
from tests.system.site import MAC1, MAC2, Site, frame
from tools.lab.capture import ETH_P_ALL, PACKET_STATISTICS, SOL_PACKET
from tools.lab.processes import Process, eventually

EACH = 50_000  # frames at least of each of two senders, each on a CPU of its own
FLAPS = 3  # while they send, at least
PROGRAM = Path(__file__).parent / "send_frames.py"


class Counted:
    """How many frames arrive at a device: the socket counts those that it cannot keep, too."""

    def __init__(self, site: Site, port: str) -> None:
        self._socket = site.guests[port].packet_socket(port, ETH_P_ALL)
        self._count = 0

    def __call__(self) -> int:
        """Up to now."""
        seen = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        self._count += struct.unpack("=II", seen)[0]  # it begins anew with every look
        return self._count

    def close(self) -> None:
        self._socket.close()


def traffic(site: Site) -> list[Process]:
    """EACH frames from tap1 on one CPU to tap2, and as many the other way on another; and more
    until the file `end` is there."""
    begin, end = site.lab.path("begin"), site.lab.path("end")
    senders = []
    cpus = sorted(os.sched_getaffinity(0))
    for port, cpu, target, source in (
        ("tap1", cpus[0], MAC2, MAC1),
        ("tap2", cpus[-1], MAC1, MAC2),
    ):
        words = [sys.executable, PROGRAM, port, str(cpu), str(EACH)]
        words += [frame(target, source).hex(), begin, end]
        out = site.lab.path(f"sent-{port}")
        senders.append(site.lab.start(site.guests[port], *map(str, words), out=out))
    assert eventually(lambda: all("ready" in printed(site, port) for port in ("tap1", "tap2")))
    begin.touch()
    return senders


def printed(site: Site, port: str) -> str:
    """What the sender at a port has said."""
    return site.lab.path(f"sent-{port}").read_text()


def drops(statistics: dict[str, int]) -> int:
    return sum(number for key, number in statistics.items() if key.startswith("drop_"))


@pytest.fixture
def outputs(site: Site) -> Site:
    """Existing devices out, rspan1 and rspan2 on br0, where nothing else carries VLAN 111."""
    for name in "out", "rspan1", "rspan2":
        site.uplink("br0", name)
    site.ovs.vsctl(
        " -- ".join(f"set port {name} tag=5" for name in ("br0", "tap1", "tap2"))
        + " -- set port rspan1 trunks=111 -- set port rspan2 tag=111"
    )
    return site


def test_departures_2_and_6_every_copy_is_accounted_for(outputs: Site) -> None:
    """Two mirrors of both ports, one to a port and one to a VLAN; their outputs go down and up."""
    site = outputs
    site.ovs.vsctl(
        "-- --id=@1 get port tap1 -- --id=@2 get port tap2 -- --id=@o get port out"
        " -- --id=@a create mirror name=span select_src_port=@1,@2 output_port=@o"
        " -- --id=@b create mirror name=rspan select_src_port=@1,@2 output_vlan=111"
        " -- set bridge br0 mirrors=@a,@b"
    )
    counted = {name: Counted(site, name) for name in ("out", "rspan1", "rspan2")}
    site.send("tap1", frame(b"\xff" * 6, MAC1))  # each is known where it is
    site.send("tap2", frame(b"\xff" * 6, MAC2))
    senders = traffic(site)
    flaps = 0
    while any(sender.running for sender in senders):
        for state in "down", "up":
            for name in "out", "rspan1":
                site.switch.host.ip(f"link set {name} {state}")
            time.sleep(0.005)
        flaps += 1
        if flaps == FLAPS:
            site.lab.path("end").touch()
    assert [sender.wait() for sender in senders] == [0, 0]
    sent = {port: 1 + int(printed(site, port).split()[-1]) for port in ("tap1", "tap2")}
    selected = sum(sent.values())
    span = site.settled("span", tx_packets=selected)
    rspan = site.settled("rspan", tx_packets=selected)
    arrived = {name: count() for name, count in counted.items()}
    for count in counted.values():
        count.close()
    assert span["tx_packets"] == rspan["tx_packets"] == selected
    assert span["tx_bytes"] == rspan["tx_bytes"] == selected * 60
    for statistics in span, rspan:
        assert drops(statistics) > 0, "the flaps met no copy: the test shows nothing"
        assert {key for key in statistics if key.startswith("drop_")} == {"drop_device_down"}
    assert arrived["out"] + drops(span) == selected
    assert (
        arrived["rspan1"] + arrived["rspan2"] + drops(rspan) == rspan["tx_copies"] == 2 * selected
    )
    assert arrived["rspan2"] == selected, "production and the port beside are not touched"
    for name, mirror in ("out", span), ("rspan1", rspan):
        port = site.statistics(name, "interface")
        assert port["tx_packets"] == arrived[name]
        assert port["drop_device_down"] == mirror["drop_device_down"]
    for name, other in ("tap1", "tap2"), ("tap2", "tap1"):
        port = site.statistics(name, "interface")
        assert port["rx_packets"] == sent[name]
        assert port["tx_packets"] == site.statistics(other, "interface")["rx_packets"]
        assert drops(port) == 0
