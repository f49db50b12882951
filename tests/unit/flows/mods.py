# SPDX-License-Identifier: Apache-2.0
"""Short ways to say what the tests of flow tables say often."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from heliograph.flows.change import Change
from heliograph.flows.flow import SECOND, Usage
from heliograph.flows.queries import flow_stats
from heliograph.flows.tables import Tables
from heliograph.openflow.actions import Actions, Output
from heliograph.openflow.errors import OpenFlowError
from heliograph.openflow.flows import (
    Bucket,
    FlowCommand,
    FlowMod,
    FlowStats,
    FlowStatsRequest,
    GroupCommand,
    GroupMod,
    GroupType,
)
from heliograph.openflow.match import Match

ADD, MODIFY, DELETE = FlowCommand.ADD, FlowCommand.MODIFY, FlowCommand.DELETE
MODIFY_STRICT, DELETE_STRICT = FlowCommand.MODIFY_STRICT, FlowCommand.DELETE_STRICT
ONE: Actions = (Output(1),)
TWO: Actions = (Output(2),)


def port(number: int, **more: tuple[int, int]) -> Match:
    return Match.of({"in_port": (number, 0xFFFF), **more})


def ip(address: int, bits: int = 32) -> Match:
    mask = 0xFFFF_FFFF << 32 - bits & 0xFFFF_FFFF
    return Match.of({"eth_type": (0x800, 0xFFFF), "ip_dst": (address, mask)})


def mod(command: FlowCommand = ADD, **said: Any) -> FlowMod:
    """In table 0; without a cookie unless it adds, as from 1.3 on."""
    cookie = 0 if command == ADD else None
    return FlowMod(command=command, **{"table_id": 0, "cookie": cookie, "actions": ONE, **said})


def group(number: int, *actions: Actions, **said: Any) -> GroupMod:
    buckets = tuple(Bucket(actions=a, weight=0) for a in actions)
    plain = {"command": GroupCommand.ADD, "type": GroupType.ALL, "buckets": buckets}
    return GroupMod(group_id=number, **{**plain, **said})


@dataclass
class Counted:
    """Counters as a data plane has them."""

    of: dict[int, Usage] = field(default_factory=dict)

    def usage(self, flow_id: int) -> Usage:
        return self.of.get(flow_id, Usage())


def refused(tables: Tables, message: FlowMod | GroupMod, version: int = 6) -> str:
    """The name of the error; nothing must have changed."""
    before = dict(tables.flows), dict(tables.groups)
    with pytest.raises(OpenFlowError) as caught:
        tables.change(message, 0, version)
    assert (tables.flows, tables.groups) == before
    return caught.value.code.name


def dump(tables: Tables, **asked: Any) -> list[FlowStats]:
    return list(flow_stats(tables, FlowStatsRequest(**asked), now=100 * SECOND).entries)


def rules(change: Change) -> list[tuple[int | None, int | None]]:
    """Ids of what packets hit before and after."""
    return [
        (rule.before.id if rule.before else None, rule.after.id if rule.after else None)
        for rule in change.delta.rules
    ]
