# SPDX-License-Identifier: Apache-2.0
"""What one change did: all of it for undoing and for the journal, and the part that packets see."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from heliograph.flows.flow import Flow, GroupEntry
from heliograph.openflow.flows import FlowRemoved, RemovedReason
from heliograph.openflow.match import Match


class Step(NamedTuple):
    """One flow or group in the place of another; None: was not there, or no longer is."""

    old: Flow | GroupEntry | None
    new: Flow | GroupEntry | None
    message: int = 0  # of several, the one that asked for it
    added: bool = False  # an ADD made this flow, also where one was
    reason: RemovedReason = RemovedReason.DELETE  # of a flow that is gone


class Rule(NamedTuple):
    """Of all flows of one match in one table, the one that packets hit.

    Under one id only actions, cookie or flags are other ones, and counters go on.
    """

    before: Flow | None
    after: Flow | None


class GroupChange(NamedTuple):
    before: GroupEntry | None
    after: GroupEntry | None


@dataclass(frozen=True, slots=True)
class Delta:
    """For the data plane: to be seen by a frame whole or not at all.

    Flows that others hide are in no rule, yet their counters must last: those under an id are done
    with only when it is in `gone`.
    """

    rules: tuple[Rule, ...] = ()
    groups: tuple[GroupChange, ...] = ()
    gone: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rules or self.groups or self.gone)


@dataclass(frozen=True, slots=True)
class Change:
    delta: Delta
    steps: tuple[Step, ...]
    removed: tuple[FlowRemoved, ...] = ()  # for controllers, of flows that asked for it


Place = tuple[int, Match]


@dataclass(slots=True)
class Progress:
    """A change while it is made."""

    message: int = 0  # of several, the one at work
    steps: list[Step] = field(default_factory=list)
    hit: dict[Place, Flow | None] = field(default_factory=dict)  # by packets, before
    removed: list[tuple[Flow, RemovedReason]] = field(default_factory=list)


def net(steps: Iterable[Step]) -> tuple[dict[int, Flow | None], dict[int, GroupEntry | None]]:
    """What became of each id of flows and of groups in the end; None: it is no more."""
    flows: dict[int, Flow | None] = {}
    groups: dict[int, GroupEntry | None] = {}
    for step in steps:
        for entry, now in ((step.old, None), (step.new, step.new)):
            if isinstance(entry, Flow):
                flows[entry.id] = now if isinstance(now, Flow) else None
            elif entry is not None:
                groups[entry.id] = now if isinstance(now, GroupEntry) else None
    return flows, groups
