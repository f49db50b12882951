# SPDX-License-Identifier: Apache-2.0
"""Flows and groups as they are kept, and the counters that only the data plane has.

Times are nanoseconds of one clock that goes on while the switch restarts, the one that the data
plane stamps packets with.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from heliograph.openflow.actions import Action, Actions, Clone, Group, WriteActions
from heliograph.openflow.flows import FlowFlags, GroupDesc
from heliograph.openflow.match import Match

SECOND, MILLISECOND = 10**9, 10**6
NEVER = 1 << 63
TABLES = 64


@dataclass(frozen=True, slots=True)
class Limits:
    flows: int = 200_000  # of a bridge
    masks: int = 256  # of a table
    groups: int = 4096
    buckets: int = 256  # of a group


class Usage(NamedTuple):
    packets: int = 0
    bytes: int = 0
    last_used: int = 0  # when the last packet matched; 0: none has


UNUSED = Usage()


class Counters(Protocol):
    """What the data plane counted under a flow's id, which it keeps until Delta.gone names it."""

    def usage(self, flow_id: int) -> Usage: ...


class NoCounters:
    """Where no data plane is."""

    def usage(self, flow_id: int) -> Usage:
        return UNUSED


@dataclass(slots=True, eq=False)
class Flow:
    """One entry of a table. Never changed: a modified flow is another object.

    `id` stays while the flow does and its counters go on; counters begin anew under a new id.
    """

    id: int
    table_id: int
    priority: int
    match: Match
    actions: Actions
    cookie: int
    idle_timeout: int
    hard_timeout: int
    importance: int
    flags: FlowFlags
    created: int
    modified: int  # the hard timeout counts from here
    used: int  # the idle timeout, from here or from when a packet matched
    groups: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        self.groups = groups_in(self.actions)

    def ends(self, last_used: int) -> tuple[int, int]:
        """When it is over whether it is used or not, and unless it is used once more."""
        hard = self.modified + self.hard_timeout * SECOND if self.hard_timeout else NEVER
        idle = last_used + self.idle_timeout * SECOND if self.idle_timeout else NEVER
        return hard, idle

    def last_used(self, usage: Usage) -> int:
        return max(self.used, usage.last_used)


@dataclass(slots=True, eq=False)
class GroupEntry:
    """A group, its buckets numbered. Never changed, like Flow."""

    desc: GroupDesc
    created: int

    @property
    def id(self) -> int:
        return self.desc.group_id

    def uses(self) -> frozenset[int]:
        """The groups that it sends packets to, or whose liveness it asks for."""
        watched = {b.watch_group for b in self.desc.buckets if b.watch_group is not None}
        return frozenset(watched).union(*(groups_in(b.actions) for b in self.desc.buckets))


def flattened(actions: Actions) -> Iterator[Action]:
    """Each action, and those within it."""
    for action in actions:
        yield action
        if isinstance(action, Clone | WriteActions):
            yield from flattened(action.actions)


_NO_GROUPS: frozenset[int] = frozenset()
_NESTING = frozenset({Clone, WriteActions, Group})


def groups_in(actions: Actions) -> frozenset[int]:
    for action in actions:
        if type(action) in _NESTING:
            return frozenset(a.group_id for a in flattened(actions) if isinstance(a, Group))
    return _NO_GROUPS
