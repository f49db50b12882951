# SPDX-License-Identifier: Apache-2.0
"""Groups as ops of the data plane.

As in Open vSwitch the actions of a bucket are an action set, whatever order they were said in: tag
off, tag on, TTL, fields in their order, and then one way out, a group before an output. What has
no place in such a set (clone, exit, controller with arguments, output with max_len, a second
output) is not done there, nor is it here.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from heliograph.flows.compile_actions import Origin, Program, compile_actions, op
from heliograph.flows.compile_fields import PIECES, need_of
from heliograph.kernel.layouts import Op, OpCode, OpFlags
from heliograph.openflow import actions as a
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.fields import FIELDS
from heliograph.openflow.flows import Bucket, GroupDesc, GroupType, Selection

_ALL = 0xFFFF_FFFF
_SINGLE = a.StripVlan, a.PushVlan, a.DecTtl
_NOT_IN_SETS = a.Clone, a.Exit, a.WriteMetadata, a.Output, a.Controller, a.Note


class Liveness(Protocol):
    """What buckets watch."""

    def port(self, number: int) -> bool: ...
    def group(self, group_id: int) -> bool: ...


class GroupProgram(NamedTuple):
    """`buckets`: the numbers of the buckets, by the place of the op that counts them."""

    program: Program
    buckets: Mapping[int, int]


def is_live(bucket: Bucket, live: Liveness) -> bool:
    if bucket.watch_port is None and bucket.watch_group is None:
        return True
    return (bucket.watch_port is not None and live.port(bucket.watch_port)) or (
        bucket.watch_group is not None and live.group(bucket.watch_group)
    )


def chosen(desc: GroupDesc, live: Liveness) -> tuple[Bucket, ...]:
    """The buckets that frames may go to now."""
    if desc.type in {GroupType.ALL, GroupType.INDIRECT}:
        return desc.buckets
    found = tuple(bucket for bucket in desc.buckets if is_live(bucket, live))
    if desc.type == GroupType.FAST_FAILOVER:
        return found[:1]
    return tuple(bucket for bucket in found if bucket.weight)


def compile_group(desc: GroupDesc, buckets: tuple[Bucket, ...]) -> GroupProgram:
    """With what `chosen` says. Raises OpenFlowError."""
    select = desc.type == GroupType.SELECT
    ops = list(_hash(desc)) if select and len(buckets) > 1 else []
    tells: dict[int, tuple[a.Controller, ...]] = {}
    numbers: dict[int, int] = {}
    total, below = sum(bucket.weight for bucket in buckets), 0
    for n, bucket in enumerate(buckets):
        program = compile_bucket(bucket)
        body = program.ops or (op(OpCode.OP_NOTHING),)  # for the frame to be counted
        if select and n < len(buckets) - 1:
            below += bucket.weight
            ops.append(op(OpCode.OP_CHOOSE, a=_ALL * below // total, b=len(body) + 2))
        numbers[len(ops)] = bucket.bucket_id or 0
        ops.append(op(OpCode.OP_CLONE, a=len(body), flags=OpFlags.OP_BUCKET))
        tells |= {len(ops) + place: told for place, told in program.tells.items()}
        ops += body
        if select:
            ops.append(op(OpCode.OP_RETURN))
    return GroupProgram(Program(tuple(ops), tells), numbers)


def _hash(desc: GroupDesc) -> Iterator[Op]:
    """What of a frame decides. A field that it does not have is none, as in Open vSwitch."""
    if not desc.selection.fields:
        yield op(OpCode.OP_HASH)
        return
    yield op(OpCode.OP_HASH_WORD, a=1, value=desc.selection.param << 32 | desc.group_id)
    for name, mask in desc.selection.fields:
        need = need_of(FIELDS[name].prerequisite)
        if name not in PIECES or need is None:
            raise OpenFlowError(Code.OFPBPC_BAD_VALUE, f"no group can choose by {name}")
        for piece in PIECES[name]:
            bits = mask >> piece.offset & (1 << piece.bits) - 1
            yield op(OpCode.OP_HASH_WORD, need=need, word=piece.word, mask=bits << piece.shift)


def check_selection(selection: Selection) -> None:
    """Raises OpenFlowError for fields that the data plane cannot choose by."""
    tuple(_hash(GroupDesc(0, GroupType.SELECT, (), selection)))


def compile_bucket(bucket: Bucket) -> Program:
    """What is done with its copy of a frame. Raises OpenFlowError."""
    return compile_actions(action_set(bucket.actions), None, Origin.BUCKET)


def action_set(actions: a.Actions) -> a.Actions:
    """The actions of a bucket in the order in which they are done."""
    single: dict[type, a.Action] = {}
    fields: list[a.Action] = []
    group = output = resubmit = None
    for action in actions:
        match action:
            case a.StripVlan() | a.PushVlan() | a.DecTtl():
                single[type(action)] = action
            case a.Group():
                group = action
            case a.Output(max_len=None) | a.Controller(extended=False):
                output = action
            case a.Resubmit():
                resubmit = action
            case _ if not isinstance(action, _NOT_IN_SETS):
                fields.append(action)
    out = group or output or resubmit
    if out is None:
        return ()
    return (*(single[kind] for kind in _SINGLE if kind in single), *fields, out)
