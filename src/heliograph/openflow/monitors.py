# SPDX-License-Identifier: Apache-2.0
"""Messages about flow monitors, decoded; the same for every version."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from heliograph.openflow.actions import ALL_TABLES, ANY_GROUP, Actions, Port
from heliograph.openflow.flows import RemovedReason
from heliograph.openflow.match import ANYTHING, Match


class MonitorCommand(IntEnum):
    ADD = 0
    MODIFY = 1
    DELETE = 2


class MonitorFlags(IntFlag):
    NONE = 0
    INITIAL = 1
    ADD = 2
    DELETE = 4
    MODIFY = 8
    ACTIONS = 16
    OWN = 32  # tell of the connection's own changes all that others' are told with


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitor:
    """One monitor to be made; before 1.4 always with the command ADD."""

    id: int
    flags: MonitorFlags
    match: Match = ANYTHING
    table_id: int = ALL_TABLES
    out_port: int = Port.NONE
    out_group: int = ANY_GROUP  # from 1.4
    command: MonitorCommand = MonitorCommand.ADD


@dataclass(frozen=True, slots=True)
class MonitorRequest:
    monitors: tuple[Monitor, ...]


@dataclass(frozen=True, slots=True)
class MonitorCancel:
    """Before 1.4, where no command says it."""

    monitor_id: int


class FlowEvent(IntEnum):
    """INITIAL is ADDED to versions before 1.4."""

    INITIAL = 0
    ADDED = 1
    DELETED = 2
    MODIFIED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowUpdate:
    event: FlowEvent
    match: Match
    actions: Actions = ()
    table_id: int = 0
    priority: int = 0x8000
    cookie: int = 0
    idle_timeout: int = 0
    hard_timeout: int = 0
    reason: RemovedReason | None = None  # only, and always, of DELETED


@dataclass(frozen=True, slots=True)
class OwnUpdate:
    """The connection's own message of this number changed flows."""

    xid: int


@dataclass(frozen=True, slots=True)
class MonitorReply:
    """The answer to a request, or unasked what became of flows."""

    entries: Iterable[FlowUpdate | OwnUpdate] = ()


@dataclass(frozen=True, slots=True)
class MonitorPaused:
    """Nothing is told of changes from here on, because too much of it is unread."""


@dataclass(frozen=True, slots=True)
class MonitorResumed:
    """What had not been told was told before this message."""
