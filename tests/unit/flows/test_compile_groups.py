# SPDX-License-Identifier: Apache-2.0
"""Groups as ops: which buckets, and what of them is done."""

from dataclasses import dataclass, field

import pytest

from heliograph.flows.compile_groups import (
    GroupProgram,
    action_set,
    check_selection,
    chosen,
    compile_group,
)
from heliograph.kernel.layouts import KeyWord, OpCode, OpFlags, OpNeed
from heliograph.openflow import actions as a
from heliograph.openflow.actions import Output
from heliograph.openflow.errors import OpenFlowError
from heliograph.openflow.flows import Bucket, GroupDesc, GroupType, Selection

_LAST = 0xFFFF_FFFF


@dataclass
class Live:
    ports: set[int] = field(default_factory=set)
    groups: set[int] = field(default_factory=set)

    def port(self, number: int) -> bool:
        return number in self.ports

    def group(self, group_id: int) -> bool:
        return group_id in self.groups


def group(kind: GroupType, *buckets: Bucket) -> GroupDesc:
    return GroupDesc(1, kind, buckets)


def ops(compiled: GroupProgram) -> list[tuple[str, int, int]]:
    return [(OpCode(op.code).name[3:], op.a, op.b) for op in compiled.program.ops]


def bucket(number: int, *actions: a.Action, weight: int = 0, **watch: int) -> Bucket:
    return Bucket(actions=actions, bucket_id=number, weight=weight, **watch)


def test_all_copies_to_each_bucket() -> None:
    buckets = bucket(7, Output(1)), bucket(9, a.SetEthSrc(1), Output(2))
    compiled = compile_group(group(GroupType.ALL, *buckets), buckets)
    assert ops(compiled) == [
        ("CLONE", 1, 0),
        ("OUTPUT", 1, 0),
        ("CLONE", 2, 0),
        ("SET", 0, 0),
        ("OUTPUT", 2, 0),
    ]
    assert compiled.buckets == {0: 7, 2: 9}
    clones = [op for op in compiled.program.ops if op.code == OpCode.OP_CLONE]
    assert all(op.flags & OpFlags.OP_BUCKET and not op.value | op.mask for op in clones)


def test_select_divides_hashes_by_weight_and_the_last_bucket_gets_the_rest() -> None:
    buckets = (
        bucket(0, Output(1), weight=1),
        bucket(1, Output(2), weight=2),
        bucket(2, Output(3), weight=1),
    )
    assert ops(compile_group(group(GroupType.SELECT, *buckets), buckets)) == [
        ("HASH", 0, 0),
        ("CHOOSE", _LAST // 4, 3),
        ("CLONE", 1, 0),
        ("OUTPUT", 1, 0),
        ("RETURN", 0, 0),
        ("CHOOSE", _LAST * 3 // 4, 3),
        ("CLONE", 1, 0),
        ("OUTPUT", 2, 0),
        ("RETURN", 0, 0),
        ("CLONE", 1, 0),
        ("OUTPUT", 3, 0),
        ("RETURN", 0, 0),
    ]


def test_select_by_fields_hashes_their_bits_of_frames_that_have_them() -> None:
    fields = ("ip_src", 0xFF), ("tcp_dst", 0xFFFF), ("ipv6_dst", 1 << 64)
    selection = Selection(method="hash", param=7, fields=fields)
    buckets = bucket(0, Output(1), weight=1), bucket(1, Output(2), weight=1)
    desc = GroupDesc(3, GroupType.SELECT, buckets, selection)
    found = compile_group(desc, buckets).program.ops
    assert [(op.need, op.word, op.mask) for op in found[1:5]] == [
        (OpNeed.NEED_IPV4, KeyWord.KEY_IPV4, 0xFF << 32),
        (OpNeed.NEED_TCP, KeyWord.KEY_L4, 0xFFFF << 32),
        (OpNeed.NEED_IPV6, KeyWord.KEY_IPV6_DST_LOW, 0),
        (OpNeed.NEED_IPV6, KeyWord.KEY_IPV6_DST, 1),
    ]
    assert (found[0].code, found[0].a, found[0].value) == (OpCode.OP_HASH_WORD, 1, 7 << 32 | 3)
    assert found[5].code == OpCode.OP_CHOOSE
    assert compile_group(desc, buckets[:1]).program.ops[0].code == OpCode.OP_CLONE
    with pytest.raises(OpenFlowError, match="tun_id"):
        check_selection(Selection(method="hash", fields=(("tun_id", 1),)))


def test_buckets_without_weight_and_dead_ones_are_not_selected() -> None:
    desc = group(
        GroupType.SELECT,
        bucket(0, weight=0),
        bucket(1, weight=1, watch_port=1),
        bucket(2, weight=5, watch_port=2),
        bucket(3, weight=1),
    )
    assert [b.bucket_id for b in chosen(desc, Live(ports={1}))] == [1, 3]
    assert chosen(group(GroupType.SELECT, bucket(0, weight=0)), Live()) == ()


def test_failover_takes_the_first_that_is_live() -> None:
    desc = group(
        GroupType.FAST_FAILOVER,
        bucket(0, watch_port=1),
        bucket(1, watch_group=8),
        bucket(2, watch_port=2, watch_group=9),
    )
    for live, found in [
        (Live({1, 2}, {8}), [0]),
        (Live({2}, {8}), [1]),
        (Live({2}), [2]),
        (Live(groups={9}), [2]),
        (Live(), []),
    ]:
        assert [b.bucket_id for b in chosen(desc, live)] == found


@pytest.mark.parametrize(
    ("said", "done"),
    [
        ([Output(1), Output(2)], [Output(2)]),
        ([Output(1), a.Controller()], [a.Controller()]),
        ([Output(1), a.Controller(extended=True)], [Output(1)]),
        ([a.Group(5), Output(1), a.Resubmit(None, 1)], [a.Group(5)]),
        ([a.Resubmit(None, 1), Output(1)], [Output(1)]),
        ([a.Resubmit(None, 1), a.SetTtl(1)], [a.SetTtl(1), a.Resubmit(None, 1)]),
        ([a.SetTtl(1)], []),
        ([Output(1, 64)], []),
        ([a.Clone((Output(3),)), a.Exit(), a.Note(b""), Output(1)], [Output(1)]),
        (
            [Output(1), a.SetVlanVid(5), a.DecTtl(), a.PushVlan(), a.SetTtl(1), a.StripVlan()],
            [a.StripVlan(), a.PushVlan(), a.DecTtl(), a.SetVlanVid(5), a.SetTtl(1), Output(1)],
        ),
    ],
)
def test_a_bucket_is_an_action_set(said: list[a.Action], done: list[a.Action]) -> None:
    """As ofproto/trace of Open vSwitch 3.1 tells."""
    assert action_set(tuple(said)) == tuple(done)


def test_an_empty_bucket_counts_frames_all_the_same() -> None:
    buckets = (bucket(0),)
    assert ops(compile_group(group(GroupType.ALL, *buckets), buckets)) == [
        ("CLONE", 1, 0),
        ("NOTHING", 0, 0),
    ]


def test_what_a_bucket_tells_controllers_is_known_by_its_place() -> None:
    buckets = bucket(0, Output(1)), bucket(1, a.SetTtl(1), a.Controller(99))
    told = compile_group(group(GroupType.ALL, *buckets), buckets).program.tells
    assert {place: [c.max_len for c in controllers] for place, controllers in told.items()} == {
        4: [99]
    }


def test_a_bucket_that_cannot_be_done_is_refused() -> None:
    buckets = (bucket(0, a.SetField("nd_target", 1, 1), Output(1)),)
    with pytest.raises(OpenFlowError, match="nd_target"):
        compile_group(group(GroupType.ALL, *buckets), buckets)
