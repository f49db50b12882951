# SPDX-License-Identifier: Apache-2.0
"""Flow mods in few words."""

from heliograph.openflow import actions as a
from heliograph.openflow.flows import (
    Bucket,
    FlowCommand,
    FlowMod,
    GroupCommand,
    GroupMod,
    GroupType,
)
from heliograph.openflow.match import ANYTHING, Match

IP = Match((("eth_type", 0x0800, 0xFFFF),))
TCP = Match((("eth_type", 0x0800, 0xFFFF), ("nw_proto", 6, 0xFF)))


def add(
    *actions: a.Action,
    table: int = 0,
    priority: int = 1,
    match: Match = ANYTHING,
    gone: bool = False,
) -> FlowMod:
    """Add a flow; with `gone`, delete it."""
    return FlowMod(
        command=FlowCommand.DELETE_STRICT if gone else FlowCommand.ADD,
        table_id=table,
        priority=priority,
        match=match,
        actions=actions,
        cookie=None if gone else 0,
    )


def group(number: int, kind: GroupType, *buckets: a.Actions, watch: int | None = None) -> GroupMod:
    """`watch`: the port that its buckets watch."""
    weight = int(kind == GroupType.SELECT)
    made = (
        Bucket(actions=b, bucket_id=n, weight=weight, watch_port=watch)
        for n, b in enumerate(buckets)
    )
    return GroupMod(command=GroupCommand.ADD, group_id=number, type=kind, buckets=tuple(made))
