# SPDX-License-Identifier: Apache-2.0
"""The flow tables and groups of one bridge, changed as Open vSwitch changes its own.

A change is made step by step, each step one flow or group in the place of another, so whatever is
refused on the way is undone in reverse, and so can be a change that the data plane cannot take. A
flow is the same one while table, priority and match are; it keeps its id through changes, and with
it its counters, unless they are to begin anew.

Other than Open vSwitch: 64 tables instead of 254, the limits of flow.Limits, and refused is what
checks.py and groups.py say. Flows are never evicted; `importance` is kept to be told.
"""

from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush

from heliograph.flows import groups
from heliograph.flows.change import Change, Delta, GroupChange, Progress, Rule, Step, net
from heliograph.flows.checks import check_flow_mod, check_possible, check_table
from heliograph.flows.flow import (
    TABLES,
    Counters,
    Flow,
    GroupEntry,
    Limits,
    NoCounters,
    flattened,
    groups_in,
)
from heliograph.flows.store import Table
from heliograph.openflow.actions import (
    ALL_GROUPS,
    ALL_TABLES,
    ANY_GROUP,
    Actions,
    Controller,
    Output,
    Port,
)
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import (
    FlowCommand,
    FlowFlags,
    FlowMod,
    FlowRemoved,
    FlowStatsRequest,
    GroupCommand,
    GroupMod,
    PacketOut,
    RemovedReason,
)
from heliograph.openflow.messages import Version

_SAME_COOKIE = 0xFFFF_FFFF_FFFF_FFFF  # for a flow that replaces one
_SLACK = 1000  # outdated entries of the calendar that are not worth removing
_STRICT = frozenset({FlowCommand.MODIFY_STRICT, FlowCommand.DELETE_STRICT})
_DELETE = frozenset({FlowCommand.DELETE, FlowCommand.DELETE_STRICT})


class FailedAt(Exception):  # noqa: N818 - it says where, the error within it says why
    """Of several messages, the one that could not be done; nothing is changed."""

    def __init__(self, position: int, error: OpenFlowError) -> None:
        super().__init__(f"message {position + 1}: {error}")
        self.position, self.error = position, error


class Tables:
    def __init__(self, counters: Counters | None = None, limits: Limits | None = None) -> None:
        self.counters: Counters = counters or NoCounters()
        self.limits = limits or Limits()
        self.tables = tuple(Table() for _ in range(TABLES))
        self.flows: dict[int, Flow] = {}
        self.groups: dict[int, GroupEntry] = {}
        self._due: dict[int, int] = {}  # by flow: when its time may be over
        self._calendar: list[
            tuple[int, int]
        ] = []  # the same, the next one first, and outdated ones
        self._users: dict[int, set[int]] = {}  # of each group, the flows
        self._next_id = 1

    def change(self, message: FlowMod | GroupMod, now: int, version: int = Version.V15) -> Change:
        """Raises OpenFlowError; then nothing is changed."""
        try:
            return self.change_all((message,), now, version)
        except FailedAt as failed:
            raise failed.error from failed

    def change_all(
        self,
        messages: Sequence[FlowMod | GroupMod | PacketOut],
        now: int,
        version: int = Version.V15,
    ) -> Change:
        """All of them in their order, or none. Raises FailedAt.

        A frame to be sent changes nothing, but the groups that it goes to must be there then.
        """
        work = Progress()
        for position, message in enumerate(messages):
            work.message = position
            try:
                if isinstance(message, FlowMod):
                    self._flow_mod(work, message, now, version)
                elif isinstance(message, GroupMod):
                    self._group_mod(work, message, now)
                else:
                    self._check_groups(message.actions)
            except OpenFlowError as error:
                self._take_back(work.steps)
                raise FailedAt(position, error) from error
        return self._finish(work, now)

    def undo(self, change: Change) -> None:
        """Only for the latest change: the data plane could not take it."""
        self._take_back(change.steps)

    def expire(self, now: int) -> Change:
        """Remove the flows whose time is over."""
        work = Progress()
        while self._calendar and self._calendar[0][0] < now:
            due, flow_id = heappop(self._calendar)
            if self._due.get(flow_id) != due:
                continue
            flow = self.flows[flow_id]
            hard, idle = flow.ends(flow.last_used(self.counters.usage(flow_id)))
            if hard < now:
                self._remove(work, flow, RemovedReason.HARD_TIMEOUT)
            elif idle < now:
                self._remove(work, flow, RemovedReason.IDLE_TIMEOUT)
            else:
                self._enter(flow_id, min(hard, idle))
        return self._finish(work, now)

    def _enter(self, flow_id: int, due: int) -> None:
        self._due[flow_id] = due
        if len(self._calendar) > 2 * len(self._due) + _SLACK:
            self._calendar = [(when, which) for which, when in self._due.items()]
            heapify(self._calendar)
        else:
            heappush(self._calendar, (due, flow_id))

    def restore(self, flows: Iterable[Flow], entries: Iterable[GroupEntry], next_id: int) -> None:
        """What a journal kept, into tables that are empty."""
        for entry in entries:
            self._place(Step(None, entry))
        for flow in flows:
            self._place(Step(None, flow))
        self._next_id = max(next_id, *(n + 1 for n in self.flows), 1)

    @property
    def next_id(self) -> int:
        return self._next_id

    def selected(self, request: FlowStatsRequest) -> Iterator[Flow]:
        """The flows that a request for statistics means. Raises OpenFlowError."""
        return self._selected(request, strict=None)

    def users(self, group_id: int) -> int:
        """How many flows send packets to a group."""
        return len(self._users.get(group_id, ()))

    # Flows

    def _flow_mod(self, work: Progress, mod: FlowMod, now: int, version: int) -> None:
        check_flow_mod(mod, version)
        if mod.command == FlowCommand.ADD:
            self._add(work, mod, now)
            return
        strict = mod.priority if mod.command in _STRICT else None
        found = list(self._selected(mod, strict))
        if mod.command in _DELETE:
            for flow in found:
                self._remove(work, flow, RemovedReason.DELETE)
        elif found:
            self._check_groups(mod.actions)
            for flow in found:
                self._modify(work, mod, flow, now)
        elif mod.cookie is not None and not mod.cookie_mask:
            self._add(work, mod, now)

    def _check_groups(self, actions: Actions) -> None:
        for group_id in groups_in(actions):
            if group_id not in self.groups:
                raise OpenFlowError(
                    Code.OFPBAC_BAD_OUT_GROUP, f"group {group_id} is not there; add it first"
                )

    def _selected(self, which: FlowMod | FlowStatsRequest, strict: int | None) -> Iterator[Flow]:
        check_table(which.table_id)
        one = which.table_id != ALL_TABLES
        cookie, mask = which.cookie_value, which.cookie_mask
        # Only those to be deleted or listed are chosen by where they send packets.
        by_output = not isinstance(which, FlowMod) or which.command in _DELETE
        port = which.out_port if by_output else Port.NONE
        group = which.out_group if by_output else ANY_GROUP
        for table in self.tables[which.table_id : which.table_id + 1] if one else self.tables:
            if strict is None:
                found = table.covered(which.match)
            else:
                equal = table.find(which.match, strict)
                found = iter((equal,) if equal else ())
            for flow in found:
                if (
                    not (flow.cookie ^ cookie) & mask
                    and (group == ANY_GROUP or group in flow.groups)
                    and (port == Port.NONE or outputs_to(flow, port))
                ):
                    yield flow

    def _add(self, work: Progress, mod: FlowMod, now: int) -> None:
        table_id = 0 if mod.table_id == ALL_TABLES else mod.table_id
        self._check_groups(mod.actions)
        check_possible(mod.match, mod.actions)
        table = self.tables[table_id]
        old = table.find(mod.match, mod.priority)
        if old is None:
            self._check_room(table, mod)
        cookie = _SAME_COOKIE if mod.cookie is None else mod.cookie
        flow = Flow(
            id=self._take_id(old, mod),
            table_id=table_id,
            priority=mod.priority,
            match=mod.match,
            actions=mod.actions,
            cookie=old.cookie if old and cookie == _SAME_COOKIE else cookie,
            idle_timeout=mod.idle_timeout,
            hard_timeout=mod.hard_timeout,
            importance=mod.importance,
            flags=mod.flags,
            created=now,
            modified=now,
            used=self._used(old) if old else now,
        )
        self._step(work, Step(old, flow, work.message, added=True))

    def _check_room(self, table: Table, mod: FlowMod) -> None:
        if mod.flags & FlowFlags.CHECK_OVERLAP:
            other = table.overlapping(mod.match, mod.priority)
            if other is not None:
                raise OpenFlowError(
                    Code.OFPFMFC_OVERLAP, f"a flow overlaps at priority {mod.priority}"
                )
        if len(self.flows) >= self.limits.flows:
            raise OpenFlowError(Code.OFPFMFC_TABLE_FULL, f"the bridge has {len(self.flows)} flows")
        if table.masks >= self.limits.masks and not table.has_mask(mod.match):
            raise OpenFlowError(
                Code.OFPFMFC_TABLE_FULL,
                f"the flows of this table have {table.masks} different masks; use fewer",
            )

    def _modify(self, work: Progress, mod: FlowMod, old: Flow, now: int) -> None:
        check_possible(old.match, mod.actions)
        flow = Flow(
            id=self._take_id(old, mod),
            table_id=old.table_id,
            priority=old.priority,
            match=old.match,
            actions=mod.actions,
            cookie=old.cookie if mod.cookie is None else mod.cookie,
            idle_timeout=old.idle_timeout,
            hard_timeout=old.hard_timeout,
            importance=old.importance,
            flags=old.flags,
            created=old.created,
            modified=now,
            used=self._used(old),
        )
        self._step(work, Step(old, flow, work.message))

    def _take_id(self, old: Flow | None, mod: FlowMod) -> int:
        if old is not None and not mod.flags & FlowFlags.RESET_COUNTS:
            return old.id
        self._next_id += 1
        return self._next_id - 1

    def _used(self, old: Flow) -> int:
        """When packets last matched is carried over even where counters are not."""
        return old.last_used(self.counters.usage(old.id))

    def _remove(self, work: Progress, flow: Flow, reason: RemovedReason) -> None:
        work.removed.append((flow, reason))
        self._step(work, Step(flow, None, work.message, reason=reason))

    # Groups

    def _group_mod(self, work: Progress, mod: GroupMod, now: int) -> None:
        groups.check_group_mod(mod)
        if mod.command == GroupCommand.DELETE:
            every = mod.group_id == ALL_GROUPS
            for group_id in list(self.groups) if every else (mod.group_id,):
                self._remove_group(work, group_id)
            return
        desc = groups.changed(mod, self.groups, self.limits)
        old = self.groups.get(mod.group_id)
        self._step(work, Step(old, GroupEntry(desc, old.created if old else now)))

    def _remove_group(self, work: Progress, group_id: int) -> None:
        entry = self.groups.get(group_id)
        if entry is None:
            return
        for flow_id in list(self._users.get(group_id, ())):
            self._remove(work, self.flows[flow_id], RemovedReason.GROUP_DELETE)
        self._step(work, Step(entry, None))

    # Steps

    def _step(self, work: Progress, step: Step) -> None:
        flow = step.old or step.new
        if isinstance(flow, Flow):
            place = flow.table_id, flow.match
            if place not in work.hit:
                work.hit[place] = self.tables[flow.table_id].winner(flow.match)
        self._place(step)
        work.steps.append(step)

    def _take_back(self, steps: Sequence[Step]) -> None:
        for step in reversed(steps):
            self._place(Step(step.new, step.old))

    def _place(self, step: Step) -> None:
        old, new = step.old, step.new
        if isinstance(old, Flow):
            self._forget(old, stays=new is not None)
        elif old is not None and new is None:
            del self.groups[old.id]
        if isinstance(new, Flow):
            self._know(new)
        elif new is not None:
            self.groups[new.id] = new

    def _forget(self, flow: Flow, *, stays: bool) -> None:
        if not stays:
            self.tables[flow.table_id].remove(flow)
        del self.flows[flow.id]
        self._due.pop(flow.id, None)
        for group_id in flow.groups:
            users = self._users[group_id]
            users.discard(flow.id)
            if not users:
                del self._users[group_id]

    def _know(self, flow: Flow) -> None:
        self.tables[flow.table_id].put(flow)
        self.flows[flow.id] = flow
        if flow.idle_timeout or flow.hard_timeout:
            self._enter(flow.id, min(flow.ends(flow.used)))
        for group_id in flow.groups:
            self._users.setdefault(group_id, set()).add(flow.id)

    def _finish(self, work: Progress, now: int) -> Change:
        rules = []
        for (table_id, match), before in work.hit.items():
            after = self.tables[table_id].winner(match)
            if after is not before:
                rules.append(Rule(before, after))
        flows, entries = net(work.steps)
        old_groups: dict[int, GroupEntry | None] = {}
        for step in work.steps:
            entry = step.old or step.new
            if isinstance(entry, GroupEntry):
                old = step.old if isinstance(step.old, GroupEntry) else None
                old_groups.setdefault(entry.id, old)
        delta = Delta(
            rules=tuple(rules),
            groups=tuple(
                GroupChange(old_groups[n], entry)
                for n, entry in entries.items()
                if old_groups[n] is not entry
            ),
            gone=tuple(n for n, flow in flows.items() if flow is None),
        )
        told = (self._farewell(f, r, now) for f, r in work.removed)
        return Change(delta, tuple(work.steps), tuple(t for t in told if t))

    def _farewell(self, flow: Flow, reason: RemovedReason, now: int) -> FlowRemoved | None:
        if not flow.flags & FlowFlags.SEND_FLOW_REM:
            return None
        usage = self.counters.usage(flow.id)
        return FlowRemoved(
            match=flow.match,
            reason=reason,
            table_id=flow.table_id,
            priority=flow.priority,
            cookie=flow.cookie,
            duration_ns=now - flow.created,
            idle_timeout=flow.idle_timeout,
            hard_timeout=flow.hard_timeout,
            packets=usage.packets,
            bytes=usage.bytes,
        )


def outputs_to(flow: Flow, port: int) -> bool:
    """As Open vSwitch sees it: an output that cuts the frame is none to its port."""
    for action in flattened(flow.actions):
        if isinstance(action, Output) and action.port == port and action.max_len is None:
            return True
        if isinstance(action, Controller) and port == Port.CONTROLLER:
            return True
    return False
