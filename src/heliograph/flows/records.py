# SPDX-License-Identifier: Apache-2.0
"""Flows and groups as lines of JSON, and back.

Actions are written as they are kept, not in a version's bytes, which cannot say all of them. A
line is one change, so a bundle is in the journal whole or not at all.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, get_args

from heliograph.flows.change import Change, net
from heliograph.flows.flow import Flow, GroupEntry
from heliograph.openflow.actions import Action, Actions, Subfield
from heliograph.openflow.flows import Bucket, FlowFlags, GroupDesc, GroupType, Selection
from heliograph.openflow.match import Match

_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)
_CLASSES: Mapping[str, type[Any]] = {
    kind.__name__: kind for kind in (*get_args(Action), Subfield, Bucket, Selection)
}
_NAMES = {
    kind: (name, tuple(f.name for f in fields(kind)), tuple(f.default for f in fields(kind)))
    for name, kind in _CLASSES.items()
}


@dataclass(frozen=True, slots=True)
class Kept:
    """The end of a journal: what is there, and the id that the next flow gets."""

    flows: tuple[Flow, ...] = ()
    groups: tuple[GroupEntry, ...] = ()
    next_id: int = 1


def line_of_change(change: Change, next_id: int) -> bytes:
    flows, groups = net(change.steps)
    return _line(
        {
            "next": next_id,
            "gone": [n for n, flow in flows.items() if flow is None],
            "no groups": [n for n, entry in groups.items() if entry is None],
            "groups": [_group_out(entry) for entry in groups.values() if entry],
            "flows": [_flow_out(flow) for flow in flows.values() if flow],
        }
    )


def lines_of_all(
    flows: Iterable[Flow], groups: Iterable[GroupEntry], next_id: int
) -> Iterable[bytes]:
    """A journal from the beginning. Flows have a line each, so that none is too long."""
    yield _line({"next": next_id, "groups": [_group_out(entry) for entry in groups]})
    for flow in flows:
        yield _line({"flows": [_flow_out(flow)]})


class Reading:
    """Lines, one after the other. Raises ValueError for one that is not of a journal."""

    def __init__(self) -> None:
        self._flows: dict[int, Flow] = {}
        self._groups: dict[int, GroupEntry] = {}
        self._next_id = 1

    def feed(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            gone, no_groups = record.get("gone", ()), record.get("no groups", ())
            groups = [_group_in(said) for said in record.get("groups", ())]
            flows = [_flow_in(said) for said in record.get("flows", ())]
            next_id = record.get("next", self._next_id)
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        for flow_id in gone:
            self._flows.pop(flow_id, None)
        for group_id in no_groups:
            self._groups.pop(group_id, None)
        self._groups |= {entry.id: entry for entry in groups}
        self._flows |= {flow.id: flow for flow in flows}
        self._next_id = next_id

    def kept(self) -> Kept:
        return Kept(tuple(self._flows.values()), tuple(self._groups.values()), self._next_id)


def _line(record: Mapping[str, Any]) -> bytes:
    said = {key: value for key, value in record.items() if value != []}
    return _ENCODER.encode(said).encode() + b"\n"


def _out(value: Any) -> Any:
    """Objects are [name, {fields that are not the default}], tuples {"t": [...]}."""
    if isinstance(value, tuple):
        return {"t": [_out(item) for item in value]}
    if isinstance(value, bytes):
        return {"b": value.hex()}
    said = _NAMES.get(type(value))
    if said is None:
        return value
    name, names, defaults = said
    pairs = ((n, getattr(value, n), d) for n, d in zip(names, defaults, strict=True))
    return [name, {n: _out(v) for n, v, d in pairs if v != d or type(v) is not type(d)}]


def _in(said: Any) -> Any:
    if isinstance(said, dict):
        if "b" in said:
            return bytes.fromhex(said["b"])
        return tuple(_in(item) for item in said["t"])
    if isinstance(said, list):
        name, values = said
        return _CLASSES[name](**{n: _in(value) for n, value in values.items()})
    return said


@lru_cache(maxsize=256)
def _actions_out(actions: Actions) -> list[Any]:
    return [_out(action) for action in actions]


def _flow_out(flow: Flow) -> list[Any]:
    return [
        flow.id,
        flow.table_id,
        flow.priority,
        flow.match.fields,
        _actions_out(flow.actions),
        flow.cookie,
        flow.idle_timeout,
        flow.hard_timeout,
        flow.importance,
        flow.flags,
        flow.created,
        flow.modified,
        flow.used,
    ]


def _flow_in(said: list[Any]) -> Flow:
    flow_id, table_id, priority, match, actions, *rest = said
    cookie, idle, hard, importance, flags, created, modified, used = rest
    return Flow(
        id=flow_id,
        table_id=table_id,
        priority=priority,
        match=Match(tuple((name, value, mask) for name, value, mask in match)),
        actions=tuple(_in(action) for action in actions),
        cookie=cookie,
        idle_timeout=idle,
        hard_timeout=hard,
        importance=importance,
        flags=FlowFlags(flags),
        created=created,
        modified=modified,
        used=used,
    )


def _group_out(entry: GroupEntry) -> list[Any]:
    desc = entry.desc
    return [entry.id, desc.type, _out(desc.buckets), _out(desc.selection), entry.created]


def _group_in(said: list[Any]) -> GroupEntry:
    group_id, kind, buckets, selection, created = said
    desc = GroupDesc(group_id, GroupType(kind), _in(buckets), _in(selection))
    return GroupEntry(desc, created)
