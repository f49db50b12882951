# SPDX-License-Identifier: Apache-2.0
"""Groups: what is refused with which code, and the flows that go with a group."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.flows.mods import ONE, TWO, group, mod, port, refused

from heliograph.flows.flow import Limits
from heliograph.flows.queries import group_descs, group_stats
from heliograph.flows.tables import Tables
from heliograph.openflow.actions import (
    ALL_GROUPS,
    Clone,
    GotoTable,
    Group,
    Meter,
    Output,
    SetField,
)
from heliograph.openflow.flows import (
    BUCKET_ALL,
    BUCKET_FIRST,
    BUCKET_LAST,
    Bucket,
    FlowFlags,
    GroupCommand,
    GroupDescRequest,
    GroupMod,
    GroupStats,
    GroupStatsRequest,
    GroupType,
    RemovedReason,
    Selection,
)

FF, SELECT, INDIRECT = GroupType.FAST_FAILOVER, GroupType.SELECT, GroupType.INDIRECT
INSERT, REMOVE = GroupCommand.INSERT_BUCKET, GroupCommand.REMOVE_BUCKET
DELETE = GroupCommand.DELETE
WATCHING = Bucket(actions=ONE, weight=0, watch_port=1)


def numbered(*numbers: int) -> tuple[Bucket, ...]:
    return tuple(Bucket(actions=ONE, bucket_id=n, weight=0) for n in numbers)


def ids(tables: Tables, number: int) -> list[int | None]:
    return [bucket.bucket_id for bucket in tables.groups[number].desc.buckets]


def made() -> Tables:
    """Group 1 with two buckets, and group 2, which is indirect."""
    tables = Tables(limits=Limits(groups=3, buckets=4))
    tables.change(group(1, ONE, TWO), 5)
    tables.change(group(2, ONE, type=INDIRECT), 5)
    return tables


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (group(1), "OFPGMFC_GROUP_EXISTS"),
        (group(0xFFFF_FF01), "OFPGMFC_INVALID_GROUP"),
        (group(1, command=REMOVE, command_bucket_id=0xFFFF_FF01), "OFPGMFC_BAD_BUCKET"),
        (group(1, command=REMOVE, selection=Selection(method="hash")), "OFPBPC_BAD_VALUE"),
        (group(1, command=DELETE, selection=Selection(method="hash")), "OFPBPC_BAD_VALUE"),
        (group(1, command=DELETE, command_bucket_id=0), "OFPGMFC_BAD_BUCKET"),
        (group(1, command=DELETE, buckets=(WATCHING,)), "OFPGMFC_WATCH_UNSUPPORTED"),
        (group(1, ONE, command=DELETE, type=FF), "OFPGMFC_INVALID_GROUP"),
        (group(1, command=DELETE, buckets=numbered(1, 1)), "OFPGMFC_BAD_BUCKET"),
        (
            group(3, type=SELECT, selection=Selection(method="dp_hash", fields=(("ip_src", 1),))),
            "OFPBPC_BAD_VALUE",
        ),
        (group(7, command=GroupCommand.MODIFY), "OFPGMFC_UNKNOWN_GROUP"),
        (group(7, command=REMOVE), "OFPGMFC_UNKNOWN_GROUP"),
        (group(0xFFFF_FF05), "OFPGMFC_INVALID_GROUP"),
        (group(3, type=INDIRECT), "OFPGMFC_INVALID_GROUP"),
        (group(3, ONE, ONE, type=INDIRECT), "OFPGMFC_INVALID_GROUP"),
        (group(3, ONE, type=FF), "OFPGMFC_INVALID_GROUP"),
        (group(3, buckets=(Bucket(weight=1),)), "OFPGMFC_INVALID_GROUP"),
        (group(3, buckets=(WATCHING,)), "OFPGMFC_WATCH_UNSUPPORTED"),
        (group(3, buckets=numbered(1, 1)), "OFPGMFC_BAD_BUCKET"),
        (group(3, command_bucket_id=1), "OFPGMFC_BAD_BUCKET"),
        (group(3, *[ONE] * 5), "OFPGMFC_OUT_OF_BUCKETS"),
        (group(3, (Group(3),)), "OFPGMFC_LOOP"),
        (group(3, (Clone((Group(3),)),)), "OFPGMFC_LOOP"),
        (group(3, (Output(0xFF00),)), "OFPBAC_BAD_OUT_PORT"),
        (group(0xFFFF_FF05, command=GroupCommand.MODIFY), "OFPGMFC_UNKNOWN_GROUP"),
        (group(3, (Meter(1),)), "OFPBAC_BAD_TYPE"),
        (group(3, (GotoTable(1),)), "OFPBAC_BAD_TYPE"),
        (group(3, selection=Selection(method="hash")), "OFPBPC_BAD_VALUE"),
        (group(3, type=SELECT, selection=Selection(method="luck")), "OFPBPC_BAD_VALUE"),
        (group(1, ONE, command=INSERT), "OFPGMFC_BAD_BUCKET"),
        (group(1, ONE, command=INSERT, command_bucket_id=9), "OFPGMFC_UNKNOWN_BUCKET"),
        (group(1, ONE, command=INSERT, command_bucket_id=0), "OFPGMFC_BUCKET_EXISTS"),
        (group(1, command=REMOVE, command_bucket_id=9), "OFPGMFC_UNKNOWN_BUCKET"),
        (group(1, ONE, command=REMOVE, command_bucket_id=1), "OFPGMFC_BAD_BUCKET"),
        (
            group(2, command=INSERT, command_bucket_id=BUCKET_LAST, buckets=numbered(5)),
            "OFPGMFC_INVALID_GROUP",
        ),
        (group(2, command=REMOVE), "OFPGMFC_INVALID_GROUP"),
    ],
)
def test_what_cannot_be_is_refused(message: GroupMod, error: str) -> None:
    assert refused(made(), message) == error


def test_a_bucket_that_the_data_plane_cannot_do_is_refused_before_any_frame_goes_to_it() -> None:
    """Of a failover group also the one behind, of a select group also one without weight."""
    behind = replace(WATCHING, actions=(SetField("nd_target", 1, 1), Output(2)))
    for kind in FF, SELECT:
        message = group(3, type=kind, buckets=(WATCHING, behind))
        assert refused(made(), message) == "OFPBAC_BAD_SET_ARGUMENT"
    made().change(group(3, type=FF, buckets=(WATCHING, WATCHING)), 0)


def test_buckets_do_nothing_where_a_group_is_deleted() -> None:
    """1.5 may say them, and Open vSwitch accepts those that fit the type; even two of INDIRECT."""
    tables = made()
    tables.change(group(1, ONE, command=DELETE), 0)
    tables.change(group(2, ONE, (Group(77),), command=DELETE, type=INDIRECT), 0)
    assert not tables.groups


def test_groups_have_a_limit() -> None:
    tables = made()
    tables.change(group(3), 0)
    assert refused(tables, group(4)) == "OFPGMFC_OUT_OF_GROUPS"
    tables.change(group(3, ONE, command=GroupCommand.ADD_OR_MODIFY), 0)


def test_a_chain_that_comes_back_is_refused_whichever_link_is_last() -> None:
    tables = Tables()
    tables.change(group(1, (Group(2),)), 0)  # which is not there yet
    tables.change(group(2, (Group(3),), (Group(4),)), 0)
    assert refused(tables, group(3, (Group(1),))) == "OFPGMFC_LOOP"
    watching = group(4, type=FF, buckets=(Bucket(weight=0, watch_group=2),))
    assert refused(tables, watching) == "OFPGMFC_LOOP"
    tables.change(group(3, (Group(4),)), 0)
    assert refused(tables, group(4, (Group(3),))) == "OFPGMFC_LOOP"


def test_buckets_come_and_go_by_their_numbers() -> None:
    tables = made()

    def change(command: GroupCommand, where: int, *numbers: int) -> list[int | None]:
        said: dict[str, Any] = {"command": command, "command_bucket_id": where}
        tables.change(group(1, buckets=numbered(*numbers), **said), 0)
        return ids(tables, 1)

    assert change(INSERT, BUCKET_FIRST, 7) == [7, 0, 1]
    assert change(REMOVE, BUCKET_LAST) == [7, 0]
    assert change(INSERT, 7, 8, 9) == [7, 8, 9, 0]
    assert change(REMOVE, 8) == [7, 9, 0]
    assert change(REMOVE, BUCKET_FIRST) == [9, 0]
    assert change(INSERT, BUCKET_LAST, 4) == [9, 0, 4]
    assert change(REMOVE, BUCKET_ALL) == []
    assert change(REMOVE, BUCKET_FIRST) == []


def test_a_group_takes_its_flows_along() -> None:
    tables = made()
    told = FlowFlags.SEND_FLOW_REM
    tables.change(mod(match=port(1), actions=(Group(1),), flags=told), 0)
    tables.change(mod(match=port(2), actions=(Clone((Group(1),)),)), 0)
    tables.change(mod(match=port(3), actions=(Group(2),)), 0)
    assert tables.users(1) == 2
    change = tables.change(group(1, command=GroupCommand.DELETE), 0)
    assert [(r.match, r.reason) for r in change.removed] == [(port(1), RemovedReason.GROUP_DELETE)]
    assert [c.before and c.before.id for c in change.delta.groups] == [1]
    assert sorted(change.delta.gone) == [1, 2]
    assert [flow.match for flow in tables.flows.values()] == [port(3)]
    tables.undo(change)
    assert (tables.users(1), len(tables.flows)) == (2, 3)
    tables.change(group(ALL_GROUPS, command=GroupCommand.DELETE), 0)
    assert not tables.flows and not tables.groups
    assert not tables.change(group(1, command=GroupCommand.DELETE), 0).steps


def test_a_group_that_changed_tells_the_data_plane_what_it_was_and_is() -> None:
    tables = made()
    change = tables.change_all(
        [group(1, command=GroupCommand.MODIFY), group(1, TWO, command=GroupCommand.MODIFY)], 9
    )
    ((before, after),) = change.delta.groups
    assert before and after and len(before.desc.buckets) == 2
    assert after.desc.buckets == (Bucket(actions=TWO, bucket_id=0, weight=0),)
    assert after.created == 5


def test_groups_are_told_with_what_their_buckets_counted() -> None:
    tables = made()
    tables.change(mod(actions=(Group(1),)), 0)
    assert len(list(group_descs(tables, GroupDescRequest()).entries)) == 2
    assert not list(group_descs(tables, GroupDescRequest(9)).entries)
    tables.change(group(3, ONE, TWO, type=SELECT), 0)

    def told(number: int) -> GroupStats:
        reply = group_stats(
            tables, GroupStatsRequest(number), lambda g, b: (g + b, 100 * b), 7_900_000
        )
        (stats,) = reply.entries
        return stats

    stats = told(1)
    assert (stats.ref_count, stats.duration_ns) == (1, 7_000_000)
    assert stats.buckets == ((1, 0), (2, 100))
    assert (stats.packets, stats.bytes) == (2, 100)  # of what came to all buckets
    stats = told(3)
    assert stats.buckets == ((3, 0), (4, 100))
    assert (stats.packets, stats.bytes) == (7, 100)  # of what came to one or the other
