# SPDX-License-Identifier: Apache-2.0
"""The flow monitors of one connection, and what it is told of changes, as Open vSwitch tells it.

What cannot be told at once is held: while the list of flows that a monitor begins with is sent,
and while too much is unread (the connection hears PAUSED and, when it has caught up, RESUMED). Of
each flow only the outcome is held, and of one that came and went meanwhile nothing; other than in
Open vSwitch, deletions wait with the rest.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from heliograph.control.channel import Channel, ChannelError
from heliograph.flows.change import Step
from heliograph.flows.flow import Flow
from heliograph.flows.tables import Tables, outputs_to
from heliograph.openflow.actions import ALL_TABLES, ANY_GROUP, Port
from heliograph.openflow.codec import stream
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import FlowStatsRequest
from heliograph.openflow.match import Match
from heliograph.openflow.message import Message
from heliograph.openflow.monitors import (
    FlowEvent,
    FlowUpdate,
    Monitor,
    MonitorCommand,
    MonitorFlags,
    MonitorPaused,
    MonitorReply,
    MonitorRequest,
    MonitorResumed,
    OwnUpdate,
)

_MOST = 64  # monitors of a connection
_AT_ONCE = 4096  # updates, before it is looked at how much is unread
_MOST_HELD = 1 << 19  # flows
_WANTING = {
    FlowEvent.ADDED: MonitorFlags.ADD,
    FlowEvent.DELETED: MonitorFlags.DELETE,
    FlowEvent.MODIFIED: MonitorFlags.MODIFY,
}
Place = tuple[int, int, Match]  # of a flow: its table, its priority, what it matches


class _Held(NamedTuple):
    update: FlowUpdate
    known: bool  # it was there when holding began, or is listed: its end is to be told


class Monitors:
    def __init__(self, version: int, channel: Channel) -> None:
        self._version, self._channel = version, channel
        self._monitors: dict[int, Monitor] = {}
        self._held: dict[Place, _Held] | None = None
        self._catching_up: asyncio.Task[None] | None = None  # while paused
        self._answered = asyncio.Event()  # no list of flows is being sent
        self._answered.set()

    def change(self, request: MonitorRequest, tables: Tables) -> MonitorReply:
        """All that is asked for, or nothing; answered by the flows that new monitors begin with.

        Call release() when the answer is sent. Raises OpenFlowError.
        """
        monitors, made = dict(self._monitors), dict[int, Monitor]()
        for monitor in request.monitors:
            there = monitor.id in monitors
            if monitor.command == MonitorCommand.ADD and there:
                raise OpenFlowError(Code.OFPMOFC_MONITOR_EXISTS, f"monitor {monitor.id} is there")
            if monitor.command != MonitorCommand.ADD and not there:
                raise _unknown(monitor.id)
            made.pop(monitor.id, None)
            if monitor.command == MonitorCommand.DELETE:
                del monitors[monitor.id]
            else:
                monitors[monitor.id] = made[monitor.id] = monitor
        if len(monitors) > _MOST:
            raise OpenFlowError(
                Code.OFPMOFC_INVALID_MONITOR, f"more than {_MOST} monitors; cancel some"
            )
        listed = _listed(made.values(), tables)
        self._replace(monitors)
        self._answered.clear()
        if self._held is None:
            self._held = {}
        for flow, _flags in listed:
            place = flow.table_id, flow.priority, flow.match
            if place in self._held:
                self._held[place] = self._held[place]._replace(known=True)
        return MonitorReply(_update(FlowEvent.INITIAL, flow, flags) for flow, flags in listed)

    def cancel(self, monitor_id: int) -> None:
        """Raises OpenFlowError."""
        if monitor_id not in self._monitors:
            raise _unknown(monitor_id)
        self._replace({n: monitor for n, monitor in self._monitors.items() if n != monitor_id})

    def _replace(self, monitors: dict[int, Monitor]) -> None:
        self._monitors = monitors
        if not monitors and self._held is not None:
            self._held.clear()

    def release(self) -> None:
        """The answer of change() is sent: tell what has happened since."""
        self._answered.set()
        if self._held is not None and self._catching_up is None:
            held, self._held = self._held, None
            self._tell([entry.update for entry in held.values()])

    def close(self) -> None:
        self._monitors.clear()
        if self._catching_up is not None:
            self._catching_up.cancel()

    def follow(self, steps: Sequence[Step], own: Sequence[int] = ()) -> None:
        """Tell of a change that is in force; `own`: the numbers of this connection's messages that
        asked for it."""
        if not self._monitors:
            return
        updates: list[FlowUpdate | OwnUpdate] = []
        abbreviated = False
        for step, event, flow in _events(steps):
            flags = self._concerned(step, event, flow)
            if not flags:
                continue
            update = _update(event, flow, flags, step)
            if self._held is not None:
                _hold(self._held, step, update)
            elif not own or flags & MonitorFlags.OWN:
                updates.append(update)
            elif not abbreviated:
                abbreviated = True
                updates.append(OwnUpdate(own[step.message]))
            if len(updates) == _AT_ONCE:
                self._tell(updates)
                updates = []
        self._tell(updates)
        if self._held and len(self._held) > _MOST_HELD:
            self._channel.give_up(f"it does not read what became of {len(self._held)} flows")

    def _concerned(self, step: Step, event: FlowEvent, flow: Flow) -> MonitorFlags:
        """What is asked for by the monitors that a change is for; NONE: it is for none."""
        flags = MonitorFlags.NONE
        for monitor in self._monitors.values():
            if (
                monitor.flags & _WANTING[event]
                and monitor.table_id in {flow.table_id, ALL_TABLES}
                and _sends(step, flow, monitor)
                and _covers(monitor.match, flow.match)
            ):
                flags |= monitor.flags
        return flags

    # Telling

    def _tell(self, updates: Sequence[FlowUpdate | OwnUpdate]) -> None:
        if not updates:
            return
        self._post(MonitorReply(updates))
        if self._channel.is_full and self._held is None:
            self._post(MonitorPaused())
            self._held = {}
            self._catching_up = asyncio.create_task(self._catch_up(self._held))

    def _post(self, message: Message) -> None:
        for part in stream(message, self._version):
            self._channel.post(part)

    async def _catch_up(self, held: dict[Place, _Held]) -> None:
        while True:
            try:
                await self._channel.drain()
            except ChannelError:
                return  # who reads from it is told so
            await self._answered.wait()
            if not held:
                break
            first = list(islice(held, _AT_ONCE))
            self._post(MonitorReply([held.pop(place).update for place in first]))
        self._post(MonitorResumed())
        self._held = self._catching_up = None


def _unknown(monitor_id: int) -> OpenFlowError:
    return OpenFlowError(Code.OFPMOFC_UNKNOWN_MONITOR, f"monitor {monitor_id} is not there")


def _listed(monitors: Iterable[Monitor], tables: Tables) -> list[tuple[Flow, MonitorFlags]]:
    """The flows to begin with, each once. Raises OpenFlowError."""
    flags: dict[int, MonitorFlags] = {}
    for monitor in monitors:
        request = FlowStatsRequest(
            match=monitor.match,
            table_id=monitor.table_id,
            out_port=monitor.out_port,
            out_group=monitor.out_group,
        )
        found = tables.selected(request)
        first = next(found, None)  # it is now that it refuses a table
        if first is None or not monitor.flags & MonitorFlags.INITIAL:
            continue
        for flow in (first, *found):
            flags[flow.id] = flags.get(flow.id, MonitorFlags.NONE) | monitor.flags
    return [(tables.flows[flow_id], wanted) for flow_id, wanted in flags.items()]


def _events(steps: Sequence[Step]) -> Iterator[tuple[Step, FlowEvent, Flow]]:
    """What became of flows, and the flow that it is told of."""
    for step in steps:
        old, new = step.old, step.new
        if isinstance(new, Flow):
            if step.added:
                yield step, FlowEvent.ADDED, new
            elif isinstance(old, Flow) and (old.actions != new.actions or old.cookie != new.cookie):
                yield step, FlowEvent.MODIFIED, new
        elif isinstance(old, Flow):
            yield step, FlowEvent.DELETED, old


def _update(
    event: FlowEvent, flow: Flow, flags: MonitorFlags, step: Step | None = None
) -> FlowUpdate:
    return FlowUpdate(
        event=event,
        match=flow.match,
        actions=flow.actions if flags & MonitorFlags.ACTIONS else (),
        table_id=flow.table_id,
        priority=flow.priority,
        cookie=flow.cookie,
        idle_timeout=flow.idle_timeout,
        hard_timeout=flow.hard_timeout,
        reason=step.reason if step and event == FlowEvent.DELETED else None,
    )


def _hold(held: dict[Place, _Held], step: Step, update: FlowUpdate) -> None:
    place = update.table_id, update.priority, update.match
    before = held.pop(place, None)
    known = before.known if before else step.old is not None
    if update.event == FlowEvent.DELETED and not known:
        return
    if update.event == FlowEvent.MODIFIED and before and before.update.event == FlowEvent.ADDED:
        update = replace(update, event=FlowEvent.ADDED)
    held[place] = _Held(update, known)


def _sends(step: Step, flow: Flow, monitor: Monitor) -> bool:
    """A flow that no longer outputs to a port is told of, too, one that leaves a group is not."""
    if monitor.out_group != ANY_GROUP and monitor.out_group not in flow.groups:
        return False
    if monitor.out_port == Port.NONE or outputs_to(flow, monitor.out_port):
        return True
    return isinstance(step.old, Flow) and outputs_to(step.old, monitor.out_port)


def _covers(wanted: Match, match: Match) -> bool:
    """Whether all packets of `match` are packets of `wanted`."""
    if not len(wanted):
        return True
    fields = {name: (value, mask) for name, value, mask in match}
    for name, value, bits in wanted:
        own, mask = fields.get(name, (0, 0))
        if bits & ~mask or (own ^ value) & bits:
            return False
    return True
