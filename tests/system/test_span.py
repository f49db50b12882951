# SPDX-License-Identifier: Apache-2.0
"""The SPAN experiment: what a user does to see a port's traffic, with the stock tools."""

import re
from collections.abc import Callable
from typing import NamedTuple

import pytest
from tests.system.site import read_live
from tools.lab.capture import Capture, Tcpdump, counted, without_chatter
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.openvswitch import Tools
from tools.lab.processes import eventually

MIRROR_TO_TAP3 = (
    "-- --id=@tap1 get port tap1 -- --id=@tap3 get port tap3"
    " -- --id=@m create mirror name=m0 select_dst_port=@tap1 output_port=@tap3"
    " -- set bridge br0 mirrors=@m"
)
MARKER = b"\x88\xb6"  # the second EtherType for experiments


class Guests(NamedTuple):
    """Where tap1, tap2 (10.7.0.1 and .2, they can ping each other) and tap3 have moved."""

    ns1: Namespace
    ns2: Namespace
    ns3: Namespace


@pytest.fixture
def guests(switch: Heliograph, ovs: Tools, guest: Callable[[str], Namespace]) -> Guests:
    ovs.vsctl("add-br br0")
    made = []
    for number, address in (1, "10.7.0.1/24"), (2, "10.7.0.2/24"), (3, None):
        ovs.vsctl(f"add-port br0 tap{number} -- set interface tap{number} type=internal")
        made.append(guest(f"ns{number}"))
        switch.move(f"tap{number}", made[-1], address)
    both_ways = Guests(*made)
    assert eventually(lambda: both_ways.ns1.ping("10.7.0.2", 1) == 1), "ns1 cannot ping ns2"
    return both_ways


def statistics(ovs: Tools) -> dict[str, int]:
    """Statistics of mirror m0 as ovs-vsctl prints them: {tx_bytes=0, tx_packets=0}."""
    printed = ovs.vsctl("get mirror m0 statistics")
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", printed)}


def test_the_span_experiment(lab: Lab, switch: Heliograph, ovs: Tools, guests: Guests) -> None:
    before = Tcpdump(lab, guests.ns3, "tap3")
    assert guests.ns1.ping("10.7.0.2", 5) == 5
    before.stop()
    assert without_chatter(before.frames()) == [], before.text()

    during = Tcpdump(lab, guests.ns3, "tap3")
    guests.ns1.ip("neigh flush all")
    ovs.vsctl(MIRROR_TO_TAP3)
    at_first = statistics(ovs)
    assert guests.ns1.ping("10.7.0.2", 5) == 5
    # The answer to ns1's ARP request, then the echo replies: nothing else goes towards tap1 but
    # chatter, which must not stand in for one of them.
    expected = read_live(switch, ovs, "m0", "mirror")["tx_packets"]
    assert expected >= 6
    assert eventually(lambda: statistics(ovs)["tx_packets"] >= expected)
    counts = statistics(ovs)
    during.stop()
    seen = without_chatter(during.frames())
    chatter = len(during.frames()) - len(seen)
    assert at_first.keys() == {"tx_bytes", "tx_packets"}
    assert at_first["tx_packets"] <= chatter, "counters begin at 0; only chatter can be sooner"
    mac1, mac2 = guests.ns1.mac("tap1"), guests.ns2.mac("tap2")
    assert all(frame.data[:12] == mac1 + mac2 for frame in seen), during.text("-e")
    lines = [line for line in during.text("-t") if "IP6" not in line]
    assert lines[0].startswith("ARP, Reply 10.7.0.2 is-at"), lines
    reply = re.compile(r"IP 10\.7\.0\.2 > 10\.7\.0\.1: ICMP echo reply, id \d+, seq (\d), .*")
    assert [reply.sub(r"\1", line) for line in lines[1:]] == ["1", "2", "3", "4", "5"], lines
    assert counts.keys() == {"tx_packets", "tx_bytes"}, "some copies were dropped"
    assert counted(during.frames(), counts["tx_packets"], counts["tx_bytes"]), (
        counts,
        during.text("-e"),
    )

    ovs.vsctl("clear bridge br0 mirrors")
    after = Tcpdump(lab, guests.ns3, "tap3")
    assert guests.ns1.ping("10.7.0.2", 5) == 5
    after.stop()
    assert without_chatter(after.frames()) == [], after.text()
    assert ovs.vsctl("list mirror") == "", "an unreferenced mirror stays (rule 95)"


def test_the_mirror_port_sees_what_the_source_sees_and_nothing_else(
    ovs: Tools, guests: Guests
) -> None:
    """Every frame towards tap1, IPv6 chatter included, arrives at tap3 as well, in order."""
    ns2 = guests.ns2
    assert eventually(lambda: "fe80" in ns2.ip("-6 address show dev tap2 -tentative")), "no IPv6"
    ovs.vsctl(MIRROR_TO_TAP3)
    mac1, mac2 = guests.ns1.mac("tap1"), guests.ns2.mac("tap2")
    first, last = (mac1 + mac2 + MARKER + word * 46 for word in (b"a", b"z"))
    intruder = mac1 + guests.ns3.mac("tap3") + MARKER + b"x" * 46
    with Capture(guests.ns1, "tap1") as source, Capture(guests.ns3, "tap3") as copies:
        guests.ns2.send("tap2", [first])
        assert guests.ns1.ping("10.7.0.2", 5) == 5
        assert guests.ns2.ping("10.7.0.1", 5) == 5
        guests.ns3.send("tap3", [intruder])
        guests.ns2.ip("neigh flush all")
        guests.ns2.ping("ff02::1%tap2", 2)
        guests.ns2.send("tap2", [last])
        towards = [frame.data for frame in source.everything()]
        mirrored = [frame.data for frame in copies.everything()]
    towards = towards[towards.index(first) : towards.index(last) + 1]
    mirrored = mirrored[mirrored.index(first) : mirrored.index(last) + 1]
    assert intruder not in towards, "an output port is reserved for copies (rule 51)"
    assert mirrored == towards
    assert len(towards) >= 2 + 5 + 5 + 2


def test_a_flow_that_is_already_running_is_mirrored_at_once(
    lab: Lab, ovs: Tools, guests: Guests
) -> None:
    """Departure D3; the bench measures how soon."""
    lab.start(guests.ns1, "ping", "-n", "-q", "-i", "0.01", "10.7.0.2", out=lab.path("ping"))
    with Capture(guests.ns3, "tap3") as copies:
        assert copies.collect() == []
        ovs.vsctl(MIRROR_TO_TAP3)
        assert len(copies.collect(20, quiet=0)) == 20
