# SPDX-License-Identifier: Apache-2.0
"""All other messages, decoded: the session, the switch, its ports and tables, bundles."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from heliograph.openflow.actions import Port
from heliograph.openflow.flows import FlowMod, GroupMod, PacketInFormat, PacketOut


class Version(IntEnum):
    V10 = 1
    V13 = 4
    V14 = 5
    V15 = 6


@dataclass(frozen=True, slots=True)
class Hello:
    versions: frozenset[int]  # of the header, too, that it came in


@dataclass(frozen=True, slots=True)
class Error:
    """What errors.OpenFlowError becomes; `data` begins as the offending message does."""

    type: int
    code: int
    vendor: int | None = None
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class EchoRequest:
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class EchoReply:
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class FeaturesRequest:
    pass


class Capabilities(IntFlag):
    FLOW_STATS = 1
    TABLE_STATS = 2
    PORT_STATS = 4
    GROUP_STATS = 8  # from 1.1
    IP_REASM = 32
    QUEUE_STATS = 64
    ARP_MATCH_IP = 128  # only 1.0
    PORT_BLOCKED = 256  # from 1.1
    BUNDLES = 512  # from 1.4
    FLOW_MONITORING = 1024  # from 1.4


class PortConfig(IntFlag):
    NONE = 0
    DOWN = 1
    NO_STP = 2  # this and the next, and NO_FLOOD: only 1.0
    NO_RECV = 4
    NO_RECV_STP = 8
    NO_FLOOD = 16
    NO_FWD = 32
    NO_PACKET_IN = 64


class PortState(IntFlag):
    NONE = 0
    LINK_DOWN = 1
    BLOCKED = 2  # this and the next: from 1.1
    LIVE = 4


class PortFeatures(IntFlag):
    NONE = 0
    HD_10MB = 1
    FD_10MB = 2
    HD_100MB = 4
    FD_100MB = 8
    HD_1GB = 16
    FD_1GB = 32
    FD_10GB = 64
    FD_40GB = 128  # this and the next three: from 1.1
    FD_100GB = 256
    FD_1TB = 512
    OTHER = 1024
    COPPER = 2048
    FIBER = 4096
    AUTONEG = 8192
    PAUSE = 16384
    PAUSE_ASYM = 32768


@dataclass(frozen=True, slots=True, kw_only=True)
class PortDesc:
    number: int
    name: str
    address: int = 0
    config: PortConfig = PortConfig.NONE
    state: PortState = PortState.NONE
    current: PortFeatures = PortFeatures.NONE
    advertised: PortFeatures = PortFeatures.NONE
    supported: PortFeatures = PortFeatures.NONE
    peer: PortFeatures = PortFeatures.NONE
    current_speed: int = 0  # kbit/s, from 1.1
    max_speed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturesReply:
    datapath_id: int
    tables: int
    capabilities: Capabilities
    buffers: int = 0
    auxiliary_id: int = 0
    actions: int = 0  # 1.0: one bit for each OFPAT10
    ports: tuple[PortDesc, ...] = ()  # 1.0


@dataclass(frozen=True, slots=True)
class GetConfigRequest:
    pass


@dataclass(frozen=True, slots=True)
class GetConfigReply:
    flags: int = 0  # 1 drop fragments, 2 reassemble, 4 send packets with an invalid TTL (1.0)
    miss_send_len: int = 128


@dataclass(frozen=True, slots=True)
class SetConfig:
    flags: int = 0
    miss_send_len: int = 128


class PortReason(IntEnum):
    ADD = 0
    DELETE = 1
    MODIFY = 2


@dataclass(frozen=True, slots=True)
class PortStatus:
    reason: PortReason
    port: PortDesc


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMod:
    port: int
    address: int
    config: PortConfig = PortConfig.NONE
    mask: PortConfig = PortConfig.NONE
    advertise: PortFeatures = PortFeatures.NONE


@dataclass(frozen=True, slots=True)
class TableMod:
    table_id: int
    config: int


@dataclass(frozen=True, slots=True)
class BarrierRequest:
    pass


@dataclass(frozen=True, slots=True)
class BarrierReply:
    pass


class Role(IntEnum):
    NO_CHANGE = 0
    EQUAL = 1
    PRIMARY = 2
    SECONDARY = 3


@dataclass(frozen=True, slots=True)
class RoleRequest:
    role: Role
    generation_id: int | None = None
    nicira: bool = False  # NXT_ROLE_REQUEST; the reply takes the form of the request


@dataclass(frozen=True, slots=True)
class RoleReply:
    role: Role
    generation_id: int | None = None
    nicira: bool = False


class RoleReason(IntEnum):
    PRIMARY_REQUEST = 0  # another controller has become the primary one
    CONFIG = 1


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """From 1.4, unasked: the controller has another role now."""

    role: Role
    reason: RoleReason = RoleReason.PRIMARY_REQUEST
    generation_id: int | None = None


@dataclass(frozen=True, slots=True)
class SetFlowFormat:
    nxm: bool


@dataclass(frozen=True, slots=True)
class FlowModTableId:
    """Flow mods of 1.0 carry a table in the upper byte of their command from now on."""

    enable: bool


@dataclass(frozen=True, slots=True)
class SetPacketInFormat:
    format: PacketInFormat


@dataclass(frozen=True, slots=True)
class SetControllerId:
    controller_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncConfig:
    """For primary and secondary: one bit for each reason."""

    packet_in: tuple[int, int]
    port_status: tuple[int, int]
    flow_removed: tuple[int, int]

    def masks(self) -> tuple[int, ...]:
        return (*self.packet_in, *self.port_status, *self.flow_removed)

    @classmethod
    def of(cls, masks: Sequence[int]) -> "AsyncConfig":
        first, second, third, fourth, fifth, sixth = masks
        return cls(
            packet_in=(first, second), port_status=(third, fourth), flow_removed=(fifth, sixth)
        )


@dataclass(frozen=True, slots=True)
class SetAsync:
    """`said`: which of the six masks it has; from 1.4 on it may leave others as they are."""

    config: AsyncConfig
    nicira: bool = False
    said: tuple[bool, ...] = (True,) * 6

    def over(self, old: AsyncConfig) -> AsyncConfig:
        """What is to be in force where `old` was."""
        masks = zip(self.said, self.config.masks(), old.masks(), strict=True)
        return AsyncConfig.of([new if said else was for said, new, was in masks])


@dataclass(frozen=True, slots=True)
class GetAsyncRequest:
    pass


@dataclass(frozen=True, slots=True)
class GetAsyncReply:
    config: AsyncConfig


@dataclass(frozen=True, slots=True)
class QueueConfigRequest:
    port: int


@dataclass(frozen=True, slots=True)
class QueueConfigReply:
    """Of a switch without queues, so always empty."""

    port: int


@dataclass(frozen=True, slots=True)
class DescRequest:
    pass


@dataclass(frozen=True, slots=True)
class DescReply:
    manufacturer: str = ""
    hardware: str = ""
    software: str = ""
    serial: str = ""
    datapath: str = ""


@dataclass(frozen=True, slots=True)
class TableStatsRequest:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class TableStats:
    table_id: int
    active: int = 0
    lookups: int = 0
    matched: int = 0
    name: str = ""  # this and the rest: only 1.0
    wildcards: int = 0x3F_FFFF
    max_entries: int = 1_000_000


@dataclass(frozen=True, slots=True)
class TableStatsReply:
    entries: Iterable[TableStats] = ()


@dataclass(frozen=True, slots=True)
class PortStatsRequest:
    port: int = Port.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class PortStats:
    """None: not known."""

    port: int
    rx_packets: int | None = None
    tx_packets: int | None = None
    rx_bytes: int | None = None
    tx_bytes: int | None = None
    rx_dropped: int | None = None
    tx_dropped: int | None = None
    rx_errors: int | None = None
    tx_errors: int | None = None
    rx_frame_err: int | None = None
    rx_over_err: int | None = None
    rx_crc_err: int | None = None
    collisions: int | None = None
    duration_ns: int | None = None  # from 1.3


@dataclass(frozen=True, slots=True)
class PortStatsReply:
    entries: Iterable[PortStats] = ()


@dataclass(frozen=True, slots=True)
class PortDescRequest:
    port: int = Port.NONE  # 1.5 may ask for one


@dataclass(frozen=True, slots=True)
class PortDescReply:
    entries: Iterable[PortDesc] = ()


@dataclass(frozen=True, slots=True)
class QueueStatsRequest:
    port: int = Port.NONE
    queue_id: int = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class QueueStatsReply:
    """Of a switch without queues, so always empty."""


@dataclass(frozen=True, slots=True)
class TableDescRequest:
    pass


@dataclass(frozen=True, slots=True)
class TableDescReply:
    """From 1.4: numbers of tables, and their configuration."""

    entries: Iterable[tuple[int, int]] = ()


@dataclass(frozen=True, slots=True)
class TableFeaturesRequest:
    """`changes`: it tried to set features, which no switch of ours can."""

    changes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFeatures:
    table_id: int
    name: str
    max_entries: int = 1_000_000
    metadata_match: int = 0xFFFF_FFFF_FFFF_FFFF
    metadata_write: int = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class TableFeaturesReply:
    entries: Iterable[TableFeatures] = ()


@dataclass(frozen=True, slots=True)
class MeterMod:
    """Known, so that it can be refused: there are no meters."""

    command: int
    meter_id: int


@dataclass(frozen=True, slots=True)
class MeterStatsRequest:
    meter_id: int
    config: bool = False  # what they are rather than what they counted


@dataclass(frozen=True, slots=True)
class MeterStatsReply:
    """Of a switch without meters, so always empty."""

    config: bool = False


@dataclass(frozen=True, slots=True)
class MeterFeaturesRequest:
    pass


@dataclass(frozen=True, slots=True)
class MeterFeaturesReply:
    max_meters: int = 0
    band_types: int = 0
    capabilities: int = 0
    max_bands: int = 0
    max_color: int = 0


class BundleAction(IntEnum):
    OPEN_REQUEST = 0
    OPEN_REPLY = 1
    CLOSE_REQUEST = 2
    CLOSE_REPLY = 3
    COMMIT_REQUEST = 4
    COMMIT_REPLY = 5
    DISCARD_REQUEST = 6
    DISCARD_REPLY = 7


class BundleFlags(IntFlag):
    NONE = 0
    ATOMIC = 1
    ORDERED = 2


@dataclass(frozen=True, slots=True)
class BundleControl:
    bundle_id: int
    action: BundleAction
    flags: BundleFlags = BundleFlags.NONE


@dataclass(frozen=True, slots=True)
class BundleAdd:
    """`raw` is the inner message as it came: an error of the commit quotes it."""

    bundle_id: int
    flags: BundleFlags
    message: FlowMod | GroupMod | PortMod | PacketOut
    xid: int
    raw: bytes = b""
