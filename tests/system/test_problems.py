# SPDX-License-Identifier: Apache-2.0
"""What is wrong is said on its row, in time, with the way to mend it; the rest goes on (D1, D8)."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.system.site import silence
from tools.lab.capture import Capture
from tools.lab.flow import Flow
from tools.lab.heliograph import HELIO, Heliograph
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace, veth
from tools.lab.openvswitch import Tools
from tools.lab.processes import eventually, run

OURS = re.compile(r"hg[0-9a-f]{12}@")


def said(ovs: Tools, table: str, row: str) -> str:
    """A row's heliograph-error; "" if there is none."""
    printed = ovs.vsctl("--if-exists", "get", table, row, "external_ids:heliograph-error")
    return printed.strip('"').replace('\\"', '"')


def error(ovs: Tools, interface: str) -> str:
    """An Interface row's error; "" if there is none."""
    printed = ovs.vsctl("get", "interface", interface, "error")
    return "" if printed == "[]" else printed.strip('"')


@pytest.fixture
def bridge(switch: Heliograph, ovs: Tools) -> Heliograph:
    """A bridge br0 with internal ports tap1 and tap2, up and silent."""
    silence(switch.host)
    ovs.vsctl(
        "add-br br0 -- add-port br0 tap1 -- set interface tap1 type=internal"
        " -- add-port br0 tap2 -- set interface tap2 type=internal"
    )
    for name in "tap1", "tap2":
        switch.host.ip(f"link set {name} up")
    switch.host.going()
    return switch


def create(columns: str, select: str = "select_all=true") -> str:
    """Words that replace the mirrors of br0 by one named m0."""
    return (
        "-- --id=@tap1 get port tap1 -- --id=@tap2 get port tap2 -- --id=@br0 get port br0"
        f" -- --id=@m create mirror name=m0 {select} {columns} -- set bridge br0 mirrors=@m"
    )


BROKEN_MIRRORS = {
    "": "no output",
    "output_port=@tap2 output_vlan=7": "both output_port and output_vlan",
    "output_vlan=7 -- set port tap1 trunks=8 -- set port tap2 trunks=8 -- set port br0 trunks=8": (
        "carries its output_vlan 7"
    ),
    "output_port=@tap2 select_all=false": "selects no port",
    "output_port=@br0": "device br0 is down",
    "output_port=@gone": "No such device",
    "output_port=@tap9": "not on bridge br0",
    "output_port=@tap2 select_all=false select_src_port=@tap9": "not on bridge br0",
}


def test_a_mirror_that_cannot_work_says_so_at_once(bridge: Heliograph, ovs: Tools) -> None:
    """When ovs-vsctl has waited, the row says it; mended, it does not any more."""
    ovs.vsctl(
        "--no-wait add-port br0 gone -- add-br br9 -- add-port br9 tap9"
        " -- set interface tap9 type=internal"
    )
    others = "-- --id=@tap9 get port tap9 -- --id=@gone get port gone "
    for columns, words in BROKEN_MIRRORS.items():
        ovs.vsctl(others + create(columns))
        assert words in said(ovs, "mirror", "m0"), columns
        off = "is off" in said(ovs, "mirror", "m0")
        empty = ovs.vsctl("get mirror m0 statistics") == "{}"
        assert empty == off, f"{columns}: the statistics of a mirror that is off are empty"
        ovs.vsctl(
            "-- --id=@tap2 get port tap2 -- set mirror m0 select_all=true output_port=@tap2"
            " -- clear mirror m0 output_vlan"
            " -- clear port tap1 trunks -- clear port tap2 trunks -- clear port br0 trunks"
        )
        assert said(ovs, "mirror", "m0") == "", columns
        assert ovs.vsctl("get mirror m0 statistics") == "{tx_bytes=0, tx_packets=0}" or not off
    ovs.vsctl(create("output_port=@tap2"))
    bridge.helio_vsctl("set", "mirror", "m0", "filter=tcp")  # ovs-vsctl 3.1 does not know it
    assert "filter is not supported" in said(ovs, "mirror", "m0")
    result = bridge.helio(
        "vsctl", f"--db=unix:{bridge.rundir / 'db.sock'}", "set", "mirror", "m0", "snaplen=99"
    )
    assert "filter is not supported" in result.stdout + result.stderr


def test_a_mirror_tells_what_becomes_of_its_output(bridge: Heliograph, ovs: Tools) -> None:
    ovs.vsctl(create("output_port=@tap2"))
    bridge.host.ip("link set tap2 down")
    assert eventually(lambda: "device tap2 is down" in said(ovs, "mirror", "m0"))
    bridge.host.ip("link set tap2 up")
    assert eventually(lambda: said(ovs, "mirror", "m0") == "")
    ovs.vsctl("del-port tap2")
    assert "no output" in said(ovs, "mirror", "m0"), "a weak reference is gone (rule 94)"
    assert ovs.vsctl("get mirror m0 statistics") == "{}"
    # Whoever overwrites or removes the key gets it back, but not faster than once a second.
    ovs.vsctl("set mirror m0 external_ids:heliograph-error=fine external_ids:mine=kept")
    assert "no output" in said(ovs, "mirror", "m0")
    ovs.vsctl("--no-wait clear mirror m0 external_ids")
    assert eventually(lambda: "no output" in said(ovs, "mirror", "m0"))


def test_one_write_a_second_for_a_row_that_flaps(lab: Lab, bridge: Heliograph, ovs: Tools) -> None:
    ovs.vsctl(create("output_port=@tap2"))
    file = lab.path("monitor")
    database = f"unix:{bridge.rundir / 'db.sock'}"
    client = HELIO.with_name("python")
    script = Path(__file__).parent / "watch_column.py"
    monitor = lab.start(bridge.host, client, script, database, "Mirror", "external_ids", out=file)
    assert eventually(lambda: file.exists() and file.read_text().count("\n") >= 1)
    began, flaps = time.monotonic(), 0
    while time.monotonic() - began < 2.5 or flaps < 50:
        bridge.host.ip(f"link set tap2 {'down' if flaps % 2 == 0 else 'up'}")
        flaps += 1
        time.sleep(0.02)
    bridge.host.ip("link set tap2 down")
    assert eventually(lambda: "is down" in said(ovs, "mirror", "m0"))
    monitor.stop()
    elapsed = time.monotonic() - began
    writes = file.read_text().count("\n") - 1
    assert 1 <= writes <= elapsed + 2, (flaps, writes)


def test_what_is_not_supported_fails_closed_or_is_reported(
    bridge: Heliograph, ovs: Tools, guest: Callable[[str], Namespace]
) -> None:
    ns1, ns2 = guest("ns1"), guest("ns2")
    bridge.move("tap1", ns1, "10.7.0.1/24")
    bridge.move("tap2", ns2, "10.7.0.2/24")
    assert eventually(lambda: ns1.ping("10.7.0.2", 1) == 1)

    def works() -> bool:
        return ns1.ping("10.7.0.2", 2, interval=0.02) == 2

    for table, row, closed, mended, words in (
        ("bridge", "br0", "stp_enable=true", "stp_enable=false", "STP is not supported"),
        ("bridge", "br0", "rstp_enable=true", "rstp_enable=false", "RSTP is not supported"),
    ):
        ovs.vsctl(f"set {table} {row} {closed}")
        assert words in said(ovs, table, row)
        assert ns1.ping("10.7.0.2", 1) == 0, closed
        ovs.vsctl(f"set {table} {row} {mended}")
        assert said(ovs, table, row) == ""
        assert works(), mended
    ovs.vsctl("set bridge br0 mcast_snooping_enable=true -- set interface tap1 lldp:enable=true")
    assert "mcast_snooping_enable" in said(ovs, "bridge", "br0")
    assert "lldp" in said(ovs, "port", "tap1")
    assert works()
    ovs.vsctl("add-bond br0 bond0 eth7 eth8")
    assert "bonds are not supported" in said(ovs, "port", "bond0")
    assert "bonds are not supported" in error(ovs, "eth7")
    assert works()


@pytest.fixture
def uplink(bridge: Heliograph, guest: Callable[[str], Namespace]) -> Iterator[Namespace]:
    """A guest to whose device "far" the host's device "uplink" will lead."""
    yield guest("beyond")


def test_departure_8_a_device_that_comes_goes_and_comes_back(
    bridge: Heliograph, ovs: Tools, uplink: Namespace, guest: Callable[[str], Namespace]
) -> None:
    host = bridge.host
    added = ovs.try_vsctl("add-port br0 uplink")
    assert "Error detected while setting up 'uplink'" in added.stderr
    assert "No such device" in error(ovs, "uplink")
    ovs.vsctl(
        "-- --id=@u get port uplink -- --id=@o get port tap2 -- --id=@m create mirror name=m0"
        " select_src_port=@u output_port=@o -- set bridge br0 mirrors=@m"
    )
    frame = b"\xff" * 6 + bytes.fromhex("020000000001") + b"\x88\xb6" + b"hello" * 10

    def mirrored() -> bool:
        uplink.going()
        with Capture(host, "tap2") as copies:
            uplink.send("far", [frame])
            return [f.data for f in copies.collect(1)] == [frame]

    for _ in range(2):
        veth((host, "uplink"), (uplink, "far"))
        assert eventually(lambda: error(ovs, "uplink") == ""), error(ovs, "uplink")
        assert mirrored()
        assert "PROMISC" in host.ip("-o link show uplink")
        host.ip("link delete uplink")
        assert eventually(lambda: "No such device" in error(ovs, "uplink"))
    veth((host, "uplink"), (uplink, "far"))
    assert eventually(lambda: error(ovs, "uplink") == "")

    host.ip("link set uplink down")
    host.ip("link set uplink name other")
    assert eventually(lambda: "No such device" in error(ovs, "uplink"))
    assert "PROMISC" not in host.ip("-o link show other"), "it is nobody's port now"
    host.ip("link set other name uplink")
    host.ip("link set uplink up")
    assert eventually(lambda: error(ovs, "uplink") == "")
    assert mirrored()

    away = guest("away")
    host.ip(f"link set uplink netns {away.name}")
    assert eventually(lambda: "No such device" in error(ovs, "uplink"))
    away.ip(f"link set uplink netns {host.name}")
    host.ip("link set uplink up")
    assert eventually(lambda: error(ovs, "uplink") == "")
    assert mirrored()
    ovs.vsctl("del-port uplink")
    assert "PROMISC" not in host.ip("-o link show uplink"), "not as it was found at first"

    host.ip("link add hub type bridge")
    host.ip("link set uplink master hub")
    refused = ovs.try_vsctl("add-port br0 uplink")
    assert "Error detected" in refused.stderr and "belongs to hub" in error(ovs, "uplink")
    ovs.vsctl("-- --id=@u get port uplink -- set mirror m0 select_src_port=@u")
    host.ip("link set uplink nomaster")
    assert eventually(lambda: error(ovs, "uplink") == "")
    assert mirrored()


def test_a_database_that_hangs_holds_nothing_up(
    bridge: Heliograph, ovs: Tools, uplink: Namespace
) -> None:
    host = bridge.host
    veth((host, "uplink"), (uplink, "far"))
    ovs.vsctl("add-port br0 uplink")
    frame = b"\xff" * 6 + bytes.fromhex("020000000001") + b"\x88\xb6" + b"hello" * 10

    def arrives() -> bool:
        with Capture(host, "tap2") as seen:
            uplink.send("far", [frame])
            return frame in [f.data for f in seen.collect(1, timeout=0.2)]

    assert arrives()
    database = bridge.child("db")
    os.kill(database, signal.SIGSTOP)
    try:
        for _ in range(2):  # the first makes the switch write, and wait for the answer
            host.ip("link delete uplink")
            veth((host, "uplink"), (uplink, "far"))
            assert eventually(arrives)
    finally:
        os.kill(database, signal.SIGCONT)
    ovs.vsctl("set bridge br0 external_ids:seen=yes")
    assert error(ovs, "uplink") == ""


def test_an_internal_port_whose_namespace_is_deleted_is_made_again(
    bridge: Heliograph, ovs: Tools, lab: Lab
) -> None:
    host = bridge.host
    ovs.vsctl(create("output_port=@tap2", "select_dst_port=@br0"))
    guest = lab.namespace("short")
    mac = guest_mac(host, "tap1")
    bridge.move("tap1", guest, "10.7.0.1/24")
    lab.namespaces.remove(guest)
    guest.delete()
    # The kernel takes a namespace down in its own time.
    assert eventually(lambda: "tap1" in host.ip("-o link show"))
    assert eventually(lambda: error(ovs, "tap1") == "")
    assert guest_mac(host, "tap1") == mac
    again = lab.namespace("again")
    bridge.move("tap1", again, "10.7.0.1/24")
    host.address_up("br0", "10.7.0.9/24")
    assert eventually(lambda: again.ping("10.7.0.9", 1) == 1)
    with Capture(host, "tap2") as copies:
        assert again.ping("10.7.0.9", 2) == 2
        assert len(copies.collect(2)) >= 2


def guest_mac(namespace: Namespace, device: str) -> str:
    return namespace.mac(device).hex(":")


def test_what_is_done_to_our_devices_is_mended(bridge: Heliograph, ovs: Tools) -> None:
    host = bridge.host
    before = ovs.vsctl("get interface tap1 ofport")
    host.address_up("br0", "10.7.0.9/24")

    def works() -> bool:
        frame = host.mac("br0") + bytes.fromhex("020000000001") + b"\x88\xb6" + bytes(46)
        with Capture(host, "br0") as seen:
            host.send("tap1", [frame])
            return frame in [f.data for f in seen.collect(1, timeout=0.3)]

    assert eventually(works)
    far = host.ip("-o link show tap1").split("tap1@")[1].split(":")[0]
    for deed in f"set {far} down", f"delete {far}", "delete tap1", "set tap1 name renamed":
        host.ip(f"link {deed}")
        time.sleep(0.05)
        if deed.startswith("delete"):
            assert eventually(lambda: "tap1" in host.ip("-o link show")), deed
            host.ip("link set tap1 up")
        if "renamed" in deed:
            host.ip("link set renamed name tap1")
        assert eventually(works), deed
        assert ovs.vsctl("get interface tap1 ofport") == before
    host.ip("link set tap1 promisc on")
    ovs.vsctl("del-port tap1")
    assert "tap1" not in host.ip("-o link show")


def test_mtu_and_mac(bridge: Heliograph, ovs: Tools, uplink: Namespace) -> None:
    host = bridge.host

    def mtu(device: str) -> int:
        words = host.ip(f"-o link show {device}").split()
        return int(words[words.index("mtu") + 1])

    veth((host, "uplink"), (uplink, "far"))
    host.ip("link set uplink mtu 1300")
    ovs.vsctl("add-port br0 uplink")
    assert (mtu("tap1"), mtu("br0")) == (1300, 1300)
    host.ip("link set uplink mtu 1350")
    assert eventually(lambda: mtu("tap1") == 1350)
    ovs.vsctl("set interface tap1 mtu_request=9000 -- set interface uplink mtu_request=1400")
    assert (mtu("tap1"), mtu("tap2"), mtu("uplink")) == (9000, 1400, 1400)
    assert ovs.vsctl("get interface uplink mtu") == "1400"
    ovs.vsctl("set interface uplink mtu_request=67")
    assert "mtu_request" in said(ovs, "port", "uplink") and error(ovs, "uplink") == ""
    ovs.vsctl("clear interface uplink mtu_request -- clear interface tap1 mtu_request")
    assert (mtu("uplink"), mtu("tap1"), said(ovs, "port", "uplink")) == (1350, 1350, "")
    ovs.vsctl(r'set interface tap1 mac="\"02:00:00:00:00:77\""')
    assert guest_mac(host, "tap1") == "02:00:00:00:00:77"
    ovs.vsctl("set interface tap1 mac=nonsense")
    assert "nonsense" in said(ovs, "port", "tap1") and error(ovs, "tap1") == ""
    assert "tap1" in host.ip("-o link show"), "bad input cost a device"


def test_what_a_guest_does_with_its_device_is_seen(
    bridge: Heliograph, ovs: Tools, guest: Callable[[str], Namespace]
) -> None:
    ns1 = guest("ns1")
    bridge.move("tap1", ns1)
    assert eventually(lambda: ovs.vsctl("get interface tap1 admin_state") == "up")
    ns1.ip("link set tap1 down")
    assert eventually(lambda: ovs.vsctl("get interface tap1 admin_state") == "down")
    ns1.ip("link set tap1 mtu 1234")
    ns1.ip("link set tap1 address 02:00:00:00:00:99")
    ovs.vsctl("set interface tap1 mtu_request=1400")
    assert "where you must set it" in said(ovs, "port", "tap1")
    columns = "--columns=mtu,mac_in_use list interface tap1"
    # With the next refresh of the statistics, at most 5 s later.
    assert eventually(lambda: {"1234", "02:00:00:00:00:99"} <= set(_words(ovs.vsctl(columns))))
    ns1.ip("link set tap1 mtu 1400")
    assert eventually(lambda: said(ovs, "port", "tap1") == "")


def _words(text: str) -> list[str]:
    return text.replace('"', " ").split()


def test_deleting_ports_and_bridges_removes_everything(
    bridge: Heliograph, ovs: Tools, uplink: Namespace
) -> None:
    host = bridge.host
    veth((host, "uplink"), (uplink, "far"))
    ovs.vsctl("add-port br0 uplink")
    ovs.vsctl("del-port tap1")
    assert "tap1" not in host.ip("-o link show") and len(OURS.findall(host.ip("-o link show"))) == 2
    ovs.vsctl("del-br br0")
    shown = host.ip("-o link show")
    assert not OURS.search(shown) and "tap2" not in shown and "br0" not in shown
    assert "PROMISC" not in shown, "uplink is the host's again"
    assert list((bridge.rundir / "bpf" / "links").iterdir()) == []


def test_rows_that_no_device_can_be_made_for(bridge: Heliograph, ovs: Tools) -> None:
    host = bridge.host
    host.ip("link add taken type veth peer name taken-peer")
    (ours,) = {w for w in host.ip("-o link show tap1").split() if w.startswith("tap1@")}
    far = ours.split("@")[1].rstrip(":")
    for name, kind, words in (
        ("sixteen-letters-", "internal", "at most 15"),
        ("sixteen-letters_", "", "at most 15"),
        ("a/b", "internal", "must not"),
        ("a%d", "internal", "must not"),
        ("hg0123456789ab", "internal", "the switch's own"),
        (far, "", "the switch's own"),
        ("taken", "internal", "exists already"),
        ("lo", "", "loopback"),
        ("gre0", "gre", "remote_ip is missing"),
        ("geneve0", "geneve", "not supported yet"),
    ):
        wanted = ["add-port", "br0", name, "--", "set", "interface", name, f"type={kind}"]
        if not kind:
            wanted[-1] = "mtu_request=[]"
        ovs.run("ovs-vsctl", "--timeout=60", *wanted, check=False)
        assert words in error(ovs, name), name
    assert error(ovs, "tap1") == "" and error(ovs, "br0") == ""


def test_one_row_in_two_places(bridge: Heliograph, ovs: Tools) -> None:
    """The schema allows it and ovs-vsctl does not: so it comes from elsewhere."""
    ovs.vsctl("add-br br1")
    port = ovs.vsctl("get port tap1 _uuid")
    interface = ovs.vsctl("get interface tap2 _uuid")
    bridges = {name: ovs.vsctl(f"get bridge {name} _uuid") for name in ("br0", "br1")}
    operations: list[object] = ["Open_vSwitch"]
    operations += [
        {"op": "mutate", "table": "Bridge", "where": [["_uuid", "==", ["uuid", bridges[name]]]],
         "mutations": [["ports", "insert", ["set", [value]]]]}
        for name, value in (("br1", ["uuid", port]), ("br0", ["named-uuid", "second"]))
    ]  # fmt: skip
    operations.append(
        {"op": "insert", "table": "Port", "uuid-name": "second",
         "row": {"name": "second", "interfaces": ["uuid", interface]}}
    )  # fmt: skip
    operations.append(
        {"op": "mutate", "table": "Open_vSwitch", "where": [],
         "mutations": [["next_cfg", "+=", 1]]}
    )  # fmt: skip
    answer = ovs.run("ovsdb-client", "transact", json.dumps(operations)).stdout
    assert "error" not in answer, answer
    client = ["ovsdb-client", "--no-headings", "--format=csv", "dump", "Port", "name"]
    columns = [*client, "external_ids"]

    def told() -> str:
        return ovs.run(*columns).stdout

    assert eventually(lambda: "another port's already" in told()), told()
    assert eventually(lambda: "too, where it does not forward" in told()), told()
    assert bridge.child("switch"), "the switch went on"


def test_without_privileges(lab: Lab) -> None:
    """One line, the exit code of the design, and nothing made."""
    switch = Heliograph(lab)
    helio = switch.words()
    drop = ["setpriv", "--bounding-set=-bpf", "--inh-caps=-bpf"]
    for words in ([*drop, *helio], ["setpriv", "--reuid=65534", "--clear-groups", *helio]):
        result = switch.host.run(*words, check=False)
        assert result.returncode == 4, result.stderr
        assert len(result.stderr.splitlines()) == 1 and "CAP_BPF" in result.stderr
    assert not switch.rundir.exists() and not switch.dbfile.exists()
    unwritable = Path("/proc/heliograph")
    result = switch.host.run(HELIO, "run", "--rundir", unwritable, "--ephemeral", check=False)
    assert result.returncode == 4 and str(unwritable) in result.stderr
    assert len(result.stderr.splitlines()) == 1
    for rundir in unwritable, Path("/proc/self"):
        result = switch.host.run(HELIO, "switch", "--rundir", rundir, check=False)
        assert (result.returncode, len(result.stderr.splitlines())) == (4, 1), result.stderr


def test_a_bridge_that_the_kernel_refuses_leaves_the_others_alone(
    bridge: Heliograph, ovs: Tools, guest: Callable[[str], Namespace]
) -> None:
    """Shown on a switch that cannot make maps: its locked memory and files are at the limit."""
    ns1, ns2 = guest("ns1"), guest("ns2")
    bridge.move("tap1", ns1, "10.7.0.1/24")
    bridge.move("tap2", ns2, "10.7.0.2/24")
    assert eventually(lambda: ns1.ping("10.7.0.2", 1) == 1)
    pid = bridge.child("switch")
    with Flow((ns1, "tap1"), ns2.mac("tap2"), rate=200) as flow, Capture(ns2, "tap2") as seen:
        run(["prlimit", f"--pid={pid}", "--nofile=3:1024"])
        ovs.vsctl("--no-wait", "add-br", "br1")
        bridge.process.wait_for_log("trying again")
        time.sleep(0.5)
        run(["prlimit", f"--pid={pid}", "--nofile=1024:1024"])
        ovs.vsctl("set", "bridge", "br1", "external_ids:seen=yes")
        flow.stop()
        assert flow.numbers(seen.everything())[-1] == flow.sent - 1
    assert said(ovs, "bridge", "br1") == "" and error(ovs, "br1") == ""
    log = bridge.process.log_text()
    assert bridge.child("switch") == pid, "the switch did not live through it"
    assert log.count("trying again") <= 3, log
