# SPDX-License-Identifier: Apache-2.0
"""Answers and errors, each as seen of Open vSwitch 3.1 where it has what we have."""

import pytest
from tests.unit.control.client import Client
from tests.unit.control.fakes import Switch

from heliograph.flows.flow import Usage
from heliograph.openflow import flows as f
from heliograph.openflow import messages as m
from heliograph.openflow.actions import Group, Output, Port
from heliograph.openflow.message import Message

every_version = pytest.mark.parametrize("version", [1, 4, 5, 6])
FRAME = bytes(60)


@every_version
async def test_errors(switch: Switch, version: int) -> None:
    client = await Client.connect(switch.path, version)
    late = version > 1
    group = f.PacketOut(actions=(Group(9),), data=FRAME)
    cases: list[tuple[Message, str]] = [
        (m.QueueStatsRequest(99), "OFPQOFC_BAD_PORT"),
        (m.QueueStatsRequest(1, 5), "OFPQOFC_BAD_QUEUE"),
        (m.PortMod(port=99, address=1), "OFPPMFC_BAD_PORT"),
        (m.PortMod(port=1, address=1), "OFPPMFC_BAD_HW_ADDR"),
        (group, "OFPBAC_BAD_OUT_GROUP"),
        (f.PacketOut(actions=(), buffer_id=5), "OFPBRC_BUFFER_UNKNOWN"),
        (f.FlowStatsRequest(table_id=64), "OFPBRC_BAD_TABLE_ID"),
        (f.AggregateRequest(table_id=64), "OFPBRC_BAD_TABLE_ID"),
    ]
    if late:
        cases += [
            (m.TableMod(99, 0), "OFPTMFC_BAD_TABLE"),
            (m.MeterStatsRequest(5), "OFPMMFC_UNKNOWN_METER"),
            (m.MeterMod(0, 5), "OFPMMFC_INVALID_METER"),
            (m.MeterMod(1, 5), "OFPMMFC_UNKNOWN_METER"),
            (m.SetConfig(4, 200), "OFPSCFC_BAD_FLAGS"),
        ]
    if version > 4:
        cases.append((m.TableMod(3, 1), "OFPTMFC_BAD_CONFIG"))
    else:
        cases.append((m.QueueConfigRequest(99), "OFPQOFC_BAD_PORT"))
    for message, name in cases:
        assert await client.ask(message) == [name], message
    await client.close()


@every_version
async def test_what_is_asked_of_something_that_is_not_there(switch: Switch, version: int) -> None:
    client = await Client.connect(switch.path, version)
    cases: list[tuple[Message, Message]] = [
        (m.PortStatsRequest(99), m.PortStatsReply(())),
        (f.GroupDescRequest(7), f.GroupDescReply(())),
        (m.QueueStatsRequest(1), m.QueueStatsReply()),
    ]
    if version > 1:
        cases += [
            (m.MeterStatsRequest(0xFFFF_FFFF), m.MeterStatsReply()),
            (m.MeterFeaturesRequest(), m.MeterFeaturesReply()),
        ]
    if version == 6:
        cases.append((m.PortDescRequest(99), m.PortDescReply(())))
    if version < 5:
        cases.append((m.QueueConfigRequest(1), m.QueueConfigReply(1)))
    for message, reply in cases:
        assert await client.ask(message) == [reply]
    for message in (m.MeterMod(2, 5), m.TableMod(3, 0), m.TableMod(0xFF, 0)):
        if version > 1:
            assert await client.ask(message) == []
    await client.close()


async def test_any_port_is_another_in_10(switch: Switch) -> None:
    client = await Client.connect(switch.path, 1)
    assert await client.ask(m.QueueStatsRequest(Port.ALL)) == [m.QueueStatsReply()]
    assert await client.ask(m.QueueConfigRequest(Port.NONE)) == ["OFPQOFC_BAD_PORT"]
    await client.close()


async def test_configuration_is_kept(switch: Switch) -> None:
    client = await Client.connect(switch.path, 1)
    assert await client.ask(m.GetConfigRequest()) == [m.GetConfigReply(0, 0)]
    assert await client.ask(m.SetConfig(1, 200)) == []  # fragments stay as they are
    assert await client.ask(m.GetConfigRequest()) == [m.GetConfigReply(0, 200)]
    await client.ask(m.SetConfig(4, 100))
    assert await client.ask(m.GetConfigRequest()) == [m.GetConfigReply(4, 100)]
    await client.close()


@pytest.mark.parametrize("version", [4, 5, 6])
async def test_what_is_sent_unasked_is_configured(switch: Switch, version: int) -> None:
    client = await Client.connect(switch.path, version)
    config = m.AsyncConfig(packet_in=(1, 2), port_status=(3, 4), flow_removed=(5, 6))
    assert await client.ask(m.SetAsync(config)) == []
    assert await client.ask(m.GetAsyncRequest()) == [m.GetAsyncReply(config)]
    bad = m.AsyncConfig(packet_in=(1, 2), port_status=(8, 4), flow_removed=(5, 6))
    assert await client.ask(m.SetAsync(bad)) == (["OFPACFC_INVALID"] if version > 4 else [])
    await client.close()


@pytest.mark.parametrize("version", [4, 5, 6])
async def test_some_of_what_is_sent_unasked_is_configured(switch: Switch, version: int) -> None:
    """From 1.4 on what is not said stays as it is."""
    client = await Client.connect(switch.path, version)
    config = m.AsyncConfig(packet_in=(1, 2), port_status=(3, 4), flow_removed=(5, 6))
    await client.ask(m.SetAsync(config))
    new = m.AsyncConfig(packet_in=(0, 0), port_status=(0, 0), flow_removed=(0, 0))
    await client.ask(m.SetAsync(new, said=(True, *[False] * 5)))
    (reply,) = await client.ask(m.GetAsyncRequest())
    assert isinstance(reply, m.GetAsyncReply)
    assert reply.config.packet_in == ((0, 2) if version > 4 else (0, 0))
    await client.close()


@every_version
async def test_what_the_switch_can(switch: Switch, version: int) -> None:
    client = await Client.connect(switch.path, version)
    (features,) = await client.ask(m.FeaturesRequest())
    assert isinstance(features, m.FeaturesReply)
    assert (features.datapath_id, features.tables, features.buffers) == (0x1234, 64, 0)
    assert [port.number for port in features.ports] == ([1, 2, 0xFFFE] if version == 1 else [])
    assert bool(features.capabilities & m.Capabilities.BUNDLES) == (version > 4)
    (groups,) = await client.ask(f.GroupFeaturesRequest())
    assert isinstance(groups, f.GroupFeaturesReply)
    assert groups.types == 0xF
    if version > 1:
        (tables,) = await client.ask(m.TableFeaturesRequest())
        assert isinstance(tables, m.TableFeaturesReply)
        assert [table.table_id for table in tables.entries] == list(range(64))
    await client.close()


async def test_lookups_of_tables(switch: Switch) -> None:
    client = await Client.connect(switch.path, 4)
    for table_id in (0, 0, 3):
        priority = len(switch.plane.usages)
        mod = f.FlowMod(
            command=f.FlowCommand.ADD, table_id=table_id, priority=priority, actions=(Output(1),)
        )
        assert await client.ask(mod) == []
        newest = max(switch.bridge.tables.flows)
        switch.plane.usages[newest] = Usage(10, 600, 5)
    (tables,) = await client.ask(m.TableStatsRequest())
    assert isinstance(tables, m.TableStatsReply)
    said = {t.table_id: (t.active, t.lookups, t.matched) for t in tables.entries}
    assert (said[0], said[1], said[3]) == ((2, 25, 20), (0, 0, 0), (1, 10, 10))
    # What flows have matched that are gone, or begin to count anew, is still told.
    reset = f.FlowMod(
        command=f.FlowCommand.ADD,
        table_id=0,
        priority=1,
        actions=(),
        flags=f.FlowFlags.RESET_COUNTS,
    )
    gone = f.FlowMod(command=f.FlowCommand.DELETE, table_id=3)
    assert await client.ask(reset, gone) == []
    switch.plane.usages[max(switch.bridge.tables.flows)] = Usage(5, 300, 9)
    (tables,) = await client.ask(m.TableStatsRequest())
    assert isinstance(tables, m.TableStatsReply)
    said = {t.table_id: (t.active, t.lookups, t.matched) for t in tables.entries}
    assert (said[0], said[3]) == ((2, 30, 25), (0, 10, 10))
    await client.close()
