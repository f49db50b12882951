# SPDX-License-Identifier: Apache-2.0
"""Messages about flows, groups and packets, decoded; the same for every version."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from heliograph.openflow.actions import ALL_TABLES, ANY_GROUP, Actions, Port, SetField
from heliograph.openflow.match import ANYTHING, Match


class FlowCommand(IntEnum):
    ADD = 0
    MODIFY = 1
    MODIFY_STRICT = 2
    DELETE = 3
    DELETE_STRICT = 4


class FlowFlags(IntFlag):
    NONE = 0
    SEND_FLOW_REM = 1
    CHECK_OVERLAP = 2
    RESET_COUNTS = 4
    NO_PACKET_COUNTS = 8
    NO_BYTE_COUNTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowMod:
    """A change of flows.

    An ADD of 1.0 always asks for RESET_COUNTS (adding an equal flow clears its counters). A MODIFY
    of flows that do not exist adds one where `cookie` is not None and `cookie_mask` is 0.
    """

    command: FlowCommand
    match: Match = ANYTHING
    table_id: int = ALL_TABLES  # ADD: let the switch choose
    priority: int = 0x8000
    cookie: int | None = 0  # what flows get; None: MODIFY leaves it as it is
    cookie_value: int = 0  # only flows whose cookie is this ...
    cookie_mask: int = 0  # ... under this mask
    idle_timeout: int = 0
    hard_timeout: int = 0
    importance: int = 0
    buffer_id: int | None = None
    out_port: int = Port.NONE
    out_group: int = ANY_GROUP
    flags: FlowFlags = FlowFlags.NONE
    actions: Actions = ()


class RemovedReason(IntEnum):
    IDLE_TIMEOUT = 0
    HARD_TIMEOUT = 1
    DELETE = 2
    GROUP_DELETE = 3
    METER_DELETE = 4
    EVICTION = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRemoved:
    match: Match
    reason: RemovedReason
    table_id: int = 0
    priority: int = 0x8000
    cookie: int = 0
    duration_ns: int = 0
    idle_timeout: int = 0
    hard_timeout: int = 0
    packets: int = 0
    bytes: int = 0
    nicira: bool = False  # NXT_FLOW_REMOVED, for a 1.0 connection with SetFlowFormat(nxm=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowStatsRequest:
    match: Match = ANYTHING
    table_id: int = ALL_TABLES
    out_port: int = Port.NONE
    out_group: int = ANY_GROUP
    cookie_value: int = 0
    cookie_mask: int = 0
    nicira: bool = False  # NXST_FLOW on 1.0; the reply takes the form of the request


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowStats:
    match: Match
    actions: Actions
    table_id: int = 0
    priority: int = 0x8000
    cookie: int = 0
    duration_ns: int = 0
    idle_timeout: int = 0
    hard_timeout: int = 0
    idle_age: int | None = None  # seconds; only NXST_FLOW and 1.5 tell
    hard_age: int | None = None
    importance: int = 0
    flags: FlowFlags = FlowFlags.NONE
    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class FlowStatsReply:
    entries: Iterable[FlowStats] = ()
    nicira: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateRequest(FlowStatsRequest):
    """The sums of the flows that FlowStatsRequest would list."""


@dataclass(frozen=True, slots=True)
class AggregateReply:
    packets: int
    bytes: int
    flows: int
    nicira: bool = False


class GroupCommand(IntEnum):
    ADD = 0
    MODIFY = 1
    DELETE = 2
    INSERT_BUCKET = 3
    REMOVE_BUCKET = 5
    ADD_OR_MODIFY = 0x8000


class GroupType(IntEnum):
    ALL = 0
    SELECT = 1
    INDIRECT = 2
    FAST_FAILOVER = 3


BUCKET_FIRST = 0xFFFF_FFFD
BUCKET_LAST = 0xFFFF_FFFE
BUCKET_ALL = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    actions: Actions = ()
    bucket_id: int | None = None  # None: a version without numbers; the switch gives one
    weight: int = 1
    watch_port: int | None = None
    watch_group: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """How a select group chooses: `dp_hash`, `hash`, or "" for the switch's own way."""

    method: str = ""
    param: int = 0
    fields: tuple[tuple[str, int], ...] = ()  # name, mask


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMod:
    command: GroupCommand
    group_id: int
    type: GroupType = GroupType.ALL
    command_bucket_id: int = BUCKET_ALL
    buckets: tuple[Bucket, ...] = ()
    selection: Selection = Selection()


@dataclass(frozen=True, slots=True)
class GroupDesc:
    group_id: int
    type: GroupType
    buckets: tuple[Bucket, ...] = ()
    selection: Selection = Selection()


@dataclass(frozen=True, slots=True)
class GroupDescRequest:
    group_id: int = 0xFFFF_FFFC


@dataclass(frozen=True, slots=True)
class GroupDescReply:
    entries: Iterable[GroupDesc] = ()


@dataclass(frozen=True, slots=True)
class GroupStatsRequest:
    group_id: int = 0xFFFF_FFFC


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStats:
    group_id: int
    ref_count: int = 0
    packets: int = 0
    bytes: int = 0
    duration_ns: int = 0
    buckets: tuple[tuple[int, int], ...] = ()  # packets, bytes


@dataclass(frozen=True, slots=True)
class GroupStatsReply:
    entries: Iterable[GroupStats] = ()


@dataclass(frozen=True, slots=True)
class GroupFeaturesRequest:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFeaturesReply:
    types: int  # one bit for each GroupType
    capabilities: int  # 1 weight, 2 liveness, 4 chaining, 8 checks for loops
    max_groups: tuple[int, int, int, int]  # for each GroupType
    actions: tuple[int, int, int, int]  # one bit for each OFPAT


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketOut:
    actions: Actions
    data: bytes = b""
    in_port: int = Port.NONE
    buffer_id: int | None = None
    metadata: Match = ANYTHING  # 1.5: registers and the like to begin with; never in_port

    @property
    def steps(self) -> Actions:
        """All that is done with it: `metadata` is set before the actions."""
        return (*(SetField(*field) for field in self.metadata), *self.actions)


class PacketInReason(IntEnum):
    NO_MATCH = 0
    ACTION = 1
    INVALID_TTL = 2
    ACTION_SET = 3
    GROUP = 4
    PACKET_OUT = 5


class PacketInFormat(IntEnum):
    """What a 1.0 connection asked for with SetPacketInFormat; 1.3 has its own standard form."""

    STANDARD = 0
    NXT_PACKET_IN = 1
    NXT_PACKET_IN2 = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketIn:
    data: bytes  # already cut to what the controller asked for
    total_len: int  # before that
    reason: PacketInReason = PacketInReason.ACTION
    match: Match = ANYTHING  # in_port, registers, metadata, tunnel
    table_id: int = 0
    cookie: int | None = None  # None where no flow sent it
    buffer_id: int | None = None
    userdata: bytes | None = None  # only NXT_PACKET_IN2 carries it
    format: PacketInFormat = PacketInFormat.STANDARD
