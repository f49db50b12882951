# SPDX-License-Identifier: Apache-2.0
"""No packet is lost from the counters, whatever becomes of a flow, its rule and its store."""

import struct

import pytest
from tests.oracle.flow_store import cell, look_up, version_of
from tests.unit.flows.mods import DELETE, DELETE_STRICT, MODIFY, ONE, TWO, group, mod, port
from tests.unit.kernel.flow_stores import Bench

from heliograph.flows.flow import SECOND, Usage
from heliograph.flows.tables import Tables
from heliograph.kernel import layouts
from heliograph.kernel.layouts import KeyWord, Limits, OpCode
from heliograph.openflow.actions import Group, Output
from heliograph.openflow.flows import Bucket, FlowFlags, GroupCommand, GroupType
from heliograph.openflow.match import Match

_COUNTS = struct.Struct("=IQQ")
_TICK = 1 << Limits.TICK_SHIFT


def rule_of(bench: Bench, in_port: int, version: int | None = None) -> int:
    """The cell that frames from a port find."""
    key = [in_port << 32, *[0] * 31]
    found = look_up(bench.data, 0, key, version or version_of(bench.data))
    assert found is not None
    return found[0]


def count(bench: Bench, number: int, packets: int, octets: int, tick: int) -> None:
    """As the program does it."""
    at = number * 128 + 20
    _, before, long = _COUNTS.unpack_from(bench.data, at)
    _COUNTS.pack_into(bench.data, at, tick, before + packets, long + octets)


def meet(bench: Bench, in_port: int, packets: int = 1, tick: int = 1) -> None:
    count(bench, rule_of(bench, in_port), packets, 100 * packets, tick)


def usage(bench: Bench, flow_id: int = 1) -> tuple[int, int]:
    packets, octets, _ = bench.store.usage(flow_id)
    assert octets == 100 * packets
    return packets, bench.store.usage(flow_id).last_used // _TICK


def test_a_flow_without_packets_was_never_used() -> None:
    bench = Bench()
    bench.change(mod(match=port(1)))
    assert bench.store.usage(1) == bench.store.usage(77) == Usage(0, 0, 0)
    meet(bench, 1, tick=9)
    assert bench.store.usage(1) == Usage(1, 100, 9 * _TICK)


def test_counters_go_on_when_actions_change_also_those_of_frames_on_their_way() -> None:
    bench = Bench()
    bench.change(mod(match=port(1)))
    meet(bench, 1, 3, tick=5)
    old = rule_of(bench, 1)
    bench.change(mod(MODIFY, match=port(1), actions=TWO))
    assert usage(bench) == (3, 5)
    count(bench, old, 2, 200, 6)
    meet(bench, 1, 1, tick=7)
    assert usage(bench) == (6, 7)
    bench.now += SECOND
    bench.store.tidy()
    assert bench.store.rule_at(old) is None
    bench.wait()
    assert usage(bench) == (6, 7)


def test_where_actions_stay_the_rule_stays() -> None:
    bench = Bench()
    bench.change(mod(match=port(1)))
    cell_before, version = rule_of(bench, 1), version_of(bench.data)
    bench.change(mod(match=port(1), cookie=9))
    assert (rule_of(bench, 1), version_of(bench.data)) == (cell_before, version)


def test_counters_begin_anew_with_a_new_id() -> None:
    bench = Bench()
    bench.change(mod(match=port(1)))
    meet(bench, 1, 3)
    bench.change(mod(match=port(1), flags=FlowFlags.RESET_COUNTS))
    meet(bench, 1, 1)
    assert (usage(bench, 1)[0], usage(bench, 2)[0]) == (0, 1)
    bench.wait()
    assert (usage(bench, 1)[0], usage(bench, 2)[0]) == (0, 1)


def test_a_hidden_flow_keeps_its_counters_and_goes_on_with_them() -> None:
    bench = Bench()
    bench.change(mod(match=port(1), priority=1))
    meet(bench, 1, 3)
    bench.change(mod(match=port(1), priority=9, actions=TWO))
    meet(bench, 1, 10)
    bench.wait()
    assert (usage(bench, 1)[0], usage(bench, 2)[0]) == (3, 10)
    bench.change(mod(DELETE_STRICT, match=port(1), priority=9))
    meet(bench, 1, 1)
    assert (usage(bench, 1)[0], usage(bench, 2)[0]) == (4, 0)
    bench.change(mod(DELETE, match=port(1)))
    bench.wait()
    assert usage(bench, 1)[0] == 0


def test_what_was_counted_while_the_store_moved_is_added() -> None:
    """Frames count in the old memory until they find the new."""
    bench = Bench()
    bench.change(mod(match=port(1)))
    meet(bench, 1, 3)
    bench.change(mod(MODIFY, match=port(1), actions=TWO))
    bench.change(mod(match=port(2), priority=1), mod(match=port(2), priority=2))
    size = bench.backing.size
    moved = 0

    def frames_in_the_old() -> None:
        nonlocal moved
        moved += 1
        meet(bench, 1, 5, tick=8)
        bench.data[128 + 16] += 4  # misses of table 0

    bench.backing.on_use = frames_in_the_old
    n = 0
    while bench.backing.size == size:
        n += 1
        bench.change(mod(match=Match.of({"reg0": (n, 0xFFFF_FFFF)}), table_id=1))
    assert moved == 1
    assert usage(bench) == (8, 8)
    assert bench.store.misses(0) == 4
    meet(bench, 1, 1, tick=9)
    bench.wait()
    assert usage(bench) == (9, 9)


def test_counters_go_on_in_the_next_process() -> None:
    """Live, hidden and modified flows; and what is counted until the new store is found."""
    bench = Bench()
    bench.change(mod(match=port(1)), mod(match=port(2)), mod(match=port(3), priority=1))
    for number in (1, 2, 3):
        meet(bench, number, number)
    bench.change(mod(MODIFY, match=port(2), actions=TWO), mod(match=port(3), priority=2))
    bench.wait()
    meet(bench, 2, 10)
    meet(bench, 3, 20)
    bench.backing.on_use = lambda: meet(bench, 1, 100)
    bench.start(bench.tables)
    assert [usage(bench, n)[0] for n in (1, 2, 3, 4)] == [101, 12, 3, 20]
    bench.backing.on_use = lambda: None
    bench.change(mod(DELETE, match=port(2)))
    bench.start(bench.tables)
    meet(bench, 1, 1)
    assert [usage(bench, n)[0] for n in (1, 2, 3, 4)] == [102, 0, 3, 20]


def test_a_flow_that_is_new_has_nothing_of_one_that_had_its_id() -> None:
    """The tables begin anew, the data plane does not: its journal was damaged."""
    bench = Bench()
    bench.change(mod(match=port(1)), group(1, ONE))
    meet(bench, 1, 3)
    hit(bench, bucket_op(bench), 3)
    other = Tables()
    bench.now += 1
    other.change(mod(match=port(2)), bench.now)
    other.change(group(1, ONE), bench.now)
    bench.start(other)
    assert (usage(bench)[0], bench.store.bucket_usage(1, 0)) == (0, (0, 0))


def test_an_undone_change_leaves_counters_as_they_were() -> None:
    bench = Bench(limit=1024)
    bench.change(mod(match=port(1)))
    meet(bench, 1, 3)
    more = [mod(match=Match.of({"reg0": (n, 0xFFFF_FFFF)})) for n in range(1, 900)]
    with pytest.raises(Exception, match="OFPFMFC_TABLE_FULL"):
        bench.change(mod(MODIFY, match=port(1), actions=TWO), *more)
    meet(bench, 1, 2)
    assert usage(bench)[0] == 5
    bench.change(mod(match=port(7)))
    for version in (version_of(bench.data), version_of(bench.data) + 1):
        key = [0] * 32
        key[KeyWord.KEY_REGISTERS] = 5 << 32
        assert look_up(bench.data, 0, key, version) is None
    bench.wait()
    bench.change(*more[:400])
    assert usage(bench)[0] == 5
    assert len(bench.store._rules) == 402


def test_more_changes_of_one_flow_than_a_bucket_has_places() -> None:
    """Rules that are over are waited for, and then their places are free."""
    bench = Bench()
    size = bench.backing.size
    bench.change(mod(match=port(1)))
    for n in range(100):
        meet(bench, 1)
        bench.change(mod(MODIFY, match=port(1), actions=(Output(n + 2),)))
    assert usage(bench)[0] == 100
    assert bench.backing.size == size
    assert 5 <= bench.backing.graces <= 20


# Groups


def bucket_op(bench: Bench) -> int:
    """The number of the first op that frames find of group 1; it counts."""
    found = layouts.StoreGroup.unpack(cell(bench.data, bench.store._lists.groups[1].number))
    return found.ops[found.newest]


def hit(bench: Bench, op: int, packets: int) -> None:
    found = layouts.Op.unpack(bytes(bench.data[op * 32 : op * 32 + 32]))
    assert found.code == OpCode.OP_CLONE
    after = found._replace(value=found.value + packets, mask=found.mask + 100 * packets)
    bench.data[op * 32 : op * 32 + 32] = after.pack()


def test_buckets_count_on_while_others_are_live() -> None:
    bench = Bench(live={1})
    buckets = tuple(
        Bucket(actions=(Output(n),), weight=0, bucket_id=n, watch_port=n) for n in (1, 2)
    )
    bench.change(group(1, type=GroupType.FAST_FAILOVER, buckets=buckets))
    first = bucket_op(bench)
    hit(bench, first, 3)
    bench.live = {2}
    bench.store.ports_changed()
    hit(bench, first, 1)
    second = bucket_op(bench)
    hit(bench, second, 7)
    assert [bench.store.bucket_usage(1, n) for n in (1, 2)] == [(4, 400), (7, 700)]
    bench.wait()
    bench.live = {1}
    bench.store.ports_changed()
    assert [bench.store.bucket_usage(1, n) for n in (1, 2)] == [(4, 400), (7, 700)]
    bench.change(group(1, ONE, command=GroupCommand.MODIFY))
    bench.wait()
    assert bench.store.bucket_usage(1, 1) == (0, 0)


def test_buckets_count_what_was_counted_while_the_store_moved() -> None:
    bench = Bench()
    bench.change(group(1, ONE), mod(match=port(1), actions=(Group(1),)))
    op = bucket_op(bench)
    bench.backing.on_use = lambda: hit(bench, op, 5)
    size, n = bench.backing.size, 0
    while bench.backing.size == size:
        n += 1
        bench.change(mod(match=Match.of({"reg0": (n, 0xFFFF_FFFF)}), table_id=1))
    assert bench.store.bucket_usage(1, 0) == (5, 500)


def test_buckets_count_on_in_the_next_process() -> None:
    """What is counted now, by a form before, in an earlier process, and while stores change."""
    bench = Bench(live={1})
    buckets = tuple(
        Bucket(actions=(Output(n),), weight=0, bucket_id=n, watch_port=n) for n in (1, 2)
    )
    bench.change(group(1, type=GroupType.FAST_FAILOVER, buckets=buckets), group(2, ONE))
    hit(bench, bucket_op(bench), 3)
    bench.live = {2}
    bench.store.ports_changed()
    second = bucket_op(bench)
    hit(bench, second, 7)
    bench.now += 1
    bench.backing.on_use = lambda: hit(bench, second, 100)
    bench.start(bench.tables)
    wanted = [(3, 300), (107, 10700)]
    assert [bench.store.bucket_usage(1, n) for n in (1, 2)] == wanted
    bench.backing.on_use = lambda: None
    bench.wait()
    bench.start(bench.tables)
    assert [bench.store.bucket_usage(1, n) for n in (1, 2)] == wanted
    bench.change(group(1, ONE, command=GroupCommand.MODIFY))
    bench.wait()
    bench.start(bench.tables)
    assert [bench.store.bucket_usage(1, n) for n in (0, 1, 2)] == [(0, 0)] * 3
