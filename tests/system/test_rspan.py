# SPDX-License-Identifier: Apache-2.0
"""Mirrors into a VLAN (rules 44 to 50), patch ports and loops, on real frames."""

import pytest
from tests.system.site import BROADCAST, MAC1, MAC2, PATCH, Site, data, frame, mirror
from tools.lab.processes import eventually
from tools.lab.watchdog import Watchdog

TO_111 = "-- --id=@tap1 get port tap1 " + mirror(
    "m0", "br0", "select_src_port=@tap1 select_dst_port=@tap1 output_vlan=111"
)


def test_rules_44_to_46_the_two_bridge_experiment(site: Site) -> None:
    """Tagged on a trunk, untagged on the access port of the VLAN, nowhere else."""
    site.wire(("p0", "p1"))
    site.ovs.vsctl(TO_111 + " -- set bridge br0 flood_vlans=111 -- set bridge br1 flood_vlans=111")
    with site.capture("tap2") as original, site.capture("tap4") as collector:
        # What tap1 sends as such is a frame of VLAN 0 and reaches br1 too, by the trunk.
        for columns, expected in (
            ("trunks=111", [frame(tag="8100006f")]),
            ("tag=111", [frame()]),
            ("tag=110", []),
        ):
            site.ovs.vsctl(f"clear port tap4 tag trunks -- set port tap4 {columns}")
            site.send("tap1", frame())
            assert data(collector.collect(len(expected))) == expected, columns
            assert frame() in data(original.collect(1))
        site.ovs.vsctl(
            "clear port tap4 tag trunks -- --id=@tap4 get port tap4 "
            + mirror("m1", "br1", "select_vlan=111 select_all=true output_port=@tap4")
            + " -- set port tap4 tag=9"
        )
        site.send("tap1", frame())
        assert data(collector.collect(1)) == [frame()]
    assert site.said("m0") == site.said("m1") == ""


def test_rules_44_45_and_49_which_ports_which_form_which_counts(site: Site) -> None:
    """Also back to the source and to the destination; priority and inner tag are kept."""
    site.ovs.vsctl("set port tap2 trunks=0,111 " + TO_111)
    sent = frame(tag="8100600588a80007")
    with site.capture("tap1") as one, site.capture("tap2") as two:
        site.send("tap1", frame(), sent)
        copies = [frame(tag="8100006f"), frame(tag="8100606f88a80007")]
        assert data(one.collect(2)) == copies
        assert data(two.collect(3)) == [copies[0], frame(), copies[1]]
        # Rules 47 and 49: of the VLAN itself there is no copy, yet it counts; rule 48 likewise.
        site.send("tap1", frame(tag="8100006f"), frame(bytes.fromhex("0180c2000000")))
        assert data(one.collect()) == []
        assert data(two.collect(1)) == [frame(tag="8100006f")]
    # Four were selected on their way in; the copies made went to br0 as well, which is down.
    wanted = {"tx_packets": 4, "tx_bytes": 252, "tx_copies": 6, "drop_device_down": 2}
    assert site.live("m0") == wanted


def test_rule_60_and_63_flood_vlans(site: Site) -> None:
    site.ovs.vsctl("add-port br0 extra -- set interface extra type=internal")
    site.guests["extra"] = site.guests["tap2"]
    site.switch.move("extra", site.guests["extra"])
    with site.capture("tap2") as known, site.capture("extra") as other:
        site.send("tap2", frame(BROADCAST, MAC2, tag="81000007"))
        known.collect(), other.collect()
        site.send("tap1", frame(tag="81000007"))
        assert (len(known.collect(1)), len(other.collect())) == (1, 0)
        site.ovs.vsctl("set bridge br0 flood_vlans=7")
        site.send("tap1", frame(tag="81000007"))
        assert (len(known.collect(1)), len(other.collect(1))) == (1, 1)


def test_rule_77_protected_ports(site: Site) -> None:
    site.ovs.vsctl("set port tap1 protected=true -- set port tap2 protected=true")
    with site.capture("tap2") as two:
        site.send("tap1", frame())
        assert two.collect() == []
        site.ovs.vsctl("set port tap2 protected=false")
        site.send("tap1", frame())
        assert data(two.collect(1)) == [frame()]


@pytest.mark.parametrize(
    ("columns", "sent", "seen"),
    [
        ("tag=7", "", "88a80007"),
        ("tag=7", "81006005", "88a8000781006005"),
        ("tag=7 other_config:qinq-ethtype=802.1q", "81006005", "8100000781006005"),
        ("tag=7 cvlans=5", "81006005", "88a8000781006005"),
        ("tag=7 cvlans=6", "81006005", None),
    ],
)
def test_rule_73_dot1q_tunnel(site: Site, columns: str, sent: str, seen: str | None) -> None:
    """Into the tunnel, and out of it again at another."""
    site.ovs.vsctl(f"set port tap1 vlan_mode=dot1q-tunnel {columns}")
    with site.capture("tap2") as trunk, site.capture("tap1") as tunnel:
        site.send("tap1", frame(tag=sent))
        assert data(trunk.collect(1 if seen else 0)) == ([frame(tag=seen)] if seen else [])
        if seen:
            site.send("tap2", frame(MAC1, MAC2, tag=seen))
            assert data(tunnel.collect(1)) == [frame(MAC1, MAC2, tag=sent)]


@pytest.mark.parametrize(
    ("mode", "sent", "seen"),
    [
        ("never", "81006000", ""),
        ("if-nonzero", "81006000", "81006000"),
        ("if-nonzero", "", ""),
        ("always", "", "81000000"),
    ],
)
def test_rule_75_priority_tags(site: Site, mode: str, sent: str, seen: str) -> None:
    site.ovs.vsctl(f"set port tap1 tag=5 -- set port tap2 tag=5 other_config:priority-tags={mode}")
    with site.capture("tap2") as two:
        site.send("tap1", frame(tag=sent))
        assert data(two.collect(1)) == [frame(tag=seen)]


def test_patch_ports_join_bridges(site: Site) -> None:
    """Frames pass, MACs are learned beyond, VLANs are those of the ports; ofport and no error."""
    site.ovs.vsctl("set port tap1 tag=5 -- set port tap3 tag=5 " + PATCH.format("q0", "q1"))
    assert site.ovs.vsctl("get interface q0 error ofport") == "[]\n3"
    with site.capture("tap3") as three, site.capture("tap4") as four:
        site.send("tap1", frame())
        assert data(three.collect(1)) == [frame()]
        assert data(four.collect(1)) == [frame(tag="81000005")]
        site.send("tap3", frame(MAC1, MAC2))
        assert four.collect() == []
        site.send("tap1", frame())
        assert data(three.collect(1)) == [frame()]
        assert four.collect() == []


def test_a_frame_that_goes_nowhere_counts_also_if_its_copy_is_refused_elsewhere(site: Site) -> None:
    site.ovs.vsctl(
        "set port tap1 tag=7 -- set port tap2 tag=8 -- set port br0 tag=8 "
        + PATCH.format("q0", "q1")
        + " -- set port q0 trunks=111 -- set port q1 trunks=5"
    )
    site.ovs.vsctl(
        "-- --id=@tap1 get port tap1 "
        + mirror("m0", "br0", "select_src_port=@tap1 output_vlan=111")
    )
    site.send("tap1", frame(BROADCAST))
    assert eventually(lambda: site.live("q1", "port").get("drop_vlan") == 1)
    assert site.live("tap1", "port")["drop_no_port"] == 1


def test_rules_13_31_and_126_mirrors_and_patch_ports(site: Site) -> None:
    """Not on the patch port itself; on both bridges for one frame; a copy through one."""
    site.ovs.vsctl(PATCH.format("q0", "q1"))
    site.ovs.vsctl(
        "-- --id=@tap2 get port tap2 -- --id=@q0 get port q0 "
        + mirror("m0", "br0", "select_src_port=@q0 select_dst_port=@q0 output_port=@tap2")
    )
    assert "patch ports" in site.said("m0")
    with site.capture("tap2") as two, site.capture("tap4") as four:
        site.send("tap1", frame())
        assert two.collect() == []
        site.ovs.vsctl(
            "-- --id=@tap2 get port tap2 "
            + mirror("m0", "br0", "select_all=true output_port=@tap2")
            + " -- --id=@tap4 get port tap4 "
            + mirror("m1", "br1", "select_all=true output_port=@tap4")
        )
        four.collect()
        site.send("tap1", frame())
        assert data(two.collect(1)) == data(four.collect(1)) == [frame()]
        site.ovs.vsctl(
            "clear bridge br1 mirrors -- --id=@tap1 get port tap1 -- --id=@q0 get port q0 "
            + mirror("m0", "br0", "select_src_port=@tap1 output_port=@q0")
        )
        site.send("tap1", frame())
        assert data(two.collect(1)) == data(four.collect(1)) == [frame()]


def test_two_patches_between_two_bridges_do_not_storm(site: Site) -> None:
    """The frame goes round until the passages of one frame are used up, and is counted."""
    site.ovs.vsctl(PATCH.format("q0", "q1") + " " + PATCH.format("r0", "r1"))
    with site.capture("tap2") as two, Watchdog(site.lab):
        site.send("tap1", frame(BROADCAST))
        assert 1 <= len(two.collect(1)) <= 64
        assert two.collect() == []


def test_rule_39_vlan_limit(site: Site) -> None:
    """With two tags parsed, an access port drops a frame whose second tag names a VLAN."""
    site.ovs.vsctl("set port tap2 tag=5")
    sent = frame(tag="8100000581000007")
    with site.capture("tap2") as two:
        site.send("tap1", sent)
        assert data(two.collect(1)) == [frame(tag="81000007")]
        site.ovs.vsctl("set open . other_config:vlan-limit=2")
        site.send("tap1", sent)
        assert two.collect() == []
