# SPDX-License-Identifier: Apache-2.0
"""What a GroupMod makes of a group.

Open vSwitch checks the message, and lets INSERT_BUCKET make an indirect group of two buckets; here
the group that results is checked. Groups that send packets round are refused, which Open vSwitch
leaves to its limit of depth. As there, a bucket may name a group that is not there yet.
"""

from collections.abc import Mapping
from dataclasses import replace

from heliograph.flows.checks import check_unmatched
from heliograph.flows.compile_groups import check_selection, compile_bucket
from heliograph.flows.flow import GroupEntry, Limits
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import (
    BUCKET_ALL,
    BUCKET_FIRST,
    BUCKET_LAST,
    Bucket,
    GroupCommand,
    GroupDesc,
    GroupMod,
    GroupType,
)

_LAST_GROUP = _LAST_BUCKET = 0xFFFF_FF00
_ON_BUCKETS = frozenset({GroupCommand.INSERT_BUCKET, GroupCommand.REMOVE_BUCKET})
_DESCRIBING = frozenset({GroupCommand.ADD, GroupCommand.MODIFY, GroupCommand.ADD_OR_MODIFY})
_ADDING = frozenset({GroupCommand.ADD, GroupCommand.ADD_OR_MODIFY})
_METHODS = frozenset({"hash", "dp_hash"})
Groups = Mapping[int, GroupEntry]


def check_group_mod(mod: GroupMod) -> None:
    """What can be said of it whatever groups there are. Buckets that come with DELETE do nothing,
    but they have to be buckets of such a group."""
    _check_distinct(mod.buckets, Code.OFPGMFC_BAD_BUCKET)
    _check_command_bucket(mod)
    _check_selection(mod)
    if mod.group_id > _LAST_GROUP and mod.command in _ADDING:
        raise OpenFlowError(Code.OFPGMFC_INVALID_GROUP, f"group {mod.group_id:#x} is reserved")
    if mod.command != GroupCommand.DELETE:
        _check_count(mod.type, mod.buckets)
    _check_buckets(mod.buckets, mod.type)
    for bucket in mod.buckets:
        check_unmatched(bucket.actions)
        compile_bucket(bucket)  # also one that no frame goes to yet


def changed(mod: GroupMod, groups: Groups, limits: Limits) -> GroupDesc:
    """The group after anything but DELETE, checked on its own before; raises OpenFlowError."""
    old = groups.get(mod.group_id)
    if mod.command == GroupCommand.ADD and old is not None:
        raise OpenFlowError(Code.OFPGMFC_GROUP_EXISTS, f"group {mod.group_id} is there")
    if old is None and mod.command not in _ADDING:
        raise OpenFlowError(Code.OFPGMFC_UNKNOWN_GROUP, f"group {mod.group_id} is not there")
    if old is None and len(groups) >= limits.groups:
        raise OpenFlowError(Code.OFPGMFC_OUT_OF_GROUPS, f"{limits.groups} groups are there")
    if old is not None and mod.command in _ON_BUCKETS:
        insert = mod.command == GroupCommand.INSERT_BUCKET
        buckets = (_inserted if insert else _removed)(mod, old.desc.buckets)
        desc = replace(old.desc, buckets=buckets)
        _check_count(desc.type, desc.buckets)
        _check_buckets(desc.buckets, desc.type)
    else:
        desc = GroupDesc(mod.group_id, mod.type, _numbered(mod.buckets), mod.selection)
    if len(desc.buckets) > limits.buckets:
        raise OpenFlowError(Code.OFPGMFC_OUT_OF_BUCKETS, f"more than {limits.buckets} buckets")
    _check_loop(desc, groups)
    return desc


def _check_command_bucket(mod: GroupMod) -> None:
    wanted = mod.command_bucket_id
    if mod.command not in _ON_BUCKETS:
        fits = wanted == BUCKET_ALL
    else:
        named = wanted <= _LAST_BUCKET or wanted in {BUCKET_FIRST, BUCKET_LAST}
        fits = named or (wanted == BUCKET_ALL and mod.command == GroupCommand.REMOVE_BUCKET)
    if not fits:
        raise OpenFlowError(
            Code.OFPGMFC_BAD_BUCKET, f"{mod.command.name} with command_bucket_id={wanted:#x}"
        )
    if mod.buckets and mod.command == GroupCommand.REMOVE_BUCKET:
        raise OpenFlowError(Code.OFPGMFC_BAD_BUCKET, "REMOVE_BUCKET with buckets")


def _numbered(buckets: tuple[Bucket, ...]) -> tuple[Bucket, ...]:
    return tuple(
        replace(bucket, bucket_id=n) if bucket.bucket_id is None else bucket
        for n, bucket in enumerate(buckets)
    )


def _check_distinct(buckets: tuple[Bucket, ...], code: Code) -> None:
    numbers = [bucket.bucket_id for bucket in buckets if bucket.bucket_id is not None]
    if len(set(numbers)) < len(numbers):
        raise OpenFlowError(code, "two buckets of one number")


def _place(wanted: int, buckets: tuple[Bucket, ...]) -> int:
    for n, bucket in enumerate(buckets):
        if bucket.bucket_id == wanted:
            return n
    raise OpenFlowError(Code.OFPGMFC_UNKNOWN_BUCKET, f"bucket {wanted} is not there")


def _inserted(mod: GroupMod, old: tuple[Bucket, ...]) -> tuple[Bucket, ...]:
    wanted, new = mod.command_bucket_id, _numbered(mod.buckets)
    if wanted == BUCKET_FIRST:
        where = 0
    elif wanted == BUCKET_LAST:
        where = len(old)
    else:
        where = _place(wanted, old) + 1
    buckets = (*old[:where], *new, *old[where:])
    _check_distinct(buckets, Code.OFPGMFC_BUCKET_EXISTS)
    return buckets


def _removed(mod: GroupMod, old: tuple[Bucket, ...]) -> tuple[Bucket, ...]:
    wanted = mod.command_bucket_id
    if wanted == BUCKET_ALL:
        return ()
    if wanted == BUCKET_FIRST:
        return old[1:]
    if wanted == BUCKET_LAST:
        return old[:-1]
    where = _place(wanted, old)
    return (*old[:where], *old[where + 1 :])


def _check_selection(mod: GroupMod) -> None:
    selection = mod.selection
    if not selection.method:
        return
    method = f"selection_method={selection.method!r}"
    if mod.command not in _DESCRIBING or mod.type != GroupType.SELECT:
        sentence = f"{method} in {mod.command.name} of {mod.type.name}"
        raise OpenFlowError(Code.OFPBPC_BAD_VALUE, sentence)
    if selection.method not in _METHODS:
        raise OpenFlowError(Code.OFPBPC_BAD_VALUE, f"{method} is neither of {sorted(_METHODS)}")
    if selection.fields and selection.method != "hash":
        raise OpenFlowError(Code.OFPBPC_BAD_VALUE, f"{method} looks at no fields")
    check_selection(selection)


def _check_count(kind: GroupType, buckets: tuple[Bucket, ...]) -> None:
    if kind == GroupType.INDIRECT and len(buckets) != 1:
        raise OpenFlowError(
            Code.OFPGMFC_INVALID_GROUP, f"an indirect group with {len(buckets)} buckets"
        )


def _check_buckets(buckets: tuple[Bucket, ...], kind: GroupType) -> None:
    for bucket in buckets:
        watches = bucket.watch_port is not None or bucket.watch_group is not None
        if bucket.weight and kind != GroupType.SELECT:
            raise OpenFlowError(Code.OFPGMFC_INVALID_GROUP, "a weight where nothing is selected")
        if watches and kind in {GroupType.ALL, GroupType.INDIRECT}:
            raise OpenFlowError(Code.OFPGMFC_WATCH_UNSUPPORTED, f"{kind.name} watches nothing")
        if not watches and kind == GroupType.FAST_FAILOVER:
            raise OpenFlowError(Code.OFPGMFC_INVALID_GROUP, "a failover bucket that watches none")


def _check_loop(desc: GroupDesc, groups: Groups) -> None:
    start = GroupEntry(desc, 0)
    seen: set[int] = set()
    waiting = list(start.uses())
    while waiting:
        group_id = waiting.pop()
        if group_id == desc.group_id:
            raise OpenFlowError(Code.OFPGMFC_LOOP, f"group {group_id} would lead to itself")
        if group_id not in seen and (entry := groups.get(group_id)):
            seen.add(group_id)
            waiting += entry.uses()
