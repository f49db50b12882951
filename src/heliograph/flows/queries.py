# SPDX-License-Identifier: Apache-2.0
"""Answers to requests for statistics: flows, sums of them, tables, groups."""

from collections.abc import Callable, Iterator

from heliograph.flows.flow import MILLISECOND, SECOND, Flow, GroupEntry
from heliograph.flows.tables import Tables
from heliograph.openflow.actions import ALL_GROUPS
from heliograph.openflow.flows import (
    AggregateReply,
    AggregateRequest,
    FlowStats,
    FlowStatsReply,
    FlowStatsRequest,
    GroupDescReply,
    GroupDescRequest,
    GroupStats,
    GroupStatsReply,
    GroupStatsRequest,
    GroupType,
)
from heliograph.openflow.messages import TableStats, TableStatsReply

Lookups = Callable[[int], tuple[int, int]]  # of a table: lookups, and how many found a flow
BucketCounters = Callable[[int, int], tuple[int, int]]  # group, bucket: packets, bytes


def _age(created: int, now: int) -> int:
    """In whole milliseconds, as Open vSwitch tells it: more digits would say nothing."""
    return (now - created) // MILLISECOND * MILLISECOND


def flow_stats(tables: Tables, request: FlowStatsRequest, now: int) -> FlowStatsReply:
    """Table by table; entries are made one after the other while the reply is sent."""
    found = list(tables.selected(request))
    return FlowStatsReply((_stats(tables, flow, now) for flow in found), request.nicira)


def _stats(tables: Tables, flow: Flow, now: int) -> FlowStats:
    usage = tables.counters.usage(flow.id)
    return FlowStats(
        match=flow.match,
        actions=flow.actions,
        table_id=flow.table_id,
        priority=flow.priority,
        cookie=flow.cookie,
        duration_ns=_age(flow.created, now),
        idle_timeout=flow.idle_timeout,
        hard_timeout=flow.hard_timeout,
        idle_age=max(0, now - flow.last_used(usage)) // SECOND,
        hard_age=max(0, now - flow.modified) // SECOND,
        importance=flow.importance,
        flags=flow.flags,
        packets=usage.packets,
        bytes=usage.bytes,
    )


def aggregate(tables: Tables, request: AggregateRequest) -> AggregateReply:
    packets = octets = flows = 0
    for flow in tables.selected(request):
        usage = tables.counters.usage(flow.id)
        packets += usage.packets
        octets += usage.bytes
        flows += 1
    return AggregateReply(packets, octets, flows, request.nicira)


def table_stats(tables: Tables, lookups: Lookups) -> TableStatsReply:
    def entries() -> Iterator[TableStats]:
        for table_id, table in enumerate(tables.tables):
            asked, matched = lookups(table_id)
            yield TableStats(
                table_id=table_id,
                active=table.flows,
                lookups=asked,
                matched=matched,
                max_entries=tables.limits.flows,
            )

    return TableStatsReply(entries())


def _chosen(tables: Tables, group_id: int) -> list[GroupEntry]:
    """All, or one; none for one that is not there, as in Open vSwitch."""
    if group_id == ALL_GROUPS:
        return list(tables.groups.values())
    entry = tables.groups.get(group_id)
    return [entry] if entry else []


def group_descs(tables: Tables, request: GroupDescRequest) -> GroupDescReply:
    return GroupDescReply(tuple(entry.desc for entry in _chosen(tables, request.group_id)))


def group_stats(
    tables: Tables, request: GroupStatsRequest, counters: BucketCounters, now: int
) -> GroupStatsReply:
    """Of a packet that comes to a group of type "all" each bucket has a copy, so any counts all."""

    def entries() -> Iterator[GroupStats]:
        for entry in _chosen(tables, request.group_id):
            buckets = tuple(counters(entry.id, b.bucket_id or 0) for b in entry.desc.buckets)
            total = max if entry.desc.type == GroupType.ALL else sum
            yield GroupStats(
                group_id=entry.id,
                ref_count=tables.users(entry.id),
                packets=total([packets for packets, _bytes in buckets] or [0]),
                bytes=total([octets for _packets, octets in buckets] or [0]),
                duration_ns=_age(entry.created, now),
                buckets=buckets,
            )

    return GroupStatsReply(entries())
