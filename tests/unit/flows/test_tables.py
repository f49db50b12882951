# SPDX-License-Identifier: Apache-2.0
"""Flow mods, what packets see of them, and time; beside Open vSwitch: test_flow_model."""

import time
from dataclasses import replace

import pytest
from tests.unit.flows.mods import (
    DELETE,
    DELETE_STRICT,
    MODIFY,
    MODIFY_STRICT,
    ONE,
    TWO,
    Counted,
    dump,
    group,
    ip,
    mod,
    port,
    refused,
    rules,
)

from heliograph.flows.flow import SECOND, Limits, NoCounters, Usage
from heliograph.flows.tables import FailedAt, Tables
from heliograph.openflow.actions import (
    ALL_TABLES,
    Clone,
    Controller,
    GotoTable,
    Group,
    Output,
    Port,
    WriteActions,
)
from heliograph.openflow.flows import FlowFlags, FlowMod, FlowRemoved, GroupMod, RemovedReason
from heliograph.openflow.match import ANYTHING


def test_only_the_highest_of_equal_matches_is_hit_and_the_next_takes_its_place() -> None:
    tables = Tables()
    low = tables.change(mod(match=port(1), priority=1), 0)
    high = tables.change(mod(match=port(1), priority=9, actions=TWO), 0)
    middle = tables.change(mod(match=port(1), priority=5), 0)
    other_table = tables.change(mod(match=port(1), table_id=1), 0)
    assert [rules(c) for c in (low, high, middle, other_table)] == [
        [(None, 1)],
        [(1, 2)],
        [],
        [(None, 4)],
    ]
    gone = tables.change(mod(DELETE_STRICT, match=port(1), priority=9), 0)
    assert (rules(gone), gone.delta.gone) == ([(2, 3)], (2,))
    rest = tables.change(mod(DELETE, table_id=ALL_TABLES), 0)
    assert (rules(rest), rest.delta.gone) == ([(3, None), (4, None)], (3, 1, 4))
    assert not tables.flows and all(t.masks == t.flows == 0 for t in tables.tables)


def test_a_flow_keeps_its_id_unless_counters_begin_anew() -> None:
    tables = Tables()
    tables.change(mod(match=port(1)), 0)
    again = tables.change(mod(match=port(1), actions=TWO), 0)
    assert (rules(again), again.delta.gone) == ([(1, 1)], ())
    reset = tables.change(mod(match=port(1), flags=FlowFlags.RESET_COUNTS), 0)
    assert (rules(reset), reset.delta.gone) == ([(1, 2)], (1,))
    modified = tables.change(mod(MODIFY, flags=FlowFlags.RESET_COUNTS), 0)
    assert (rules(modified), modified.delta.gone) == ([(2, 3)], (2,))
    assert rules(tables.change(mod(MODIFY, actions=TWO), 0)) == [(3, 3)]


def test_an_overlap_is_refused_where_it_is_asked_for() -> None:
    tables = Tables()
    tables.change(mod(match=ip(0x0A000000, 8), priority=5), 0)
    check = FlowFlags.CHECK_OVERLAP
    for match in (ip(0x0A000001), ip(0x0A000000, 24), port(1), ANYTHING):
        assert refused(tables, mod(match=match, priority=5, flags=check)) == "OFPFMFC_OVERLAP"
    tables.change(mod(match=ip(0x0B000000, 8), priority=5, flags=check), 0)
    tables.change(mod(match=ip(0x0A000001), priority=6, flags=check), 0)
    tables.change(mod(match=ip(0x0A000001), table_id=2, priority=5, flags=check), 0)
    # An equal flow is replaced instead.
    tables.change(mod(match=ip(0x0A000000, 8), priority=5, flags=check, actions=TWO), 0)
    assert len(tables.flows) == 4


def test_cookies_choose_and_are_kept() -> None:
    tables = Tables()
    tables.change(mod(match=port(1), cookie=0x11), 0)
    tables.change(mod(match=port(2), cookie=0x21), 0)
    tables.change(mod(MODIFY, cookie_value=0x10, cookie_mask=0xF0, actions=TWO), 0)
    assert {f.cookie: f.actions for f in dump(tables)} == {0x11: TWO, 0x21: ONE}
    tables.change(mod(match=port(1), cookie=2**64 - 1), 0)  # "leave it", where there is one
    tables.change(mod(match=port(3), cookie=None), 0, 1)
    assert [f.cookie for f in dump(tables)] == [0x11, 0x21, 2**64 - 1]
    tables.change(mod(MODIFY, match=port(2), cookie=7), 0, 1)
    tables.change(mod(DELETE, cookie_value=1, cookie_mask=1, match=port(1)), 0)
    assert [f.cookie for f in dump(tables)] == [7, 2**64 - 1]
    assert [f.cookie for f in dump(tables, cookie_value=7, cookie_mask=0xFF)] == [7]


def test_modify_keeps_all_but_actions_and_adds_where_the_version_says_so() -> None:
    tables = Tables()
    first = mod(idle_timeout=5, hard_timeout=6, importance=7, flags=FlowFlags.SEND_FLOW_REM)
    tables.change(first, 10)
    tables.change(mod(MODIFY_STRICT, idle_timeout=50, actions=TWO), 20)
    (flow,) = tables.flows.values()
    assert (flow.idle_timeout, flow.hard_timeout, flow.importance) == (5, 6, 7)
    assert (flow.flags, flow.actions) == (FlowFlags.SEND_FLOW_REM, TWO)
    assert (flow.created, flow.modified, flow.used) == (10, 20, 10)
    none = mod(MODIFY_STRICT, priority=3)
    assert not tables.change(none, 0).steps
    assert not tables.change(replace(none, cookie=4, cookie_value=1, cookie_mask=1), 0, 1).steps
    tables.change(replace(none, cookie=4), 0, 1)
    assert sorted((f.priority, f.cookie) for f in tables.flows.values()) == [(3, 4), (0x8000, 0)]


def test_delete_chooses_by_output_and_modify_does_not() -> None:
    tables = Tables()
    tables.change(group(4, ONE), 0)
    lists = [ONE, TWO, (Clone(ONE),), (Output(1, 64),), (Controller(),), (Group(4),)]
    for n, actions in enumerate(lists):
        tables.change(mod(match=port(n + 1), actions=actions), 0)

    def ports(**asked: int) -> list[int]:
        return [f.match.fields[0][1] for f in dump(tables, **asked)]

    assert ports(out_port=1) == [1, 3]
    assert ports(out_port=Port.CONTROLLER) == [5]
    assert ports(out_group=4) == [6]
    tables.change(mod(DELETE, out_port=1), 0)
    assert ports() == [2, 4, 5, 6]
    tables.change(mod(MODIFY, out_port=99, actions=TWO), 0)
    assert {f.actions for f in dump(tables)} == {TWO}


@pytest.mark.parametrize(
    ("message", "version", "error"),
    [
        (mod(table_id=64), 6, "OFPBRC_BAD_TABLE_ID"),
        (mod(DELETE, table_id=64), 6, "OFPBRC_BAD_TABLE_ID"),
        (mod(table_id=ALL_TABLES), 4, "OFPFMFC_BAD_TABLE_ID"),
        (mod(MODIFY, table_id=ALL_TABLES), 4, "OFPFMFC_BAD_TABLE_ID"),
        (mod(actions=(Group(8),)), 6, "OFPBAC_BAD_OUT_GROUP"),
        (mod(actions=(Clone((Group(8),)),)), 6, "OFPBAC_BAD_OUT_GROUP"),
        (mod(DELETE, actions=(GotoTable(64),)), 6, "OFPBIC_BAD_TABLE_ID"),
    ],
)
def test_what_cannot_be_is_refused(message: FlowMod, version: int, error: str) -> None:
    assert refused(Tables(), message, version) == error


def test_in_1_0_the_switch_chooses_the_table() -> None:
    tables = Tables()
    tables.change(mod(table_id=ALL_TABLES), 0, 1)
    assert [f.table_id for f in tables.flows.values()] == [0]


def test_flows_and_masks_have_limits_that_equal_flows_and_known_masks_do_not_meet() -> None:
    tables = Tables(limits=Limits(flows=4, masks=2))
    tables.change(mod(match=ip(1)), 0)
    tables.change(mod(match=ip(0, 8)), 0)
    assert refused(tables, mod(match=ip(0, 9))) == "OFPFMFC_TABLE_FULL"
    tables.change(mod(match=ip(0, 9), table_id=1), 0)
    tables.change(mod(match=ip(2)), 0)
    assert refused(tables, mod(match=ip(3))) == "OFPFMFC_TABLE_FULL"
    tables.change(mod(match=ip(2), actions=TWO), 0)
    tables.change(mod(DELETE, match=ip(0, 8)), 0)
    tables.change(mod(match=ip(0, 9)), 0)


def test_timeouts_say_why_and_carry_what_was_counted() -> None:
    counted = Counted()
    tables = Tables(counted)
    told = FlowFlags.SEND_FLOW_REM
    tables.change(mod(match=port(1), idle_timeout=10, flags=told, cookie=5), 0)
    tables.change(mod(match=port(2), hard_timeout=10, flags=told), 0)
    tables.change(mod(match=port(3), hard_timeout=10, idle_timeout=3), 0)
    tables.change(mod(MODIFY_STRICT, match=port(2)), 5 * SECOND)  # begins the hard timeout anew
    counted.of[1] = Usage(7, 700, 4 * SECOND)
    quiet = tables.expire(4 * SECOND)
    assert (len(quiet.steps), quiet.removed) == (1, ())
    assert not tables.expire(14 * SECOND).steps
    idle = tables.expire(14 * SECOND + 1)
    assert idle.removed == (
        FlowRemoved(
            match=port(1),
            reason=RemovedReason.IDLE_TIMEOUT,
            cookie=5,
            duration_ns=14 * SECOND + 1,
            idle_timeout=10,
            packets=7,
            bytes=700,
        ),
    )
    assert idle.delta.gone == (1,)
    hard = tables.expire(15 * SECOND + 1)
    assert [(r.match, r.reason) for r in hard.removed] == [(port(2), RemovedReason.HARD_TIMEOUT)]


def test_when_packets_last_matched_outlives_the_counters() -> None:
    counted = Counted()
    tables = Tables(counted)
    tables.change(mod(idle_timeout=10), 0)
    counted.of[1] = Usage(1, 60, 8 * SECOND)
    tables.change(mod(idle_timeout=10, flags=FlowFlags.RESET_COUNTS), 9 * SECOND)
    assert not tables.expire(18 * SECOND).steps
    assert tables.expire(18 * SECOND + 1).steps


def test_of_several_messages_all_are_done_or_none() -> None:
    tables = Tables()
    tables.change(group(1, ONE), 0)
    tables.change(mod(match=port(1), actions=(Group(1),), idle_timeout=9), 0)
    before = dict(tables.flows), dict(tables.groups)
    messages: list[FlowMod | GroupMod] = [
        mod(match=port(2)),
        mod(MODIFY, actions=TWO, flags=FlowFlags.RESET_COUNTS),
        mod(DELETE, match=port(2)),
        group(2, ONE),
        mod(match=port(1), priority=0xFFFF),
    ]
    with pytest.raises(FailedAt) as failed:
        tables.change_all([*messages, mod(table_id=99)], 0)
    assert failed.value.position == 5
    assert (tables.flows, tables.groups) == before
    assert (tables.users(1), tables.tables[0].flows, tables.tables[0].masks) == (1, 1, 1)
    assert tables.tables[0].winner(port(1)) is before[0][1]
    change = tables.change_all(messages, 0)
    # What came and went within is nobody's business.
    assert [(r.after.match, r.after.priority) for r in change.delta.rules if r.after] == [
        (port(1), 0xFFFF)
    ]
    tables.undo(change)
    assert (tables.flows, tables.groups) == before
    assert tables.expire(10 * SECOND).delta.gone == (1,)


def test_changes_take_no_longer_where_many_flows_are() -> None:
    """A fifth of what is asked for: 10,000 changes in 1 s, 100,000 flows deleted in 2 s."""
    tables = Tables()
    mods = [mod(match=ip(n), priority=n & 7) for n in range(20_000)]
    tables.change_all(mods[:18_000], 0)
    start = time.process_time()
    for one in mods[18_000:]:
        tables.change(one, 0)
    added = time.process_time()
    change = tables.change(mod(DELETE, table_id=ALL_TABLES), 0)
    end = time.process_time()
    assert len(change.delta.gone) == len(change.delta.rules) == 20_000
    # Many times that, for a busy machine; what looks at all flows each time takes a minute.
    assert added - start < 1
    assert end - added < 4


def test_what_the_data_plane_cannot_carry_out_is_refused_though_another_flow_hides_it() -> None:
    tables = Tables()
    tables.change(mod(match=port(1), priority=9), 0)
    unable = (WriteActions(ONE),)
    assert refused(tables, mod(match=port(1), priority=5, actions=unable)) == "OFPBIC_UNSUP_INST"
    assert refused(tables, mod(MODIFY, actions=unable)) == "OFPBIC_UNSUP_INST"
    tables.change(mod(DELETE, actions=unable), 0)
    assert not tables.flows


def test_only_flows_whose_time_may_be_over_are_looked_at() -> None:
    """Thousands that are in use cost nothing each second, nor does what is modified often."""
    asked: list[int] = []

    class Busy(NoCounters):
        def usage(self, flow_id: int) -> Usage:
            asked.append(flow_id)
            return Usage(1, 1, now)

    tables = Tables(Busy())
    now = 0
    for n in range(20):
        tables.change(mod(match=port(n), idle_timeout=10, hard_timeout=1000 + n), 0)
    for second in range(1, 101):
        now = second * SECOND
        assert not tables.expire(now).steps
    assert len(asked) <= 20 * 10
    for _ in range(5000):
        tables.change(mod(MODIFY, match=port(3)), now)
    asked.clear()
    now = 1010 * SECOND
    gone = tables.expire(now).delta.gone
    assert sorted(gone) == [1, 2, 3, *range(5, 11)]  # the fourth was modified
    assert len(asked) <= 2 * 20


def test_a_change_that_is_undone_leaves_the_times_as_they_were() -> None:
    tables = Tables()
    tables.change(mod(hard_timeout=5), 0)
    tables.undo(tables.change(mod(hard_timeout=50), SECOND))
    tables.undo(tables.change(mod(DELETE), SECOND))
    assert not tables.expire(5 * SECOND).steps
    assert tables.expire(6 * SECOND).delta.gone == (1,)
