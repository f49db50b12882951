# SPDX-License-Identifier: Apache-2.0
"""Groups in a store, and what frames for controllers name."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.oracle.flow_store import group_ops, look_up, ops_of, version_of
from tests.unit.flows.mods import DELETE, ONE, TWO, group, mod, port
from tests.unit.kernel.flow_stores import Bench

from heliograph.flows.change import GroupChange
from heliograph.flows.flow import GroupEntry
from heliograph.kernel.layouts import OpCode
from heliograph.openflow import actions as a
from heliograph.openflow.actions import Group, Output
from heliograph.openflow.errors import OpenFlowError
from heliograph.openflow.flows import Bucket, GroupCommand, GroupDesc, GroupMod, GroupType
from heliograph.openflow.match import Match
from heliograph.openflow.messages import Version

MODIFY, DELETE_GROUP = GroupCommand.MODIFY, GroupCommand.DELETE


def outputs(bench: Bench, version: int | None = None, in_port: int = 1) -> list[int] | None:
    """The ports that frames from a port are sent to, through groups; None: no flow."""
    version = version or version_of(bench.data)
    found = look_up(bench.data, 0, [in_port << 32, *[0] * 31], version)
    if found is None:
        return None
    return list(_outputs(bench, ops_of(bench.data, found[1].ops, found[1].count), version))


def _outputs(bench: Bench, ops: Sequence[object], version: int) -> Sequence[int]:
    sent: list[int] = []
    for op in ops:
        code, number = op[0], op[8]  # type: ignore[index]
        if code == OpCode.OP_OUTPUT:
            sent.append(number)
        elif code == OpCode.OP_GROUP:
            sent += _outputs(bench, group_ops(bench.data, number, version), version)
    return sent


def steps(bench: Bench, *mods: GroupMod) -> tuple[list[int] | None, list[int] | None]:
    """What frames of the version before find after every store, and those of the version after."""
    number, before = version_of(bench.data), outputs(bench)
    after: list[list[int] | None] = []

    def look() -> None:
        assert outputs(bench, number) == before
        if version_of(bench.data) != number:
            after.append(outputs(bench, number + 1))

    bench.backing.look = look
    bench.change(*mods)
    bench.backing.look = lambda: None
    assert after and all(one == after[0] for one in after)
    return before, after[0]


def test_a_changed_group_is_met_whole_by_frames_of_either_version() -> None:
    bench = Bench()
    bench.change(group(1, ONE))
    bench.change(mod(match=port(1), actions=(Group(1), Output(9))))
    assert steps(bench, group(1, TWO, ONE, command=MODIFY)) == ([1, 9], [2, 1, 9])
    assert steps(bench, group(1, TWO, command=MODIFY)) == ([2, 1, 9], [2, 9])
    bench.wait()
    assert outputs(bench) == [2, 9]


def test_frames_are_waited_for_only_where_one_could_be_ten_changes_late() -> None:
    """Until then each finds what there was when it came."""
    bench = Bench()
    bench.change(group(1), mod(match=port(1), actions=(Group(1),)))
    graces, last = [bench.backing.graces], version_of(bench.data)
    found: dict[int, list[int] | None] = {}

    def look() -> None:
        if bench.backing.graces != graces[-1]:
            graces.append(bench.backing.graces)
            for version in found.keys() - {version_of(bench.data)}:
                del found[version]
        assert {version: outputs(bench, version) for version in found} == found

    for n in range(1, 40):
        found[version_of(bench.data)] = outputs(bench)
        bench.backing.look = look
        bench.now += 1
        bench.change(group(1, (Output(n),), command=MODIFY))
        bench.backing.look = lambda: None
        assert outputs(bench) == [n]
    assert version_of(bench.data) == last + 39
    assert len(graces) == 1 + 4
    bench.wait()
    bench.change(group(1, ONE, command=MODIFY))
    assert bench.backing.graces == graces[-1]


def test_groups_that_change_once_wait_for_no_frame() -> None:
    bench = Bench()
    graces = bench.backing.graces
    for n in range(1, 50):
        bench.change(group(n, ONE))
        bench.change(group(n, TWO, command=MODIFY))
        bench.change(group(n, command=DELETE_GROUP))
    assert bench.backing.graces == graces


def test_a_group_may_be_named_before_it_is_there_and_after_it_is_gone() -> None:
    bench = Bench()
    bench.change(group(1, (Group(2),)))
    bench.change(mod(match=port(1), actions=(Group(1),)))
    assert outputs(bench) == []
    assert steps(bench, group(2, TWO)) == ([], [2])
    bench.wait()
    assert steps(bench, group(2, command=DELETE_GROUP)) == ([2], [])
    bench.wait()
    bench.change(group(1, command=DELETE_GROUP))
    assert outputs(bench) is None
    bench.wait()
    used = bench.store._cells.used
    for n in range(3, 40):
        bench.change(group(n, ONE), mod(match=port(2), actions=(Group(n),)))
        bench.change(group(n, command=DELETE_GROUP))
        bench.wait()
    assert bench.store._cells.used == used


def test_groups_that_watch_groups_follow_them() -> None:
    bench = Bench(live={1})
    watching = tuple(
        Bucket(actions=(Output(n),), bucket_id=n, weight=0, watch_group=n) for n in (11, 12)
    )
    inner = [
        group(n, type=GroupType.FAST_FAILOVER, buckets=(Bucket(watch_port=p, weight=0),))
        for n, p in ((11, 1), (12, 2))
    ]
    bench.change(*inner, group(1, type=GroupType.FAST_FAILOVER, buckets=watching))
    bench.change(mod(match=port(1), actions=(Group(1),)))
    assert outputs(bench) == [11]
    bench.live = {2}
    bench.store.ports_changed()
    assert outputs(bench) == [12]
    version = version_of(bench.data)
    bench.store.ports_changed()
    assert version_of(bench.data) == version
    bench.change(group(12, command=DELETE_GROUP))
    assert outputs(bench) == []


def test_a_long_chain_of_groups_that_watch_is_no_work() -> None:
    """Each watches the one below by two buckets: followed one by one these were 2 to the 200."""
    bench, most = Bench(live={1}), 200
    bench.change(group(0, type=GroupType.FAST_FAILOVER, buckets=(Bucket(watch_port=1, weight=0),)))
    for n in range(1, most + 1):
        buckets = (Bucket(actions=(Output(n),), watch_group=n - 1, weight=0),) * 2
        bench.change(group(n, type=GroupType.FAST_FAILOVER, buckets=buckets))
    bench.change(mod(match=port(1), actions=(Group(most),)))
    assert outputs(bench) == [most]
    bench.live = set()
    bench.store.ports_changed()
    assert outputs(bench) == []


def test_a_group_that_cannot_be_done_leaves_all_as_it_was() -> None:
    bench = Bench()
    bench.change(group(1, ONE), mod(match=port(1), actions=(Group(1),)))
    bench.wait()
    used = bench.store._cells.used
    change = bench.tables.change_all((group(1, TWO, command=MODIFY), group(2, ONE)), bench.now)
    # No group mod is done with such a bucket, so none can be said.
    bad = Bucket(actions=(a.SetField("nd_target", 1, 1), Output(1)), weight=0)
    third = GroupChange(None, GroupEntry(GroupDesc(3, GroupType.ALL, (bad,)), bench.now))
    with pytest.raises(OpenFlowError):
        bench.store.apply(replace(change.delta, groups=(*change.delta.groups, third)))
    bench.tables.undo(change)
    assert outputs(bench) == [1]
    bench.wait()
    assert bench.store._cells.used == used


def test_ops_of_a_packet_out_are_shared_and_last_a_second() -> None:
    bench = Bench()
    bench.change(group(1, ONE))
    used = bench.store._cells.used
    actions = (Output(1), a.SetTtl(3), Group(1), a.Controller(77))
    first, count = bench.store.run_ops(actions)
    assert bench.store.run_ops(actions) == (first, count)
    found = ops_of(bench.data, first, count)
    assert _outputs(bench, found, version_of(bench.data)) == [1, 1]
    (told,) = bench.store.controllers_at(first + 3)
    assert (told.max_len, bench.store.controllers_at(first)) == (77, ())
    bench.now += 999_999_999
    bench.store.tidy()
    assert bench.store.controllers_at(first + 3)
    bench.now += 1
    bench.store.tidy()
    assert bench.store.controllers_at(first + 3) == ()
    assert bench.store._cells.used == used
    assert bench.store.run_ops(()) == (0, 0)


def test_what_a_flow_tells_controllers_is_forgotten_with_it() -> None:
    bench = Bench()
    match = port(1, eth_type=(0x800, 0xFFFF))
    bench.change(mod(match=match, actions=(Output(1), a.DecTtl((3, 4)))))
    key = [1 << 32 | 0x800 << 16, *[0] * 31]
    found = look_up(bench.data, 0, key, version_of(bench.data))
    assert found is not None
    op = found[1].ops + found[1].count - 1
    assert [c.controller_id for c in bench.store.controllers_at(op)] == [3, 4]
    bench.change(mod(DELETE, match=port(1)))
    bench.wait()
    assert bench.store.controllers_at(op) == ()


def test_flows_share_their_ops_where_these_do_not_depend_on_the_match() -> None:
    bench = Bench()

    def first_op(kind: int, *actions: a.Action) -> int:
        match = Match.of({"eth_type": (kind, 0xFFFF), "in_port": (kind & 0xFF, 0xFFFF)})
        change = bench.tables.change(mod(match=match, actions=actions), 0, Version.V10)
        bench.store.apply(change.delta)
        key = [(kind & 0xFF) << 32 | kind << 16, *[0] * 31]
        found = look_up(bench.data, 0, key, version_of(bench.data))
        assert found is not None
        return found[1].ops

    assert first_op(0x800, Output(1)) == first_op(0x806, Output(1))
    ip, arp, ipv6 = (first_op(kind, a.DecTtl(), Output(1)) for kind in (0x800, 0x806, 0x86DD))
    assert ip == ipv6 != arp


def test_a_group_that_comes_back_at_once_goes_on_from_what_it_was() -> None:
    """A frame of before it was deleted may be about to read what there is of it."""
    bench = Bench()
    bench.change(group(1, ONE), mod(match=port(1), actions=(Group(1), Output(9))))
    flow = mod(match=port(1), actions=(Group(1), Output(9)))
    first = version_of(bench.data)
    bench.change(GroupMod(command=GroupCommand.DELETE, group_id=1))
    bench.change(group(1, TWO), flow)
    assert (outputs(bench, first), outputs(bench)) == ([1, 9], [2, 9])
