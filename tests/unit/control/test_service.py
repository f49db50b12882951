# SPDX-License-Identifier: Apache-2.0
"""The real ovs-ofctl against the service: what it prints is what it was given."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from tests.unit.control.fakes import BRIDGE, NAMES, Switch
from tools.lab.openvswitch import environment

from heliograph.openflow import messages as m
from heliograph.openflow.actions import Output
from heliograph.openflow.flows import PacketOut

every_version = pytest.mark.parametrize("version", NAMES)
FLOWS = """
priority=900,tcp,in_port=1,tp_dst=80 actions=output:2
priority=800,ip,nw_dst=10.0.0.0/8 actions=dec_ttl,NORMAL
priority=700,ipv6,ipv6_dst=fe80::/10 actions=drop
priority=600,arp,arp_tpa=10.1.2.3 actions=LOCAL
priority=500,udp,reg1=0x5/0xff actions=move:NXM_NX_REG1[]->NXM_NX_REG2[],resubmit(,7)
""".strip().splitlines()


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    for _ in range(int(seconds / 0.01)):
        if condition():
            return True
        await asyncio.sleep(0.01)
    return condition()


@every_version
async def test_flows_are_printed_as_they_were_added(switch: Switch, version: int) -> None:
    assert await switch.ofctl(version, "add-flows", "-", stdin="\n".join(FLOWS)) == ""
    assert sorted(await switch.flows(version)) == sorted(FLOWS)
    assert len(switch.plane.rules) == len(FLOWS)


@every_version
async def test_flows_are_changed_and_removed(switch: Switch, version: int) -> None:
    await switch.ofctl(version, "add-flows", "-", stdin="\n".join(FLOWS))
    assert await switch.ofctl(version, "mod-flows", "tcp,actions=output:1") == ""
    assert FLOWS[0].replace("output:2", "output:1") in await switch.flows(version)
    assert await switch.ofctl(version, "--strict", "del-flows", "priority=7,tcp,tp_dst=80") == ""
    assert len(await switch.flows(version)) == 5
    strict = "priority=900,tcp,in_port=1,tp_dst=80"
    assert await switch.ofctl(version, "--strict", "del-flows", strict) == ""
    assert len(await switch.flows(version)) == 4
    assert await switch.ofctl(version, "del-flows", "ip") == ""
    assert len(await switch.flows(version)) == 2
    assert await switch.ofctl(version, "del-flows") == ""
    assert await switch.flows(version) == []
    assert switch.plane.rules == {}


@every_version
async def test_all_flows_or_none_with_a_bundle(switch: Switch, version: int) -> None:
    version = max(version, 4)
    assert await switch.ofctl(version, "--bundle", "add-flows", "-", stdin="\n".join(FLOWS)) == ""
    assert len(await switch.flows(version)) == len(FLOWS)
    bad = "ip,actions=output:1\nip,nw_src=1.2.3.4,actions=group:77"
    assert "OFPBAC_BAD_OUT_GROUP" in await switch.ofctl(
        version, "--bundle", "add-flows", "-", stdin=bad
    )
    assert len(await switch.flows(version)) == len(FLOWS)


@every_version
async def test_flows_are_replaced_and_compared(
    switch: Switch, version: int, tmp_path: Path
) -> None:
    await switch.ofctl(version, "add-flows", "-", stdin="\n".join(FLOWS))
    file = tmp_path / "flows.txt"
    file.write_text("\n".join([*FLOWS[1:], "priority=5 actions=output:1"]))
    difference = await switch.ofctl(version, "diff-flows", str(file))
    assert difference.splitlines() == [f"-{FLOWS[0]}", "+priority=5 actions=output:1"]
    assert await switch.ofctl(version, "replace-flows", str(file)) == ""
    assert await switch.ofctl(version, "diff-flows", str(file)) == ""
    assert len(await switch.flows(version)) == 5


@every_version
async def test_what_is_asked_about_ports_and_tables(switch: Switch, version: int) -> None:
    await switch.ofctl(version, "add-flow", "table=3,actions=drop")
    show = await switch.ofctl(version, "show")
    assert "dpid:0000000000001234" in show
    assert "n_tables:64" in show
    assert "1(p1): addr:02:00:00:00:00:01" in show
    assert "LOCAL(br0)" in show
    assert "frags=normal miss_send_len=0" in show
    assert "port  2: rx pkts=2" in await switch.ofctl(version, "dump-ports")
    assert "port  1" not in await switch.ofctl(version, "dump-ports", "2")
    assert "2(p2)" in await switch.ofctl(version, "dump-ports-desc")
    tables = await switch.ofctl(version, "dump-tables")
    assert re.search(r"table 3:\s+active=1", tables)
    assert re.search(r"table 0:\s+active=0, lookup=5, matched=0", tables)
    assert "flow_count=1" in await switch.ofctl(version, "dump-aggregate")
    assert "Manufacturer: Heliograph" in await switch.ofctl(version, "dump-desc")
    assert "0 queues" in await switch.ofctl(version, "queue-stats")


@every_version
async def test_ports_are_configured(switch: Switch, version: int) -> None:
    assert await switch.ofctl(version, "mod-port", "p1", "down") == ""
    assert await switch.ofctl(version, "mod-port", "2", "no-forward") == ""
    down, no_forward = m.PortConfig.DOWN, m.PortConfig.NO_FWD
    assert switch.agent.set_ports == [(1, down, down), (2, no_forward, no_forward)]
    assert re.search(r"1\(p1\).*\n\s+config:\s+PORT_DOWN", await switch.ofctl(version, "show"))
    assert await switch.ofctl(version, "mod-port", "p1", "up") == ""
    assert "PORT_DOWN" not in await switch.ofctl(version, "show")


@every_version
async def test_frames_are_sent(switch: Switch, version: int) -> None:
    frame = "0011223344550011223344550800"
    said = f"in_port=1,packet={frame},actions=output:2"
    assert await switch.ofctl(version, "packet-out", said) == ""
    expected = PacketOut(actions=(Output(2),), data=bytes.fromhex(frame), in_port=1)
    assert switch.plane.packets == [expected]


@every_version
async def test_groups_are_printed_as_they_were_added(switch: Switch, version: int) -> None:
    text = "group_id=4,type=select,bucket=bucket_id:0,weight:5,actions=output:1"
    numbered = version in {1, 6}  # buckets have no numbers on others
    said = text if numbered else text.replace("bucket_id:0,", "")
    assert await switch.ofctl(version, "add-group", said) == ""
    assert switch.plane.groups == {4}
    (line,) = (await switch.ofctl(version, "dump-groups")).splitlines()[1:]
    assert line.strip() == said
    stats = await switch.ofctl(version, "dump-group-stats")
    assert "bucket0:packet_count=1,byte_count=100" in stats
    assert await switch.ofctl(version, "add-flow", "actions=group:4") == ""
    assert "OFPGMFC_GROUP_EXISTS" in await switch.ofctl(version, "add-group", said)
    assert await switch.ofctl(version, "del-groups") == ""
    assert await switch.flows(version) == []


@every_version
async def test_errors_have_their_names(switch: Switch, version: int) -> None:
    for words, name in (
        (("add-flow", "actions=group:9"), "OFPBAC_BAD_OUT_GROUP"),
        (("add-flow", "table=64,actions=drop"), "OFPBRC_BAD_TABLE_ID"),
        (("add-flow", "actions=learn(table=1)"), "OFPBAC_BAD_VENDOR_TYPE"),
        (("dump-flows", "table=99"), "OFPBRC_BAD_TABLE_ID"),
        (("queue-get-config", "77"), "OFPQOFC_BAD_PORT"),
    ):
        assert name in await switch.ofctl(version, *words), words
    if version > 1:
        meter = "meter=1,kbps,band=type=drop,rate=5"
        assert "OFPMMFC_INVALID_METER" in await switch.ofctl(version, "add-meter", meter)
    if version > 4:
        assert "OFPTMFC_BAD_CONFIG" in await switch.ofctl(version, "mod-table", "1", "evict")


async def test_fragments_are_never_dropped(switch: Switch) -> None:
    assert "doesn't support" in await switch.ofctl(1, "set-frags", "drop")


@every_version
async def test_a_monitor_is_told_of_flows_that_end(switch: Switch, version: int) -> None:
    """`ovs-ofctl monitor`, with a length, is a service that asked to be told."""
    out = asyncio.subprocess.PIPE
    words = switch.words(version, "monitor", "65534")
    process = await asyncio.create_subprocess_exec(
        *words, stdout=out, stderr=out, env=environment(switch.rundir)
    )
    try:
        assert await eventually(lambda: len(switch.peers) == 1)
        peer = next(iter(switch.peers))
        assert await eventually(lambda: peer.subscription.miss_send_len == 65534)
        await switch.ofctl(version, "add-flow", "send_flow_rem,cookie=0x77,tcp,actions=drop")
        await switch.ofctl(version, "del-flows", "tcp")
        assert process.stderr
        told = b""
        while b"cookie:0x77" not in told:
            line = await asyncio.wait_for(process.stderr.readline(), 10)
            assert line, told
            told += line
        assert b"reason=delete" in told
    finally:
        process.terminate()
        await process.wait()
    assert await eventually(lambda: len(switch.peers) == 0)


async def test_thousands_of_flows_go_in_and_out(switch: Switch, tmp_path: Path) -> None:
    file = tmp_path / "flows.txt"
    file.write_text("\n".join(f"reg0={n},actions=output:1" for n in range(3000)))
    assert await switch.ofctl(1, "add-flows", str(file)) == ""
    assert len(switch.plane.rules) == 3000
    assert len(await switch.flows()) == 3000


async def test_the_socket_is_for_root_and_goes_with_its_bridge(switch: Switch) -> None:
    assert switch.path.stat().st_mode & 0o777 == 0o660
    journal = switch.rundir / "flows" / f"{BRIDGE}.journal"
    assert journal.exists()
    await switch.service.configure([])
    assert not switch.path.exists()
    assert not journal.exists()
    assert switch.service.needs_tables(BRIDGE) is False


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "..", ".", "", "a/b"])
async def test_a_bridge_has_no_socket_outside_the_run_directory(
    switch: Switch, tmp_path: Path, name: str
) -> None:
    other = replace(switch.wanted, uuid=UUID(int=7), name=name)
    problems = await switch.service.configure([switch.wanted, other])
    assert "no socket is named after a bridge" in problems[other.uuid]
    assert list(switch.service.bridges) == [BRIDGE]
    assert not (tmp_path.parent / "out.mgmt").exists()


async def test_a_bridge_that_is_removed_during_its_tick_stays_removed(
    switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    (served,) = switch.service._served.values()
    await switch.service.configure([])

    def released() -> None:
        raise ValueError("operation forbidden on released memoryview object")

    monkeypatch.setattr(switch.plane, "tidy", released)
    await served.tick()
    assert not switch.path.exists()
