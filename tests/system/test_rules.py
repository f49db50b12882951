# SPDX-License-Identifier: Apache-2.0
"""Rules that are about rows: selection, configuration, counters, life cycle; with real tools."""

import re
import sys
import time

from tests.system.site import BROADCAST, MAC1, MAC2, PATCH, Site, data, frame, mirror
from tools.lab.openvswitch import program
from tools.lab.processes import eventually

TO_TAP2 = "-- --id=@1 get port tap1 -- --id=@2 get port tap2 "
DEFAULT_INTERVAL = 5.0  # seconds between refreshes of statistics
M0 = TO_TAP2 + mirror("m0", "br0", "select_src_port=@1 output_port=@2")


def test_rules_2_and_125_everything_is_every_port(site: Site) -> None:
    """LOCAL and internal ports, in both directions; the select columns are ignored then."""
    host = site.switch.host
    host.ip("link set br0 up")
    host.going()
    columns = "select_all=true select_src_port=@2 output_port=@2"
    site.ovs.vsctl(TO_TAP2 + mirror("m0", "br0", columns))
    with site.capture("tap2") as copies:
        site.send("tap1", frame(BROADCAST))
        host.send("br0", [frame(BROADCAST, MAC2, length=80)])
        assert data(copies.collect(2)) == [frame(BROADCAST), frame(BROADCAST, MAC2, length=80)]
        # Known on LOCAL: selected as it goes in and not again as it comes out.
        site.send("tap1", frame(MAC2, length=90))
        assert data(copies.collect(1)) == [frame(MAC2, length=90)]
    assert site.live("m0")["tx_packets"] == 3


def test_rules_3_94_and_95_references_are_weak(site: Site) -> None:
    """A mirror whose ports are gone selects nothing, not everything; one without output is off;
    one that nobody refers to is gone."""
    site.add("br0", "tap5")
    site.ovs.vsctl(M0)
    site.ovs.vsctl("del-port tap1")
    assert "selects no port" in site.said("m0")
    assert site.ovs.vsctl("get mirror m0 select_src_port") == "[]"
    with site.capture("tap2") as copies:
        site.send("tap5", frame(BROADCAST))
        assert copies.collect() == []
        site.ovs.vsctl("del-port tap2 -- add-port br0 tap2 -- set interface tap2 type=internal")
    assert "no output" in site.said("m0")
    assert site.ovs.vsctl("get mirror m0 output_port statistics") == "[]\n{}"
    site.ovs.vsctl("clear bridge br0 mirrors")
    assert site.ovs.vsctl("list mirror") == ""


def test_rule_68_secure_forwards_nothing_and_mirrors_still(site: Site) -> None:
    """On ingress; what the bridge forwards nowhere is not selected on its way out."""
    site.ovs.vsctl(M0 + " -- set bridge br0 fail_mode=secure")
    site.add("br0", "tap5")
    with site.capture("tap2") as copies, site.capture("tap5") as forwarded:
        site.send("tap1", frame(BROADCAST))
        assert data(copies.collect(1)) == [frame(BROADCAST)]
        assert forwarded.collect() == []
        site.ovs.vsctl("set bridge br0 fail_mode=standalone")
        site.send("tap1", frame(BROADCAST))
        assert data(forwarded.collect(1)) == [frame(BROADCAST)]


def test_rule_61_a_ports_macs_are_forgotten_by_the_other_bridges(site: Site) -> None:
    site.ovs.vsctl(PATCH.format("q0", "q1"))
    site.send("tap1", frame(BROADCAST))
    with site.capture("tap4") as bystander:
        site.send("tap3", frame(MAC1, MAC2))
        assert bystander.collect() == []
        site.ovs.vsctl("del-port tap1")

        def flooded() -> bool:
            site.send("tap3", frame(MAC1, MAC2))
            return data(bystander.collect(1, timeout=0.2)) == [frame(MAC1, MAC2)]

        assert eventually(flooded)


def test_rules_96_and_97_words_of_ovs_vsctl(site: Site) -> None:
    """Columns with - or _, shortened; `add` and `set`; emer-reset."""
    for run in (site.ovs.vsctl, lambda text: site.switch.helio_vsctl(*text.split())):
        run(
            "-- --id=@1 get port tap1 -- --id=@2 get port tap2 -- --id=@m create mirror name=m0"
            " select-src-port=@1 select_dst=@1 output-p=@2 -- add bridge br0 mirrors @m"
        )
        run("-- --id=@m create mirror name=m1 select_all=true output_vlan=9 -- add br br0 mir @m")
        assert len(site.ovs.vsctl("get bridge br0 mirrors").split(",")) == 2
        run(
            "-- --id=@m create mirror name=m2 select_all=true output_vlan=9"
            " -- set bridge br0 mirrors=@m flood_vlans=9 fail_mode=secure"
        )
        assert site.ovs.vsctl("--columns=name list mirror").split(":")[1].strip() == "m2"
        run("emer-reset")
        assert site.ovs.vsctl("get bridge br0 mirrors flood_vlans fail_mode") == "[]\n[]\n[]"
        assert site.ovs.vsctl("list mirror") == ""


def test_rules_84_and_98_changes_hold_at_once(site: Site) -> None:
    """Of snaplen, sources and output; no flow has to be seen again (D3)."""
    site.add("br0", "tap5")
    site.ovs.vsctl(M0)
    with site.capture("tap2") as two, site.capture("tap5") as five:
        for snaplen, length in ("100", 100), ("14", 14), ("[]", 200), ("65535", 200):
            site.ovs.vsctl(f"set mirror m0 snaplen={snaplen}")
            site.send("tap1", frame(length=200))
            assert data(two.collect(1)) == [frame(length=200)[:length]]
        five.collect()
        site.ovs.vsctl("-- --id=@5 get port tap5 -- set mirror m0 output_port=@5")
        site.send("tap1", frame())
        assert data(five.collect(1)) == data(two.collect(1)) == [frame()]
        site.ovs.vsctl("clear mirror m0 select_src_port")
        site.send("tap1", frame())
        assert five.collect() == []


def more(counted: dict[str, int], packets: int, octets: int) -> dict[str, int]:
    return {
        "tx_packets": counted["tx_packets"] + packets,
        "tx_bytes": counted["tx_bytes"] + octets,
    }


def test_rules_99_to_102_counters(site: Site) -> None:
    """Refreshed when they are to be; by selection, at the whole length; kept, and anew for a new
    row."""
    site.ovs.vsctl(M0 + " -- set mirror m0 snaplen=20")
    assert site.statistics("m0") == {"tx_packets": 0, "tx_bytes": 0}
    interval = "set open . other_config:stats-update-interval="
    site.ovs.vsctl(interval + "20000")

    def refreshed() -> bool:
        site.send("tap1", frame())
        return site.statistics("m0")["tx_packets"] > 0

    assert eventually(refreshed), "a change refreshes at once"
    time.sleep(0.5)  # once more, if it was just being done
    old, before = site.statistics("m0"), site.live("m0")
    site.send("tap1", frame(length=100), frame(length=200))
    told = more(before, 2, 300)
    assert site.live("m0") == told
    time.sleep(DEFAULT_INTERVAL + 0.2)
    assert site.statistics("m0") == old
    site.ovs.vsctl(interval + "1000")  # the least is 5000
    assert eventually(lambda: site.statistics("m0") == told)
    # Three ports would take the copy, and one event is counted; then none takes it (rule 100).
    site.ovs.vsctl("set mirror m0 snaplen=[] output_vlan=111 -- clear mirror m0 output_port")
    site.send("tap1", frame(), frame(tag="8100006f"))
    assert site.live("m0").items() >= more(told, 2, 124).items()
    site.ovs.vsctl(M0)
    assert site.statistics("m0") == site.live("m0") == {"tx_packets": 0, "tx_bytes": 0}


def test_departure_7_nobody_else_sends_on_an_output_port(site: Site) -> None:
    """Not a flood, not RSPAN, not the host's own stack: our end speaks neither ARP nor IPv6."""
    shown = site.switch.host.ip("-o link show")
    far_ends = re.findall(r"(hg[0-9a-f]{12})@.*?<(.*?)>", shown)
    assert len(far_ends) == 6
    assert all("NOARP" in flags.split(",") for _, flags in far_ends)
    for name, _ in far_ends:
        off = site.switch.host.run("cat", f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
        assert off.stdout == "1\n"
    site.ovs.vsctl(M0)
    site.ovs.vsctl("set port tap2 trunks=111 -- add bridge br0 flood_vlans 111")
    site.add("br0", "tap5")
    site.ovs.vsctl(
        "-- --id=@5 get port tap5 -- --id=@m create mirror name=m1 select_src_port=@5"
        " output_vlan=111 -- add bridge br0 mirrors @m"
    )
    with site.capture("tap2") as output:
        site.send("tap5", frame(BROADCAST, MAC2), frame(BROADCAST, MAC2, tag="8100006f"))
        assert output.collect() == []


def test_rule_127_ovs_tcpdump(site: Site) -> None:
    """It adds a tap device and a mirror, and takes both away again."""
    tool = program("ovs-tcpdump")
    words = [sys.executable, str(tool), "--db-sock", f"unix:{site.switch.rundir}/db.sock"]
    words += ["-i", "tap1", "-c", "2", "-n", "-e"]
    out = site.lab.path("tcpdump")
    process = site.lab.start(site.switch.host, *words, out=out)
    process.wait_for_log("listening on mitap1")
    # It commits the mirror and does not wait for the switch; this change behind it does.
    site.ovs.vsctl("set open_vswitch . external_ids:mirror=made")
    site.send("tap1", frame(BROADCAST), frame(BROADCAST, length=70))
    assert eventually(lambda: out.read_text().count("88b6") == 2), process.log_text()
    process.wait()
    assert eventually(lambda: "mitap1" not in site.ovs.vsctl("list-ports br0"))
    assert site.ovs.vsctl("list mirror") == ""
