# SPDX-License-Identifier: Apache-2.0
"""Roles, as seen of Open vSwitch 3.1."""

import pytest
from tests.unit.control.client import Client
from tests.unit.control.fakes import Switch

from heliograph.openflow import flows as f
from heliograph.openflow import messages as m
from heliograph.openflow.actions import Output

FLOW = f.FlowMod(command=f.FlowCommand.ADD, table_id=0, actions=(Output(1),))
NONE = m.BundleFlags.NONE
CHANGES = (
    FLOW,
    f.GroupMod(command=f.GroupCommand.ADD, group_id=1),
    f.PacketOut(actions=(), data=bytes(60)),
    m.PortMod(port=1, address=1),
    m.TableMod(0, 0),
    m.MeterMod(2, 1),
    m.BundleControl(1, m.BundleAction.OPEN_REQUEST, NONE),
)


async def test_there_is_one_primary(switch: Switch) -> None:
    one, two = [await Client.connect(switch.path, 5) for _ in range(2)]
    asked = m.RoleRequest(m.Role.PRIMARY, 3)
    assert await one.ask(asked) == [m.RoleReply(m.Role.PRIMARY, 3)]
    assert await one.ask(FLOW) == []
    assert await two.ask(m.RoleRequest(m.Role.PRIMARY, 4)) == [m.RoleReply(m.Role.PRIMARY, 4)]
    told = m.RoleStatus(m.Role.SECONDARY, generation_id=4)
    asked = m.RoleRequest(m.Role.NO_CHANGE)
    assert await one.ask(asked) == [told, m.RoleReply(m.Role.SECONDARY, 4)]
    for change in CHANGES:
        assert await one.ask(change) == ["OFPBRC_IS_SECONDARY"], change
    assert await one.ask(m.RoleRequest(m.Role.EQUAL)) == [m.RoleReply(m.Role.EQUAL, 4)]
    assert await one.ask(FLOW) == []
    await one.close()
    await two.close()


async def test_old_elections_are_refused(switch: Switch) -> None:
    one = await Client.connect(switch.path, 4)
    for generation in (2**64 - 2, 1):  # 1 is later, going round
        (reply,) = await one.ask(m.RoleRequest(m.Role.SECONDARY, generation))
        assert reply == m.RoleReply(m.Role.SECONDARY, generation)
    assert await one.ask(m.RoleRequest(m.Role.PRIMARY, 0)) == ["OFPRRFC_STALE"]
    assert await one.ask(m.RoleRequest(m.Role.NO_CHANGE)) == [m.RoleReply(m.Role.SECONDARY, 1)]
    await one.close()


@pytest.mark.parametrize("version", [1, 4])
async def test_roles_in_niciras_words(switch: Switch, version: int) -> None:
    one, two = [await Client.connect(switch.path, version) for _ in range(2)]
    asked = m.RoleRequest(m.Role.PRIMARY, nicira=True)
    assert await one.ask(asked) == [m.RoleReply(m.Role.PRIMARY, nicira=True)]
    assert await two.ask(asked) == [m.RoleReply(m.Role.PRIMARY, nicira=True)]
    refused = "OFPBRC_EPERM" if version == 1 else "OFPBRC_IS_SECONDARY"
    assert await one.ask(FLOW) == [refused]
    await one.close()
    await two.close()
