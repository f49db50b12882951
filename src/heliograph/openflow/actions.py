# SPDX-License-Identifier: Apache-2.0
"""Actions and instructions, decoded; one class for each that prints differently.

`load`, `set_field` and `mod_nw_src` may do the same, yet each stays what it was, so that a dump
prints what was added. Instructions of 1.1 and later stand in the same list, in the order in which
they are carried out: Meter, what is applied, ClearActions, WriteActions, WriteMetadata, GotoTable.
A list without anything drops. What the switch will never carry out is Unsupported, whole, by name.
Fields are named as in fields.py.
"""

from dataclasses import dataclass
from enum import IntEnum


class Port(IntEnum):
    """Reserved port numbers, as OpenFlow 1.0 has them; 1.1 and later fill the upper half."""

    MAX = 0xFF00  # numbers of real ports are below
    UNSET = 0xFFF7
    IN_PORT = 0xFFF8
    TABLE = 0xFFF9
    NORMAL = 0xFFFA
    FLOOD = 0xFFFB
    ALL = 0xFFFC
    CONTROLLER = 0xFFFD
    LOCAL = 0xFFFE
    NONE = 0xFFFF  # "any" where it selects


NO_BUFFER = 0xFFFF_FFFF
ALL_TABLES = 0xFF
ALL_GROUPS = 0xFFFF_FFFC
ANY_GROUP = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Subfield:
    """`bits` bits of a field from bit `offset` up."""

    field: str
    offset: int
    bits: int


@dataclass(frozen=True, slots=True)
class Output:
    """To a port, or to a reserved one; CONTROLLER is Controller instead."""

    port: int
    max_len: int | None = None  # of `output(port=,max_len=)`: the frame is cut to this


@dataclass(frozen=True, slots=True)
class Controller:
    """Send the packet to controllers. `max_len` 0xffff: all of it."""

    max_len: int = 0xFFFF
    controller_id: int = 0
    reason: int = 1  # flows.PacketInReason.ACTION
    userdata: bytes | None = None
    pause: bool = False
    meter_id: int | None = None
    extended: bool = False  # said with the action that can carry all of the above


@dataclass(frozen=True, slots=True)
class Group:
    group_id: int


@dataclass(frozen=True, slots=True)
class Resubmit:
    """Look up again; None: with the port it came in on, in the table it is in."""

    in_port: int | None = None
    table_id: int | None = None
    ct: bool = False


@dataclass(frozen=True, slots=True)
class Clone:
    actions: "Actions"


@dataclass(frozen=True, slots=True)
class SetField:
    """`set_field:value/mask->field`."""

    field: str
    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class Load:
    """`load:value->field[offset..]`."""

    target: Subfield
    value: int


@dataclass(frozen=True, slots=True)
class Move:
    source: Subfield
    target: Subfield


@dataclass(frozen=True, slots=True)
class PushVlan:
    ethertype: int = 0x8100


@dataclass(frozen=True, slots=True)
class StripVlan:
    """`strip_vlan`, which is also `pop_vlan`."""


@dataclass(frozen=True, slots=True)
class SetVlanVid:
    """`mod_vlan_vid`: adds a tag where there is none."""

    vid: int


@dataclass(frozen=True, slots=True)
class SetVlanPcp:
    """`mod_vlan_pcp`: adds a tag where there is none."""

    pcp: int


@dataclass(frozen=True, slots=True)
class SetEthSrc:
    address: int


@dataclass(frozen=True, slots=True)
class SetEthDst:
    address: int


@dataclass(frozen=True, slots=True)
class SetIpv4Src:
    """`mod_nw_src`."""

    address: int


@dataclass(frozen=True, slots=True)
class SetIpv4Dst:
    """`mod_nw_dst`."""

    address: int


@dataclass(frozen=True, slots=True)
class SetTos:
    """`mod_nw_tos`: the whole byte, its lower two bits zero and left alone."""

    tos: int


@dataclass(frozen=True, slots=True)
class SetTtl:
    """`mod_nw_ttl`."""

    ttl: int


@dataclass(frozen=True, slots=True)
class SetTpSrc:
    """`mod_tp_src`, of TCP, UDP or SCTP."""

    port: int


@dataclass(frozen=True, slots=True)
class SetTpDst:
    """`mod_tp_dst`, of TCP, UDP or SCTP."""

    port: int


@dataclass(frozen=True, slots=True)
class DecTtl:
    """Expired packets go to the controllers with these ids."""

    controller_ids: tuple[int, ...] = (0,)
    listed: bool = False  # `dec_ttl(0)` rather than `dec_ttl`


@dataclass(frozen=True, slots=True)
class SetTunnel:
    """`set_tunnel`, or `set_tunnel64`."""

    tunnel_id: int
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """Bytes that do nothing; as they stand in the message, so padded to a multiple of 8 plus 6."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Exit:
    """Stop here, in all resubmits above too."""


@dataclass(frozen=True, slots=True)
class Meter:
    meter_id: int


@dataclass(frozen=True, slots=True)
class ClearActions:
    pass


@dataclass(frozen=True, slots=True)
class WriteActions:
    actions: "Actions"


@dataclass(frozen=True, slots=True)
class WriteMetadata:
    """`value` as it was said, with any bits outside of the mask."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class GotoTable:
    table_id: int


@dataclass(frozen=True, slots=True)
class Unsupported:
    """An action that is known, so that it can be refused by its name; its bytes as they came."""

    name: str
    data: bytes


Instruction = Meter | ClearActions | WriteActions | WriteMetadata | GotoTable
Action = (
    Output
    | Controller
    | Group
    | Resubmit
    | Clone
    | SetField
    | Load
    | Move
    | PushVlan
    | StripVlan
    | SetVlanVid
    | SetVlanPcp
    | SetEthSrc
    | SetEthDst
    | SetIpv4Src
    | SetIpv4Dst
    | SetTos
    | SetTtl
    | SetTpSrc
    | SetTpDst
    | DecTtl
    | SetTunnel
    | Note
    | Exit
    | Unsupported
    | Instruction
)
Actions = tuple[Action, ...]
