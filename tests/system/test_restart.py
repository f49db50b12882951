# SPDX-License-Identifier: Apache-2.0
"""Frames and copies go on whatever happens to our processes, and a new start adopts it all."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest
from tools.lab.capture import Capture
from tools.lab.flow import Flow
from tools.lab.heliograph import HELIO, Heliograph
from tools.lab.lab import Lab, mounts_below
from tools.lab.namespaces import Namespace, veth
from tools.lab.openvswitch import Tools
from tools.lab.processes import CommandError, answers, eventually, run

UPGRADED = 100  # frames a second over an upgrade
UNCOUNTED = 3  # seconds, at most, from the copying of counters to the swap of programs


@dataclass
class Scene:
    """tap1 and tap2 talk (10.7.0.1 and .2), tap3 gets copies of what tap1 sends, tap4 looks on."""

    switch: Heliograph
    ovs: Tools
    guests: list[Namespace]

    def facts(self) -> list[str]:
        """What a restart must leave alone: devices with their ifindex, ofports, carrier changes."""
        links = self.switch.host.ip("-o link show").splitlines()
        rows = "--columns=name,ofport,ifindex,mac_in_use,link_resets list interface"
        return [line.split(" state ")[0] for line in links] + [self.ovs.vsctl(rows)]

    def mirrored(self) -> int:
        """What mirror m0 has counted, read from the kernel."""
        printed = self.switch.helio("show", "--rundir", self.switch.rundir, "--json").stdout
        return int(printed.split('"tx_packets":')[-1].split(",")[0].split("}")[0])


@pytest.fixture
def scene(switch: Heliograph, ovs: Tools, guest: Callable[[str], Namespace]) -> Scene:
    made = Scene(switch, ovs, [guest(f"ns{number}") for number in range(1, 5)])
    ovs.vsctl(
        "add-br br0 "
        + " ".join(
            f"-- add-port br0 tap{n} -- set interface tap{n} type=internal" for n in range(1, 5)
        )
        + " -- --id=@s get port tap1 -- --id=@o get port tap3 -- --id=@m create mirror name=m0"
        " select_src_port=@s output_port=@o -- set bridge br0 mirrors=@m"
    )
    for number, namespace in enumerate(made.guests, 1):
        address = f"10.7.0.{number}/24" if number < 3 else None
        switch.move(f"tap{number}", namespace, address)
    assert eventually(lambda: made.guests[0].ping("10.7.0.2", 1) == 1)
    # Carrier comes a moment after a move; when the row says so nothing changes by itself.
    assert eventually(lambda: ovs.vsctl("get interface tap4 link_state") == "up")
    return made


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_nothing_is_lost_over_stops_kills_and_starts(scene: Scene) -> None:
    switch, ovs = scene.switch, scene.ovs
    ns1, ns2, ns3, ns4 = scene.guests
    before = scene.facts()
    with (
        Capture(ns2, "tap2") as arrived,
        Capture(ns3, "tap3") as copies,
        Capture(ns4, "tap4") as strays,
        Flow((ns1, "tap1"), ns2.mac("tap2")) as flow,
    ):
        assert switch.stop() == 0
        assert switch.host.pids() == []
        assert ns1.ping("10.7.0.2", 3) == 3, "traffic needs a process of ours"
        switch.start()
        assert scene.facts() == before

        old = switch.child("switch")
        kill(old)
        assert eventually(lambda: alive(switch, "switch", old))
        ovs.vsctl("set bridge br0 external_ids:seen=killed-switch")
        assert scene.facts() == before

        old = switch.child("db")
        kill(old)
        assert eventually(lambda: alive(switch, "db", old))
        assert eventually(lambda: ovs.try_vsctl("show").returncode == 0)
        ovs.vsctl("set bridge br0 external_ids:seen=killed-database")
        assert scene.facts() == before

        kill(switch.process.pid)
        assert eventually(lambda: switch.host.pids() == []), "children outlived helio run"
        switch.start()
        assert scene.facts() == before
        flow.stop()
        assert flow.sent > 1000
        numbers = flow.arrived(arrived)
        assert numbers == list(range(flow.sent)), "frames were lost, doubled or reordered"
        assert flow.arrived(copies) == numbers
        assert flow.numbers(strays.everything()) == [], "the MAC table was lost: frames flooded"
    assert scene.mirrored() >= flow.sent, "the mirror's counters began anew"
    log = switch.process.log_text()
    assert "Traceback" not in log, log


def alive(switch: Heliograph, word: str, before: int) -> bool:
    """Whether a child that was killed has a successor."""
    try:
        return switch.child(word) != before
    except (LookupError, OSError):
        return False


def test_rows_that_changed_meanwhile_are_applied_at_the_start(lab: Lab, scene: Scene) -> None:
    switch, ovs = scene.switch, scene.ovs
    ns1, *_, ns4 = scene.guests
    far = ovs.vsctl("get interface tap3 _uuid").replace("-", "")[:12]
    assert f"hg{far}" in switch.host.ip("-o link show")
    switch.stop()
    database = lab.start(
        switch.host, HELIO, "db", "--rundir", switch.rundir, "--dbfile", switch.dbfile
    )
    assert eventually(lambda: answers(switch.rundir / "db.sock"))
    ovs.vsctl(
        "--no-wait del-port tap3"
        " -- --id=@s get port tap1 -- --id=@o get port tap4 -- --id=@m create mirror name=m1"
        " select_src_port=@s output_port=@o -- set bridge br0 mirrors=@m"
        " -- set interface br0 mtu_request=1400"
    )
    database.stop()
    switch.start()
    assert f"hg{far}" not in switch.host.ip("-o link show"), "a deleted port's device stayed"
    assert "mtu 1400" in links(switch.host)["br0"]
    with Capture(ns4, "tap4") as copies:
        assert ns1.ping("10.7.0.2", 3) == 3
        assert len(copies.collect(3)) >= 3
    assert ovs.vsctl("get mirror m1 external_ids") == "{}"


def test_another_layout_is_migrated(scene: Scene) -> None:
    switch = scene.switch
    ns1, ns2, ns3, ns4 = scene.guests
    before = scene.facts()
    assert ns1.ping("10.7.0.2", 3) == 3
    counted = scene.mirrored()
    with (
        Capture(ns2, "tap2") as arrived,
        Capture(ns3, "tap3") as copies,
        Capture(ns4, "tap4") as strays,
        Flow((ns1, "tap1"), ns2.mac("tap2"), rate=UPGRADED) as flow,
    ):
        switch.stop()
        (folder,) = (switch.rundir / "bpf").glob("layout-*")
        folder.rename(folder.with_name("layout-0123456789abcdef"))
        switch.start()
        assert (switch.rundir / "bpf").joinpath(folder.name).exists()
        assert not folder.with_name("layout-0123456789abcdef").exists()
        flow.stop()
        numbers = flow.arrived(arrived)
        assert numbers == list(range(flow.sent))
        assert flow.arrived(copies) == numbers
        assert flow.numbers(strays.everything()) == [], "the MAC table was not taken along"
    assert scene.facts() == before
    # What is counted between the copying of the counters and the swap of the programs is lost.
    assert counted + flow.sent - UNCOUNTED * UPGRADED < scene.mirrored()


@pytest.mark.parametrize("killed", [False, True])
def test_teardown_leaves_things_as_found(lab: Lab, killed: bool) -> None:
    switch = Heliograph(lab)
    host, other = switch.host, lab.namespace("other")
    for number, promiscuous in (1, "off"), (2, "on"):
        veth((host, f"uplink{number}"), (other, f"uplink{number}"))
        host.ip(f"link set uplink{number} promisc {promiscuous} mtu 1450")
    found = links(host)
    switch.start()
    ovs = Tools(switch.rundir)
    ovs.vsctl(
        "add-br br0 -- add-port br0 uplink1 -- add-port br0 uplink2 -- add-port br0 tap1"
        " -- set interface tap1 type=internal -- set interface uplink2 mtu_request=1420"
    )
    assert "PROMISC" in links(host)["uplink1"] and "mtu 1420" in links(host)["uplink2"]
    assert "mtu 1420" in links(host)["tap1"], "an internal port follows the smallest MTU"
    refused = switch.helio("teardown", "--rundir", switch.rundir, check=False)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (3, 1), refused.stderr
    if killed:
        kill(switch.process.pid)
        assert eventually(lambda: host.pids() == [])
    else:
        assert switch.stop() == 0
    assert links(host).keys() > found.keys()
    switch.teardown()
    assert links(host) == found
    assert mounts_below(switch.rundir) == []
    again = switch.helio("teardown", "--rundir", switch.rundir).stdout
    assert again == f"there was nothing to remove of {switch.rundir}\n"


def links(host: Namespace) -> dict[str, str]:
    """Of every device its flags, MTU and what it is up to."""
    lines = [line.split(": ", 2) for line in host.ip("-o link show").splitlines()]
    return {line[1].split("@")[0]: line[2].split(" mode ")[0] for line in lines}


@pytest.mark.parametrize("killed", [False, True])
def test_ephemeral_leaves_nothing(lab: Lab, killed: bool) -> None:
    """Not even when the supervisor is killed: its children end in order."""
    switch = Heliograph(lab, ephemeral=True)
    found = links(switch.host)
    switch.start()
    Tools(switch.rundir).vsctl("add-br br0")
    assert "br0" in links(switch.host)
    if killed:
        kill(switch.process.pid)
        assert eventually(lambda: switch.host.pids() == [])
    else:
        assert switch.stop() == 0
    assert links(switch.host) == found
    assert mounts_below(lab.directory) == []


def test_one_switch_per_run_directory_and_one_namespace_per_data_plane(
    lab: Lab, switch: Heliograph, ovs: Tools
) -> None:
    ovs.vsctl("add-br br0")
    again = switch.host.run(*switch.words(), check=False)
    assert (again.returncode, len(again.stderr.splitlines())) == (3, 1), again.stderr
    switch.stop()
    elsewhere = lab.namespace("elsewhere")
    moved = elsewhere.run(*switch.words(), check=False)
    assert moved.returncode == 4 and "another network namespace" in moved.stderr, moved.stderr
    torn = elsewhere.run(HELIO, "teardown", "--rundir", switch.rundir, check=False)
    assert torn.returncode == 1 and "another network namespace" in torn.stderr, torn.stderr
    assert "br0" in links(switch.host)
    # Its namespace gone, nothing works there any more and nobody could tear it down.
    lab.namespaces.remove(switch.host)
    switch.host.delete()
    switch.host = elsewhere

    def starts() -> bool:
        with contextlib.suppress(CommandError):
            switch.start()
            return True
        return False

    assert eventually(starts), "the kernel takes a namespace down in its own time, but not so long"
    assert "br0" in links(elsewhere)


def test_a_private_mount_namespace_is_refused(lab: Lab) -> None:
    switch = Heliograph(lab)
    inside = ["ip", "netns", "exec", switch.host.name]
    for words in (switch.words(), [HELIO, "switch", "--rundir", lab.directory]):
        refused = run([*inside, *words], check=False)
        assert refused.returncode == 4, refused.stderr
        assert "nsenter --net=" in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert not switch.rundir.exists() and links(switch.host).keys() == {"lo"}
    passing = lab.start(
        switch.host, *inside, HELIO, "run", "--rundir", lab.path("e"), "--ephemeral"
    )
    passing.wait_for_line("ready")
    assert passing.stop() == 0


def test_kills_in_the_middle_of_work_lose_no_frame_and_no_device(lab: Lab, scene: Scene) -> None:
    """A switch that is killed again and again while it makes and deletes ports."""
    switch, ovs = scene.switch, scene.ovs
    ns1, ns2, ns3, _ = scene.guests
    switch.stop()
    remote = f"unix:{switch.rundir / 'db.sock'}"
    lab.start(switch.host, HELIO, "db", "--rundir", switch.rundir, "--dbfile", switch.dbfile)
    assert eventually(lambda: ovs.try_vsctl("show").returncode == 0)
    with (
        Capture(ns2, "tap2") as arrived,
        Capture(ns3, "tap3") as copies,
        Flow((ns1, "tap1"), ns2.mac("tap2")) as flow,
    ):
        for turn in range(14):
            names = [f"port{turn // 2}-{number}" for number in range(8)]
            for name in names:
                words = f"add-port br0 {name} -- set interface {name} type=internal"
                ovs.vsctl(f"--no-wait {words}" if turn % 2 == 0 else f"--no-wait del-port {name}")
            process = lab.start(
                switch.host, HELIO, "switch", "--rundir", switch.rundir, "--db", remote
            )
            time.sleep(0.12 + 0.01 * turn)  # from before its first deed to when it is done
            process.stop(signal.SIGKILL)
            assert "Traceback" not in process.log_text()
        flow.stop()
        numbers = flow.arrived(arrived)
        assert numbers == list(range(flow.sent))
        assert flow.arrived(copies) == numbers
    for process in lab.processes:
        process.stop()
    switch.start()
    ovs.vsctl("set bridge br0 external_ids:seen=all")
    ours = sum(name.startswith("hg") for name in links(switch.host))
    assert ours == 5, "devices of ports that are no more were left"
    switch.stop()
    switch.teardown()
    assert links(switch.host).keys() == {"lo"}


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Nothing but the like of it holds up the test's process."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def test_teardown_finds_what_a_killed_switch_was_just_making(lab: Lab) -> None:
    switch = Heliograph(lab)
    switch.start()
    ovs = Tools(switch.rundir)
    child, parent = switch.child("switch"), switch.process.pid
    os.kill(parent, signal.SIGSTOP)  # so that it starts no other one
    words = [f"-- add-port br0 p{n} -- set interface p{n} type=internal" for n in range(60)]
    with at_once():
        ovs.vsctl("--no-wait add-br br0 " + " ".join(words))
        there = partial(switch.host.call, socket.if_nameindex)
        assert eventually(lambda: len(there()) > 20, interval=0.001)
        kill(child)
    kill(parent)
    assert eventually(lambda: switch.host.pids() == [])
    assert len(links(switch.host)) < 120, "it was not killed in the middle"
    switch.teardown()
    assert links(switch.host).keys() == {"lo"}
