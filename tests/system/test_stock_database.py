# SPDX-License-Identifier: Apache-2.0
"""The switch on the distribution's ovsdb-server, started by hand, with its older schema."""

from collections.abc import Callable

import pytest
from tools.lab.capture import Capture
from tools.lab.flow import Flow
from tools.lab.heliograph import Heliograph, StockSwitch
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.openvswitch import Database, Tools
from tools.lab.processes import eventually


@pytest.fixture
def database(lab: Lab) -> Database:
    """A stock ovsdb-server with an empty database."""
    return Database(lab, lab.namespace("host"))


@pytest.fixture
def guests(
    lab: Lab, database: Database, guest: Callable[[str], Namespace]
) -> tuple[StockSwitch, Tools, list[Namespace]]:
    switch = StockSwitch(lab, database)
    switch.start()
    ovs = database.tools
    ovs.vsctl(
        "add-br br0 "
        + " ".join(
            f"-- add-port br0 tap{n} -- set interface tap{n} type=internal" for n in (1, 2, 3)
        )
    )
    made = []
    for number in 1, 2, 3:
        made.append(guest(f"ns{number}"))
        switch.host.ip(f"link set tap{number} netns {made[-1].name}")
        made[-1].address_up(f"tap{number}", f"10.7.0.{number}/24")
    assert eventually(lambda: made[0].ping("10.7.0.2", 1) == 1)
    return switch, ovs, made


MIRROR = (
    "-- --id=@s get port tap1 -- --id=@o get port tap3 -- --id=@m create mirror name=m0"
    " select_src_port=@s output_port=@o -- set bridge br0 mirrors=@m"
)


def test_mirrors_and_problems(guests: tuple[StockSwitch, Tools, list[Namespace]]) -> None:
    _, ovs, (ns1, _, ns3) = guests
    with Capture(ns3, "tap3") as copies:
        ovs.vsctl(MIRROR)
        assert ovs.vsctl("get mirror m0 statistics") == "{tx_bytes=0, tx_packets=0}"
        assert ns1.ping("10.7.0.2", 3) == 3
        assert len(copies.collect(3)) >= 3
    ovs.vsctl("clear mirror m0 output_port")
    assert "no output" in ovs.vsctl("get mirror m0 external_ids:heliograph-error")
    ovs.vsctl("-- --id=@o get port tap3 -- set mirror m0 output_port=@o")
    assert ovs.vsctl("get mirror m0 external_ids") == "{}"
    added = ovs.try_vsctl("add-port br0 nodev")
    assert "Error detected while setting up 'nodev'" in added.stderr
    assert "No such device" in ovs.vsctl("get interface nodev error")
    root = ovs.vsctl("--columns=ovs_version,db_version,cur_cfg,next_cfg list open_vswitch")
    assert '"8.3.1"' in root, root


def test_the_database_restarts_and_the_switch_restarts(
    lab: Lab, guests: tuple[StockSwitch, Tools, list[Namespace]]
) -> None:
    switch, ovs, (ns1, ns2, ns3) = guests
    ovs.vsctl(MIRROR)
    columns = "--columns=name,ofport,ifindex list interface"
    before = ovs.vsctl(columns)
    with (
        Capture(ns2, "tap2") as arrived,
        Flow((ns1, "tap1"), ns2.mac("tap2")) as flow,
    ):
        switch.database.stop()
        # With the database away devices are still looked after.
        switch.host.ip("link set br0 up")
        ns3.ip(f"link set tap3 netns {switch.host.name}")
        switch.host.ip(f"link set tap3 netns {ns3.name}")
        assert ns1.ping("10.7.0.2", 2) == 2
        switch.database.start()
        ovs.vsctl("set bridge br0 external_ids:seen=restarted-database")
        ns3.ip("link set tap3 up")
        assert switch.process.running

        assert switch.process.stop() == 0
        ovs.vsctl("--no-wait set bridge br0 external_ids:seen=no-switch")
        switch.start()
        ovs.vsctl("set bridge br0 external_ids:seen=new-switch")
        assert ovs.vsctl(columns) == before
        with Capture(ns3, "tap3") as copies:
            seen = flow.numbers(copies.collect(50, quiet=0))
            assert len(seen) == 50, "nothing is mirrored any more"
        flow.stop()
        assert flow.arrived(arrived) == list(range(flow.sent))


def test_the_same_run_directory_is_taken_once(
    lab: Lab, guests: tuple[StockSwitch, Tools, list[Namespace]]
) -> None:
    switch, _, _ = guests
    remote = f"unix:{switch.database.socket}"
    for words in (["switch", "--db", remote], ["teardown"]):
        rundir = str(switch.rundir)
        refused = switch.host.run(Heliograph.PROGRAM, *words, "--rundir", rundir, check=False)
        assert refused.returncode == 3, refused.stderr
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
    switch.process.stop()
    switch.host.run(Heliograph.PROGRAM, "teardown", "--rundir", switch.rundir)
    assert "br0" not in switch.host.ip("-o link show")


def test_a_switch_waits_for_its_database(lab: Lab, database: Database) -> None:
    switch = StockSwitch(lab, database)
    database.stop()
    process = switch.launch()
    process.wait_for_log("database connection failed")
    database.start()
    process.wait_for_line("ready")
    database.tools.vsctl("add-br br0")
    assert process.log_text().count("connection failed") == 1, "said more than once a minute"


def test_a_socket_in_use_is_not_taken(lab: Lab, database: Database) -> None:
    switch = Heliograph(lab)
    switch.rundir = database.rundir
    before = sorted(path.name for path in database.rundir.iterdir())
    refused = switch.host.run(*switch.words(), check=False)
    assert refused.returncode == 3, refused.stderr
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert sorted(path.name for path in database.rundir.iterdir()) == before
    database.tools.vsctl("--no-wait add-br br0")
