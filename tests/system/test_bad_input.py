# SPDX-License-Identifier: Apache-2.0
"""Bad input: refused, defined by a rule, or contained; never an endless copy, never two of one."""

import pytest
from tests.system.site import BROADCAST, MAC1, MAC2, PATCH, Site, data, frame, mirror
from tools.lab.processes import CommandError
from tools.lab.watchdog import Watchdog

OUT_OF_RANGE = [
    "set port tap1 tag=4096",
    "set port tap1 tag=-1",
    "set port tap1 trunks=5,4096",
    "set port tap1 cvlans=4096",
    "set bridge br0 flood_vlans=4096",
    "set mirror m0 output_vlan=0",
    "set mirror m0 output_vlan=4096",
    "set mirror m0 select_vlan=4096",
    "set mirror m0 snaplen=13",
    "set mirror m0 snaplen=65536",
]
IN_RANGE = [
    "set port tap1 tag=0 -- set port tap1 tag=4095",
    "set port tap1 trunks=0,4095",
    "set port tap1 cvlans=0,4095",
    "set bridge br0 flood_vlans=0,4095",
    "set mirror m0 output_vlan=1 -- set mirror m0 output_vlan=4095",
    "set mirror m0 select_vlan=0,4095",
    "set mirror m0 snaplen=14 -- set mirror m0 snaplen=65535",
]


def test_rule_20_ranges(site: Site) -> None:
    """Through the real ovs-vsctl and our own: what is out of range changes nothing."""
    site.ovs.vsctl(mirror("m0", "br0", "select_all=true output_vlan=111"))
    for words in OUT_OF_RANGE:
        _, table, row, setting = words.split()
        column = setting.split("=")[0]
        before = site.ovs.vsctl(f"get {table} {row} {column}")
        refused = site.ovs.try_vsctl(words)
        assert refused.returncode == 1, words
        assert "valid range" in refused.stderr + refused.stdout, refused
        with pytest.raises(CommandError, match="valid range"):
            site.switch.helio_vsctl(*words.split())
        assert site.ovs.vsctl(f"get {table} {row} {column}") == before
    for words in IN_RANGE:
        for run in site.ovs.vsctl, lambda text: site.switch.helio_vsctl(*text.split()):
            run(words)


def test_vlans_0_and_4095_on_the_wire(site: Site) -> None:
    """The least and the greatest: both are VLANs like any other, and 0 is none (rules 19, 20)."""
    site.ovs.vsctl(
        "set port tap1 trunks=0,4095 -- --id=@1 get port tap1 "
        + mirror("m0", "br0", "select_src_port=@1 select_vlan=0,4095 output_vlan=4095")
    )
    with site.capture("tap2") as two:
        site.send("tap1", frame(), frame(tag="81000ffe"), frame(tag="81000fff"))
        assert data(two.collect(3)) == [frame(tag="81000fff"), frame(), frame(tag="81000fff")]
    # 4094 is not in trunks; a frame of the output VLAN has no copy, but counts (rules 47, 49).
    assert site.live("m0")["tx_packets"] == 2
    assert site.live("tap1", "port")["drop_vlan"] == 1


def test_an_output_vlan_that_is_a_data_vlan(site: Site) -> None:
    """Its own frames are not copied (rule 47); others' copies arrive once each; nothing returns."""
    site.ovs.vsctl(
        "set port tap2 tag=111 -- --id=@1 get port tap1 "
        + mirror("m0", "br0", "select_all=true output_vlan=111")
    )
    with site.capture("tap2") as two, site.capture("tap1") as one:
        site.send("tap1", frame(tag="81000005"), frame(tag="8100006f"))
        assert data(two.collect(2)) == [frame(), frame()]
        assert data(one.collect(1)) == [frame(tag="8100006f")]
        site.send("tap2", frame(MAC1, MAC2, length=80))
        assert data(one.collect(1)) == [frame(MAC1, MAC2, tag="8100006f", length=80)]
        assert data(two.collect()) == []


def test_overlapping_trunks(site: Site) -> None:
    """Trunks beside a tag: an access port ignores them (rule 69), a native one adds its own."""
    site.ovs.vsctl("set port tap1 tag=5 trunks=5,6,7")
    with site.capture("tap2") as two:
        site.send("tap1", frame(), frame(tag="81000006"))
        assert data(two.collect(1)) == [frame(tag="81000005")]
        site.ovs.vsctl("set port tap1 vlan_mode=native-tagged trunks=6")
        site.send("tap1", frame(), frame(tag="81000006"), frame(tag="81000007"))
        assert data(two.collect(2)) == [frame(tag="81000005"), frame(tag="81000006")]
    refused = site.ovs.try_vsctl("set port tap1 vlan_mode=nonsense")
    assert refused.returncode == 1


def test_an_output_that_is_its_own_source(site: Site) -> None:
    """It hears copies only, and none of them again; what it says is dropped (rules 2, 32, 51)."""
    site.ovs.vsctl(
        "-- --id=@2 get port tap2 "
        + mirror("m0", "br0", "select_src_port=@2 select_dst_port=@2 output_port=@2")
    )
    with site.capture("tap2") as two:
        site.send("tap1", frame(BROADCAST))
        site.send("tap2", frame(BROADCAST, MAC2))
        assert two.collect() == []
        site.ovs.vsctl("set mirror m0 select_all=true")
        site.send("tap1", frame(BROADCAST))
        assert data(two.collect(1)) == [frame(BROADCAST)]
    assert site.live("m0")["tx_packets"] == 1


@pytest.mark.parametrize("how", ["by patch", "by veth"])
def test_mirrors_from_a_to_b_and_from_b_to_a(site: Site, how: str) -> None:
    """Each bridge mirrors everything to the other: said, and no frame has a second copy."""
    both = (
        "-- --id=@p get port p0 "
        + mirror("m0", "br0", "select_all=true output_port=@p")
        + " -- --id=@r get port r1 "
        + mirror("m1", "br1", "select_all=true output_port=@r")
    )
    with site.capture("tap2") as two, site.capture("tap3") as three, Watchdog(site.lab):
        if how == "by patch":
            site.ovs.vsctl(PATCH.format("p0", "p1") + " " + PATCH.format("r0", "r1") + " " + both)
        else:
            site.wire(("p0", "p1"), ("r0", "r1"), then=both)
        assert "without end" in site.said("m0")
        assert "without end" in site.said("m1")
        site.ovs.vsctl("del-port r1")  # the circle of plain forwarding is cut with it
        site.ovs.vsctl("clear bridge br1 mirrors")
        assert site.said("m0") == ""
        two.collect(), three.collect()
        site.send("tap1", frame(BROADCAST))
        assert data(two.collect(1)) == [frame(BROADCAST)]
        assert data(three.collect(1)) == [frame(BROADCAST)]


def test_rspan_over_trunks_back_to_its_source(site: Site) -> None:
    """Two wires carry the output VLAN round; one does not."""
    with site.capture("tap4") as four, Watchdog(site.lab):
        site.ovs.vsctl(
            "set port tap4 tag=111 -- --id=@1 get port tap1 "
            + mirror("m0", "br0", "select_src_port=@1 output_vlan=111")
        )
        site.wire(("p0", "p1"), ("r0", "r1"), columns="trunks=111")
        assert "without end" in site.said("m0")
        site.send("tap1", frame())
        assert four.collect() == []
        site.ovs.vsctl("del-port r0")
        assert site.said("m0") == ""
        site.send("tap1", frame())
        assert data(four.collect(1)) == [frame()]
        # And mirrored back into another VLAN: m0 would take that up again.
        site.ovs.vsctl(
            "clear port p0 trunks -- clear port p1 trunks -- set mirror m0 select_all=true "
            + mirror("m1", "br1", "select_all=true output_vlan=222")
        )
        assert "without end" in site.said("m0")
        assert "without end" in site.said("m1")
        site.send("tap1", frame())
        assert four.collect() == []
