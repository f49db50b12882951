# SPDX-License-Identifier: Apache-2.0
"""A bridge's flows through its life: to begin with, on a restart, without controllers."""

import asyncio
import logging
import re
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from tests.unit.control.client import Client
from tests.unit.control.fakes import BRIDGE, PORTS, Plane, Switch

from heliograph.control.wanted import WantedController
from heliograph.openflow import messages as m
from heliograph.openflow.actions import Output
from heliograph.openflow.codec import encode
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import (
    FlowCommand,
    FlowFlags,
    FlowMod,
    FlowRemoved,
    PacketOut,
    RemovedReason,
)
from heliograph.openflow.match import Match

NORMAL = ["priority=0 actions=NORMAL"]
NOWHERE = WantedController(uuid=UUID(int=1), target="unix:nowhere", inactivity_probe=100)
ADD = FlowMod(command=FlowCommand.ADD, table_id=0, actions=(Output(1),))
SECOND = 10**9


@pytest.fixture
def clock(switch: Switch) -> list[int]:
    """Its one number is the time of the bridge."""
    now = [switch.bridge.now()]
    switch.bridge.now = lambda: now[0]
    return now


async def test_rule_68_without_controllers_the_bridge_forwards_unless_it_is_secure(
    switch: Switch,
) -> None:
    assert await switch.flows() == []
    assert switch.service.needs_tables(BRIDGE)
    await switch.configure(fail_mode="standalone")
    assert await switch.flows() == NORMAL
    assert switch.agent.needed == {BRIDGE: False}
    await switch.ofctl(1, "add-flow", "actions=drop")
    assert switch.agent.needed == {BRIDGE: True}
    await switch.configure(fail_mode=None)
    assert len(await switch.flows()) == 2  # no other mode
    await switch.configure(fail_mode="secure")
    assert await switch.flows() == []


async def test_rule_68_as_begun(tmp_path: Path) -> None:
    switch = Switch(tmp_path)
    switch.wanted = replace(switch.wanted, fail_mode=None)
    await switch.begin()
    assert await switch.flows() == NORMAL
    assert not switch.service.needs_tables(BRIDGE)
    assert switch.plane.loads == 1
    assert switch.agent.needed == {}
    await switch.service.close()


async def test_the_flow_to_begin_with_may_be_deleted(switch: Switch) -> None:
    """As in Open vSwitch: then the bridge forwards nothing."""
    await switch.configure(fail_mode="standalone")
    await switch.ofctl(1, "del-flows")
    assert await switch.flows() == []
    assert switch.agent.needed == {BRIDGE: True}
    await switch.ofctl(1, "add-flow", "priority=0,actions=NORMAL")
    assert switch.agent.needed == {BRIDGE: False}
    await switch.ofctl(1, "add-flow", "priority=0,cookie=7,actions=NORMAL")
    assert switch.agent.needed == {BRIDGE: True}


async def test_flows_go_when_controllers_come_and_when_they_leave(switch: Switch) -> None:
    await switch.configure(fail_mode="standalone")
    listening = WantedController(uuid=UUID(int=2), target="punix:br0.ctl")
    await switch.configure(controllers=(listening,))
    assert await switch.flows() == NORMAL  # a service decides nothing
    await switch.configure(controllers=(NOWHERE,))
    assert await switch.flows() == []
    await switch.ofctl(1, "add-flow", "actions=drop")
    await switch.configure(fail_mode="secure")
    assert await switch.flows() == ["actions=drop"]  # the controller's business
    await switch.configure(fail_mode="standalone", controllers=())
    assert await switch.flows() == NORMAL


async def test_rule_68_normal_takes_over_while_no_controller_is_reached(
    switch: Switch, caplog: pytest.LogCaptureFixture
) -> None:
    patient = replace(NOWHERE, inactivity_probe=60_000)
    await switch.configure(fail_mode="standalone", controllers=(patient,))
    await switch.ofctl(1, "add-flow", "actions=drop")
    await switch.service.tick()
    assert await switch.flows() == ["actions=drop"]
    await switch.configure(fail_mode="standalone", controllers=(NOWHERE,))
    await asyncio.sleep(0.35)  # three probes
    with caplog.at_level(logging.WARNING):
        await switch.service.tick()
        await switch.service.tick()
    assert await switch.flows() == NORMAL
    said = re.findall("bridge br0: no controller answered for . s, so it forwards", caplog.text)
    assert len(said) == 1
    await switch.bridge.follow_controllers(0, 0.1)
    assert await switch.flows() == []


async def test_rule_68_never_takes_over_a_secure_bridge(switch: Switch) -> None:
    await switch.configure(controllers=(NOWHERE,))
    await switch.ofctl(1, "add-flow", "actions=drop")
    await switch.bridge.follow_controllers(1000, 0.1)
    assert await switch.flows() == ["actions=drop"]


async def test_only_our_own_flow_goes_when_a_controller_is_back(switch: Switch) -> None:
    await switch.configure(fail_mode="standalone", controllers=(NOWHERE,))
    await switch.bridge.follow_controllers(1000, 0.1)
    await switch.ofctl(1, "add-flow", "priority=0,actions=output:1")  # in its place
    await switch.bridge.follow_controllers(0, 0.1)
    assert await switch.flows() == ["priority=0 actions=output:1"]


async def test_flows_outlive_the_switch(switch: Switch) -> None:
    await switch.ofctl(1, "add-flow", "cookie=7,priority=5,tcp,actions=output:1")
    await switch.ofctl(1, "add-flow", "priority=4,tcp,actions=output:2")  # hidden by it
    await switch.ofctl(1, "add-group", "group_id=4,type=all,bucket=output:1")
    before = await switch.flows()
    await switch.service.close()
    again = Switch(switch.rundir, keep=True)
    await again.begin()
    assert await again.flows() == before
    assert len(again.plane.rules) == 1
    assert again.plane.groups == {4}
    await again.service.close()


async def test_a_cold_start_leaves_none(switch: Switch) -> None:
    await switch.ofctl(1, "add-flow", "actions=output:1")
    await switch.service.close()
    again = Switch(switch.rundir, keep=False)
    await again.begin()
    assert await again.flows() == []
    await again.service.close()


async def test_journals_of_bridges_that_are_gone_are_removed(switch: Switch) -> None:
    await switch.service.close()
    stray = switch.rundir / "flows" / f"{UUID(int=9)}.journal"
    stray.touch()
    again = Switch(switch.rundir, keep=True)
    await again.begin()
    assert not stray.exists()
    await again.service.close()


async def test_a_damaged_journal_costs_the_flows_and_nothing_else(
    switch: Switch, caplog: pytest.LogCaptureFixture
) -> None:
    await switch.ofctl(1, "add-flow", "actions=output:1")
    await switch.service.close()
    journal = switch.rundir / "flows" / f"{BRIDGE}.journal"
    journal.write_bytes(b"not JSON\n" + journal.read_bytes())
    again = Switch(switch.rundir, keep=True)
    await again.begin()
    assert "line 1" in caplog.text
    assert await again.flows() == []
    await again.ofctl(1, "add-flow", "actions=output:2")
    await again.service.close()
    third = Switch(switch.rundir, keep=True)
    await third.begin()
    assert await third.flows() == ["actions=output:2"]
    await third.service.close()


async def test_flows_that_stood_in_for_a_controller_are_known_after_a_restart(
    switch: Switch,
) -> None:
    await switch.configure(fail_mode="standalone", controllers=(NOWHERE,))
    await switch.bridge.follow_controllers(1000, 0.1)
    await switch.service.close()
    again = Switch(switch.rundir, keep=True)
    again.wanted = switch.wanted
    await again.begin()
    await again.bridge.follow_controllers(0, 0.1)
    assert await again.flows() == []
    await again.service.close()


async def test_what_the_data_plane_refuses_is_not_done(
    switch: Switch, caplog: pytest.LogCaptureFixture
) -> None:
    await switch.ofctl(1, "add-flow", "actions=output:1")
    switch.plane.refusal = OpenFlowError(Code.OFPFMFC_TABLE_FULL, "no more cells")
    with caplog.at_level(logging.INFO):
        assert "OFPFMFC_TABLE_FULL" in await switch.ofctl(1, "add-flow", "tcp,actions=output:2")
    assert "bridge br0: refused br0<->unix#" in caplog.text
    assert "OFPFMFC_TABLE_FULL: no more cells" in caplog.text
    assert await switch.flows() == ["actions=output:1"]
    await switch.service.close()
    again = Switch(switch.rundir, keep=True)
    await again.begin()
    assert await again.flows() == ["actions=output:1"]
    await again.service.close()


async def test_a_fault_of_the_data_plane_ends_one_connection_and_changes_nothing(
    switch: Switch, caplog: pytest.LogCaptureFixture
) -> None:
    switch.plane.refusal = RecursionError("deep")
    await switch.ofctl(5, "add-flow", "actions=output:1")
    assert "for a fault of ours" in caplog.text
    assert await switch.flows() == []
    assert await switch.ofctl(5, "add-flow", "actions=output:1") == ""


async def test_a_bundle_that_the_data_plane_refuses_is_not_done(switch: Switch) -> None:
    switch.plane.refusal = OpenFlowError(Code.OFPFMFC_TABLE_FULL)
    answer = await switch.ofctl(
        5, "--bundle", "add-flows", "-", stdin="tcp,actions=drop\nudp,actions=drop"
    )
    assert "OFPFMFC_TABLE_FULL" in answer
    assert await switch.flows() == []


async def test_frames_of_a_bundle_are_sent_when_its_flows_are_in_force(
    switch: Switch, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that cannot be sent is refused when it comes; what the kernel refuses is too late."""
    client = await Client.connect(switch.path, 5)
    frame = PacketOut(actions=(Output(1),), data=bytes(60))

    def add(message: FlowMod | PacketOut) -> bytes:
        return encode(m.BundleAdd(1, m.BundleFlags.NONE, message, 9), 5, 9)

    def refuse(_: PacketOut) -> None:
        raise OpenFlowError(Code.OFPBRC_BAD_PACKET, "too long")

    _opened, refused, done = await client.ask(
        m.BundleControl(1, m.BundleAction.OPEN_REQUEST),
        *(add(message) for message in (ADD, frame, replace(frame, data=b""))),
        m.BundleControl(1, m.BundleAction.COMMIT_REQUEST),
    )
    committed = m.BundleControl(1, m.BundleAction.COMMIT_REPLY)
    assert (refused, done) == ("OFPBRC_BAD_PACKET", committed)
    assert await switch.flows() == ["actions=output:1"] and switch.plane.packets == [frame]
    monkeypatch.setattr(switch.plane, "packet_out", refuse)
    commit = m.BundleControl(1, m.BundleAction.COMMIT_REQUEST)
    assert (await client.ask(add(frame), commit))[-1] == committed
    assert "too long" in caplog.text
    await client.close()


async def test_what_could_not_be_put_in_force_is_tried_again(
    switch: Switch, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await switch.configure(fail_mode="standalone")

    async def refuse(*_: object) -> None:
        raise OpenFlowError(Code.OFPFMFC_UNKNOWN, "the kernel says no")

    with monkeypatch.context() as broken:
        broken.setattr(switch.agent, "tables_needed", refuse)
        assert "OFPFMFC_UNKNOWN" in await switch.ofctl(5, "add-flow", "actions=drop")
        for _ in range(3):
            await switch.service.tick()
        problems = await switch.service.configure([replace(switch.wanted, fail_mode="secure")])
        assert "the kernel says no" in problems[BRIDGE]
    assert [r.levelname for r in caplog.records].count("ERROR") == 1
    await switch.configure(fail_mode="secure")
    await switch.service.tick()
    assert switch.agent.needed[BRIDGE] == switch.service.needs_tables(BRIDGE)


async def test_one_bridge_that_cannot_be_served_does_not_hold_up_another(
    switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = replace(switch.wanted, uuid=UUID(int=7), name="br1", plane=Plane())
    last = replace(switch.wanted, uuid=UUID(int=8), name="br2", plane=Plane())

    def refuse(_tables: object) -> None:
        raise OpenFlowError(Code.OFPFMFC_TABLE_FULL, "no memory")

    with monkeypatch.context() as broken:
        broken.setattr(bad.plane, "load", refuse)
        problems = await switch.service.configure([switch.wanted, bad, last])
    assert problems == {bad.uuid: "its flows cannot be put in force: OFPFMFC_TABLE_FULL: no memory"}
    assert set(switch.service.bridges) == {BRIDGE, last.uuid}
    assert await switch.service.configure([switch.wanted, bad, last]) == {}
    assert (switch.rundir / "br1.mgmt").exists()


async def test_flows_end_when_their_time_is_over(switch: Switch, clock: list[int]) -> None:
    client = await Client.connect(switch.path, 4)
    await client.ask(m.SetConfig(0, 128))
    for number, (idle, hard) in enumerate(((2, 0), (0, 4), (0, 0))):
        match = Match.of({"in_port": (number, 0xFFFF)})
        flags = FlowFlags.SEND_FLOW_REM
        mod = replace(ADD, match=match, idle_timeout=idle, hard_timeout=hard, flags=flags)
        assert await client.ask(mod) == []
    for _ in range(5):
        clock[0] += SECOND + 1
        await switch.service.tick()
    told = await client.ask()
    assert [r.reason for r in told if isinstance(r, FlowRemoved)] == [
        RemovedReason.IDLE_TIMEOUT,
        RemovedReason.HARD_TIMEOUT,
    ]
    assert await switch.flows() == ["in_port=2 actions=output:1"]
    await client.close()


async def test_changes_of_ports_are_told(switch: Switch) -> None:
    client = await Client.connect(switch.path, 4)
    await client.ask(m.SetConfig(0, 128))
    _first, second, local = PORTS
    third = m.PortDesc(number=3, name="p3", address=5)
    down = replace(second, state=m.PortState.LINK_DOWN)
    await switch.configure(ports=(down, local, third))
    statuses = await client.ask()
    assert [(s.reason.name, s.port.number) for s in statuses if isinstance(s, m.PortStatus)] == [
        ("DELETE", 1),
        ("MODIFY", 2),
        ("ADD", 3),
    ]
    assert switch.plane.port_changes == 1
    # Another device at the number of one that is gone.
    await switch.configure(ports=(down, local, replace(third, name="p4")))
    statuses = await client.ask()
    assert [s.reason.name for s in statuses if isinstance(s, m.PortStatus)] == ["DELETE", "ADD"]
    await client.close()


@pytest.mark.parametrize("version", [1, 4, 5, 6])
async def test_who_changed_a_port_is_told_from_15_on(switch: Switch, version: int) -> None:
    client = await Client.connect(switch.path, version)
    other = await Client.connect(switch.path, version)
    mod = m.PortMod(
        port=1,
        address=PORTS[0].address,
        config=m.PortConfig.NO_FWD,
        mask=m.PortConfig.NO_FWD,
    )
    await other.ask(m.SetConfig(0, 128))
    told = await client.ask(m.SetConfig(0, 128), mod, mod)
    assert [type(message) for message in told] == [m.PortStatus] * (version == 6)
    assert [type(message) for message in await other.ask()] == [m.PortStatus]
    assert switch.agent.set_ports == [(1, m.PortConfig.NO_FWD, m.PortConfig.NO_FWD)]
    await client.close()
    await other.close()


async def test_ports_that_cannot_be_changed(switch: Switch) -> None:
    client = await Client.connect(switch.path, 4)
    wrong = m.PortMod(port=1, address=99)
    assert await client.ask(wrong) == ["OFPPMFC_BAD_HW_ADDR"]
    assert await client.ask(replace(wrong, port=77)) == ["OFPPMFC_BAD_PORT"]
    await client.close()


async def test_frames_that_cannot_be_sent(switch: Switch) -> None:
    client = await Client.connect(switch.path, 4)
    frame = PacketOut(actions=(Output(1),), data=bytes(60), in_port=1)
    assert await client.ask(frame) == []
    assert await client.ask(replace(frame, buffer_id=3)) == ["OFPBRC_BUFFER_UNKNOWN"]
    assert await client.ask(replace(frame, data=bytes(13))) == ["OFPBRC_BAD_PACKET"]
    assert len(switch.plane.packets) == 1
    await client.close()


async def test_groups_follow_ports_as_soon_as_there_is_room(
    switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def full() -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise OpenFlowError(Code.OFPFMFC_TABLE_FULL)

    monkeypatch.setattr(switch.plane, "ports_changed", full)
    await switch.configure(ports=PORTS[1:])
    assert calls == 1
    for expected in (2, 3, 3):
        await switch.bridge.tick()
        assert calls == expected
