# SPDX-License-Identifier: Apache-2.0
"""Flows and groups as lines of JSON, and back.

Actions are written as they are kept, not in a version's bytes, which cannot say all of them. They
are a string within the line, and so is what a match looks at: flows that have the same share it. A
change is one line, or several, of which all but the last say that there is "more" of it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from sys import intern
from typing import Any, NamedTuple, get_args

from heliograph.flows.change import Change, net
from heliograph.flows.flow import Flow, GroupEntry
from heliograph.openflow.actions import Action, Actions, Subfield
from heliograph.openflow.flows import Bucket, FlowFlags, GroupDesc, GroupType, Selection
from heliograph.openflow.match import Mask, Match

_AT_ONCE = 1000  # flows in a line
_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)
_CLASSES: Mapping[str, type[Any]] = {
    kind.__name__: kind for kind in (*get_args(Action), Subfield, Bucket, Selection)
}
_NAMES = {
    kind: (name, tuple(f.name for f in fields(kind)), tuple(f.default for f in fields(kind)))
    for name, kind in _CLASSES.items()
}


class Besides(NamedTuple):
    """What a flow has counted besides what the data plane counts for it; if `on`, without what came
    in by the ports that its bridge has."""

    flow: int = 0
    packets: int = 0
    bytes: int = 0
    on: bool = False


NOTHING = Besides()


@dataclass(frozen=True, slots=True)
class Kept:
    """The end of a journal: what is there, and the id that the next flow gets."""

    flows: tuple[Flow, ...] = ()
    groups: tuple[GroupEntry, ...] = ()
    next_id: int = 1
    besides: Besides = NOTHING


def lines_of_change(change: Change, next_id: int) -> Iterator[bytes]:
    flows, groups = net(change.steps)
    there = [flow for flow in flows.values() if flow]
    while len(there) > _AT_ONCE:
        yield _line(there[:_AT_ONCE], '"more":true')
        del there[:_AT_ONCE]
    said = [f'"next":{next_id}']
    if len(there) < len(flows):
        said.append(f'"gone":{[n for n, flow in flows.items() if flow is None]}')
    if groups:
        said.append(f'"no groups":{[n for n, entry in groups.items() if entry is None]}')
        said.append(_groups_out(entry for entry in groups.values() if entry))
    yield _line(there, *said)


def lines_of_all(
    flows: Iterable[Flow], groups: Iterable[GroupEntry], next_id: int, besides: Besides
) -> Iterator[bytes]:
    """A journal from the beginning."""
    yield _line((), f'"next":{next_id}', _groups_out(groups))
    yield line_of_besides(besides)
    for flow in flows:
        yield _line((flow,))


def line_of_besides(besides: Besides) -> bytes:
    return _line((), f'"besides":{_ENCODER.encode(besides)}')


class Reading:
    """Lines, one after the other. `entries`: how many flows they tell of."""

    def __init__(self) -> None:
        self._flows: dict[int, Flow] = {}
        self._groups: dict[int, GroupEntry] = {}
        self._next_id = 1
        self._besides = NOTHING
        self._waiting: list[Flow] = []
        self.entries = 0

    def feed(self, line: bytes) -> bool:
        """Whether a change ends with it. Raises ValueError if it is not of a journal."""
        try:
            record = json.loads(line)
            gone, no_groups = record.get("gone", ()), record.get("no groups", ())
            groups = [_group_in(said) for said in record.get("groups", ())]
            flows = [_flow_in(said) for said in record.get("flows", ())]
            next_id = record.get("next", self._next_id)
            besides = Besides(*record.get("besides", self._besides))
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        self.entries += len(gone) + len(flows)
        self._waiting += flows
        if record.get("more"):
            return False
        for flow_id in gone:
            self._flows.pop(flow_id, None)
        for group_id in no_groups:
            self._groups.pop(group_id, None)
        self._groups |= {entry.id: entry for entry in groups}
        self._flows |= {flow.id: flow for flow in self._waiting}
        self._waiting.clear()
        self._next_id, self._besides = next_id, besides
        return True

    def kept(self) -> Kept:
        flows, groups = tuple(self._flows.values()), tuple(self._groups.values())
        return Kept(flows, groups, self._next_id, self._besides)


def _line(flows: Sequence[Flow], *said: str) -> bytes:
    if flows:
        said = *said, f'"flows":[{",".join([_flow_out(flow) for flow in flows])}]'
    return f"{{{','.join(said)}}}\n".encode()


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


@lru_cache(maxsize=1024)
def _actions_out(actions: Actions) -> str:
    return _ENCODER.encode(_ENCODER.encode([_out(action) for action in actions]))


@lru_cache(maxsize=1024)
def _actions_in(said: str) -> Actions:
    return tuple(_in(action) for action in json.loads(said))


@lru_cache(maxsize=1024)
def _mask_out(mask: Mask) -> str:
    return _ENCODER.encode(" ".join(f"{name}/{bits:x}" for name, bits in mask))


@lru_cache(maxsize=1024)
def _mask_in(said: str) -> Mask:
    words = (word.split("/") for word in said.split())
    return tuple((intern(name), int(bits, 16)) for name, bits in words)


_flags_in = lru_cache(FlowFlags)


def _flow_out(flow: Flow) -> str:
    mask, values = flow.match.split()
    return (
        f"[{flow.id},{flow.table_id},{flow.priority},{_mask_out(mask)},{[*values]},"
        f"{_actions_out(flow.actions)},{flow.cookie},{flow.idle_timeout},{flow.hard_timeout},"
        f"{flow.importance},{flow.flags:d},{flow.created},{flow.modified},{flow.used}]"
    )


def _flow_in(said: list[Any]) -> Flow:
    flow_id, table_id, priority, mask, values, actions, *rest = said
    cookie, idle, hard, importance, flags, created, modified, used = rest
    return Flow(
        id=flow_id,
        table_id=table_id,
        priority=priority,
        match=Match(tuple([(n, v, m) for (n, m), v in zip(_mask_in(mask), values, strict=True)])),
        actions=_actions_in(actions),
        cookie=cookie,
        idle_timeout=idle,
        hard_timeout=hard,
        importance=importance,
        flags=_flags_in(flags),
        created=created,
        modified=created if modified == created else modified,
        used=created if used == created else used,
    )


def _groups_out(entries: Iterable[GroupEntry]) -> str:
    return f'"groups":{_ENCODER.encode([_group_out(entry) for entry in entries])}'


def _group_out(entry: GroupEntry) -> list[Any]:
    desc = entry.desc
    return [entry.id, desc.type, _out(desc.buckets), _out(desc.selection), entry.created]


def _group_in(said: list[Any]) -> GroupEntry:
    group_id, kind, buckets, selection, created = said
    desc = GroupDesc(group_id, GroupType(kind), _in(buckets), _in(selection))
    return GroupEntry(desc, created)
